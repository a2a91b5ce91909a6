/* Plays libnvidia-ml.so.1: the made-up board of fake.py, read at each nvmlInit from the file that NVML_STUB names.
   nvml_stub_clock(f) makes f the board's clock in seconds; the machine's monotonic clock until then. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, MOST = 64, BUFFERED = 120 };

typedef union {
    double d;
    unsigned int ui;
    unsigned long ul;
    unsigned long long ull;
    long long sll;
    int si;
    unsigned short us;
} value_t;
typedef struct {
    unsigned long long stamp;
    value_t value;
} sample_t;
typedef struct {
    unsigned int id, scope;
    long long stamp, latency;
    unsigned int type;
    int result;
    value_t value;
} field_t;
typedef struct {
    char uuid[80], name[64];
    int mig;
} gpu_t;

static struct { double at, watts; } knots[MOST];
static struct { double from, to; } dropouts[MOST];
static struct { char function[64]; int code; double from, to; } faults[MOST];
static struct { unsigned long long bits; double from, to; } reasons[MOST];
static gpu_t gpus[MOST];
static int n_knots, n_dropouts, n_faults, n_reasons, n_gpus;
static double update_s, average_s, phase_s, gain, wall_s;

static double machine_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
static double (*now_s)(void) = machine_s;
void nvml_stub_clock(double (*clock)(void)) { now_s = clock; }

static int read_board(void) {
    const char *path = getenv("NVML_STUB");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[512];
    if (!file) return 9; /* DRIVER_NOT_LOADED */
    n_knots = n_dropouts = n_faults = n_reasons = n_gpus = 0;
    while (fgets(line, sizeof line, file)) {
        sscanf(line, "sensor %lf %lf %lf %lf %lf", &update_s, &average_s, &phase_s, &gain, &wall_s);
        n_knots += sscanf(line, "knot %lf %lf", &knots[n_knots].at, &knots[n_knots].watts) == 2;
        n_dropouts += sscanf(line, "dropout %lf %lf", &dropouts[n_dropouts].from, &dropouts[n_dropouts].to) == 2;
        n_faults += sscanf(line, "fault %63s %d %lf %lf", faults[n_faults].function, &faults[n_faults].code,
                           &faults[n_faults].from, &faults[n_faults].to) == 4;
        n_reasons += sscanf(line, "reasons %llu %lf %lf", &reasons[n_reasons].bits, &reasons[n_reasons].from,
                            &reasons[n_reasons].to) == 3;
        n_gpus += sscanf(line, "gpu %79s %d %63[^\n]", gpus[n_gpus].uuid, &gpus[n_gpus].mig, gpus[n_gpus].name) == 3;
    }
    fclose(file);
    return SUCCESS;
}

static int fault(const char *function) {
    double now = now_s();
    for (int i = 0; i < n_faults; i++)
        if (!strcmp(faults[i].function, function) && faults[i].from <= now && now < faults[i].to) return faults[i].code;
    return SUCCESS;
}
#define FAIL(function) do { int code = fault(function); if (code) return code; } while (0)

static double joules(double moment) {
    double total = 0;
    if (moment <= knots[0].at) return (moment - knots[0].at) * knots[0].watts;
    for (int i = 0; i + 1 < n_knots; i++) {
        double length = fmin(knots[i + 1].at, moment) - knots[i].at, whole = knots[i + 1].at - knots[i].at;
        if (length > 0)
            total += length * (knots[i].watts + (knots[i + 1].watts - knots[i].watts) * length / whole / 2);
    }
    return total + fmax(0, moment - knots[n_knots - 1].at) * knots[n_knots - 1].watts;
}
static int dropped(double moment) {
    for (int i = 0; i < n_dropouts; i++)
        if (dropouts[i].from <= moment && moment < dropouts[i].to) return 1;
    return 0;
}
static double moment_of(long count) { return phase_s + (double)count * update_s; }
static long newest(void) { return (long)floor((now_s() - phase_s) / update_s); }
static double last_update(void) {
    long count = newest();
    while (dropped(moment_of(count))) count--;
    return moment_of(count);
}
static unsigned int milliwatts(double update) {
    return (unsigned int)(gain * (joules(update) - joules(update - average_s)) / average_s * 1e3 + 0.5);
}

int nvmlInitWithFlags(unsigned int flags) {
    int code = read_board();
    (void)flags;
    if (code) return code;
    FAIL("nvmlInit");
    return SUCCESS;
}
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { (void)code; return "of the stub"; }
int nvmlSystemGetDriverVersion(char *text, unsigned int size) {
    FAIL("nvmlSystemGetDriverVersion");
    return snprintf(text, size, "580.95") < (int)size ? SUCCESS : INSUFFICIENT_SIZE;
}
int nvmlDeviceGetCount_v2(unsigned int *count) {
    FAIL("nvmlDeviceGetCount");
    *count = (unsigned int)n_gpus;
    return SUCCESS;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, gpu_t **gpu) {
    FAIL("nvmlDeviceGetHandleByIndex");
    if (index >= (unsigned int)n_gpus) return INVALID_ARGUMENT;
    *gpu = &gpus[index];
    return SUCCESS;
}
int nvmlDeviceGetUUID(gpu_t *gpu, char *text, unsigned int size) {
    FAIL("nvmlDeviceGetUUID");
    return snprintf(text, size, "%s", gpu->uuid) < (int)size ? SUCCESS : INSUFFICIENT_SIZE;
}
int nvmlDeviceGetName(gpu_t *gpu, char *text, unsigned int size) {
    FAIL("nvmlDeviceGetName");
    return snprintf(text, size, "%s", gpu->name) < (int)size ? SUCCESS : INSUFFICIENT_SIZE;
}
int nvmlDeviceGetMigMode(gpu_t *gpu, unsigned int *current, unsigned int *pending) {
    if (gpu->mig < 0) return NOT_SUPPORTED;
    *current = *pending = (unsigned int)gpu->mig;
    return SUCCESS;
}
int nvmlDeviceGetTotalEnergyConsumption(gpu_t *gpu, unsigned long long *millijoules) {
    (void)gpu;
    FAIL("nvmlDeviceGetTotalEnergyConsumption");
    *millijoules = (unsigned long long)(1e6 + joules(last_update()) * 1e3);
    return SUCCESS;
}
int nvmlDeviceGetPowerUsage(gpu_t *gpu, unsigned int *power) {
    (void)gpu;
    FAIL("nvmlDeviceGetPowerUsage");
    *power = milliwatts(last_update());
    return SUCCESS;
}
int nvmlDeviceGetFieldValues(gpu_t *gpu, int count, field_t *fields) {
    char name[32];
    (void)gpu;
    FAIL("nvmlDeviceGetFieldValues");
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "field%u", fields[i].id);
        fields[i].type = 1;
        fields[i].result = fields[i].id == 186 ? fault(name) : NOT_SUPPORTED;
        fields[i].value.ull = 0xdeadbeef00000000ULL; /* only the member that the type names may be read */
        fields[i].value.ui = milliwatts(last_update());
    }
    return SUCCESS;
}
int nvmlDeviceGetSamples(gpu_t *gpu, int kind, unsigned long long last, int *type, unsigned int *count, sample_t *samples) {
    unsigned int found = 0;
    (void)gpu;
    FAIL("nvmlDeviceGetSamples");
    if (kind != 0) return NOT_SUPPORTED;
    *type = 1;
    for (long k = newest() - BUFFERED + 1; k <= newest(); k++) {
        unsigned long long stamp = (unsigned long long)((wall_s + moment_of(k)) * 1e6 + 0.5);
        if (stamp <= last || dropped(moment_of(k))) continue;
        if (samples) {
            if (found >= *count) return INSUFFICIENT_SIZE;
            samples[found].stamp = stamp;
            samples[found].value.ull = 0xdeadbeef00000000ULL;
            samples[found].value.ui = milliwatts(moment_of(k));
        }
        found++;
    }
    *count = samples || !found ? found : BUFFERED; /* the first call tells the buffer's size, not what is in it */
    return found ? SUCCESS : NOT_FOUND;
}
int nvmlDeviceGetCurrentClocksEventReasons(gpu_t *gpu, unsigned long long *bits) {
    double now = now_s();
    (void)gpu;
    FAIL("nvmlDeviceGetCurrentClocksEventReasons");
    *bits = 0;
    for (int i = 0; i < n_reasons; i++)
        if (reasons[i].from <= now && now < reasons[i].to) *bits |= reasons[i].bits;
    return SUCCESS;
}
int nvmlDeviceGetClockInfo(gpu_t *gpu, int kind, unsigned int *megahertz) {
    (void)gpu;
    *megahertz = kind == 1 ? 1582 : 5505;
    return SUCCESS;
}
int nvmlDeviceGetTemperature(gpu_t *gpu, int sensor, unsigned int *celsius) {
    (void)gpu, (void)sensor;
    FAIL("nvmlDeviceGetTemperature");
    *celsius = 61;
    return SUCCESS;
}
int nvmlDeviceGetEnforcedPowerLimit(gpu_t *gpu, unsigned int *milliwatt) {
    (void)gpu;
    *milliwatt = 250000;
    return SUCCESS;
}
