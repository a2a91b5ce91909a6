"""The pruning environment: interface checks, features worked out by hand, the action bound on random models."""

import itertools
import math
import warnings
from collections.abc import Sequence

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from torch import nn

from methods.amc import PruningEnv
from methods.amc.env import FEATURES
from methods.contract import Infeasible
from shared.energy import BilinearModel
from shared.networks import Structure, build, structure


def plain() -> Structure:
    """Three units of 10, 20 and 15 channels: 3x3, strided 3x3 and linear consumers after a 1x1 producer."""
    model = nn.Sequential(
        nn.Conv2d(2, 10, 1),
        nn.Conv2d(10, 20, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(20, 15, 3, stride=2, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(15, 4),
    )
    model.input_shape = (2, 8, 8)  # type: ignore[assignment]
    return structure(model)


TABLE = plain()
MOBILENET = structure(build("mobilenet", width_multiplier=0.25, num_classes=10, in_channels=1, input_size=28))
NETWORKS = torch.tensor(list(itertools.product(range(2, 11), range(4, 21), range(3, 16))))  # all that the bounds allow


def chain(intercept: float, coefficients: Sequence[float], table: Structure = TABLE) -> BilinearModel:
    return BilinearModel(
        torch.tensor(intercept, dtype=torch.float64),
        torch.tensor(coefficients, dtype=torch.float64),
        tuple((index, index + 1) for index in range(len(table.upper_bounds) + 1)),
        tuple(float(bound) for bound in table.position_bounds),
    )


def make(budget: float = 6.0, model: BilinearModel | None = None, **options: object) -> PruningEnv:
    """Dense 10 J: 1 J constant, then 2, 4, 1 and 2 J; at the lower bounds 1 + 0.4 + 0.16 + 0.04 + 0.4 = 2 J."""
    used = model or chain(1.0, (2.0, 4.0, 1.0, 2.0))
    reward = options.pop("reward", lambda widths: sum(widths) / 45)
    return PruningEnv(TABLE, lambda widths: used(TABLE.positions(widths)), budget, reward, **options)  # type: ignore[arg-type]


def play(env: PruningEnv, ratios: Sequence[float]) -> tuple[list[np.ndarray], list[float], dict[str, object]]:
    observation, _ = env.reset()
    observations, rewards = [observation], []
    for step, ratio in enumerate(ratios):
        observation, reward, terminated, truncated, info = env.step(np.array([ratio], dtype=np.float32))
        observations.append(observation)
        rewards.append(float(reward))
        assert terminated == (step == len(ratios) - 1) and not truncated
    return observations, rewards, info


def mobilenet(budget_share: float, coefficients: Sequence[float] = (1.0,) * 15, intercept: float = 1.0) -> PruningEnv:
    """The embedded network; the budget is a share of the way from the lower bounds to dense."""
    model = chain(intercept, coefficients, MOBILENET)
    lower = torch.tensor([math.ceil(upper / 5) for upper in MOBILENET.upper_bounds])
    least = float(model(MOBILENET.positions(lower)))
    budget = least + budget_share * (intercept + sum(coefficients) - least)
    return PruningEnv(MOBILENET, lambda widths: model(MOBILENET.positions(widths)), budget, lambda widths: 0.5)


@pytest.mark.parametrize("env", [make(), mobilenet(0.5)], ids=["plain", "mobilenet"])
def test_passes_the_checks_of_gymnasium_and_stable_baselines3(env: PruningEnv) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # both prefer a symmetric action range; ratios are AMC's, and the agent scales them itself
        warnings.filterwarnings("ignore", message=".*symmetric and normalized.*")
        check_env(env, skip_render_check=True)
        sb3_check_env(env)
    assert env.observation_space == gymnasium.spaces.Box(0, 1, (11,), np.float32)
    assert env.action_space == gymnasium.spaces.Box(0, 1, (1,), np.float32)


def test_features_by_hand() -> None:
    observations, _, _ = play(make(), (0.5, 1.0, 0.2))
    by_name = [dict(zip(FEATURES, row.tolist(), strict=True)) for row in observations]
    expected = [
        {"index": 0.0, "outputs": 1.0, "channels": 0.0, "height": 1.0, "width": 1.0, "stride": 0.5, "kernel": 1.0}
        | {"energy": 1.0, "reduced": 0.0, "rest": 0.3, "action": 1.0},  # 6 J, of 1, 2 and 6 J
        # consumer 20 -> 15 of 1 J; 5 of 10 channels save half of 2 J and half of 4 J
        {"index": 0.5, "outputs": 11 / 16, "channels": 1.0, "height": 1.0, "width": 1.0, "stride": 1.0, "kernel": 1.0}
        | {"energy": 0.0, "reduced": 0.3, "rest": 0.2, "action": 0.5},
        # 20 of 20 channels save nothing more
        {"index": 1.0, "outputs": 0.0, "channels": 0.5, "height": 0.0, "width": 0.0, "stride": 0.0, "kernel": 0.0}
        | {"energy": 0.2, "reduced": 0.3, "rest": 0.0, "action": 1.0},
    ]
    # after the end: the last unit again; 3 of 15 channels save four fifths of 1 J and of 2 J
    expected.append(expected[2] | {"reduced": 0.54, "action": 0.2})
    for got, wanted in zip(by_name, expected, strict=True):
        assert got == pytest.approx(wanted, abs=1e-6)
    assert observations[0].dtype == np.float32


def test_features_of_mobilenet_read_the_pointwise_layers_and_follow_the_energy_model() -> None:
    coefficients = np.random.default_rng(0).random(15)
    env = mobilenet(0.7, coefficients.tolist(), intercept=2.0)
    upper, dense_energy = np.array(MOBILENET.upper_bounds), 2.0 + coefficients.sum()
    observations, _, info = play(env, np.linspace(0.9, 0.1, 14).tolist())
    table = np.stack(observations[:-1])
    columns = {name: table[:, index] for index, name in enumerate(FEATURES)}

    def scaled(values: Sequence[float]) -> np.ndarray:
        return (np.array(values) - min(values)) / (max(values) - min(values))

    assert columns["index"] == pytest.approx(np.arange(14) / 13)
    assert columns["channels"] == pytest.approx(scaled(upper))
    assert columns["outputs"] == pytest.approx(scaled([*upper[1:], 10]))
    # what a unit's reader sees comes after the depthwise layer, whose stride halves the map
    sizes = [operation.input_size[0] for operation in MOBILENET.operations if operation.kind in ("conv", "linear")]
    assert len(sizes) == 15 and columns["height"] == pytest.approx(scaled(sizes[1:]))
    assert (columns["height"] == columns["width"]).all()
    assert columns["stride"].tolist() == [1.0] * 13 + [0.0]  # the classifier has none
    assert columns["kernel"].tolist() == [0.0] * 14
    layers = [coefficients[0] + coefficients[1], *coefficients[2:]]
    assert columns["energy"] == pytest.approx(scaled(layers), abs=1e-6)
    assert columns["rest"] == pytest.approx([coefficients[unit + 2 :].sum() / dense_energy for unit in range(14)])
    widths = np.array(info["widths"])
    assert columns["action"] == pytest.approx([1.0, *(widths / upper)[:-1]])
    for unit in range(14):
        shares = np.array([1.0, *(widths / upper)[:unit], *[1.0] * (15 - unit)])
        saved = (coefficients * (1 - shares[:-1] * shares[1:])).sum() / dense_energy
        assert columns["reduced"][unit] == pytest.approx(saved, abs=1e-6)


def test_constant_features_are_zero() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    model.input_shape = (2, 8, 8)  # type: ignore[assignment]
    table = structure(model)
    env = PruningEnv(table, lambda widths: widths.sum(-1), 8.0, lambda widths: 0.0)
    observation, _ = env.reset()
    constant = [FEATURES.index(name) for name in ("outputs", "channels", "height", "width", "stride", "kernel")]
    assert observation[constant].tolist() == [0.0] * 6


class Branched(nn.Module):
    """Two layers read the stem; their sum is read by a function that is called with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (1, 8, 8)
        self.stem = nn.Conv2d(1, 6, 1)
        self.left, self.right = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(6, 8, 1)
        self.filters = nn.Parameter(torch.rand(10, 8, 5, 5))
        self.head = nn.Linear(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = (self.left(x) + self.right(x)).relu()
        x = nn.functional.conv2d(x, self.filters, stride=2, padding=2)
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


def test_features_are_those_of_the_first_layer_that_reads_the_unit() -> None:
    table = structure(Branched())
    assert table.upper_bounds == (6, 8, 10)
    env = PruningEnv(table, lambda widths: widths.sum(-1), 24.0, lambda widths: 0.0)
    rows = dict(zip(FEATURES, np.stack(play(env, (1.0, 1.0, 1.0))[0][:3]).T.tolist(), strict=True))
    assert rows["kernel"] == pytest.approx([2 / 4, 1, 0])  # 3, 5 and 1
    assert rows["outputs"] == pytest.approx([4 / 6, 1, 0])  # 8, 10 and 4
    assert rows["stride"] == pytest.approx([1 / 2, 1, 0]) and rows["height"] == pytest.approx([1, 1, 0])


def test_of_equally_good_strategies_the_first_is_the_best() -> None:
    env = make(reward=lambda widths: float(widths[0] > 3))
    widths = [play(env, (ratio,) * 3)[2]["widths"] for ratio in (0.2, 0.6, 0.5, 0.4)]
    assert len(set(widths)) == 4 and env.best.widths == widths[1]


def test_reward_comes_once_at_the_end_and_the_best_strategy_is_kept() -> None:
    asked: list[tuple[int, ...]] = []

    def reward(widths: tuple[int, ...]) -> float:
        asked.append(widths)
        return float(len(asked) % 3)  # 1, 2, 0, 1

    env = make(reward=reward)
    episodes = [play(env, ratios) for ratios in ((1.0, 1.0, 1.0), (0.3, 0.3, 0.3), (0.2, 0.2, 0.2), (0.9, 0.1, 1.0))]
    assert [rewards for _, rewards, _ in episodes] == [[0, 0, 1], [0, 0, 2], [0, 0, 0], [0, 0, 1]]
    assert [found.widths for found in env.history] == asked == [info["widths"] for _, _, info in episodes]
    assert env.best == env.history[1] and env.best.widths == (3, 6, 5)
    model = chain(1.0, (2.0, 4.0, 1.0, 2.0))
    assert env.best.energy == float(model(TABLE.positions(env.best.widths))) == episodes[1][2]["energy"]


def test_actions_round_to_the_nearest_width_within_the_bounds() -> None:
    env = make(budget=100.0)
    widths = [play(env, (ratio,) * 3)[2]["widths"] for ratio in (0.0, 0.24, 0.26, 0.5, 1.0)]
    assert widths == [(2, 4, 3), (2, 5, 4), (3, 5, 4), (5, 10, 8), (10, 20, 15)]


@given(
    factors=st.lists(st.integers(0, 9), min_size=5, max_size=5).filter(any),
    chosen=st.integers(0, len(NETWORKS) - 1),
    ratios=st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3),
)
@settings(max_examples=60)
def test_actions_are_cut_to_the_largest_width_that_some_network_within_the_budget_has(
    factors: list[int], chosen: int, ratios: list[float]
) -> None:
    def energy(widths: torch.Tensor) -> torch.Tensor:  # whole numbers: exact in any order
        first, second, third = widths.unbind(-1)
        a, b, c, d, e = factors
        return a + b * first + c * first * second + d * second * third + e * third

    budget = float(energy(NETWORKS[chosen]))
    env = PruningEnv(TABLE, energy, budget, lambda widths: 0.0)
    within = NETWORKS[energy(NETWORKS) <= budget]
    widths = play(env, ratios)[2]["widths"]
    for unit, (ratio, upper) in enumerate(zip(ratios, TABLE.upper_bounds, strict=True)):
        wanted = math.floor(ratio * upper + 0.5)
        assert widths[unit] == max(min(wanted, int(within[:, unit].max())), int(within[:, unit].min()))  # type: ignore[index]
        within = within[within[:, unit] == widths[unit]]  # type: ignore[index]
    assert len(within) == 1  # the network itself


@given(
    intercept=st.floats(0, 5),
    coefficients=st.lists(st.floats(0, 5), min_size=15, max_size=15).filter(any),
    share=st.floats(0, 1),
    ratios=st.lists(st.floats(0, 1, width=32), min_size=14, max_size=14),
)
@settings(max_examples=40)
def test_no_episode_ends_above_the_budget(
    intercept: float, coefficients: list[float], share: float, ratios: list[float]
) -> None:
    env = mobilenet(share, coefficients, intercept)
    model = chain(intercept, coefficients, MOBILENET)
    for played in (ratios, [1.0] * 14, [0.0] * 14):
        info = play(env, played)[2]
        joules = float(model(MOBILENET.positions(info["widths"])))  # type: ignore[arg-type]
        assert info["energy"] == joules <= env.budget


def test_unreachable_budget_is_infeasible_with_the_numbers() -> None:
    with pytest.raises(Infeasible, match=r"at least 2 \(.*\(2, 4, 3\).* got 1\.99;"):
        make(1.99)
    assert play(make(2.0 + 1e-9), (1.0, 1.0, 1.0))[2]["widths"] == (2, 4, 3)


def test_stages_keep_the_lower_bounds_of_the_dense_network() -> None:
    env = make(lower=(5, 5, 5))
    assert play(env, (0.0, 0.0, 0.0))[2]["widths"] == (5, 5, 5)


def test_step_outside_an_episode_is_refused() -> None:
    env = make()
    action = np.array([0.5], dtype=np.float32)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(action)
    play(env, (0.5, 0.5, 0.5))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(action)
