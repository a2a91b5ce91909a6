"""Generators that are a function of (seed, purpose, index), and the fork of the global ones."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.rng import derived_seed, forked, generator, numpy_generator

arguments = st.tuples(st.integers(0, 10), st.sampled_from(["order", "order/1", "augment"]), st.integers(0, 30))


@given(one=arguments, other=arguments)
def test_seeds_differ_exactly_when_their_arguments_do(one: tuple, other: tuple) -> None:
    assert (derived_seed(*one) == derived_seed(*other)) == (one == other)
    assert 0 <= derived_seed(*one) < 2**63


def test_seeds_stay_what_they_were() -> None:
    """Records of other versions and machines rely on the same batches."""
    assert derived_seed(0, "order") == derived_seed(0, "order", 0) == 3471081512423777433
    assert derived_seed(117, "augment", 3) == 4027317866192962573


def test_generators_repeat_and_neighbours_are_unrelated() -> None:
    draws = [torch.randn(1000, generator=generator(3, "x", index)) for index in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert abs(torch.corrcoef(torch.stack([draws[0], draws[2]]))[0, 1]) < 0.15
    values = [numpy_generator(3, "x", index).random(1000) for index in (0, 0, 1)]
    assert (values[0] == values[1]).all()
    assert abs(np.corrcoef(values[0], values[2])[0, 1]) < 0.15


def global_draws() -> tuple[float, float, float]:
    return torch.rand(()).item(), float(np.random.random()), random.random()


def test_a_fork_is_seeded_and_leaves_the_global_generators_as_they_were() -> None:
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    undisturbed = [global_draws() for _ in range(2)]
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    before = global_draws()
    with forked(7, "agent"):
        inside = global_draws()
    with pytest.raises(RuntimeError, match="half-way"), forked(7, "agent"):
        again = global_draws()
        raise RuntimeError("half-way")
    assert [before, global_draws()] == undisturbed
    assert inside == again
    with forked(7, "agent", 1):
        assert not set(global_draws()) & set(inside)
