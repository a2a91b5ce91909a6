"""AMC's agent: stable-baselines3's DDPG with the five changes that AMC makes to it.

He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices", ECCV 2018, section 3; settings of its
published code, mit-han-lab/amc. DDPG: Lillicrap et al., arXiv 1509.02971.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from stable_baselines3 import DDPG
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from methods.amc.env import PruningEnv

ACTOR_LEARNING_RATE, CRITIC_LEARNING_RATE = 1e-4, 1e-3
HIDDEN = (300, 300)  # hidden layers of actor and critic
BATCH_SIZE = 64  # transitions per update
TAU = 0.01  # Polyak update: target network = 0.99 * itself + 0.01 * the trained one
REPLAY_BUFFER_EPISODES = 100  # capacity of the replay buffer
FIRST_SIGMA, LAST_SIGMA = 0.5, 0.02  # exploration noise, when learning starts and in the last episode
BASELINE_RATE = 0.5  # weight of the newest batch in the reward baseline, a moving average


def warm_up_episodes(episodes: int) -> int:
    """Warm-up: episodes of uniform random actions before learning, a quarter of all plus one, as AMC's 101 of 400."""
    return min(episodes, episodes // 4 + 1)


def sigma(learning_episode: int, learning_episodes: int) -> float:
    """Standard deviation of the exploration noise in learning episode 1, 2, …: decays exponentially to `LAST_SIGMA`.

    AMC's published code multiplies it by 0.95 per episode, however many there are. Here it decays until the last one.
    """
    return float(FIRST_SIGMA * (LAST_SIGMA / FIRST_SIGMA) ** (learning_episode / learning_episodes))


def truncated_normal(mean: float, deviation: float, uniform: float) -> float:
    """Quantile `uniform` of the normal distribution truncated to 0..1; mean within 0..1.

    Truncation amounts to redrawing values outside. Clipping would put their whole probability on 0 and 1.
    """
    # Taken from the nearer tail: near 1, a probability has no digits left to tell quantiles apart.
    low, high = (0.0 - mean) / deviation, (1.0 - mean) / deviation
    inside = ndtr(high) - ndtr(low)
    below, above = ndtr(low) + uniform * inside, ndtr(-high) + (1.0 - uniform) * inside
    quantile = ndtri(below) if below < above else -ndtri(above)
    return float(np.clip(mean + deviation * quantile, 0.0, 1.0))


class EpisodeRewardBuffer(ReplayBuffer):
    """A replay buffer that gives every transition the final reward of its episode and subtracts a baseline.

    The baseline is the exponential moving average of the mean rewards of sampled batches. It is subtracted from samples
    only; the buffer keeps the rewards. episode_steps: length of every episode.
    """

    def __init__(self, *arguments: Any, episode_steps: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.episode_steps = episode_steps
        self.baseline: float | None = None

    def add(
        self,
        obs: NDArray[Any],
        next_obs: NDArray[Any],
        action: NDArray[Any],
        reward: NDArray[Any],
        done: NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        super().add(obs, next_obs, action, reward, done, infos)
        if done.any():
            # Just after the buffer wrapped around, some indices are negative and so count from its end, as they should.
            self.rewards[self.pos - 1 - np.arange(self.episode_steps)] = reward

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        batch = super().sample(batch_size, env)
        mean = float(batch.rewards.mean())
        self.baseline = mean if self.baseline is None else self.baseline + BASELINE_RATE * (mean - self.baseline)
        return batch._replace(rewards=batch.rewards - self.baseline)


class Agent(DDPG):
    """DDPG with AMC's five changes.

    1. Actor and critic have different learning rates.
    2. Exploration noise is a truncated normal distribution around the actor's choice, within the action's range.
    3. Warm-up actions are uniform, without noise added.
    4. Every transition gets its episode's final reward (`EpisodeRewardBuffer`).
    5. Rewards are relative to a moving baseline (the same).

    stable-baselines3 draws from global generators: construct the agent and run `search` within one `rng.forked`.
    """

    replay_buffer: EpisodeRewardBuffer

    def __init__(self, env: PruningEnv, *, episodes: int, hidden: tuple[int, ...] = HIDDEN) -> None:
        self.episodes, self.warm_up = episodes, warm_up_episodes(episodes)
        self.steps = len(env.upper)
        super().__init__(
            "MlpPolicy",
            env,
            learning_rate=CRITIC_LEARNING_RATE,  # replaced by two rates, see _update_learning_rate
            buffer_size=REPLAY_BUFFER_EPISODES * self.steps,
            learning_starts=self.warm_up * self.steps,
            batch_size=BATCH_SIZE,
            tau=TAU,
            gamma=1.0,  # no discount, as in AMC
            train_freq=(1, "episode"),
            gradient_steps=-1,  # as many updates as the episode had steps
            action_noise=None,  # see _sample_action
            replay_buffer_class=EpisodeRewardBuffer,
            replay_buffer_kwargs={"episode_steps": self.steps},
            # The fused kernel is the same formula in a third less time per update.
            policy_kwargs={"net_arch": list(hidden), "optimizer_kwargs": {"fused": True}},
            device="cpu",
        )

    def search(self) -> None:
        """Play all episodes. The environment's `history` and `best` hold the results."""
        # Unless it is given a logger, stable-baselines3 creates one with a folder in the system's temporary folder.
        self.set_logger(Logger(folder=None, output_formats=[]))
        self.learn(self.episodes * self.steps, log_interval=None)  # type: ignore[arg-type]

    def _update_learning_rate(self, optimizers: list[torch.optim.Optimizer] | torch.optim.Optimizer) -> None:
        # DDPG.train calls this with (actor, critic) before every round of updates, to set both to one rate.
        assert isinstance(optimizers, list)
        for optimizer, rate in zip(optimizers, (ACTOR_LEARNING_RATE, CRITIC_LEARNING_RATE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        uniform = np.random.random()
        if self.num_timesteps < learning_starts:
            share = uniform
        else:
            assert self._last_obs is not None
            mean, _ = self.predict(self._last_obs, deterministic=True)
            learning_episode = self._episode_num + 1 - self.warm_up
            deviation = sigma(learning_episode, self.episodes - self.warm_up)
            share = truncated_normal(float(np.clip(mean.item(), 0.0, 1.0)), deviation, uniform)
        action = np.full((1, 1), share, dtype=np.float32)
        # The buffer gets the agent's own choice, as in AMC; the environment may clip it. The next observation has the
        # width that resulted.
        return action, self.policy.scale_action(action)
