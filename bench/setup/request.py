"""The request: what the options of the command line ask for."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """The options of `run` and `plan` as text; the command line takes names and defaults from here.

    methods: comma-separated ids.
    device: the platform that is asked for joules or seconds.
    network, dataset, protocol: ids.
    budgets: comma-separated fractions of dense or amounts with a unit; the protocol's when None.
    seeds: comma-separated integers; the protocol's when None.
    data: folder of a data set that is not embedded.
    metric: "energy" or "latency".
    meter: how the platform answers.
    energy_model: the kind of the model that is fitted to the profile.
    compute: where training runs, "cpu" or "cuda:N".
    compile: whether training goes through torch.compile.
    """

    methods: str = "ecc,netadapt,amc"
    device: str = "1080ti"
    network: str = "mobilenet"
    dataset: str = "fashion-mnist"
    protocol: str = "quick"
    budgets: str | None = None
    seeds: str | None = None
    data: str | None = None
    metric: str = "energy"
    meter: str = "auto"
    energy_model: str = "bilinear"
    compute: str = "cpu"
    compile: bool = False

    @property
    def command(self) -> str:
        """The command line of this request, without defaults and without folders of this machine."""
        parts = ["python", "-m", "bench", "run"]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "data" or value == field.default:
                continue
            option = f"--{field.name.replace('_', '-')}"
            text = _without_folder(str(value)) if field.name == "meter" else str(value)
            parts += [option] if value is True else [option, text]
        return shlex.join(parts)


def _without_folder(meter: str) -> str:
    """The meter's option without the folders in its file's or board's path; a board's folder still begins with "./".

    `replay:/home/me/a.csv` becomes `replay:a.csv`, `board:VDD_IN@/home/me/tx2` becomes `board:VDD_IN@./tx2`.
    """
    if board := re.fullmatch(r"(board:(?:[^/@]*@)?)(.*)", meter):
        return board[1] + ("./" if "/" in board[2] else "") + Path(board[2]).name
    kind, colon, detail = meter.partition(":")
    return f"{kind}{colon}{Path(detail).name}"
