"""Terms of the energy models against multiply-adds, which products of widths must explain exactly."""

import numpy as np
import pytest
import torch

from shared.energy.terms import KINDS, terms
from shared.errors import BadInput
from shared.networks import Structure, build, names, structure


def anatomy(name: str) -> Structure:
    with torch.device("meta"):
        return structure(build(name))


def unexplained(table: Structure, pairs: list[tuple[int, int]]) -> float:
    """Largest residual of the best fit of multiply-adds by `pairs` and a constant, over the largest count."""
    draw = np.random.default_rng(0)
    widths = draw.integers(1, np.array(table.upper_bounds) + 1, size=(3 * len(pairs) + 20, len(table.units)))
    scaled = table.positions(widths).numpy() / np.array(table.position_bounds)
    features = np.column_stack([np.ones(len(scaled)), *(scaled[:, i] * scaled[:, j] for i, j in pairs)])
    macs = table.macs(widths).numpy().astype(float)
    return float(np.abs(features @ np.linalg.lstsq(features, macs, rcond=None)[0] - macs).max() / macs.max())


@pytest.mark.parametrize("name", names())
def test_true_edges_and_linear_terms_explain_all_multiply_adds(name: str) -> None:
    table = anatomy(name)
    pairs = list(terms(table, "bilinear+linear"))
    assert unexplained(table, pairs) < 1e-9
    # and no product too many: each is needed
    for pair in [pair for pair in pairs if pair[0] > 0][:6]:
        assert unexplained(table, [other for other in pairs if other != pair]) > 1e-9


@pytest.mark.parametrize("name", names())
def test_one_linear_term_per_unit_and_no_pair_twice(name: str) -> None:
    table = anatomy(name)
    pairs = terms(table, "bilinear+linear")
    assert [pair for pair in pairs if pair[0] == 0] == [(0, unit + 1) for unit in range(len(table.units))]
    assert all(i <= j < len(table.position_bounds) - 1 for i, j in pairs)
    assert len(set(pairs)) == len(pairs)


def test_the_chain_misses_what_networks_do() -> None:
    """Depthwise layers in MobileNet, fixed sides in ERFNet, trunks read again in ResNet; AlexNet is a chain."""
    assert unexplained(anatomy("alexnet"), list(terms(anatomy("alexnet"), "bilinear"))) < 1e-9
    for name in ("mobilenet", "erfnet", "resnet18"):
        assert unexplained(anatomy(name), list(terms(anatomy(name), "bilinear"))) > 1e-3


def test_the_chain_is_the_papers() -> None:
    table = anatomy("mobilenet")
    assert terms(table, "bilinear") == tuple((i, i + 1) for i in range(len(table.units) + 1))


def test_unknown_kind() -> None:
    with pytest.raises(BadInput, match=r"got 'cubic'; try bilinear or bilinear\+linear"):
        terms(anatomy("alexnet"), "cubic")
    assert KINDS == ("bilinear", "bilinear+linear")
