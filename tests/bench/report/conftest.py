"""Records as a harness would write them, with figures that a test can foresee."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.record.model import Budget, Cost, EnergyFit, Landing, LocalFit, Measures, Platform, Reading, Record, to_json
from shared.protocol import Protocol

BOUNDS = (8, 16, 32, 32, 64, 64, 128, 128, 128, 128, 128, 128, 256, 256)
DENSE_JOULES = 0.0125
TITLES = {"ecc": "ECC", "netadapt": "NetAdapt", "amc": "AMC", "dense": "Dense", "uniform": "Uniform"}
PROTOCOL = Protocol(
    name="quick",
    iterations=800,
    fine_tune_iterations=300,
    batch_size=64,
    learning_rate=0.002,
    budgets=(0.35, 0.25),
    seeds=(0,),
    search_images=500,
    minimum_short_term_iterations=5,
    episodes=100,
    stages=4,
    ranks=False,
)


def read_at(amount: float, half: float = 0.0, **more: Any) -> Reading:
    """A reading whose interval is `half` of the amount to each side."""
    interval = ((1 - half) * amount, (1 + half) * amount)
    return Reading(**({"amount": amount, "interval": interval, "flags": (), "reference": None, "detail": None} | more))


def make(
    method: str = "ecc",
    fraction: float | None = 0.35,
    seed: int = 0,
    *,
    after: float = 0.88,
    reading_share: float = 0.99,
    reason: str | None = None,
    traced: bool = False,
    **changes: Any,
) -> Record:
    """One record. `after`: accuracy after fine-tuning; `reading_share`: reading over budget.

    A `reason` makes it a miss without measures. `changes` replace whole fields.
    """
    joules = DENSE_JOULES * (fraction or 1.0)
    budget = {"amount": joules, "dense_reading": DENSE_JOULES, "dense_estimate": 1.01 * DENSE_JOULES}
    wave = [min(1.0, (fraction or 1.0) ** 0.5 * (1 + 0.3 * math.sin(i + len(method)))) for i in range(len(BOUNDS))]
    widths = tuple(max(1, round(bound * part)) for bound, part in zip(BOUNDS, wave, strict=True))
    network = {"name": "mobilenet", "num_classes": 10, "width_multiplier": 0.25, "input_size": 28}
    fields: dict[str, Any] = {
        "key": f"{method}{fraction}{seed}",
        "method": method,
        "title": TITLES.get(method, method),
        "paper": f"The paper of {method}",
        "network": network | {"widths": list(widths)},
        "dataset": "fashion-mnist",
        "score": "top-1 accuracy",
        "platform": Platform(
            name="1080ti",
            source="simulated",
            unit="J",
            meter="simulator",
            calibration="v1 0123abcd",
            host=None,
            inference_batch=64,
            input_shape=(1, 28, 28),
        ),
        "protocol": PROTOCOL,
        "seed": seed,
        "budget": None if fraction is None else Budget(fraction=fraction, **budget),
        "status": "ok" if reason is None else "miss",
        "reason": reason,
        "dense_accuracy": 0.9234,
        "measures": None
        if reason is not None
        else Measures(
            widths=widths,
            upper_bounds=BOUNDS,
            estimate=0.995 * joules,
            reading=reading_share * joules,
            interval=(reading_share * joules,) * 2,
            flags=(),
            reference=None,
            detail=None,
            parameters=54_321,
            macs=1_234_567,
            accuracy_before=after - 0.05,
            accuracy_after=after,
        ),
        "landing": None
        if fraction is None or reason is not None
        else Landing(
            widths=widths,
            estimate=0.995 * joules,
            before=read_at(reading_share * joules),
            after=read_at(reading_share * joules),
            removed_channels=0,
            search_accuracy_before=after - 0.06,
            search_accuracy_after=after - 0.06,
        ),
        "cost": Cost(
            training_iterations=800,
            search_samples=50_000 if method in ("netadapt", "amc") else 0,
            energy_queries=1_600,
            landing_readings=0 if fraction is None else 1,
            fine_tune_iterations=300,
            method_s=55.0,
            fine_tune_s=12.0,
            distillation_step_s=0.0625,
            forward_s_per_image=0.0002,
        ),
        "energy_fit": EnergyFit(
            kind="bilinear+linear",
            relative_error=0.031,
            skill=0.123,
            dense_relative_error=-0.014,
            samples=10_000,
            noise=None,
        ),
        "local_fit": None
        if fraction is None
        else LocalFit(
            fingerprint=f"near {fraction}",
            factor=0.99,
            error=0.0123,
            bias=-0.0012,
            bias_interval=(-0.0031, 0.0007),
            most_optimistic=-0.0456,
            samples=1_000,
        ),
        "fingerprints": {"dataset": "d1", "dense_weights": "w1", "profile": "p1", "energy_model": "e1", "code": "c1"},
        "notes": {"reached budget at": 640},
        "trace": course(joules) if traced else {},
        "environment": {
            "commit": "0123456789abcdef",
            "dirty": False,
            "python": "3.11.2",
            "versions": {"torch": "2.9.0", "numpy": "2.1.0"},
            "system": "Linux x86_64",
            "threads": 1,
            "command": "python -m bench run --methods ecc,netadapt,amc --device 1080ti",
        },
        "network_sha256": None if reason is not None else "f" * 64,
    }
    return Record(**(fields | changes))


def course(joules: float, length: int = 800) -> dict[str, list[Any]]:
    """A trace that falls from dense to the budget in 0.8 of its length."""
    shares = [max(0.0, 1 - i / (0.8 * length)) for i in range(length)]
    dense, end = DENSE_JOULES, joules / DENSE_JOULES
    width = [math.sqrt(end) + (1 - math.sqrt(end)) * share for share in shares]
    return {
        "iteration": list(range(length)),
        "energy": [joules + (dense - joules) * share for share in shares],
        "phi": [[math.ceil(w * bound) for bound in BOUNDS] for w in width],
        "s": [[w * bound for bound in BOUNDS] for w in width],
        "y": [[10 * (1 - share) * (1 + math.sin(i + k) / 9) for k in range(14)] for i, share in enumerate(shares)],
        "z": [5 * (1 - share) ** 2 for share in shares],
        "loss": [0.4 + 0.6 * math.exp(-i / 100) + 0.05 * math.sin(i) for i in range(length)],
    }


def quick_runs() -> list[Record]:
    """Three methods and two controls at two budgets with one seed; one reading above its budget, one miss."""
    runs = [make("dense", None, after=0.9251)]
    for fraction, loss in ((0.35, 0.0), (0.25, 0.031)):
        runs += [
            make("uniform", fraction, after=0.8712 - loss),
            make("ecc", fraction, after=0.8934 - 0.8 * loss, traced=True),
            make("netadapt", fraction, after=0.8821 - loss, reading_share=1.013),
        ]
    runs.append(make("amc", 0.35, after=0.8655))
    runs.append(make("amc", 0.25, reason="keeps at least 0.2 of each layer; E = 0.0041 J | above *any* <budget>"))
    return runs


def seeded_runs() -> list[Record]:
    """Two methods with three seeds under a protocol that ranks; ECC's accuracies are 88, 89 and 90 %."""
    protocol = replace(PROTOCOL, name="standard", seeds=(0, 1, 2), ranks=True)
    return [
        make(method, fraction, seed, after=after + 0.01 * seed, protocol=protocol)
        for fraction in (0.35, 0.5)
        for method, after in (("ecc", 0.88), ("netadapt", 0.87))
        for seed in (0, 1, 2)
    ]


def save(record: Record, root: Path) -> tuple[Record, Path]:
    """Write a record below `root` as the store does; returns it with its file."""
    folder = root / "plan" / f"{record.platform.source}-{record.method}-{record.key}-s{record.seed}"
    folder.mkdir(parents=True)
    (folder / "record.json").write_bytes(to_json(record))
    return record, folder / "record.json"


@pytest.fixture
def make_record() -> Callable[..., Record]:
    return make


@pytest.fixture
def save_record() -> Callable[[Record, Path], tuple[Record, Path]]:
    return save


@pytest.fixture(name="quick_runs")
def quick_runs_fixture() -> list[Record]:
    return quick_runs()


@pytest.fixture(name="seeded_runs")
def seeded_runs_fixture() -> list[Record]:
    return seeded_runs()


@pytest.fixture(scope="module")
def quick_runs_of_module() -> list[Record]:
    return quick_runs()


@pytest.fixture(scope="module")
def save_of_module() -> Callable[[Record, Path], tuple[Record, Path]]:
    return save
