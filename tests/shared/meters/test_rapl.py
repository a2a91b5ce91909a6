"""RAPL's counters below a tree of files: domains by name, no zone twice, wrap-around, plain words for what fails."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.meters import MeterError, RaplMeter, Settings, measure_all
from shared.meters.measuring import REPEATED
from shared.meters.rapl import MOST_WATTS, UPDATE_S, apart_uj, counted_uj, spent_uj
from shared.meters.zones import Zone
from tests.shared.meters.simulated import SimulatedClock

RANGE_UJ = 262_143_328_850
ZONES = {
    "intel-rapl:0": "package-0",
    "intel-rapl:0:0": "core",
    "intel-rapl:0:1": "dram",
    "intel-rapl:1": "package-1",
    "intel-rapl:1:0": "dram",
    "intel-rapl:2": "psys",
    "intel-rapl:3": "package-2-alike",
    "intel-rapl-mmio:0": "package-0",
}


class Powercap:
    """A tree of zones whose counters run at a power each, on a simulated clock."""

    def __init__(self, root: Path, zones: dict[str, str] = ZONES, range_uj: int = RANGE_UJ) -> None:
        self.root, self.range_uj = root, range_uj
        (root / "intel-rapl").mkdir(parents=True)  # the control type has no counter
        self.counts = dict.fromkeys(zones, 0)
        for zone, name in zones.items():
            (root / zone).mkdir()
            (root / zone / "name").write_text(f"{name}\n")
            (root / zone / "max_energy_range_uj").write_text(f"{range_uj}\n")
            self.add(zone, 0)

    def add(self, zone: str, energy_uj: int) -> None:
        self.put(zone, (self.counts[zone] + energy_uj) % self.range_uj)

    def put(self, zone: str, count_uj: int) -> None:
        self.counts[zone] = count_uj
        (self.root / zone / "energy_uj").write_text(f"{count_uj}\n")

    def read_joules(self, meter: RaplMeter, *steps: dict[str, int]) -> float:
        """Each step takes a second, at whose end counters go on."""
        meter.start()
        for step in steps:
            meter.clock.sleep(0.9)
            for zone, energy_uj in step.items():
                self.add(zone, energy_uj)
            meter.clock.sleep(0.1)
        return meter.stop().amount


EACH = {zone: 10**k for k, zone in enumerate(ZONES)}  # so that a sum tells what is in it


@pytest.mark.parametrize(
    ("domain", "counted"),
    [("package", ["intel-rapl:0", "intel-rapl:1"]), ("dram", ["intel-rapl:0:1", "intel-rapl:1:0"])],
)
def test_one_domain_of_all_packages_and_nothing_twice(tmp_path: Path, domain: str, counted: list[str]) -> None:
    tree = Powercap(tmp_path)
    meter = RaplMeter(domain, root=tmp_path, clock=SimulatedClock())
    assert tree.read_joules(meter, EACH) == pytest.approx(sum(EACH[zone] for zone in counted) * 1e-6)
    assert meter.facts()["zones"] == {zone: ZONES[zone] for zone in counted}


DIES = {f"intel-rapl:{die}": f"package-0-die-{die}" for die in range(4)}


@pytest.mark.parametrize(
    ("before", "spent", "joules", "mirrors"),
    [
        ((0, 0), (3_000_000, 4_000_000), 7, []),
        ((123, 123), (5_000_000, 5_000_000), 5, [1]),
        ((7, 7, 7, 7), (5_000_000, 5_000_300, 5_000_600, 5_000_900), 5, [1, 2, 3]),  # read one after another
        ((0, 2000), (5_000_000, 5_003_000), 5, [1]),
        ((0, 2000), (100_000, 100_300), 0.1, [1]),
        ((RANGE_UJ - 100, 200), (5_000_000, 5_000_000), 5, [1]),  # wraps around between two reads
        ((RANGE_UJ - 2_000_000, RANGE_UJ - 2_000_000), (5_000_000, 5_000_000), 5, [1]),
        ((0, 90_000_000), (5_000_000, 5_000_000), 10, []),  # as much at the same time, but never the same count
        ((0, 1_000_000), (5_000_000, 4_000_000), 9, []),  # the same at the end
        ((1_000_000, 0), (5_000_000, 5_200_000), 10.2, []),
        ((9, 9, 50_000_000, 50_000_000), (2_000_000, 2_000_000, 3_000_000, 3_000_000), 5, [1, 3]),
        ((9, 9, 9), (2_000_000, 3_000_000, 2_000_000), 5, [2]),
    ],
)
def test_dies_that_mirror_one_counter_count_once_and_others_add_up(
    tmp_path: Path, before: tuple[int, ...], spent: tuple[int, ...], joules: float, mirrors: list[int]
) -> None:
    zones = list(DIES)[: len(before)]
    tree = Powercap(tmp_path, {zone: DIES[zone] for zone in zones})
    meter = RaplMeter(root=tmp_path, clock=SimulatedClock())
    assert meter.facts()["mirrors"] == {}
    for zone, count in zip(zones, before, strict=True):
        tree.put(zone, count)
    assert tree.read_joules(meter, dict(zip(zones, spent, strict=True))) == pytest.approx(joules)
    told = meter.facts()["mirrors"]
    assert isinstance(told, dict) and list(told) == [zones[mirror] for mirror in mirrors]


def test_counters_that_meet_once_are_two(tmp_path: Path) -> None:
    """They agree in the middle of one window, then at both ends of another."""
    tree = Powercap(tmp_path, {zone: DIES[zone] for zone in list(DIES)[:2]})
    meter = RaplMeter(root=tmp_path, clock=SimulatedClock())
    one, other = tree.counts
    tree.put(other, 10_000_000)
    steps = {one: 15_000_000, other: 5_000_000}, {one: 5_000_000, other: 10_000_000}
    assert tree.read_joules(meter, *steps) == pytest.approx(35)
    tree.put(one, tree.counts[other])
    assert tree.read_joules(meter, {one: 5_000_000, other: 5_000_000}) == pytest.approx(10)
    assert meter.facts()["mirrors"] == {}


@pytest.mark.parametrize(
    ("domain", "zones"),
    [
        ("package", {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1"}),
        ("package", {"intel-rapl:0": "package-0-die-0", "intel-rapl:1": "package-1-die-0"}),
        ("dram", {"intel-rapl:0:0": "dram", "intel-rapl:1:0": "dram"}),
    ],
)
def test_two_packages_never_mirror_each_other(tmp_path: Path, domain: str, zones: dict[str, str]) -> None:
    tree = Powercap(tmp_path, zones)
    meter = RaplMeter(domain, root=tmp_path, clock=SimulatedClock())
    assert tree.read_joules(meter, dict.fromkeys(zones, 5_000_000)) == pytest.approx(10)


WATTS = st.lists(st.integers(1, 300), min_size=1, max_size=3)  # of the dies of a package
PACKAGES = st.lists(st.tuples(WATTS, st.booleans(), st.integers(0, RANGE_UJ - 1)), min_size=1, max_size=2)


@settings(max_examples=60, deadline=None)
@given(PACKAGES, st.floats(0, 0.02))
def test_mirrors_are_told_however_long_reads_take(
    tmp_path_factory: pytest.TempPathFactory, packages: list[tuple[list[int], bool, int]], read_s: float
) -> None:
    """The dies of each package show one counter, which runs at the watts of the first, or a counter each."""
    clock, names, running, mirrors, watts = SimulatedClock(), {}, {}, {}, 0
    for package, (dies, mirrored, begin_uj) in enumerate(packages):
        first = f"intel-rapl:{len(names)}"
        for die, own in enumerate(dies):
            zone = f"intel-rapl:{len(names)}"
            names[zone] = f"package-{package}-die-{die}"
            running[zone] = (begin_uj, dies[0]) if mirrored else (begin_uj + die * RANGE_UJ // 4, own)
            if mirrored and die:
                mirrors[zone] = first
        watts += dies[0] if mirrored else sum(dies)

    def energy_uj(zone: Zone) -> int:
        clock.sleep(read_s)
        begin_uj, own = running[zone.folder.name]
        return (begin_uj + own * 1000 * int(clock.now_s() * 1000)) % RANGE_UJ  # updated every millisecond

    tree = Powercap(tmp_path_factory.mktemp("powercap") / "root", names)
    with mock.patch.object(Zone, "energy_uj", energy_uj):
        meter = RaplMeter(root=tree.root, clock=clock)
        meter.start()
        clock.sleep(10)
        window = meter.stop()
    assert window.amount == pytest.approx(watts * window.seconds, rel=0.1)  # reads take some of the time
    assert meter.facts()["mirrors"] == mirrors


@given(st.integers(2, 40), st.data())
def test_spans_of_counters_are_apart_by_the_shorter_way_round(range_uj: int, data: st.DataObject) -> None:
    lows = [data.draw(st.integers(0, range_uj - 1)) for _ in range(2)]
    spans = [[(low + step) % range_uj for step in range(data.draw(st.integers(1, range_uj)))] for low in lows]
    ways = [abs(one - other) for one in spans[0] for other in spans[1]]
    ends = [(span[0], span[-1]) for span in spans]
    assert apart_uj(ends[0], ends[1], range_uj) == min(min(way, range_uj - way) for way in ways)


@given(st.integers(1, 10**12), st.data())
def test_a_counter_that_starts_again_loses_nothing(range_uj: int, data: st.DataObject) -> None:
    total_before = data.draw(st.integers(0, 10**15))
    spent = data.draw(st.integers(0, range_uj - 1))
    assert counted_uj(total_before % range_uj, (total_before + spent) % range_uj, range_uj) == spent


ZONE = Zone(Path("intel-rapl:0"), "package-0", RANGE_UJ, Path("/"))
LONGEST_S = RANGE_UJ * 1e-6 / MOST_WATTS  # that a counter takes to wrap around


@given(st.integers(0, RANGE_UJ - 1), st.floats(0, LONGEST_S - 1), st.data())
def test_a_counter_rises_at_a_power_that_there_is(before_uj: int, passed_s: float, data: st.DataObject) -> None:
    most_uj = int(MOST_WATTS * (passed_s + UPDATE_S) * 1e6)
    spent_uj_ = data.draw(st.integers(0, most_uj))
    assert spent_uj(ZONE, before_uj, (before_uj + spent_uj_) % RANGE_UJ, passed_s) == spent_uj_
    beyond_uj = data.draw(st.integers(most_uj + 1, RANGE_UJ - 1))
    with pytest.raises(MeterError, match="intel-rapl:0/energy_uj to rise by at most 1000 W"):
        spent_uj(ZONE, before_uj, (before_uj + beyond_uj) % RANGE_UJ, passed_s)


def test_a_count_above_the_range_is_no_reason_for_negative_joules() -> None:
    assert spent_uj(ZONE, RANGE_UJ + 5, RANGE_UJ + 7, 1.0) == 2
    with pytest.raises(MeterError, match="to rise by at most"):
        spent_uj(ZONE, 2 * RANGE_UJ, 7, 1.0)


def test_a_counter_that_may_have_wrapped_twice_is_no_number() -> None:
    assert spent_uj(ZONE, 0, 7, LONGEST_S) == 7
    with pytest.raises(MeterError, match=r"every 262 s, got none in 263 s; try again"):
        spent_uj(ZONE, 0, 7, LONGEST_S + 1)


@pytest.mark.parametrize("after_uj", [0, 3_000_000, 109_999_999, 9_000_000_000])
def test_a_counter_that_falls_or_leaps_is_an_error_and_the_next_window_is_none(tmp_path: Path, after_uj: int) -> None:
    tree = Powercap(tmp_path, {"intel-rapl:0": "package-0"})
    tree.put("intel-rapl:0", 110_000_000)
    meter = RaplMeter(root=tmp_path, clock=SimulatedClock())
    meter.start()
    meter.clock.sleep(0.5)
    tree.put("intel-rapl:0", after_uj)
    with pytest.raises(MeterError, match=rf"got 110000000, then {after_uj} uJ in 0\.5 s; try again, without suspend"):
        meter.stop()
    assert tree.read_joules(meter, {"intel-rapl:0": 5_000_000}) == pytest.approx(5)


@pytest.mark.parametrize(
    ("falls_at_s", "repeated"),
    [(99, False), (0.3, True), (1.7, True), (3.1, False)],  # never, in the idle window, in a visit's, in a warm-up
)
def test_a_visit_in_which_a_counter_falls_is_repeated(tmp_path: Path, falls_at_s: float, repeated: bool) -> None:
    """The package draws 50 W throughout."""
    tree = Powercap(tmp_path, {"intel-rapl:0": "package-0"})
    tree.put("intel-rapl:0", 110_000_000)
    clock, ticks = SimulatedClock(), itertools.count(1)

    def tick() -> None:
        if next(ticks) == 100 * falls_at_s:
            tree.put("intel-rapl:0", 0)
        tree.add("intel-rapl:0", 500_000)

    clock.every(0.01, tick)
    protocol = Settings("short", 4, 1.5, 5, 0.2, 0.1, 1.0, target=0.05, limit_s=30.0)
    meter = RaplMeter(root=tmp_path, clock=clock)
    reading = measure_all({"work": lambda: clock.sleep(0.1)}, meter, protocol, clock)["work"]
    assert reading.amount == pytest.approx(5, rel=0.02) and reading.idle_watts == pytest.approx((50, 50), rel=0.02)
    assert (REPEATED in reading.flags) == repeated


def test_a_counter_without_a_range_is_refused(tmp_path: Path) -> None:
    tree = Powercap(tmp_path, {"intel-rapl:0": "package-0"}, range_uj=10**9)
    (tmp_path / "intel-rapl:0" / "max_energy_range_uj").write_text("0\n")
    with pytest.raises(MeterError, match=r"a range above 0 uJ in .*intel-rapl:0/max_energy_range_uj, got 0; try"):
        RaplMeter(root=tree.root, clock=SimulatedClock())


@settings(max_examples=30)
@given(st.lists(st.integers(0, 999_999), min_size=1, max_size=12), st.integers(0, 999_999))
def test_long_windows_count_every_turn(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], before_uj: int
) -> None:
    tree = Powercap(tmp_path_factory.mktemp("powercap") / "root", {"intel-rapl:0": "package-0"}, range_uj=1_000_000)
    tree.add("intel-rapl:0", before_uj)
    meter = RaplMeter(root=tree.root, clock=SimulatedClock())
    if not sum(steps):
        with pytest.raises(MeterError, match="counters that move"):
            tree.read_joules(meter, *({"intel-rapl:0": step} for step in steps))
        return
    assert tree.read_joules(meter, *({"intel-rapl:0": step} for step in steps)) == pytest.approx(sum(steps) * 1e-6)


def test_windows_do_not_share_joules(tmp_path: Path) -> None:
    tree = Powercap(tmp_path)
    meter = RaplMeter(root=tmp_path, clock=SimulatedClock())
    amounts = []
    for energy_uj in (5_000_000, 7_000_000):
        amounts.append(tree.read_joules(meter, {"intel-rapl:0": energy_uj}))
        tree.add("intel-rapl:0", 11_000_000)
        meter.clock.sleep(3)
    assert amounts == pytest.approx([5, 7])


def test_nothing_found_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(MeterError, match=rf"package-.*{tmp_path}/none/intel-rapl:\*, got no zones"):
        RaplMeter(root=tmp_path / "none", clock=SimulatedClock())
    Powercap(tmp_path / "tree", {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core"})
    with pytest.raises(MeterError, match=r"zone named dram in .*, got zones named core, package-0"):
        RaplMeter("dram", root=tmp_path / "tree", clock=SimulatedClock())


HIDDEN = {  # what of powercap is hidden -> what to try on a machine, and in a container
    "all": (
        "`modprobe intel_rapl_msr` on the machine itself",
        "`modprobe intel_rapl_msr` on the host of this container",
    ),
    "devices": ("`modprobe intel_rapl_msr`, or another", "`modprobe intel_rapl_msr` on the host of this container"),
    "permission": ("`sudo chmod a+r /", "energy_uj` on the host of this container, and for the container `docker run "),
    "contents": ("`modprobe intel_rapl_msr`, or another", "`modprobe intel_rapl_msr` on the host of this container"),
}


@pytest.mark.parametrize("contained", [False, True])
@pytest.mark.parametrize("hidden", HIDDEN)
def test_what_a_container_hides_is_laid_to_it(
    hidden: str, contained: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, machine = tmp_path / "powercap", tmp_path / "machine"
    machine.mkdir()
    if contained:
        (machine / ".dockerenv").touch()
    if hidden == "all":
        root.mkdir()
    elif hidden == "devices":  # Docker hides the folder that the zones are links to
        root.mkdir()
        (root / "intel-rapl:0").symlink_to(tmp_path / "devices" / "intel-rapl:0")
    else:
        Powercap(root)
    if hidden == "permission":
        refuse_counters(monkeypatch, PermissionError(errno.EACCES, "Permission denied"))
    elif hidden == "contents":
        (root / "intel-rapl:0" / "energy_uj").write_text("")
    with pytest.raises(MeterError) as caught:
        RaplMeter(root=root, machine=machine, clock=SimulatedClock())
    assert HIDDEN[hidden][contained] in caught.value.hint
    assert ("container" in caught.value.hint) == contained and "\n" not in str(caught.value)


def test_a_domain_that_is_not_there_is_not_laid_to_the_container(tmp_path: Path) -> None:
    Powercap(tmp_path / "powercap", {"intel-rapl:0": "package-0"})
    (tmp_path / ".dockerenv").touch()
    with pytest.raises(MeterError) as caught:
        RaplMeter("dram", root=tmp_path / "powercap", machine=tmp_path, clock=SimulatedClock())
    assert caught.value.hint == "another meter"


def refuse_counters(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    read_text = Path.read_text

    def read(path: Path) -> str:
        if path.name == "energy_uj":
            raise error
        return read_text(path)

    monkeypatch.setattr(Path, "read_text", read)


def test_a_refused_counter_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Powercap(tmp_path)
    refuse_counters(monkeypatch, PermissionError(errno.EACCES, "Permission denied"))
    with pytest.raises(MeterError, match=r"intel-rapl:0/energy_uj, got no permission; try `sudo chmod a\+r "):
        RaplMeter(root=tmp_path, clock=SimulatedClock())


@pytest.mark.parametrize("text", ["", "many", "-3", "1.5"])
def test_nonsense_in_a_counter_is_named(tmp_path: Path, text: str) -> None:
    Powercap(tmp_path)
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text(text)
    with pytest.raises(MeterError, match=r"microjoules in .*intel-rapl:1/energy_uj"):
        RaplMeter(root=tmp_path, clock=SimulatedClock())


def test_a_counter_that_goes_away_is_no_number(tmp_path: Path) -> None:
    Powercap(tmp_path)
    meter = RaplMeter(root=tmp_path, clock=SimulatedClock())
    meter.start()
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    with pytest.raises(MeterError, match=r"to read .*intel-rapl:0/energy_uj"):
        meter.stop()


def test_profiles_of_dies_that_were_added_up_are_of_another_meter(tmp_path: Path) -> None:
    dies = {f"intel-rapl:{die}": f"package-0-die-{die}" for die in range(2)}
    packages = {f"intel-rapl:{package}": f"package-{package}" for package in range(2)}
    meters = [
        RaplMeter(root=Powercap(tmp_path / name, zones).root, clock=SimulatedClock())
        for name, zones in (("dies", dies), ("packages", packages))
    ]
    assert [bool(meter.identity()) for meter in meters] == [True, False]
