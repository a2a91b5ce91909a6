"""RAPL's counters below a tree of files: domains by name, no zone twice, wrap-around, plain words for what fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.meters import MeterError, RaplMeter
from shared.meters.rapl import counted_uj
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
        self.counts[zone] = (self.counts[zone] + energy_uj) % self.range_uj
        (self.root / zone / "energy_uj").write_text(f"{self.counts[zone]}\n")

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


def test_dies_of_a_package_are_packages(tmp_path: Path) -> None:
    tree = Powercap(tmp_path, {"intel-rapl:0": "package-0-die-0", "intel-rapl:1": "package-0-die-1"})
    meter = RaplMeter(root=tmp_path, clock=SimulatedClock())
    assert tree.read_joules(meter, {"intel-rapl:0": 3_000_000, "intel-rapl:1": 4_000_000}) == pytest.approx(7)


@given(st.integers(1, 10**12), st.data())
def test_a_counter_that_starts_again_loses_nothing(range_uj: int, data: st.DataObject) -> None:
    total_before = data.draw(st.integers(0, 10**15))
    spent = data.draw(st.integers(0, range_uj - 1))
    assert counted_uj(total_before % range_uj, (total_before + spent) % range_uj, range_uj) == spent


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


def test_a_refused_counter_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Powercap(tmp_path)
    read_text = Path.read_text

    def refuse(path: Path) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read_text(path)

    monkeypatch.setattr(Path, "read_text", refuse)
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
