"""The request: what the options of the command line ask for."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from shared.errors import printable


@dataclass(frozen=True)
class Request:
    """The options of `run` and `plan` as text: the command line takes names, defaults and help from here.

    budgets, seeds, energy_model: those of the protocol where None.
    """

    methods: Annotated[str, "Comma-separated ids; `python -m bench methods` lists them."] = "ecc,netadapt,amc"
    device: Annotated[str, "The platform that is asked for joules; `python -m bench devices` lists them."] = "1080ti"
    network: Annotated[
        str, "`python -m bench networks` lists them. Or FILE.py:NAME or package.module:NAME, whose code is run."
    ] = "mobilenet"
    dataset: Annotated[str, "`python -m bench datasets` lists them."] = "fashion-mnist"
    protocol: Annotated[str, "smoke (seconds), quick (minutes), standard, long (hours) or paper (days)."] = "quick"
    budgets: Annotated[
        str | None,
        "Fractions of dense, or an amount per image: 0.35,0.3 or 24.7mJ or 3.2ms. Default: the protocol's.",
    ] = None
    seeds: Annotated[str | None, "Comma-separated integers. Default: the protocol's."] = None
    data: Annotated[str | None, "Folder of a data set that is not embedded."] = None
    metric: Annotated[
        str,
        "What budgets are in: energy (joules), latency (seconds), macs (multiply-adds), size (bytes of parameters).",
    ] = "energy"
    meter: Annotated[
        str,
        "How the platform answers: auto (its sensor where it is here, else the simulator), nvml, ina3221:RAIL, rapl, "
        "clock, sim, replay:FILE or board:RAIL@PLACE.",
    ] = "auto"
    energy_model: Annotated[
        str | None,
        "bilinear+linear, corrected near each budget, or bilinear, the paper's. Default: the protocol's.",
    ] = None
    bits: Annotated[int | None, "Bits of numbers, for --device eyeriss (default 16) and --metric size (32)."] = None
    inference_batch: Annotated[
        int | None,
        "Images per inference; on eyeriss they share a fetch of the weights. Default: the platform's choice.",
    ] = None
    network_arg: Annotated[
        list[str] | None, "NAME=VALUE, an argument of the network's own, such as num_classes=10; may be repeated."
    ] = None
    image_size: Annotated[
        str | None, "Height, or HEIGHTxWIDTH, in pixels to which images are resized. Default: the data set's."
    ] = None
    compute: Annotated[str, "Where training runs: cpu or cuda:N."] = "cpu"
    compile: Annotated[bool, "Training through torch.compile: slow to start, for long trainings."] = False

    @property
    def command(self) -> str:
        """The command line of this request, without defaults and without folders of this machine."""
        parts = ["python", "-m", "bench", "run"]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "data" or value == field.default:
                continue
            option = f"--{field.name.replace('_', '-')}"
            texts = value if isinstance(value, list) else [str(value)]
            if field.name in ("meter", "network"):
                texts = [_without_folder(text) for text in texts]
            parts += [option] if value is True else [word for text in texts for word in (option, printable(text))]
        return shlex.join(parts)


def _without_folder(text: str) -> str:
    """An option without the folders in a file's or board's path; a board's folder still begins with "./".

    `nets/own.py:Net` becomes `own.py:Net`, `replay:/home/me/a.csv` becomes `replay:a.csv`, and
    `board:VDD_IN@/home/me/tx2` becomes `board:VDD_IN@./tx2`.
    """
    if board := re.fullmatch(r"(board:(?:[^/@]*@)?)(.*)", text):
        return board[1] + ("./" if "/" in board[2] else "") + Path(board[2]).name
    if file := re.fullmatch(r"(.*\.py):([^/]*)", text):
        return f"{Path(file[1]).name}:{file[2]}"
    kind, colon, detail = text.partition(":")
    return f"{kind}{colon}{Path(detail).name}"
