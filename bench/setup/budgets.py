"""Budgets: parsing what a person types, and the range that a network can reach on a platform."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

from shared.errors import BadInput

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
# Tables print micro as U+00B5, keyboards also give U+03BC or "u". Plain units come last: "ms" ends in "s".
_PREFIXES = {"n": 1e-9, "\u00b5": 1e-6, "\u03bc": 1e-6, "u": 1e-6, "m": 1e-3, "": 1.0}
_LARGE = {"G": 1e9, "M": 1e6, "k": 1e3, "": 1.0}
JOULES = {f"{prefix}J": factor for prefix, factor in _PREFIXES.items()}
SECONDS = {f"{prefix}s": factor for prefix, factor in _PREFIXES.items()}
MACS = {f"{prefix}{unit}": factor for unit in ("MACs", "MAC") for prefix, factor in _LARGE.items()}
BYTES = {f"{prefix}B": factor for prefix, factor in _LARGE.items()}
_SUFFIXES = {"energy": JOULES, "latency": SECONDS, "macs": MACS, "size": BYTES}
_EXAMPLES = {
    "energy": "--budgets 0.35,0.3 or --budgets 24.7mJ",
    "latency": "--budgets 0.7,0.5 or --budgets 3.2ms",
    "macs": "--budgets 0.5,0.3 or --budgets 1.2MMACs",
    "size": "--budgets 0.5,0.3 or --budgets 120kB",
}


@dataclass(frozen=True)
class Budget:
    """A budget per image in the metric's unit, and as a fraction of the platform's reading of the dense network."""

    fraction: float
    amount: float

    @property
    def name(self) -> str:
        """The fraction as names and tables print it: six significant digits."""
        return f"{self.fraction:.6g}"


@dataclass(frozen=True)
class Reach:
    """The range of budgets that can be asked for. All amounts are per image in `unit`.

    floor: Ê with one channel in every unit, the least that any method can reach by the energy model; for methods that
    remove weights that of the dense network without any weight.
    dense_reading: the platform's reading of the dense network, which fractions refer to.
    dense_estimate: Ê of the dense network.
    """

    floor: float
    dense_reading: float
    dense_estimate: float
    unit: str
    who: str = "the network"  # can reach no less than the floor

    @property
    def top(self) -> float:
        """Budgets lie below this amount, at which the dense network itself would be within the budget."""
        return min(self.dense_reading, self.dense_estimate)

    def holds(self, amount: float) -> bool:
        """Whether a budget of `amount` can be asked for."""
        return self.floor <= amount < self.top

    def check(self, amount: float, text: str, by: str = "") -> None:
        """Raise BadInput for a budget, which the user wrote as `text`, out of reach. by: whose range this is."""
        if not self.holds(amount):
            side = "not below the dense network" if amount >= self.top else f"below what {self.who} can reach"
            raise BadInput(
                f"a budget within the reachable range{by} ({self})",
                f"{text} = {amount:.4g} {self.unit}, {side}",
                "a budget in that range",
            )

    def amount(self, text: str) -> float:
        """The budget that `text` stands for: "0.35" is a fraction of the dense reading, "0.4mJ" an amount."""
        number, suffix = _split(text)
        return float(number) * (JOULES | SECONDS | MACS | BYTES).get(suffix, self.dense_reading)

    def __str__(self) -> str:
        """The range for a person, rounded inwards so that its ends can be asked for."""
        floor, top, dense = (Decimal(amount) for amount in (self.floor, self.top, self.dense_reading))
        up, down = (Context(prec=4, rounding=rounding) for rounding in (ROUND_CEILING, ROUND_FLOOR))
        low, high, least, most = (
            float(number)
            for number in (up.plus(floor), down.plus(top), up.divide(floor, dense), down.divide(top, dense))
        )
        unit = self.unit
        return f"{low:.4g} {unit} to below {high:.4g} {unit} per image, fractions {least:.4g} to below {most:.4g}"


def reachable(offers: list[tuple[str, ...]], reach: Reach) -> tuple[str, ...]:
    """The first of `offers` whose budgets can all be reached, else as many fractions spread evenly over the range.

    Protocols name budgets that suit the simulated platforms; the range on another platform follows from its profile.
    Example: offered (0.35, 0.3) where 0.4 to 1 can be reached, it returns 0.8 and 0.6.
    """
    for texts in offers:
        if all(reach.holds(reach.amount(text)) for text in texts):
            return texts
    low, high = (amount / reach.dense_reading for amount in (reach.floor, reach.top))
    count = len(offers[0])
    step = (high - low) / (count + 1)
    decimals = max(2, math.floor(-math.log10(step)) + 1) if step > 0 else 2  # budgets stay distinct and in range
    return tuple(str(round(low + place * step, decimals)) for place in range(count, 0, -1))


def budget_text(metric: str) -> Callable[[str], str]:
    """A check of one budget's text that needs no platform: returns the text, or raises BadInput."""
    if metric not in _SUFFIXES:
        raise BadInput(f"--metric {' or '.join(_SUFFIXES)}", repr(metric), "--metric energy")
    suffixes = _SUFFIXES[metric]

    def checked(text: str) -> str:
        number, suffix = _split(text)
        if not _NUMBER.fullmatch(number) or not math.isfinite(float(number)) or float(number) <= 0:
            units = ", ".join(_shown(suffixes))
            raise BadInput(f"a positive budget, a fraction of dense or in {units}", repr(text), _EXAMPLES[metric])
        if suffix and suffix not in suffixes:
            other = next(metric for metric, own in _SUFFIXES.items() if suffix in own)
            hint = f"--metric {other}, or {_EXAMPLES[metric]}"
            raise BadInput(
                f"a budget for --metric {metric} as a fraction or in {', '.join(_shown(suffixes))}", repr(text), hint
            )
        return text

    return checked


def _shown(suffixes: dict[str, float]) -> list[str]:
    """The units for an error message: those in ASCII, the plain unit first."""
    return [suffix for suffix in reversed(suffixes) if suffix.isascii()]


def _split(text: str) -> tuple[str, str]:
    """The number in a budget's text, and its unit, "" where it has none: "24.7mJ" is ("24.7", "mJ")."""
    suffix = next((unit for unit in (*MACS, *JOULES, *SECONDS, *BYTES) if text.endswith(unit)), "")
    return text.removesuffix(suffix).strip(), suffix


def distinct(texts: tuple[str, ...], reach: Reach) -> tuple[Budget, ...]:
    """The budgets that `texts` stand for, without duplicates.

    Raises BadInput for a budget out of reach, and for two amounts whose fractions would print alike.
    """
    budgets: dict[str, Budget] = {}
    for text in texts:
        budget = _budget(text, reach)
        if budgets.setdefault(budget.name, budget).amount != budget.amount:
            raise BadInput(
                "budgets that differ in six digits of their fraction",
                f"{text} = {budget.amount!r} {reach.unit} beside {budgets[budget.name].amount!r} {reach.unit}",
                "leaving one of them out",
            )
    return tuple(budgets.values())


def _budget(text: str, reach: Reach) -> Budget:
    amount = reach.amount(text)
    reach.check(amount, text)
    return Budget(amount / reach.dense_reading, amount)
