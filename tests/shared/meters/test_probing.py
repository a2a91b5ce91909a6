"""What is found on a machine with nothing, and on one with everything that files can play."""

from __future__ import annotations

from pathlib import Path

from shared.meters import probing


class NoDriver:
    """NVML's bindings on a machine without NVIDIA's library."""

    class NVMLError(Exception):
        value = 12

    def nvmlInit(self) -> None:
        raise self.NVMLError


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def told(root: Path) -> dict[tuple[str, str], tuple[bool, str]]:
    return {(one.where, one.what): (one.found, one.detail) for one in probing.probe(root, NoDriver())}


def test_a_machine_with_nothing_is_told_how_to_get_each(tmp_path: Path) -> None:
    found = told(tmp_path)
    assert found.pop(("clock", "wall time")) == (True, "monotonic")
    assert set(found) == {("NVML", "library"), ("INA3221", "rails"), ("RAPL", "package"), ("RAPL", "dram")}
    for is_there, detail in found.values():
        assert not is_there and detail.startswith("expected ") and "; try " in detail


def test_a_container_is_named_where_it_hides_the_zones(tmp_path: Path) -> None:
    assert "this container" not in told(tmp_path)["RAPL", "package"][1]
    write(tmp_path / ".dockerenv", "")
    assert "on the host of this container" in told(tmp_path)["RAPL", "package"][1]


def test_rails_and_zones_are_found_by_a_trial_read(tmp_path: Path) -> None:
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    for name, text in (("name", "package-0"), ("energy_uj", "123456"), ("max_energy_range_uj", "262143328850")):
        write(zone / name, text)
    rail = tmp_path / "sys/bus/i2c/drivers/ina3221x/0-0041/iio:device1"
    for name, text in (("rail_name_0", "VDD_IN"), ("in_power0_input", "5000"), ("in_voltage0_input", "19000")):
        write(rail / name, text)
    write(rail / "in_current0_input", "263")
    found = told(tmp_path)
    assert found["RAPL", "package"] == (True, "package-0")
    assert not found["RAPL", "dram"][0]
    is_there, detail = found["INA3221", "VDD_IN"]
    assert is_there and "5.000 W" in detail
