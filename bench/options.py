"""The options that commands share, and checks of their values that need no plan."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from shared.errors import BadInput
from shared.host import usable_cores

Methods = Annotated[str, typer.Option(help="Comma-separated ids; `python -m bench methods` lists them.")]
Device = Annotated[
    str, typer.Option(help="The platform that is asked for joules; `python -m bench devices` lists them.")
]
Network = Annotated[str, typer.Option(help="`python -m bench networks` lists them.")]
Dataset = Annotated[str, typer.Option(help="`python -m bench datasets` lists them.")]
ProtocolName = Annotated[str, typer.Option(help="smoke (seconds), quick (minutes), standard (hours) or paper (days).")]
Budgets = Annotated[
    str | None,
    typer.Option(help="Fractions of dense or joules per image: 0.35,0.3 or 0.0247J. Default: the protocol's."),
]
Seeds = Annotated[str | None, typer.Option(help="Comma-separated integers. Default: the protocol's.")]
Jobs = Annotated[int, typer.Option(help="Parallel processes, one thread each.", min=1)]
TrainingJobs = Annotated[
    int | None,
    typer.Option(help="Parallel processes, one thread each. Default: one per core, one alone on a GPU.", min=1),
]
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
Repair = Annotated[
    bool, typer.Option(help="On hardware: cut on, least important per joule first, until the reading is in the budget.")
]
Compute = Annotated[str, typer.Option(help="Where training runs: cpu or cuda:N.")]
Compile = Annotated[
    bool, typer.Option("--compile", help="Training through torch.compile: slow to start, for long trainings.")
]
Executor = Annotated[str, typer.Option(help="What runs the jobs: local.")]
CORES = usable_cores()

# option -> values that work, pattern of those to come
_VALUES = {
    "executor": (("local",), "ray"),
}


def processes(jobs: int | None, compute: str) -> int:
    """How many processes train at once: those asked for, else one per core, or one where they would share a GPU."""
    return jobs or (CORES if compute == "cpu" else 1)


def check_built(**options: str) -> None:
    """Raise BadInput for a value of an option that this version does not serve."""
    for option, value in options.items():
        served, planned = _VALUES[option]
        if value not in served:
            later = f" ({value} is not built yet)" if re.fullmatch(planned, value) else ""
            raise BadInput(f"--{option} {' or '.join(served)}", repr(value), f"--{option} {served[0]}{later}")


def check_writable(option: str, folder: Path) -> None:
    """Raise BadInput when nothing could be written below the folder that `option` names."""
    from bench.store import Store  # brings torch

    try:
        Store(folder).check_writable()
    except (OSError, BadInput) as error:
        if isinstance(error, BadInput) and option == "--out":
            raise
        why = f" ({error.strerror})" if isinstance(error, OSError) else ""
        raise BadInput(f"{option} to be a folder that can be written", f"{folder}{why}", "another folder") from None
