"""An INA3221 in sysfs: rails by label in both driver generations, exact integrals, its resolution, and clear errors."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.board import runner
from shared.meters import DroppedSample, MeterError, probing
from shared.meters.jetson import rails as jetson_rails
from shared.meters.jetson.ina3221 import INA3221Meter, Rail, SysfsRail
from tests.shared.meters.simulated import SimulatedClock

DRIVERS = "bus/i2c/drivers"


def write(folder: Path, **texts: object) -> Path:
    """Files with a line's end, as sysfs has them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(f"{text}\n")
    return folder


def iio(root: Path, folder: str, channel: int, label: str, milliwatts: int, millivolts: int = 19_000) -> Path:
    """One channel as L4T up to 32 shows it."""
    files = {f"rail_name_{channel}": label, f"in_power{channel}_input": milliwatts}
    files |= {f"in_voltage{channel}_input": millivolts, f"in_current{channel}_input": milliwatts * 1000 // millivolts}
    return write(root / DRIVERS / "ina3221x" / folder, polling_delay_0="0 ms", **files)


def hwmon(root: Path, folder: str, channel: int, label: str, milliamperes: int, micro_ohms: int = 5000) -> Path:
    """One channel as mainline kernels show it, at 5 V."""
    files = {f"in{channel}_label": label, f"in{channel}_input": 5000, f"curr{channel}_input": milliamperes}
    files |= {f"shunt{channel}_resistor": micro_ohms, f"in{channel + 3}_input": 40}
    return write(root / DRIVERS / "ina3221" / folder, in7_label="sum of shunt voltages", in7_input=80, **files)


@pytest.fixture
def tx2(tmp_path: Path) -> Path:
    """Two chips of a TX2 under L4T 32; the numbers of the folders don't follow the chips' addresses."""
    iio(tmp_path, "0-0040/iio:device1", 0, "VDD_SYS_GPU", 154)
    iio(tmp_path, "0-0040/iio:device1", 1, "VDD_SYS_SOC", 539)
    iio(tmp_path, "0-0041/iio:device0", 0, "VDD_IN", 4321)
    iio(tmp_path, "0-0041/iio:device0", 2, "NC", 9)
    return tmp_path


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    """One chip under a mainline driver: labels in another order, one channel unconnected."""
    folder = "1-0040/hwmon/hwmon3"
    hwmon(tmp_path, folder, 1, "NC", 1)
    hwmon(tmp_path, folder, 2, "VDD_CPU_GPU_CV", 800)
    hwmon(tmp_path, folder, 3, "VDD_IN", 2000)
    return tmp_path


class FakeRail(Rail):
    """A rail whose readings a test sets; `numbers` may hold errors to raise."""

    label = "VDD_IN"

    def __init__(self, readings: list[float | Exception], shunt_ohms: float | None = 0.005) -> None:
        self.readings, self.shunt_ohms = readings, shunt_ohms

    def watts(self) -> float:
        reading = self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]
        if isinstance(reading, Exception):
            raise reading
        return reading

    def volts(self) -> float:
        return 20.0

    def facts(self) -> dict[str, object]:
        return {"access": "fake"}


def trial_watts(root: Path) -> dict[str, float]:
    """The watts that a trial read of each rail found."""
    findings = probing.rails(str(root))
    assert all(finding.found and finding.where == "INA3221" for finding in findings)
    return {finding.what: float(finding.detail.split(" W, ")[0]) for finding in findings}


def test_rails_of_l4t_are_found_by_label(tx2: Path) -> None:
    assert trial_watts(tx2) == {"VDD_SYS_GPU": 0.154, "VDD_SYS_SOC": 0.539, "VDD_IN": 4.321}
    rail = SysfsRail("VDD_IN", str(tx2))
    assert (rail.watts(), rail.volts(), rail.shunt_ohms) == (4.321, 19.0, 0.005)
    assert rail.facts() == {"access": "sysfs (iio)", "path": str(tx2 / DRIVERS / "ina3221x/0-0041/iio:device0")}


def test_rails_of_mainline_are_millivolts_times_milliamperes(orin: Path) -> None:
    assert trial_watts(orin) == {"VDD_CPU_GPU_CV": 4.0, "VDD_IN": 10.0}
    assert SysfsRail("VDD_IN", str(orin)).shunt_ohms == 0.005
    (orin / DRIVERS / "ina3221/1-0040/hwmon/hwmon3/shunt3_resistor").write_text("2000\n")
    assert SysfsRail("VDD_IN", str(orin)).shunt_ohms == 0.002  # what the driver says goes before the data file


def test_the_folder_iio_device_is_read_and_a_link_to_it_is_no_second_rail(tmp_path: Path) -> None:
    folder = iio(tmp_path, "0-0041/iio_device", 0, "VDD_IN", 1000)
    assert SysfsRail("VDD_IN", str(tmp_path)).watts() == 1
    os.symlink(folder, folder.parent / "iio:device1")
    assert trial_watts(tmp_path) == {"VDD_IN": 1.0}


def test_a_label_is_matched_whole(tx2: Path) -> None:
    iio(tx2, "0-0042/iio:device2", 0, "VDD_M2_IN", 77)
    assert SysfsRail("VDD_IN", str(tx2)).watts() == 4.321
    with pytest.raises(MeterError, match=r"rail labelled VDD, got rails VDD_SYS_GPU, VDD_SYS_SOC, VDD_IN, VDD_M2_IN; "):
        SysfsRail("VDD", str(tx2))


def test_two_rails_of_one_label_are_refused(tx2: Path) -> None:
    iio(tx2, "0-0042/iio:device2", 0, "VDD_IN", 77)
    with pytest.raises(MeterError, match=r"0-0041/iio:device0 and .*0-0042/iio:device2"):
        SysfsRail("VDD_IN", str(tx2))


def test_a_machine_without_the_chip_says_how_to_get_it(tmp_path: Path) -> None:
    (found,) = probing.rails(str(tmp_path))
    assert not found.found and "got none; try a Jetson" in found.detail
    with pytest.raises(MeterError, match=r"got rails none; try "):
        SysfsRail("VDD_IN", str(tmp_path))


@pytest.mark.parametrize(("text", "message"), [("busy", "a number in .* got 'busy'"), (None, "No such file")])
def test_a_rail_that_does_not_answer_is_named(tx2: Path, text: str | None, message: str) -> None:
    path = tx2 / DRIVERS / "ina3221x/0-0041/iio:device0/in_power0_input"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(MeterError, match=message):
        INA3221Meter(SysfsRail("VDD_IN", str(tx2)), clock=SimulatedClock()).start()
    gpu, _, module = probing.rails(str(tx2))
    assert gpu.found and gpu.detail.startswith("0.154 W, rail VDD_SYS_GPU (")
    assert not module.found and str(path) in module.detail


@pytest.mark.parametrize(
    ("number", "kind", "hint"),
    [(errno.EACCES, MeterError, "try sudo"), (errno.EIO, DroppedSample, "again"), (errno.ENODEV, MeterError, "again")],
)
def test_refusals_of_the_kernel(
    tx2: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[MeterError], hint: str
) -> None:
    rail = SysfsRail("VDD_IN", str(tx2))

    def refuse(path: str) -> io.StringIO:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(runner, "open", refuse, raising=False)
    with pytest.raises(MeterError, match=hint) as caught:
        rail.watts()
    assert type(caught.value) is kind and "iio:device0/in_power0_input" in str(caught.value)


def test_a_window_is_integrated_with_its_quantum() -> None:
    """6 W for 2 s; one step is 40 uV over 5 mOhm at 20 V, and 8 mV at the 0.3 A that flow."""
    clock = SimulatedClock()
    meter = INA3221Meter(FakeRail([6.0]), period_s=0.1, clock=clock)
    meter.start()
    clock.sleep(2)
    window = meter.stop()
    assert window.amount == pytest.approx(12)
    assert window.quantum == pytest.approx(2 * (20 * 40e-6 / 0.005 + 8e-3 * 0.3))
    assert window.flags == () and meter.scope == "rail VDD_IN (whole module)"
    assert meter.facts() == {"rail": "VDD_IN", "shunt_ohms": 0.005, "period_s": 0.1, "volts": 20.0, "access": "fake"}


def test_an_unknown_shunt_is_flagged_instead_of_taken_for_exact() -> None:
    clock = SimulatedClock()
    meter = INA3221Meter(FakeRail([6.0], shunt_ohms=None), period_s=0.1, clock=clock)
    meter.start()
    clock.sleep(2)
    window = meter.stop()
    assert window.amount == pytest.approx(12) and window.flags == ("resolution unknown",)


def test_a_passing_failure_drops_a_sample_and_no_more() -> None:
    clock, lost = SimulatedClock(), DroppedSample("an answer", "EIO", "again")
    meter = INA3221Meter(FakeRail([6.0, 6.0, lost, 6.0]), period_s=0.1, clock=clock)
    meter.start()
    clock.sleep(2)
    window = meter.stop()
    assert window.amount == pytest.approx(12) and window.flags == ("dropped samples",)


def test_the_sensors_offset_below_zero_is_no_power_but_a_swapped_sign_is_refused() -> None:
    """A step at 20 V and 5 mOhm is 0.16 W; the offset may be two."""
    for reading, fails in ((-0.32, False), (-0.33, True)):
        clock = SimulatedClock()
        meter = INA3221Meter(FakeRail([reading]), period_s=0.1, clock=clock)
        meter.start()
        clock.sleep(2)
        if fails:
            with pytest.raises(MeterError, match="0 W or more"):
                meter.stop()
        else:
            assert meter.stop().amount == 0


@given(watts=st.floats(0.1, 30), volts=st.floats(1, 20), ohms=st.sampled_from([0.005, 0.01, 0.02]))
def test_the_quantum_is_what_one_step_of_either_register_changes(watts: float, volts: float, ohms: float) -> None:
    amperes = watts / volts
    shunt_volts = amperes * ohms
    step = volts * (shunt_volts + 40e-6) / ohms - watts
    step += (volts + 8e-3) * amperes - watts
    assert jetson_rails.quantum_watts(volts, watts, ohms) == pytest.approx(step, rel=1e-6)


def test_known_steps_of_the_tx2() -> None:
    """Steps of 77 mW and 154 mW at 19.2 V, as logs of such boards show them."""
    assert jetson_rails.quantum_watts(19.2, 0, 0.010) == pytest.approx(0.0768)
    assert jetson_rails.quantum_watts(19.2, 0, 0.005) == pytest.approx(0.1536)


def test_rails_of_the_tx2_are_within_one_total_each() -> None:
    rails = {rail.labels[0]: rail for rail in jetson_rails.listed_rails() if rail.board == "tx2"}
    assert {label for label, rail in rails.items() if not rail.within} == {"VDD_IN", "VDD_MUX"}
    assert all(rails[rail.within].address // 2 == rail.address // 2 for rail in rails.values() if rail.within)
    assert len({(rail.address, rail.channel) for rail in rails.values()}) == len(rails) == 12
    assert jetson_rails.shunt_ohms("VDD_5V0_DDR") == jetson_rails.shunt_ohms("VDD_SYS_DDR") == 0.010
    assert jetson_rails.scope("VDD_CV") == "rail VDD_CV" and jetson_rails.shunt_ohms("VDD_CV") is None
