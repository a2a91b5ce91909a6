"""One AMC episode beside a bare forward pass over its search images, and one update of its agent.

    pytest tests/benchmarks/test_amc_speed.py --benchmark-only

`extra_info` holds the ratios: an episode alone (as in the warm-up) and with its share of updates (as in learning).
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from methods.amc import PruningEnv
from methods.amc.agent import BATCH_SIZE, Agent
from shared.candidates import Candidates
from shared.data import Split
from shared.energy import BilinearModel
from shared.networks import build, structure
from shared.rng import forked, generator, numpy_generator
from shared.training import score

SEARCH_IMAGES, BUDGET_SHARE = 500, 0.5

Parts = tuple[PruningEnv, Callable[[], float]]


@pytest.fixture(scope="module")
def parts() -> Parts:
    """The embedded network with fresh weights, an environment around it, and the bare pass over its search images."""
    torch.set_num_threads(1)
    with forked(0, "benchmark"):
        network = build("mobilenet", width_multiplier=0.25, num_classes=10, in_channels=1, input_size=28)
    network = network.to(memory_format=torch.channels_last).eval()
    table = structure(network)
    bounds = table.position_bounds
    terms = tuple((index, index + 1) for index in range(len(bounds) - 1))
    coefficients = torch.full((len(terms),), 1.0 / len(terms), dtype=torch.float64)
    model = BilinearModel(torch.tensor(0.0), coefficients, terms, tuple(float(bound) for bound in bounds))
    images = torch.randint(0, 256, (SEARCH_IMAGES, 1, 28, 28), generator=generator(0, "images")).to(torch.uint8)
    search = Split(images, torch.zeros(SEARCH_IMAGES, dtype=torch.int64), 0.5, 0.3)
    candidates = Candidates(network, table, search.batches(64), generator(0, "reconstruction"))
    env = PruningEnv(
        table,
        lambda widths: model(table.positions(widths)),
        BUDGET_SHARE,
        reward=lambda widths: score(candidates.at(widths), search, SEARCH_IMAGES),
    )
    return env, lambda: score(network, search, SEARCH_IMAGES)


def cpu_s(call: Callable[[], object], rounds: int = 7) -> float:
    """Median CPU seconds of one call: all runs in one thread, so ratios hold on a busy machine too."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def test_episode_beside_a_bare_pass(benchmark: BenchmarkFixture, parts: Parts) -> None:
    env, bare = parts
    draw = numpy_generator(0, "benchmark")

    def episode() -> None:
        env.reset()
        for ratio in draw.random(len(env.upper), dtype=np.float32):
            env.step(np.array([ratio]))

    with forked(0, "benchmark"):
        agent = Agent(env, episodes=4)
        agent.search()  # fills the replay buffer
        update_s = cpu_s(lambda: agent.train(20, BATCH_SIZE)) / 20
    benchmark.pedantic(episode, rounds=10, warmup_rounds=1)
    bare_s, episode_s = cpu_s(bare), cpu_s(episode, rounds=15)
    benchmark.extra_info["bare_pass_s"] = bare_s
    benchmark.extra_info["episode_over_bare_pass"] = episode_s / bare_s
    benchmark.extra_info["update_s"] = update_s
    benchmark.extra_info["learning_episode_over_bare_pass"] = (episode_s + len(env.upper) * update_s) / bare_s


def test_update(benchmark: BenchmarkFixture, parts: Parts) -> None:
    env, _ = parts
    with forked(0, "benchmark"):
        agent = Agent(env, episodes=4)
        agent.search()
        benchmark.pedantic(lambda: agent.train(14, BATCH_SIZE), rounds=10, warmup_rounds=1)
    benchmark.extra_info["updates"] = 14
