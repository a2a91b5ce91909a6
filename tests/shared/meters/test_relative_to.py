"""Drift correction: the ratio of two readings visited in turns cancels what they share, and narrows the interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.meters import ClockMeter, MeterError, Reading
from shared.meters.meter import Source
from shared.meters.reading import Visit, summarise
from shared.meters.settings import SHORT
from tests.shared.meters.simulated import GTX_1080_TI, SimulatedClock, SimulatedMeter

CLOCK = ClockMeter(SimulatedClock())
NVML = SimulatedMeter(GTX_1080_TI, lambda moment_s: 100.0, SimulatedClock())
SOME = st.floats(0.1, 10.0)


def read(source: Source, amounts: Sequence[float], quantum: float = 0.0) -> Reading:
    visits = [Visit(float(amount), quantum, 1.0, 1, 1, ()) for amount in amounts]
    return summarise(source, visits, [], SHORT, {})


@pytest.mark.parametrize("source", [CLOCK, NVML], ids=lambda source: source.name)
@given(st.lists(SOME, min_size=2, max_size=12), SOME, SOME, SOME)
def test_what_both_share_is_gone(
    source: Source, drifts: list[float], amount: float, other: float, standard: float
) -> None:
    """However the machine wanders from turn to turn."""
    drift = np.array(drifts)
    corrected = read(source, amount * drift).relative_to(read(source, other * drift), standard)
    assert corrected.amount == pytest.approx(amount / other * standard)
    assert corrected.interval == pytest.approx((corrected.amount,) * 2)


def test_shares_of_turns_by_hand() -> None:
    """Clocks take the median share, sensors the mean one."""
    ours, other = [1.0, 4.0, 3.0], [2.0, 5.0, 10.0]  # shares 0.5, 0.8, 0.3
    assert read(CLOCK, ours).relative_to(read(CLOCK, other), 2.0).amount == pytest.approx(1.0)
    assert read(NVML, ours).relative_to(read(NVML, other), 3.0).amount == pytest.approx(1.6)


def test_half_of_both_quanta_is_in_the_interval() -> None:
    """A step of 0.2 on 2 is a tenth, one of 0.1 on 4 a fortieth; half of both is a sixteenth of the amount."""
    corrected = read(NVML, [2.0] * 4, quantum=0.2).relative_to(read(NVML, [4.0] * 4, quantum=0.1), 8.0)
    assert corrected.amount == pytest.approx(4.0) and corrected.interval == pytest.approx((3.75, 4.25))


@pytest.mark.parametrize("source", [CLOCK, NVML], ids=lambda source: source.name)
def test_intervals_cover_the_truth_on_a_wandering_machine(source: Source) -> None:
    """300 machines that wander by a tenth within 24 turns, each visit off by another hundredth."""
    draws = np.random.default_rng(0)
    covered = narrower = 0
    for _ in range(300):
        drift = np.exp(draws.normal(0, 0.1 / 24**0.5, 24).cumsum())
        noisy = drift * (1 + draws.normal(0, 0.01, (2, 24)))
        ours, other = read(source, 3.0 * noisy[0]), read(source, 5.0 * noisy[1])
        low, high = ours.relative_to(other, 10.0).interval
        covered += low <= 6.0 <= high
        narrower += (high - low) / 6.0 < (ours.interval[1] - ours.interval[0]) / 3.0
    assert covered >= 285 and narrower >= 285


def test_visits_have_to_be_in_turns() -> None:
    with pytest.raises(ValueError, match="shapes"):
        read(CLOCK, [1.0, 2.0]).relative_to(read(CLOCK, [1.0, 2.0, 3.0]), 1.0)


def test_the_reference_must_not_read_nothing() -> None:
    """A rail that is off, or a sensor that says so."""
    with pytest.raises(MeterError, match=r"amounts above 0 .*, got 0 J by sim"):
        read(NVML, [1.0, 2.0]).relative_to(read(NVML, [1.0, 0.0]), 1.0)
