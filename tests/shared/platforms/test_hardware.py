"""A profile on hardware finds the true model, ends when it has, and goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shared import energy
from shared.meters import MeterError
from shared.networks import structure
from shared.platforms import hardware
from shared.rng import numpy_generator
from tests.conftest import ToyNet, chain_energy
from tests.shared.platforms.played import Bench


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    return tmp_path


TRUTH = chain_energy(structure(ToyNet()))  # 1 for the dense network


def bilinear(noise: float = 0.0, fails_after: int | None = None) -> Callable[[Sequence[int], int], float]:
    """A second for an image of the dense network; noise is relative and fixed for a width vector."""
    asked = 0

    def seconds(widths: Sequence[int], batch: int) -> float:
        nonlocal asked
        asked += 1
        if fails_after is not None and asked > fails_after:
            raise MeterError("a sensor", "none", "again")
        factor = 1 + noise * numpy_generator(0, f"noise/{list(map(int, widths))}").standard_normal()
        return float(TRUTH([1, *widths, 4])) * batch * factor

    return seconds


def collect(bench: Bench, *, samples: int, say: Callable[[str], None] = lambda _: None, **how: Any) -> energy.Profile:
    """The profile of a played platform."""
    bench.platform.say = say
    return bench.platform.profile(bench.subject, samples=samples, test_samples=0, **how)


def test_it_finds_the_true_model_and_stops() -> None:
    bench, said = Bench(ToyNet(), bilinear()), list[str]()
    profile = collect(bench, samples=1000, say=said.append)
    fit = energy.fit(profile, bench.subject.structure, "bilinear")
    assert len(profile.amounts) == hardware.FEWEST + (hardware.SETTLED_BLOCKS - 1) * hardware.STEP
    assert profile.unit == fit.model.unit == "s" and profile.batch == 4
    assert profile.dense_reading == pytest.approx(1.0) and profile.noise == pytest.approx(0.0, abs=1e-12)
    assert fit.relative_error < 1e-6
    torch.testing.assert_close(fit.model.coefficients, TRUTH.coefficients, rtol=1e-5, atol=1e-7)
    assert said[-1].startswith("profile: 140 of at most 1000 networks read")
    rows = numpy_generator(0, "profile").integers(1, np.array([13, 21, 17, 25]), size=(1000, 4))
    np.testing.assert_array_equal(profile.widths, rows[:140])


def test_more_rows_at_once_are_judged_as_often() -> None:
    """A board's person goes once: 150 networks there, and the error is looked at after each ten of them."""
    bench, said = Bench(ToyNet(), bilinear()), list[str]()
    bench.platform.block = 150
    profile = collect(bench, samples=1000, say=said.append)
    assert len(profile.amounts) == 150 and len(said) == 2
    assert profile.dense_reading == pytest.approx(1.0)
    inferences = len(bench.log)
    again = collect(bench, samples=1000, say=said.append)
    assert again.key == profile.key and len(bench.log) == inferences
    assert said[2].startswith("profile: 150 networks are in ") and len(said) == 3
    few = collect(bench, samples=120)  # of those that are there
    np.testing.assert_array_equal(few.amounts, profile.amounts[:120])
    assert len(bench.log) == inferences


def test_all_that_would_be_taken_again_is_named(tmp_path: Path) -> None:
    """The profile's own file, and what a board keeps of its measurements."""
    bench, said = Bench(ToyNet(), bilinear()), list[str]()
    collect(bench, samples=20)
    for keeps, also in ((None, ""), (tmp_path / "board", f" and measured-* in {tmp_path / 'board'}")):
        bench.platform.keeps = keeps
        collect(bench, samples=20, say=said.append)
        (path,) = hardware.cache_dir().glob("profiles/*.npz")
        assert said[-1] == f"profile: 20 networks are in {path} already; delete it{also} to read anew"


def test_a_batch_that_is_asked_for_is_not_looked_for() -> None:
    bench, said = Bench(ToyNet(), bilinear()), list[str]()
    found = collect(bench, samples=20)
    asked = collect(bench, samples=20, batch=8, say=said.append)
    assert (found.batch, asked.batch) == (4, 8) and found.key != asked.key
    assert not any("looking for" in line for line in said)
    np.testing.assert_allclose(asked.amounts, found.amounts)  # per image, on hardware that gains nothing by batches


def test_drift_between_blocks_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardware that takes a tenth longer with every block, the dense one too: five, the third in the middle."""
    blocks = [0]
    bench = Bench(ToyNet(), lambda widths, batch: float(TRUTH([1, *widths, 4])) * batch * 1.1 ** blocks[0])
    read = bench.platform.read

    def slowing(*asked: Any) -> Any:
        blocks[0] += 1
        return read(*asked)

    monkeypatch.setattr(bench.platform, "read", slowing)
    profile = collect(bench, samples=50, batch=1)
    truth = [float(TRUTH([1, *row, 4])) for row in profile.widths]
    np.testing.assert_allclose(profile.amounts, np.array(truth) * 1.1**3)
    assert blocks == [5] and profile.dense_reading == pytest.approx(1.1**3)
    assert energy.fit(profile, bench.subject.structure, "bilinear").relative_error < 1e-6


def test_noise_makes_it_read_on_up_to_the_protocols_count() -> None:
    bench = Bench(ToyNet(), bilinear(noise=0.2))
    profile = collect(bench, samples=155)
    assert 140 <= len(profile.amounts) <= 155
    fit = energy.fit(profile, bench.subject.structure, "bilinear")
    assert 0.1 < fit.relative_error < 0.3  # mean |normal| is 0.8 of its deviation


def test_stopped_anywhere_it_ends_with_the_same_profile() -> None:
    whole = collect(bench := Bench(ToyNet(), bilinear(0.02)), samples=300)
    inferences = len(bench.log)
    for name in hardware.cache_dir().glob("profiles/*"):
        name.unlink()
    counts = []
    for _ in range(20):
        bench = Bench(ToyNet(), bilinear(0.02, fails_after=inferences // 4))
        try:
            profile = collect(bench, samples=300)
        except MeterError:
            counts.append(len(bench.log))
        else:
            break
    assert len(counts) >= 3
    np.testing.assert_allclose(profile.amounts, whole.amounts, rtol=1e-9)  # clocks add up in another order
    assert profile.dense_reading == pytest.approx(whole.dense_reading, rel=1e-9)

    again = Bench(ToyNet(), bilinear(0.02))
    cached = collect(again, samples=300)
    assert not again.log and cached.key == profile.key


def test_a_damaged_file_is_made_anew(cache_folder: Path) -> None:
    bench = Bench(ToyNet(), bilinear())
    first = collect(bench, samples=200)
    (path,) = cache_folder.glob("profiles/*.npz")
    path.write_bytes(path.read_bytes()[:-40])
    again = collect(bench, samples=200)
    np.testing.assert_array_equal(first.widths, again.widths)
    np.testing.assert_allclose(first.amounts, again.amounts)


def test_held_out_error_against_a_fit_by_hand() -> None:
    table = structure(ToyNet())
    rows = numpy_generator(1, "rows").integers(1, np.array(table.upper_bounds) + 1, size=(60, 4))
    amounts = np.array([bilinear(0.1)(row, 1) for row in rows])
    positions = table.positions(rows).numpy()
    scaled = positions / np.array(table.position_bounds)
    features = np.column_stack([np.ones(60), scaled[:, :-1] * scaled[:, 1:]])
    errors = []
    for row in range(60):
        others = [k for k in range(60) if k % 5 != row % 5]
        weights, *_ = np.linalg.lstsq(features[others], amounts[others], rcond=None)
        if (weights < 0).any():
            pytest.skip("least squares without signs is no oracle here")
        errors.append(abs(features[row] @ weights - amounts[row]) / amounts[row])
    assert hardware.held_out_error(table, rows, amounts) == pytest.approx(float(np.mean(errors)), rel=1e-6)


@pytest.mark.parametrize(
    ("errors", "settled"),
    [
        ([0.03] * 4, False),
        ([0.03] * 5, True),
        ([0.09, *[0.03] * 5], True),
        ([0.03, 0.03, 0.03, 0.03, 0.034], False),
        ([0.030, 0.031, 0.030, 0.031, 0.030], True),
        ([1e-4, 9e-4, 1e-4, 9e-4, 1e-4], True),
        ([1e-4, 1.1e-3, 1e-4, 9e-4, 1e-4], False),
    ],
)
def test_settled_is_five_alike_in_a_row(errors: list[float], settled: bool) -> None:
    assert hardware.has_settled(errors) is settled


def test_fewer_rows_are_the_first_of_more() -> None:
    bench = Bench(ToyNet(), bilinear(noise=0.2))
    long = collect(bench, samples=40)
    count = len(bench.log)
    short = collect(bench, samples=25)
    assert len(bench.log) == count  # nothing is read anew
    np.testing.assert_allclose(short.amounts, long.amounts[:25])  # the dense network's median is of fewer readings
    np.testing.assert_array_equal(short.widths, long.widths[:25])
    assert short.key != long.key


def test_more_rows_go_on_from_fewer() -> None:
    """Also from a count that is no whole number of blocks: nothing that was read is read again, then or later."""
    bench = Bench(ToyNet(), bilinear(noise=0.2))
    for samples in (25, 40, 57):
        profile = collect(bench, samples=samples)
        assert len(profile.amounts) == samples
    whole = Bench(ToyNet(), bilinear(noise=0.2))
    for path in hardware.cache_dir().glob("profiles/*"):
        path.unlink()
    np.testing.assert_allclose(profile.amounts, collect(whole, samples=57).amounts, rtol=1e-9)
    assert len(bench.log) == len(whole.log)


def test_who_may_not_read_needs_a_whole_profile() -> None:
    bench = Bench(ToyNet(), bilinear())
    for samples in (20, 30):
        with pytest.raises(MeterError, match="a whole profile in the cache"):
            collect(bench, samples=samples, may_read=False)
        whole = collect(bench, samples=samples)
        again = collect(bench, samples=samples, may_read=False)
        assert again.key == whole.key


def test_a_profile_known_badly_is_said() -> None:
    said: list[str] = []
    for bound in (0.01, 0.3):
        for path in hardware.cache_dir().glob("profiles/*"):
            path.unlink()
        count = 0

        def shaky(widths: Sequence[int], batch: int, bound: float = bound) -> float:
            nonlocal count
            count += 1
            return batch * (1 + bound * float(numpy_generator(count, "shaky").uniform(-1, 1)))

        bench = Bench(ToyNet(), shaky)
        collect(bench, samples=20, say=said.append)
        assert any("is other work on this machine" in line for line in said) == (bound == 0.3)


def read_near(bench: Bench, budget: float, **how: Any) -> energy.Profile:
    """The local profile of a budget, by the true model."""
    table = bench.subject.structure
    rows = energy.rows_near(table, TRUTH, budget)
    estimates = TRUTH(table.positions(rows)).numpy()
    return bench.platform.local_profile(bench.subject, rows, estimates, batch=4, standard=3.0, **how)


def test_a_local_profile_is_read_until_one_factor_is_known() -> None:
    bench, said = Bench(ToyNet(), bilinear()), list[str]()
    bench.platform.say = said.append
    profile = read_near(bench, 0.4)
    assert len(profile.amounts) == hardware.FEWEST_LOCAL + (hardware.SETTLED_BLOCKS - 1) * hardware.STEP == 80
    assert profile.test_samples == 40 and profile.dense_reading == 3.0 and profile.batch == 4
    truth = TRUTH(bench.subject.structure.positions(profile.widths)).numpy()
    np.testing.assert_allclose(profile.amounts, 3.0 * truth)  # shares of the dense network, times the standard
    assert said[-1].startswith("local profile: 80 of at most 400 networks read")
    noisy = read_near(Bench(ToyNet(), bilinear(noise=0.3)), 0.4)
    assert 80 <= len(noisy.amounts) <= hardware.MOST_LOCAL


def test_a_local_profile_is_kept_for_its_budget() -> None:
    first = read_near(Bench(ToyNet(), bilinear(0.01)), 0.4)
    again = read_near(bench := Bench(ToyNet(), bilinear(0.01)), 0.4, may_read=False)
    assert not bench.log and again.key == first.key
    np.testing.assert_array_equal(again.amounts, first.amounts)
    with pytest.raises(MeterError, match="a whole profile in the cache"):
        read_near(bench, 0.5, may_read=False)
