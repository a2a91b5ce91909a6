"""The calibration script: what it aims at, that the shipped values are where it ends, and how it writes them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bench.studies import calibrate
from shared.platforms import parameters

TX2, _ = parameters.load(parameters.FOLDER / "tx2.toml")
CHIPS = {name: parameters.load(parameters.FOLDER / f"{name}.toml")[0] for name in ("tx2", "1080ti")}


def cost(platform: str, chip: parameters.Parameters) -> float:
    return float((calibrate.residuals(platform, chip, TX2) ** 2).sum())


@pytest.mark.parametrize("platform", ["tx2", "1080ti"])
def test_shipped_values_are_a_minimum(platform: str) -> None:
    """One value 3 % up or down fits no better: formulas, anchors and data files belong together."""
    least = cost(platform, CHIPS[platform])
    for name, prior in calibrate.PRIORS[platform].items():
        for factor in (0.97, 1.03):
            value = getattr(CHIPS[platform], name) * factor
            lower = TX2.flop_j if name == "flop_j" and platform == "1080ti" else prior.lower
            if lower <= value <= prior.upper:
                moved = dataclasses.replace(CHIPS[platform], **{name: value})
                assert cost(platform, moved) > least, (name, factor)


@pytest.mark.parametrize("platform", ["tx2", "1080ti"])
def test_fitted_values_are_those_that_have_a_prior(platform: str) -> None:
    _, entries = parameters.load(parameters.FOLDER / f"{platform}.toml")
    fitted = {name for name, entry in entries.items() if entry.kind == "fitted"}
    assert fitted == calibrate.PRIORS[platform].keys()
    assert [name for name, prior in calibrate.PRIORS[platform].items() if prior.sigma is None] == (
        ["busy_w"] if platform == "1080ti" else []
    )


def test_the_authors_model_adds_up_to_the_printed_dense_figure() -> None:
    total = calibrate.PUBLISHED_INTERCEPT_JOULES + sum(calibrate.PUBLISHED_LAYER_JOULES.values())
    assert total == pytest.approx(calibrate.PUBLISHED_DENSE_JOULES["tx2"]["alexnet"], abs=5e-5)


def test_layer_split_of_alexnet_on_the_tx2() -> None:
    """A residual, not a proof: these figures were in the fit. Convolutions come out high, the rest low."""
    found = {anchor.name: anchor.value / anchor.target for anchor in calibrate.anchors("tx2", TX2, TX2)}
    for layer in ("conv1", "conv2", "conv3", "conv4", "conv5"):
        assert 1.0 < found[f"alexnet {layer} J"] < 1.45
    for layer in ("fc6 J", "fc7 J", "fc8 J", "intercept J"):
        assert 0.75 < found[f"alexnet {layer}"] < 1.0


def test_least_squares_leaves_its_start_and_keeps_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted on a one-anchor problem: joules proportional to idle power, everything else held by nothing."""
    priors = {"idle_w": calibrate.Prior(1.0, 0.1), "flop_j": calibrate.Prior(5e-12, 0.5)}
    monkeypatch.setitem(calibrate.PRIORS, "1080ti", priors)

    def anchor(platform: str, chip: parameters.Parameters, tx2: parameters.Parameters) -> list[calibrate.Anchor]:
        return [calibrate.Anchor("watts", chip.idle_w, 2.0, 0.01, "planted")]

    monkeypatch.setattr(calibrate, "anchors", anchor)
    found = calibrate.calibrated("1080ti", CHIPS["1080ti"], TX2)
    # the weighted mean of the logarithms of prior and anchor
    expected = np.exp(np.log(2.0) / 0.01**2 / (1 / 0.01**2 + 1 / 0.1**2))
    assert found.idle_w == pytest.approx(expected, rel=1e-4)
    assert found.flop_j == pytest.approx(TX2.flop_j, rel=1e-4) and found.flop_j >= TX2.flop_j


def test_rewriting_changes_the_named_values_only(tmp_path: Path) -> None:
    path = tmp_path / "tx2.toml"
    text = (parameters.FOLDER / "tx2.toml").read_text()
    path.write_text(text)
    calibrate.rewrite(path, {name: getattr(TX2, name) for name in calibrate.PRIORS["tx2"]})
    assert path.read_text() == text
    calibrate.rewrite(path, {"busy_w": 1.234567})
    changed = [(a, b) for a, b in zip(text.splitlines(), path.read_text().splitlines(), strict=True) if a != b]
    assert [b for _, b in changed] == ["value = 1.2346"]
    assert parameters.load(path)[0] == dataclasses.replace(TX2, busy_w=1.2346)


@pytest.mark.parametrize("platform", ["tx2", "1080ti"])
def test_documentation_shows_the_shipped_values(platform: str) -> None:
    page = Path(__file__).parents[3].joinpath("docs", "simulator.md").read_text(encoding="utf-8")
    for name in calibrate.PRIORS[platform]:
        assert f"| {name} | {getattr(CHIPS[platform], name):.4g} |" in page


def test_report_prints_every_value_and_residual() -> None:
    lines: list[str] = []
    calibrate.report("tx2", TX2, calibrate.anchors("tx2", TX2, TX2), lines.append)
    page = "\n".join(lines)
    for name in (*calibrate.PRIORS["tx2"], *calibrate.OUTPUTS, "alexnet fc6 J", "mobilenet intercept J"):
        assert f"| {name} |" in page
