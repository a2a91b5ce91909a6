"""Budgets as a person types them, and as a platform can be held to them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import protocols
from shared.errors import BadInput

if TYPE_CHECKING:
    from bench.plan import Ground

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_SUFFIXES = {"energy": {"J": 1.0}, "latency": SECONDS}
_EXAMPLES = {"energy": "--budgets 0.35,0.3 or --budgets 0.0247J", "latency": "--budgets 0.7,0.5 or --budgets 3.2ms"}


@dataclass(frozen=True)
class Budget:
    """A budget per image in the metric's unit, and as a fraction of the platform's reading of the dense network."""

    fraction: float
    amount: float

    @property
    def name(self) -> str:
        """The fraction as it stands in names and tables."""
        return f"{self.fraction:.6g}"


def default_budgets(ground: Ground) -> tuple[str, ...]:
    """The protocol's budgets where all of them can be reached, else as many spread evenly over what can be.

    Protocols name budgets that suit the simulated platforms; what a network can reach on another is known by its
    profile alone.
    """
    protocol, work = ground.protocol, ground.workload
    offers = [tuple(map(str, protocol.budgets))]
    if ground.unit == "J":
        offers = protocols.energy_budgets(protocol, work.network, work.dataset, ground.platform.name)
    for texts in offers:
        if all(ground.floor <= _amount(text, ground) < ground.top for text in texts):
            return texts
    low, high = (amount / ground.dense_reading for amount in (ground.floor, ground.top))
    count = len(offers[0])
    step = (high - low) / (count + 1)
    decimals = max(2, math.floor(-math.log10(step)) + 1) if step > 0 else 2  # enough to stay apart and in the range
    return tuple(str(round(low + place * step, decimals)) for place in range(count, 0, -1))


def budget_text(metric: str) -> Callable[[str], str]:
    """Lets texts pass that read as budgets of the metric; the check against the platform comes once there is one."""
    if metric not in _SUFFIXES:
        raise BadInput(f"--metric {' or '.join(_SUFFIXES)}", repr(metric), "--metric energy")
    suffixes = _SUFFIXES[metric]

    def checked(text: str) -> str:
        number, suffix = _split(text)
        if not _NUMBER.fullmatch(number) or not math.isfinite(float(number)) or float(number) <= 0:
            units = " or ".join(suffixes)
            raise BadInput(f"a positive budget, a fraction of dense or in {units}", repr(text), _EXAMPLES[metric])
        if suffix and suffix not in suffixes:
            other = "latency" if suffix in SECONDS else "energy"
            hint = f"--metric {other}, or {_EXAMPLES[metric]}"
            raise BadInput(
                f"a budget for --metric {metric} as a fraction or in {' or '.join(suffixes)}", repr(text), hint
            )
        return text

    return checked


def _split(text: str) -> tuple[str, str]:
    """A number and the unit behind it, "" where there is none."""
    suffix = next((unit for unit in ("J", *SECONDS) if text.endswith(unit)), "")
    return text.removesuffix(suffix).strip(), suffix


def distinct(texts: tuple[str, ...], ground: Ground) -> tuple[Budget, ...]:
    """The budgets, those of one name once. Raises BadInput where one name would stand for different amounts."""
    found: dict[str, Budget] = {}
    for text in texts:
        budget = _budget(text, ground)
        if found.setdefault(budget.name, budget).amount != budget.amount:
            raise BadInput(
                "budgets that differ in six digits of their fraction",
                f"{text} = {budget.amount!r} {ground.unit} beside {found[budget.name].amount!r} {ground.unit}",
                "leaving one of them out",
            )
    return tuple(found.values())


def _budget(text: str, ground: Ground) -> Budget:
    """`text` in the metric's unit per image, between what the network can reach and what the dense network takes."""
    amount = _amount(text, ground)
    if not ground.floor <= amount < ground.top:
        side = "not below the dense network" if amount >= ground.top else "below what the network can reach"
        raise BadInput(
            f"a budget within the reachable range ({ground.reachable})",
            f"{text} = {amount:.4g} {ground.unit}, {side}",
            "a budget in that range",
        )
    return Budget(amount / ground.dense_reading, amount)


def _amount(text: str, ground: Ground) -> float:
    """Per image in the metric's unit."""
    number, suffix = _split(text)
    return float(number) * ({"J": 1.0} | SECONDS).get(suffix, ground.dense_reading)
