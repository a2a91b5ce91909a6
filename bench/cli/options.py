"""The options that commands share, and checks of their values that need no plan."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.setup.request import Request
from shared.errors import BadInput
from shared.host import usable_cores

Device = Annotated[
    str, typer.Option(help="The platform that is asked for joules; `python -m bench devices` lists them.")
]
Network = Annotated[str, typer.Option(help="`python -m bench networks` lists them.")]
Dataset = Annotated[str, typer.Option(help="`python -m bench datasets` lists them.")]
ProtocolName = Annotated[str, typer.Option(help="smoke (seconds), quick (minutes), standard (hours) or paper (days).")]
Jobs = Annotated[int, typer.Option(help="Parallel processes, one thread each.", min=1)]
Out = Annotated[Path, typer.Option(help="Folder for runs and reports.")]
Data = Annotated[str | None, typer.Option(help="Folder of a data set that is not embedded.")]
Metric = Annotated[str, typer.Option(help="What budgets are in: energy (joules) or latency (seconds).")]
Meter = Annotated[
    str,
    typer.Option(
        help="How the platform answers: auto (its sensor where it is here, else the simulator), nvml, ina3221:RAIL, "
        "rapl, clock, sim, replay:FILE or board:RAIL@PLACE."
    ),
]
EnergyModel = Annotated[str, typer.Option(help="bilinear (the paper's) or bilinear+linear.")]

# The options of `run` and `plan`: the fields of a Request, then those of Work.
OF_REQUEST: dict[str, object] = {
    "methods": Annotated[str, typer.Option(help="Comma-separated ids; `python -m bench methods` lists them.")],
    "device": Device,
    "network": Network,
    "dataset": Dataset,
    "protocol": ProtocolName,
    "budgets": Annotated[
        str | None,
        typer.Option(
            help="Fractions of dense, or joules or seconds per image: 0.35,0.3 or 24.7mJ or 3.2ms. Default: the "
            "protocol's."
        ),
    ],
    "seeds": Annotated[str | None, typer.Option(help="Comma-separated integers. Default: the protocol's.")],
    "data": Data,
    "metric": Metric,
    "meter": Meter,
    "energy_model": EnergyModel,
    "compute": Annotated[str, typer.Option(help="Where training runs: cpu or cuda:N.")],
    "compile": Annotated[
        bool, typer.Option("--compile", help="Training through torch.compile: slow to start, for long trainings.")
    ],
}
OF_WORK: dict[str, tuple[object, object]] = {  # name -> annotation, default
    "executor": (Annotated[str, typer.Option(help="What runs the jobs: local.")], "local"),
    "out": (Out, Path("runs")),
    "fresh": (Annotated[bool, typer.Option(help="Repeat runs that are finished already.")], False),
    "jobs": (
        Annotated[
            int | None,
            typer.Option(help="Parallel processes, one thread each. Default: one per core, one alone on a GPU.", min=1),
        ],
        None,
    ),
}
CORES = usable_cores()


@dataclass(frozen=True)
class Work:
    """Where runs are stored, whether finished ones are repeated, and how many processes work."""

    out: Path
    fresh: bool
    jobs: int


def takes_a_request(command: Callable[[Request, Work], None]) -> Callable[..., None]:
    """Decorator: a command with the options of `run`, which it passes on as a Request and a Work."""

    @wraps(command)
    def wrapper(**values: Any) -> None:
        request = Request(**{name: values[name] for name in OF_REQUEST})
        if values["executor"] != "local":
            raise BadInput("--executor local", repr(values["executor"]), "--executor local, the only one there is")
        command(request, Work(values["out"], values["fresh"], processes(values["jobs"], request.compute)))

    options = {name: (annotation, getattr(Request, name)) for name, annotation in OF_REQUEST.items()} | OF_WORK
    keyword = inspect.Parameter.KEYWORD_ONLY
    wrapper.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, keyword, default=value, annotation=kind) for name, (kind, value) in options.items()]
    )
    wrapper.__annotations__ = {name: kind for name, (kind, _) in options.items()}
    return wrapper


def processes(jobs: int | None, compute: str) -> int:
    """How many processes train at once: `jobs`, else one per core, or a single one where they would share a GPU."""
    return jobs or (CORES if compute == "cpu" else 1)


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
