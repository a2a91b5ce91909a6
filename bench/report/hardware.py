"""What a page says of readings on hardware: how they compare with budgets, before and after repair, and why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bench.record import Budget, Measures, Record
from bench.report.cells import TOLERANCE, against_budget
from bench.report.collect import Page, share
from bench.report.text import ABSENT, Unit, escape, percent, signed_percent, table


class Section(NamedTuple):
    """The part of a page about its readings, in Markdown."""

    text: str
    table: str


class _Run(NamedTuple):
    record: Record
    budget: Budget
    measures: Measures

    @property
    def before(self) -> float:
        """The reading before anything was repaired."""
        if self.record.first_pass is not None:
            return self.record.first_pass.reading
        return self.measures.read if self.record.repair is None else self.record.repair.reading


def section(page: Page, unit: Unit) -> Section | None:
    """None where nothing was read: on simulated platforms, and where every run is a miss without a network."""
    known = [_Run(run, run.budget, run.measures) for run in page.records if run.budget and run.measures]
    if page.first.platform.source == "simulated" or not known:
        return None
    return Section("\n\n".join(_paragraphs(page, known)), _table(page, known, unit))


def _table(page: Page, runs: Sequence[_Run], unit: Unit) -> str:
    head = ["Method", "budget", "seed", "Ê to budget, %", "reading to Ê, %", "reading to budget, %", "half width, %"]
    head += ["ended by"] + [f"idle subtracted, bare, {unit.symbol}"] * (page.amounts == "joules")
    head += ["before repair to budget, %", "channels taken", "accuracy before repair, %"]
    rows = []
    for run in runs:
        measures, repair, amount = run.measures, run.record.repair, run.budget.amount
        low, high = measures.interval or (math.nan, math.nan)
        detail = measures.detail or {}
        row = [escape(page.title(run.record.method)), share(run.record), str(run.record.seed)]
        row += [_off(measures.estimate, amount), _off(measures.read, measures.estimate)]
        row += [against_budget([measures.read], amount), percent((high - low) / 2 / measures.read)]
        row += [str(detail.get("ended", ABSENT))]
        row += [unit(detail.get("idle_subtracted"))] * (page.amounts == "joules")
        row += [_off(run.before, amount)]
        row += [ABSENT] * 2 if repair is None else [str(repair.removed_channels), percent(repair.accuracy_after)]
        rows.append(row)
    return table(head, rows, left=1)


def _off(amount: float, of: float) -> str:
    return signed_percent(amount / of - 1, 2).removesuffix(" %")


def _within(runs: Sequence[_Run], amounts: Sequence[float]) -> str:
    inside = sum(amount <= run.budget.amount * (1 + TOLERANCE) for amount, run in zip(amounts, runs, strict=True))
    return f"{inside} of {len(runs)}"


def _paragraphs(page: Page, runs: Sequence[_Run]) -> list[str]:
    """The share of networks within their budgets, what the readings above them are made of, and what sensors told."""
    gross = " Joules are gross, idle power is part of them." if page.amounts == "joules" else ""
    text = (
        "The model bounds Ê, not the reading; here every network was built at its widths and read on the platform once "
        "all trainings were done, in turns with the dense one. A reading is its share of the dense network's in the "
        f"same turns, times the dense reading that the fractions refer to.{gross} "
        f"**Within the budget by reading: {_within(runs, [run.before for run in runs])}**"
    )
    if any(run.record.repair for run in runs):
        text += (
            f"; **after repair, all of them read anew: {_within(runs, [run.measures.read for run in runs])}**. Repair "
            f"cuts on, least important per {page.amounts.removesuffix('s')} first, in the groups of channels that "
            "processors work on at once, until a reading beside the network as it was is within the budget with its "
            "whole interval; all are read anew then, and who is above its budget now is cut on, up to three times. It "
            "trains no more: "
            "the accuracy after fine-tuning is that of the network as it is cut, the one before fine-tuning is from "
            "before repair, too."
        )
    else:
        text += "."
    return [text, *_repairs(runs), *_drift(runs), *_flags(runs)]


def _repairs(runs: Sequence[_Run]) -> list[str]:
    """Why networks were above their budgets before repair, and how far a pass of readings is off another."""
    repaired = [(repair, run.budget.amount) for run in runs if (repair := run.record.repair)]
    if not repaired:
        return []
    text = (
        "Before repair, the estimates of those above their budgets were "
        f"{_range(repair.estimate / amount - 1 for repair, amount in repaired)} off the budgets, and their readings "
        f"{_range(repair.reading / repair.estimate - 1 for repair, _ in repaired)} off the estimates: the errors of "
        "the model and of the reading together."
    )
    left = [
        run.measures.read / first.reading - 1
        for run in runs
        if run.record.repair is None and (first := run.record.first_pass)
    ]
    if left:
        text += (
            f" Networks that were not cut on ({len(left)}), read anew with the others, came out {_range(left)} off "
            "their first readings: so much one pass differs from another, beside the drift that all share."
        )
    return [text]


def _range(values: Iterable[float]) -> str:
    """The least and the largest share in percent, or the one that both are."""
    known = sorted(values)
    return " to ".join(dict.fromkeys(signed_percent(value) for value in (known[0], known[-1])))


def _drift(runs: Sequence[_Run]) -> list[str]:
    known = [(run, run.record.dense_again) for run in runs if run.record.dense_again]
    if not known:
        return []
    told = _range(dense / run.budget.dense_reading - 1 for run, dense in known)
    raw = [(run.measures.detail or {}).get("amount", run.measures.read) for run in runs]
    return [
        "A reading is off its budget by what the method, or repair, left unused (Ê to budget) and by the errors of the "
        "model and of the reading (reading to Ê). The machine's drift since its profile is in neither: the dense "
        "network, read again beside the others, was "
        f"{told} off the reading that the fractions refer to. With the drift, by their bare amounts, "
        f"{_within(runs, raw)} networks are within."
    ]


def _flags(runs: Sequence[_Run]) -> list[str]:
    told = {flag: sum(flag in run.measures.flags for run in runs) for run in runs for flag in run.measures.flags}
    if not told:
        return []
    return [
        "The sensor noted: "
        + "; ".join(f"{escape(flag)} ({count} network{'s' * (count > 1)})" for flag, count in sorted(told.items()))
        + "."
    ]
