"""The options that commands share, and checks of their values that need no plan."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from dataclasses import Field, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from bench.setup.request import Request
from shared.errors import BadInput
from shared.host import usable_cores

Jobs = Annotated[int, typer.Option(help="Parallel processes, one thread each.", min=1)]
Out = Annotated[Path, typer.Option(help="Folder for runs and reports.")]
CORES = usable_cores()


@dataclass(frozen=True)
class Work:
    """What runs the jobs, where they are stored, and whether finished ones are repeated."""

    executor: Annotated[str, "What runs the jobs: local."] = "local"
    out: Out = Path("runs")
    fresh: Annotated[bool, "Repeat runs that are finished already."] = False
    jobs: Annotated[
        int | None,
        typer.Option(help="Parallel processes, one thread each. Default: one per core, one alone on a GPU.", min=1),
    ] = None

    def __post_init__(self) -> None:
        """Raises BadInput for an executor that does not exist."""
        if self.executor != "local":
            raise BadInput("--executor local", repr(self.executor), "--executor local, the only one there is")

    def processes(self, compute: str) -> int:
        """How many processes train at once: `jobs`, else one per core, or one where they would share a GPU."""
        return self.jobs or (CORES if compute == "cpu" else 1)


def with_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: each field of a command's dataclass parameters becomes an option, of a Request those in `names`.

    Without names a Request gives all its fields. A field is Annotated with the help text or with typer's option.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        given: dict[str, tuple[Any, list[Field[Any]]]] = {}
        options: list[inspect.Parameter] = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            kind = parameter.annotation
            if not is_dataclass(kind):
                options.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
                continue
            taken = [field for field in fields(kind) if kind is not Request or not names or field.name in names]
            given[parameter.name] = (kind, taken)
            hints = get_type_hints(kind, include_extras=True)
            options += [_option(field, *get_args(hints[field.name])) for field in taken]

        @wraps(command)
        def wrapper(**values: Any) -> None:
            for name, (kind, taken) in given.items():
                values[name] = kind(**{field.name: values.pop(field.name) for field in taken})
            command(**values)

        wrapper.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {option.name: option.annotation for option in options}
        return wrapper

    return decorate


def _option(field: Field[Any], kind: Any, detail: Any) -> inspect.Parameter:
    """The option of a field; a boolean one has no `--no-…`."""
    if isinstance(detail, str):
        detail = typer.Option(*[f"--{field.name}"] * (kind is bool), help=detail)
    annotation = Annotated[kind, detail]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)


def check_writable(option: str, folder: Path) -> None:
    """Raise BadInput when nothing can be written below `folder`, the value of `option`. Leaves no file there."""
    place = folder.absolute()
    try:
        while not place.exists() and place != place.parent:
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        got = f"{folder} ({error.strerror})"
        raise BadInput(f"{option} to be a folder that can be written", got, "another folder") from None
