"""What a person asks for on the command line."""

from __future__ import annotations

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
        """The command that asks for this, without defaults and without what names a place on this machine."""
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
    """The meter with the name of its file alone; a board's folder stays recognisable by its "./".

    `replay:/home/me/a.csv` becomes `replay:a.csv`, `board:VDD_IN@/home/me/tx2` becomes `board:VDD_IN@./tx2`.
    """
    kind, colon, detail = meter.partition(":")
    rail, at, place = detail.partition("@") if kind == "board" else ("", "", detail)
    if kind == "board" and (not at or "/" in rail):
        rail, at, place = "", "", detail
    here = "./" if kind == "board" and "/" in place else ""
    return f"{kind}{colon}{rail}{at}{here}{Path(place).name}"
