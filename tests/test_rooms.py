"""Which room may import which: shared nothing of ours, methods shared, bench both; no method another; no cycles."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import pytest

from tests.house import ROOT, floors, graph, lines, modules, parameters, rooms_of_bench

MAY_IMPORT = {"shared": {"shared"}, "methods": {"methods", "shared"}, "bench": {"bench", "methods", "shared"}}
# what is not a method of its own and may be used by every method
COMMON = {"methods", "methods.contract", "methods.registry"}
MOST_FLOORS = 6
MOST_PARAMETERS = 6  # commands of the command line aside


def method_of(module: str) -> str | None:
    """The method that a module belongs to; None for the contract, the registry and other rooms."""
    parts = module.split(".")
    return parts[1] if parts[0] == "methods" and module not in COMMON else None


def wrong_arrows(arrows: dict[str, set[str]]) -> list[str]:
    """Imports against the table, and of one method by another, as "from -> to"."""
    return [
        f"{name} -> {target}"
        for name, targets in arrows.items()
        for target in sorted(targets)
        if target.split(".")[0] not in MAY_IMPORT[name.split(".")[0]]
        or (name.startswith("methods") and method_of(target) not in (None, method_of(name)))
    ]


def check_no_cycle(arrows: dict[str, set[str]]) -> None:
    """Raises CycleError where modules need each other."""
    TopologicalSorter({name: targets - {name} for name, targets in arrows.items()}).prepare()


def test_arrows_between_rooms_follow_the_table() -> None:
    arrows = graph(modules())
    assert len(arrows) > 30 and "methods.netadapt.netadapt" in arrows
    assert "methods.contract" in arrows["methods.netadapt.netadapt"]  # else the check would see nothing
    assert wrong_arrows(arrows) == []


def test_modules_do_not_need_each_other() -> None:
    check_no_cycle(graph(modules(), run_time=True))


def test_bench_has_few_floors_and_no_circle() -> None:
    """Between its folders, with imports for annotations alone."""
    rooms = rooms_of_bench(graph(modules()))
    assert {"bench.setup", "bench.run", "bench.record", "bench.report", "bench.cli"} <= set(rooms)
    assert rooms["bench.run"] >= {"bench.setup"}  # else the check would see nothing
    assert floors(rooms) <= MOST_FLOORS


def test_functions_have_few_parameters() -> None:
    found = [(count, name, module) for module, source in modules().items() for count, name in parameters(source)]
    assert max(found)[0] <= MOST_PARAMETERS, max(found)
    assert len(found) > 1000  # else the check would see nothing


def test_floors_are_counted_by_hand() -> None:
    arrows = {"bench.a": {"bench.b", "bench.c"}, "bench.b": {"bench.c"}, "bench.c": set(), "bench.d": {"bench.d"}}
    assert floors(arrows) == 3
    with pytest.raises(CycleError):
        floors(arrows | {"bench.c": {"bench.a"}})
    sources = dict.fromkeys(("bench.b", "bench.b.y"), "")
    sources |= {"bench.a.x": "from bench.b import y", "bench.a.z": "from bench.a import x"}
    assert rooms_of_bench(graph(sources)) == {"bench.a": {"bench.b"}, "bench.b": set()}


def test_lines_and_parameters_are_counted_by_hand() -> None:
    source = '''"""Two
lines."""

x = 1  # why
# alone

@app.command()
def command(a, b, c): ...


class A:
    def method(self, a, *, b=2):
        """One."""
        return """not a
        docstring"""
'''
    assert lines(source) == (7, 2, 3)
    assert list(parameters(source)) == [(2, "method")]


def test_reports_hold_no_code() -> None:
    assert not list((ROOT / "reports").rglob("*.py"))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("shared.training", "from methods.contract import Task"),
        ("shared.training", "import bench"),
        ("shared.training", "def later():\n    import bench.setup.plan"),
        ("shared.training", "if TYPE_CHECKING:\n    from methods import contract"),
        ("methods.ecc.ecc", "from bench.record.model import Record"),
        ("methods.ecc.ecc", "from methods.amc import AMC"),
        ("methods.ecc.ecc", "from ..amc import env"),
        ("methods.ecc.ecc", "from .. import amc"),
        ("methods.ecc", "from .. import amc"),
        ("methods.contract", "from methods.ecc import ECC"),
        ("methods.registry", "import methods.ecc.ecc"),
    ],
)
def test_a_wrong_arrow_is_found(name: str, source: str) -> None:
    sources = dict.fromkeys(
        ("methods", "methods.amc", "methods.amc.env", "methods.ecc", "methods.ecc.ecc", "bench"), ""
    )
    sources |= {"methods.contract": "", "bench.setup.plan": "", "shared": "", name: source}
    assert len(wrong_arrows(graph(sources))) == 1


def test_right_arrows_and_foreign_packages_pass() -> None:
    sources = {
        "methods": "",
        "methods.contract": "import torch\nfrom shared.ledger import Ledger",
        "methods.ecc": "from .ecc import ECC",
        "methods.ecc.ecc": "from methods.contract import Task\nfrom . import prox\nimport methodsandmore",
        "methods.ecc.prox": "import benchmark",
        "shared.ledger": "from shared import errors",
        "shared.errors": "",
        "bench.setup.plan": "from methods import registry\nimport shared.data",
    }
    arrows = graph(sources)
    assert wrong_arrows(arrows) == []
    assert arrows["methods.ecc"] == {"methods.ecc.ecc"}
    assert arrows["methods.ecc.ecc"] == {"methods.contract", "methods.ecc.prox"}
    check_no_cycle(arrows)


def test_a_cycle_is_found() -> None:
    sources = {
        "shared.data": "from shared.data.images import load",
        "shared.data.images": "def load():\n    from shared.energy import fit",
        "shared.energy": "",
        "shared.energy.fit": "import shared.data.images",
    }
    with pytest.raises(CycleError):
        check_no_cycle(graph(sources, run_time=True))
    check_no_cycle(graph(sources | {"shared.energy.fit": "import torch"}, run_time=True))
    annotation = "if TYPE_CHECKING:\n    import shared.data.images\nimport torch"
    check_no_cycle(graph(sources | {"shared.energy.fit": annotation}, run_time=True))
