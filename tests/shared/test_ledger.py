"""The ledger: exact counts, a hard limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ledger import BudgetExhausted, Ledger


@given(limit=st.integers(0, 50), attempts=st.integers(0, 60))
def test_iterations_are_numbered_from_zero_and_end_at_the_limit(limit: int, attempts: int) -> None:
    ledger, given_out, refused = Ledger(limit), [], 0
    for _ in range(attempts):
        try:
            given_out.append(ledger.spend_iteration())
        except BudgetExhausted:
            refused += 1
        assert ledger.training_iterations + ledger.remaining == limit
    assert given_out == list(range(min(limit, attempts)))
    assert refused == max(0, attempts - limit)
    assert ledger.training_iterations == len(given_out)


def test_refusal_says_the_limit_and_what_to_try() -> None:
    with pytest.raises(BudgetExhausted, match=r"at most 0 training iterations.*ledger\.remaining"):
        Ledger(0).spend_iteration()
    with pytest.raises(ValueError, match="got -1"):
        Ledger(-1)


def test_the_observer_sees_every_change_after_it_happened() -> None:
    seen: list[tuple[int, int]] = []
    ledger = Ledger(2, observer=lambda it: seen.append((it.training_iterations, it.search_samples)))
    ledger.spend_iteration()
    ledger.count_search_samples(30)
    ledger.spend_iteration()
    with pytest.raises(BudgetExhausted):
        ledger.spend_iteration()
    assert seen == [(1, 0), (1, 30), (2, 30)]


def test_the_record_holds_the_counts_and_no_clock() -> None:
    ledger = Ledger(5)
    ledger.spend_iteration()
    ledger.count_search_samples(7)
    ledger.count_search_samples(8)
    ledger.energy_queries += 3
    assert ledger.as_record() == {
        "training_iterations": 1,
        "search_samples": 15,
        "energy_queries": 3,
    }
