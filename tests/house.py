"""The shape of the code in figures: `python -m tests.house` prints them, tests/test_rooms.py holds their limits."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
ROOMS = ("bench", "methods", "shared")
_LAYOUT = {
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
Graph = dict[str, set[str]]  # module -> modules of ours that it imports


def module_name(path: Path) -> str:
    """Dotted name of a file below the root."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, str]:
    """Source by module name, of all rooms."""
    files = [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]
    return {module_name(file): file.read_text(encoding="utf-8") for file in files}


class _RunTime(ast.NodeTransformer):
    """Drops what stands under `if TYPE_CHECKING`."""

    def visit_If(self, node: ast.If) -> ast.AST:
        return ast.Pass() if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node


def graph(sources: dict[str, str], run_time: bool = False) -> Graph:
    """Module -> modules of ours that it imports; without those for annotations alone when `run_time`."""
    names = set(sources)
    packages = {name for name in names if any(other.startswith(f"{name}.") for other in names)}
    trees: dict[str, ast.AST] = {name: ast.parse(source) for name, source in sources.items()}
    if run_time:
        trees = {name: _RunTime().visit(tree) for name, tree in trees.items()}
    return {name: _imports(name, tree, names, name in packages) for name, tree in trees.items()}


def _imports(name: str, tree: ast.AST, names: set[str], package: bool) -> set[str]:
    """Modules of ours that a module imports anywhere, also inside functions.

    `from a.b import c` counts as a.b.c where that is a module, else as a.b. Relative imports are resolved.
    """
    targets = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")[: None if package and node.level == 1 else 1 - node.level - (not package)]
                base = ".".join([*parts, *([base] if base else [])])
            targets |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in names else base for alias in node.names}
    return {target for target in targets if target.split(".")[0] in ROOMS}


def rooms_of_bench(arrows: Graph) -> Graph:
    """Folder of bench/ -> other folders of bench/ that its modules import; a module of its own is a room."""

    def room(module: str) -> str:
        return ".".join(module.split(".")[:2])

    rooms: Graph = {}
    for name, targets in arrows.items():
        if name.startswith("bench"):
            inside = {room(target) for target in targets if target.startswith("bench")}
            rooms[room(name)] = rooms.get(room(name), set()) | inside - {room(name)}
    return rooms


def floors(arrows: Graph) -> int:
    """How many levels the graph has: a room lies one above the highest that it imports. Raises CycleError."""
    level: dict[str, int] = {}
    for name in TopologicalSorter({name: targets - {name} for name, targets in arrows.items()}).static_order():
        level[name] = 1 + max((level[target] for target in arrows.get(name, set()) - {name}), default=0)
    return max(level.values())


class Lines(NamedTuple):
    """Lines of a source by what is on them; a line with code and a comment counts as code and as comment."""

    code: int
    comments: int
    docstrings: int


def lines(source: str) -> Lines:
    """Counts the lines of a module; blank lines count nowhere."""
    code, comments, docstrings = set[int](), set[int](), set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in _LAYOUT:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node):
            text = node.body[0]
            docstrings.update(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return Lines(len(code - docstrings), len(comments), len(docstrings))


def parameters(source: str) -> Iterator[tuple[int, str]]:
    """The number of parameters of every function, without self and cls, with its name.

    Commands of the command line are left out: there a parameter is an option.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not any(map(_is_command, node.decorator_list)):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            yield len([one for one in given if one.arg not in ("self", "cls")]), node.name


def _is_command(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "app.command"


def main() -> None:
    """Print the figures."""
    sources = modules()
    counts = {name: lines(source) for name, source in sources.items()}
    for room in (*ROOMS, "bench.report"):
        own = [count for name, count in counts.items() if f"{name}.".startswith(f"{room}.")]
        print(f"{room}: {sum(count.code for count in own):,} lines of code in {len(own)} modules")
    code, comments, docstrings = (sum(column) for column in zip(*counts.values(), strict=True))
    whole = code + comments + docstrings
    print(f"all: {code:,} lines of code; {comments / whole:.1%} comments, {docstrings / whole:.1%} docstrings")
    rooms = rooms_of_bench(graph(sources))
    arrows = sum(map(len, rooms.values()))
    print(f"bench: {len(rooms)} rooms on {floors(rooms)} floors, {arrows} arrows")
    most, name = max(found for source in sources.values() for found in parameters(source))
    print(f"most parameters: {most} ({name})")


if __name__ == "__main__":
    main()
