"""The agent against AMC's settings table and against oracles of what it changes in DDPG."""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from methods.amc import PruningEnv
from methods.amc.agent import Agent, EpisodeRewardBuffer, sigma, truncated_normal, warm_up_episodes
from shared.networks import structure
from shared.rng import forked

UNITS = 3


def environment(budget: float = 120.0, watch: Callable[[], object] = lambda: None) -> PruningEnv:
    """Three units of 40 channels; the reward is best at half the channels everywhere. watch: called with each one."""
    layers = [nn.Conv2d(1, 40, 1), *(nn.Conv2d(40, 40, 1) for _ in range(UNITS - 1)), nn.Conv2d(40, 2, 1)]
    model = nn.Sequential(*layers)
    model.input_shape = (1, 4, 4)  # type: ignore[assignment]

    def reward(widths: tuple[int, ...]) -> float:
        watch()
        return 1.0 - sum(abs(width - 20) for width in widths) / 60

    return PruningEnv(structure(model), lambda widths: widths.sum(-1), budget, reward)


def test_settings_table() -> None:
    with forked(0, "test"):
        agent = Agent(environment(), episodes=400)
    for network, inputs in ((agent.actor.mu, 11), (agent.critic.qf0, 11 + 1)):  # type: ignore[attr-defined]
        linear = [layer for layer in network if isinstance(layer, nn.Linear)]
        assert [(layer.in_features, layer.out_features) for layer in linear] == [(inputs, 300), (300, 300), (300, 1)]
        assert sum(isinstance(layer, nn.ReLU) for layer in network) == 2
    assert isinstance(agent.actor.mu[-1], nn.Tanh)  # on -1..1, a sigmoid on 0..1
    assert len(agent.critic.q_networks) == 1
    assert agent.batch_size == 64 and agent.tau == 0.01 and agent.gamma == 1.0
    assert agent.replay_buffer.buffer_size == 100 * UNITS
    assert agent.learning_starts == 101 * UNITS
    assert agent.train_freq.frequency == 1 and agent.train_freq.unit.value == "episode"  # type: ignore[union-attr]
    assert agent.gradient_steps == -1
    assert agent.action_noise is None and agent.policy_delay == 1 and agent.target_noise_clip == 0.0
    assert agent.device.type == "cpu" and agent.seed is None  # a seed would switch cuDNN for the whole process
    assert isinstance(agent.actor.optimizer, torch.optim.Adam) and isinstance(agent.critic.optimizer, torch.optim.Adam)


@pytest.mark.parametrize("episodes, warm_up", [(1, 1), (6, 2), (130, 33)])
def test_a_search_as_the_table_says(episodes: int, warm_up: int) -> None:
    with forked(0, "test"):
        updates: list[int] = []
        env = environment(watch=lambda: updates.append(agent._n_updates))
        agent = Agent(env, episodes=episodes, hidden=(8, 8))
        agent.search()
    assert len(env.history) == episodes
    # none up to the first episode that the actor plays, then one per step after every episode
    assert [*updates, agent._n_updates] == [UNITS * max(0, episode - warm_up) for episode in range(episodes + 1)]
    rates = [[group["lr"] for group in one.optimizer.param_groups] for one in (agent.actor, agent.critic)]
    assert rates == [[1e-4], [1e-3]] if episodes > warm_up else updates == [0]
    # the last hundred episodes, each with its final reward on every transition, the oldest written over in turn
    kept = agent.replay_buffer.rewards.reshape(100, UNITS)
    assert agent.replay_buffer.full == (episodes > 100)
    for episode, found in list(enumerate(env.history))[-100:]:
        assert kept[episode % 100] == pytest.approx([found.reward] * UNITS)


def test_updates_by_hand() -> None:
    """Three updates after a warm-up, from the papers' formulas and plain Adam: all rates, gamma, baseline, batch."""
    with forked(0, "test"):
        env = environment()
        agent = Agent(env, episodes=12, hidden=(16, 16))
        agent.learn(4 * UNITS)  # the warm-up
    actor, critic = copy.deepcopy(agent.actor.mu), copy.deepcopy(agent.critic.qf0)
    late_actor, late_critic = copy.deepcopy(actor), copy.deepcopy(critic)
    adam_actor, adam_critic = torch.optim.Adam(actor.parameters(), 1e-4), torch.optim.Adam(critic.parameters(), 1e-3)
    store, baseline = agent.replay_buffer, None
    rewards = np.repeat([found.reward for found in env.history], UNITS)
    with forked(1, "test"):
        for _ in range(3):
            places = np.random.randint(0, 4 * UNITS, size=64)
            np.random.randint(0, 1, size=64)  # which of the one environments
            now, after, action = (
                torch.from_numpy(array[places, 0])
                for array in (store.observations, store.next_observations, store.actions)
            )
            mean = rewards[places].mean()
            baseline = mean if baseline is None else 0.5 * baseline + 0.5 * mean
            going_on = torch.tensor(places % UNITS != UNITS - 1, dtype=torch.float32)[:, None]
            with torch.no_grad():
                value = late_critic(torch.cat([after, late_actor(after)], 1))
            target = torch.tensor(rewards[places] - baseline, dtype=torch.float32)[:, None] + going_on * value
            error = (critic(torch.cat([now, action], 1)) - target).square().mean()
            adam_critic.zero_grad()
            error.backward()
            adam_critic.step()
            loss = -critic(torch.cat([now, actor(now)], 1)).mean()
            adam_actor.zero_grad()
            loss.backward()
            adam_actor.step()
            with torch.no_grad():
                for late, new in ((late_actor, actor), (late_critic, critic)):
                    for old, fresh in zip(late.parameters(), new.parameters(), strict=True):
                        old.mul_(0.99).add_(fresh, alpha=0.01)
    with forked(1, "test"):
        agent.train(3, agent.batch_size)
    assert agent.replay_buffer.baseline == pytest.approx(baseline)
    pairs = [(agent.actor.mu, actor), (agent.critic.qf0, critic)]
    pairs += [(agent.actor_target.mu, late_actor), (agent.critic_target.qf0, late_critic)]
    for module, by_hand in pairs:
        for got, expected in zip(module.parameters(), by_hand.parameters(), strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=2e-7)


def test_warm_up_and_noise_follow_the_number_of_episodes() -> None:
    assert [warm_up_episodes(episodes) for episodes in (400, 100, 25, 3, 1)] == [101, 26, 7, 1, 1]
    widths = [sigma(episode, 299) for episode in range(300)]
    assert widths[0] == 0.5 and widths[-1] == pytest.approx(0.02)
    assert np.allclose(np.diff(np.log(widths)), np.log(0.04) / 299)
    assert sigma(18, 18) == pytest.approx(0.02)


MEANS, DEVIATIONS = st.floats(0, 1), st.floats(0.02, 0.5)


@given(mean=MEANS, deviation=DEVIATIONS, uniform=st.floats(1e-9, 1 - 1e-9))
def test_truncated_normal_is_scipys(mean: float, deviation: float, uniform: float) -> None:
    expected = scipy.stats.truncnorm.ppf(uniform, -mean / deviation, (1 - mean) / deviation, mean, deviation)
    assert truncated_normal(mean, deviation, uniform) == pytest.approx(expected, abs=1e-6)


@given(mean=MEANS, deviation=DEVIATIONS, tail=st.floats(2**-53, 0.5))
def test_truncated_normal_is_exact_in_both_tails(mean: float, deviation: float, tail: float) -> None:
    """Of the probability that lies within 0..1, the share `tail` lies above the quantile, or below its mirror image.

    SciPy's quantiles are off by up to 0.8 there.
    """
    value = truncated_normal(mean, deviation, 1 - tail)
    normal = scipy.stats.norm(mean, deviation)
    inside = normal.cdf(1) - normal.cdf(0)
    assert (normal.sf(value) - normal.sf(1)) / inside == pytest.approx(1 - (1 - tail), rel=1e-6, abs=1e-12)
    assert truncated_normal(1 - mean, deviation, 1 - (1 - tail)) == pytest.approx(1 - value, abs=1e-6)


def recorded_actions(agent: Agent) -> np.ndarray:
    """What the agent chose, in 0..1: (episodes, units)."""
    return ((agent.replay_buffer.actions[: agent.replay_buffer.pos, 0, 0] + 1) / 2).reshape(-1, UNITS)


def test_warm_up_is_uniform_and_learning_explores_around_the_actor() -> None:
    with forked(0, "test"):
        agent = Agent(environment(), episodes=60, hidden=(32, 32))
        agent.train = lambda gradient_steps, batch_size=0: None  # type: ignore[method-assign]
        for layer in agent.actor.mu:
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.weight)
                nn.init.constant_(layer.bias, 0.4)
        state = np.random.get_state()
        agent.search()
        np.random.set_state(state)
        uniform = np.random.random((60, UNITS))
    centre = (np.tanh(0.4) + 1) / 2  # the last layer's bias through tanh, in 0..1
    expected = uniform.copy()  # in the 16 episodes of the warm-up
    for row, deviation in zip(expected[16:], (sigma(episode, 44) for episode in range(1, 45)), strict=True):
        row[:] = scipy.stats.truncnorm.ppf(row, -centre / deviation, (1 - centre) / deviation, centre, deviation)
    assert recorded_actions(agent) == pytest.approx(expected, abs=1e-6)


def test_stored_action_is_the_agents_and_not_the_bounded_one() -> None:
    with forked(0, "test"):
        env = environment(budget=60.0)
        agent = Agent(env, episodes=8, hidden=(32, 32))
        agent.search()
    chosen = np.floor(recorded_actions(agent) * 40 + 0.5)
    for wanted, found in zip(chosen, env.history, strict=True):
        limits = [60 - 16, 60 - 8 - found.widths[0], 60 - found.widths[0] - found.widths[1]]
        assert found.widths == tuple(np.clip(wanted, 8, np.minimum(limits, 40)).tolist())
    assert (chosen > [found.widths for found in env.history]).any()


def buffer(size: int = 12) -> EpisodeRewardBuffer:
    box = spaces.Box(0, 1, (1,), np.float32)
    return EpisodeRewardBuffer(size, box, box, "cpu", episode_steps=4)


def test_final_reward_reaches_every_transition_of_its_episode() -> None:
    store = buffer(size=10)  # the third episode wraps around
    zeros = np.zeros((1, 1), dtype=np.float32)
    for reward in (0.3, 0.5, 0.7):
        for step in range(4):
            last = step == 3
            store.add(zeros, zeros, zeros, np.array([reward if last else 0.0]), np.array([last]), [{}])
    expected = [0.7, 0.7, 0.3, 0.3, 0.5, 0.5, 0.5, 0.5, 0.7, 0.7]
    assert store.rewards[:, 0] == pytest.approx(expected)


def test_sampled_rewards_are_relative_to_the_moving_mean() -> None:
    store = buffer()
    draw = np.random.default_rng(0)
    zeros = np.zeros((1, 1), dtype=np.float32)
    for step in range(12):
        store.add(zeros, zeros, zeros, np.array([draw.random()]), np.array([step % 4 == 3]), [{}])
    raw = store.rewards[:, 0].copy()
    baseline = None
    for seed in range(5):
        with forked(seed, "test"):
            places = np.random.randint(0, 12, size=6)
        with forked(seed, "test"):
            batch = store.sample(6)
        mean = raw[places].mean()
        baseline = mean if baseline is None else 0.5 * baseline + 0.5 * mean
        assert batch.rewards.flatten().numpy() == pytest.approx(raw[places] - baseline, abs=1e-6)
    assert np.array_equal(store.rewards[:, 0], raw)  # the stored ones stay


def test_a_search_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("SB3_LOGDIR", raising=False)
    with forked(0, "test"):
        Agent(environment(), episodes=2, hidden=(8,)).search()
    assert tempfile.gettempdir() == str(tmp_path) and list(tmp_path.iterdir()) == []


def test_agent_learns_more_than_its_warm_up() -> None:
    with forked(1, "test"):
        env = environment()
        Agent(env, episodes=120, hidden=(32, 32)).search()
    rewards = [found.reward for found in env.history]
    assert np.mean(rewards[-20:]) > np.mean(rewards[:31]) + 0.1
