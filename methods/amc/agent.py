"""AMC's agent: stable-baselines3's DDPG with the five things that AMC does differently.

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
HIDDEN = (300, 300)
BATCH_SIZE = 64
TAU = 0.01  # share of the new weights that enters the target networks per update
REMEMBERED_EPISODES = 100
FIRST_SIGMA, LAST_SIGMA = 0.5, 0.02
BASELINE_RATE = 0.5


def warm_up_episodes(episodes: int) -> int:
    """Episodes of uniform random actions before learning: a quarter and one more, AMC's 101 of 400."""
    return min(episodes, episodes // 4 + 1)


def sigma(learning_episode: int, learning_episodes: int) -> float:
    """Width of the exploration noise in learning episode 1, 2, …: exponential, `LAST_SIGMA` in the last one.

    AMC's published code shrinks it by 0.95 per episode, whatever their number; here exploration ends with the search.
    """
    return float(FIRST_SIGMA * (LAST_SIGMA / FIRST_SIGMA) ** (learning_episode / learning_episodes))


def truncated_normal(mean: float, deviation: float, uniform: float) -> float:
    """The normal distribution restricted to 0..1 at its quantile `uniform`; mean within 0..1.

    Restricting redraws what falls outside; clipping would pile it up on 0 and 1.
    """
    # the mean lies inside, so neither tail swallows the other's digits
    low, high = ndtr((0.0 - mean) / deviation), ndtr((1.0 - mean) / deviation)
    return float(np.clip(mean + deviation * ndtri(low + uniform * (high - low)), 0.0, 1.0))


class EpisodeRewardBuffer(ReplayBuffer):
    """Every transition of an episode gets its final reward, and sampled rewards are relative to a moving baseline.

    The baseline is the exponential mean of sampled batches' mean rewards. episode_steps: length of every episode.
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
            # where the buffer has begun anew these are negative, which counts from its end
            self.rewards[self.pos - 1 - np.arange(self.episode_steps)] = reward

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        batch = super().sample(batch_size, env)
        mean = float(batch.rewards.mean())
        self.baseline = mean if self.baseline is None else self.baseline + BASELINE_RATE * (mean - self.baseline)
        return batch._replace(rewards=batch.rewards - self.baseline)


class Agent(DDPG):
    """DDPG as AMC sets it: two learning rates, truncated-normal exploration in the action's own range, pure warm-up,
    final rewards on every transition and a moving baseline (the last two through `EpisodeRewardBuffer`).

    Builds and learns with global generators, so both belong into one seeded fork of them.
    """

    replay_buffer: EpisodeRewardBuffer

    def __init__(self, env: PruningEnv, *, episodes: int, hidden: tuple[int, ...] = HIDDEN) -> None:
        self.episodes, self.warm_up = episodes, warm_up_episodes(episodes)
        self.steps = len(env.upper)
        super().__init__(
            "MlpPolicy",
            env,
            learning_rate=CRITIC_LEARNING_RATE,  # see _update_learning_rate
            buffer_size=REMEMBERED_EPISODES * self.steps,
            learning_starts=self.warm_up * self.steps,
            batch_size=BATCH_SIZE,
            tau=TAU,
            gamma=1.0,
            train_freq=(1, "episode"),
            gradient_steps=-1,  # as many updates as the episode had steps
            action_noise=None,
            replay_buffer_class=EpisodeRewardBuffer,
            replay_buffer_kwargs={"episode_steps": self.steps},
            # fused: a third less time per update, same formula
            policy_kwargs={"net_arch": list(hidden), "optimizer_kwargs": {"fused": True}},
            device="cpu",
        )

    def search(self) -> None:
        """Play all episodes; the environment keeps what they found."""
        # Without a logger of the caller's, stable-baselines3 makes a folder for one in the system's temporary folder.
        self.set_logger(Logger(folder=None, output_formats=[]))
        self.learn(self.episodes * self.steps, log_interval=None)  # type: ignore[arg-type]

    def _update_learning_rate(self, optimizers: list[torch.optim.Optimizer] | torch.optim.Optimizer) -> None:
        # DDPG.train hands over (actor, critic) before every round and would give both the same rate
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
        # the buffer holds the agent's own choice, as AMC's does; the environment's bound shows in the next observation
        return action, self.policy.scale_action(action)
