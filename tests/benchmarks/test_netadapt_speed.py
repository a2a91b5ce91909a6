"""One NetAdapt step beside the training iterations and the search samples that it takes, and a platform's table.

    pytest tests/benchmarks/test_netadapt_speed.py --benchmark-only

`extra_info` holds the ratio: the step's CPU seconds over (its iterations times a plain distillation step of the dense
network plus its search samples times a bare forward pass). Below 1 is possible: candidates of later steps are smaller.
"""

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from methods.contract import Task
from methods.netadapt import NetAdapt, NetAdaptOriginal
from methods.netadapt.readings import table_from_platform
from shared import platforms
from shared.data import BatchStream, Split
from shared.energy import BilinearModel
from shared.ledger import Ledger
from shared.memory import keep_freed_memory
from shared.networks import build, structure
from shared.protocol import Protocol
from shared.rng import forked, generator

PROTOCOL = Protocol(
    name="benchmark",
    iterations=70,  # five for each of 14 candidates
    fine_tune_iterations=0,
    batch_size=64,
    learning_rate=2e-3,
    budgets=(0.96,),
    seeds=(0,),
    search_images=500,
    minimum_short_term_iterations=5,
    episodes=0,
    stages=0,
)


@pytest.fixture(scope="module")
def make_task() -> Callable[[], Task]:
    """Tasks on the embedded network with fresh weights, random images, a budget one step of 0.96 away."""
    torch.set_num_threads(1)
    keep_freed_memory()
    with forked(0, "benchmark"):
        network = build("mobilenet", width_multiplier=0.25, num_classes=10, in_channels=1, input_size=28)
    network = network.to(memory_format=torch.channels_last).eval()
    table = structure(network)
    bounds = table.position_bounds
    terms = tuple((index, index + 1) for index in range(len(bounds) - 1))
    coefficients = torch.full((len(terms),), 1.0 / len(terms), dtype=torch.float64)
    model = BilinearModel(torch.tensor(0.0).double(), coefficients, terms, tuple(map(float, bounds)))
    images = torch.randint(0, 256, (2000, 1, 28, 28), generator=generator(0, "images")).to(torch.uint8)
    split = Split(images, torch.zeros(2000, dtype=torch.int64), 0.5, 0.3)
    logits = torch.zeros(PROTOCOL.batch_size, 10)  # the harness computes the teacher's logits once per seed

    def make() -> Task:
        return Task(
            network=network,
            structure=table,
            energy_model=model,
            budget=0.96,
            protocol=PROTOCOL,
            seed=0,
            ledger=Ledger(PROTOCOL.iterations),
            train=BatchStream(split, 0, PROTOCOL.batch_size),
            search=split,
            teacher=lambda index, images: logits,
        )

    return make


def cpu_s(call: Callable[[], object], rounds: int) -> float:
    """Median CPU seconds of one call after a first one: all is in one thread, so it holds on a busy machine too."""
    call()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


@pytest.mark.parametrize("method", [NetAdapt(), NetAdaptOriginal()], ids=lambda method: method.name)
def test_netadapt_step(benchmark: BenchmarkFixture, make_task: Callable[[], Task], method: NetAdapt) -> None:
    task, spent = make_task(), []
    trainer = task.trainer(task.copy_of_dense())
    plain_step_s = cpu_s(trainer.step, rounds=8)
    forward_s = cpu_s(lambda: task.search_accuracy(task.network), rounds=3) / PROTOCOL.search_images

    def step() -> None:
        fresh, start = make_task(), time.process_time()
        outcome = method.run(fresh)
        spent.append(time.process_time() - start)
        assert outcome.notes["steps"] == 1 and fresh.ledger.remaining == 0
        samples = fresh.ledger.search_samples
        expected_s = PROTOCOL.iterations * plain_step_s + samples * forward_s
        benchmark.extra_info["candidates"] = outcome.notes["candidates"]
        benchmark.extra_info["ratio_to_iterations_and_samples"] = round(spent[-1] / expected_s, 3)

    benchmark.pedantic(step, rounds=1)


def test_table_of_a_platform(benchmark: BenchmarkFixture, make_task: Callable[[], Task]) -> None:
    """Filling it, and the totals of 10,000 width vectors as CPU seconds in `extra_info`."""
    anatomy = make_task().structure
    platform = platforms.get("1080ti")
    table = benchmark.pedantic(lambda: table_from_platform(platform, anatomy, batch=64), rounds=3)
    widths = torch.tensor(anatomy.upper_bounds).repeat(10_000, 1)
    benchmark.extra_info["joules"] = table.size
    benchmark.extra_info["lookup_10000_s"] = round(cpu_s(lambda: table(anatomy.positions(widths)), rounds=3), 4)
