"""Which room may import which: shared nothing of ours, methods shared, bench both; no method another; no cycles."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {"shared": {"shared"}, "methods": {"methods", "shared"}, "bench": {"bench", "methods", "shared"}}
# what is not a method of its own and may be used by every method
COMMON = {"methods", "methods.contract", "methods.registry"}


def module_name(path: Path) -> str:
    """Dotted name of a file below the root."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, str]:
    """Source by module name, of all rooms."""
    files = [file for room in MAY_IMPORT for file in sorted((ROOT / room).rglob("*.py"))]
    return {module_name(file): file.read_text() for file in files}


class RunTime(ast.NodeTransformer):
    """Drops what stands under `if TYPE_CHECKING`."""

    def visit_If(self, node: ast.If) -> ast.AST:
        return ast.Pass() if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node


def imports(name: str, tree: ast.AST, known: set[str], package: bool) -> set[str]:
    """Modules of ours that a module imports anywhere, also inside functions.

    `from a.b import c` counts as a.b.c where that is a module, else as a.b. Relative imports are resolved.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")[: None if package and node.level == 1 else 1 - node.level - (not package)]
                base = ".".join([*parts, *([base] if base else [])])
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names}
    return {target for target in found if target.split(".")[0] in MAY_IMPORT}


def graph(sources: dict[str, str], run_time: bool = False) -> dict[str, set[str]]:
    """Module -> modules of ours that it imports; without those for annotations alone when `run_time`."""
    known = set(sources)
    packages = {name for name in known if any(other.startswith(f"{name}.") for other in known)}
    trees = {name: ast.parse(source) for name, source in sources.items()}
    if run_time:
        trees = {name: RunTime().visit(tree) for name, tree in trees.items()}
    return {name: imports(name, tree, known, name in packages) for name, tree in trees.items()}


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
