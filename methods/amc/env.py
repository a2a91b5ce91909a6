"""The Markov decision process of AMC with joules in place of multiply-adds.

He, Lin, Liu, Wang, Li, Han, "AMC: AutoML for Model Compression and Acceleration on Mobile Devices", ECCV 2018,
section 3. An episode visits the prunable units from input to output; an action is the share of a unit's channels to
keep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, SupportsFloat

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from shared.networks import Operation, Structure, Unit
from shared.widths.bounded import BoundedWidths, WidthEnergy, lower_bounds

Observation = NDArray[np.float32]

FEATURES = (
    *("index", "outputs", "channels", "height", "width", "stride", "kernel"),  # of the layer that reads the unit
    *("energy", "reduced", "rest", "action"),  # see PruningEnv
)
_ENERGY, _REDUCED, _REST, _ACTION = 7, 8, 9, 10


class Strategy(NamedTuple):
    """The result of one episode."""

    reward: float  # of the pruned network: its score
    widths: tuple[int, ...]  # the chosen ones, one per unit
    energy: float  # Ê of the widths


class PruningEnv(gymnasium.Env[Observation, Observation]):
    """Decides the width of one unit per step; no episode ends above the budget.

    structure: units and operations of the network to prune.
    energy: widths (n, units) or (units,) -> Ê per image. It must not fall when a width grows.
    reward: widths of a finished episode -> reward, the score of the pruned network.
    lower: smallest widths, by default a fifth of the dense ones, rounded up.

    Observation: Box(0, 1, (11,)), the `FEATURES` of the paper's section 3.1 for the layer that reads the unit.
    - index to kernel, and the layer's dense `energy` (the first unit's includes the layer that produces it), are scaled
      to 0..1 over the units; 0 where all units agree.
    - `reduced`: the energy that the widths decided so far save with all others dense, as a share of the dense energy.
    - `rest`: the energy of all later layers in the dense network, as a share of the dense energy.
    - `action`: the share of its channels that the previous unit got, after rounding and clipping; 1 at first.

    Action: Box(0, 1, (1,)), the share of the unit's channels to keep. It becomes the nearest whole width, clipped to
    the lower bound and to the largest width with which all later units, at their lower bounds, meet the budget.

    Reward: 0 until the last step, `reward(widths)` there. Episodes terminate and are never truncated. `best` is the
    strategy with the largest reward, `history` has one per episode.

    Raises Infeasible when the lower bounds are above the budget.

        network = build("mobilenet", width_multiplier=0.25, num_classes=10, in_channels=1, input_size=28)
        units = structure(network)
        energy = lambda widths: energy_model(units.positions(widths))
        env = PruningEnv(units, energy, budget, reward=lambda widths: sum(widths) / sum(units.upper_bounds))
        gymnasium.utils.env_checker.check_env(env)
    """

    def __init__(
        self,
        structure: Structure,
        energy: WidthEnergy,
        budget: float,
        reward: Callable[[tuple[int, ...]], float],
        *,
        lower: Sequence[int] | None = None,
    ) -> None:
        self.observation_space = spaces.Box(0.0, 1.0, (len(FEATURES),), np.float32)
        self.action_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.upper, self.budget = structure.upper_bounds, budget
        self._bounds = BoundedWidths(
            energy, budget, lower=lower_bounds(self.upper) if lower is None else lower, upper=self.upper
        )
        self._reward = reward
        self._dense_energy = self._bounds.energy(self.upper)
        self._features = _static_features(structure, energy)
        self._widths: list[int] = []
        self._finished = True
        self.history: list[Strategy] = []

    @property
    def best(self) -> Strategy:
        """The strategy with the largest reward so far, the first among equals."""
        return max(self.history, key=lambda strategy: strategy.reward)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start at the first unit with all widths dense."""
        super().reset(seed=seed)
        self._widths, self._finished = [], False
        return self._observe(), {}

    def step(self, action: Observation) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """Decide the next unit. The last step returns the reward, and `widths` and `energy` in its info."""
        if self._finished:
            raise gymnasium.error.ResetNeeded("expected a running episode, got a step after its end; try reset() first")
        self._widths.append(self._bounds.width(self._widths, float(np.asarray(action).item())))
        if len(self._widths) < len(self.upper):
            return self._observe(), 0.0, False, False, {}
        self._finished = True
        widths = tuple(self._widths)
        strategy = Strategy(float(self._reward(widths)), widths, self._bounds.energy(widths))
        self.history.append(strategy)
        info = {"widths": widths, "energy": strategy.energy}
        return self._observe(), strategy.reward, True, False, info

    def _observe(self) -> Observation:
        """Features of the unit to decide; after the last step, of the last unit."""
        decided = len(self._widths)
        row = self._features[min(decided, len(self.upper) - 1)].copy()
        if decided:
            now = self._bounds.energy([*self._widths, *self.upper[decided:]])
            row[_REDUCED] = (self._dense_energy - now) / self._dense_energy
            row[_ACTION] = self._widths[-1] / self.upper[decided - 1]
        return np.clip(row, 0.0, 1.0).astype(np.float32)


def _static_features(structure: Structure, energy: WidthEnergy) -> NDArray[np.float64]:
    """The features that decisions don't change, (units, features); `reduced` and `action` as before the first step."""
    units = len(structure.units)
    # Row u has the first u units at width 0. Its energy is that of the layers from unit u's consumer on, plus the
    # constant; the difference to the next row is the energy of one layer.
    rows = torch.tensor(structure.upper_bounds, dtype=torch.float64) * torch.ones(units + 1, units).triu()
    remaining = _array(energy(rows))
    layers, rest = remaining[:-1] - remaining[1:], remaining[1:] - remaining[-1]
    table = np.zeros((units, len(FEATURES)))
    for index, (unit, layer) in enumerate(zip(structure.units, _consumers(structure), strict=True)):
        linear = layer.kind == "linear"
        table[index, :_ENERGY] = (
            index,
            layer.outputs.count,
            unit.upper_bound,
            *layer.input_size,
            0 if linear else layer.stride[0],
            layer.kernel[0],
        )
    table[:, _ENERGY] = layers
    low, high = table.min(0), table.max(0)
    table = (table - low) / np.where(high > low, high - low, 1.0)
    table[:, _REST] = rest / remaining[0]
    table[:, _ACTION] = 1.0
    return table


def _consumers(structure: Structure) -> list[Operation]:
    """For every unit the first layer that reads it."""
    layers = {f"{operation.module}.weight": operation for operation in structure.operations}
    readers = ("conv", "transposed_conv", "linear")

    def reader(unit: Unit) -> Operation:
        name = next(part.tensor for part in unit.slices if part.role == "consumer")
        if name in layers:
            return layers[name]
        return next(  # of a function that is called with a parameter
            operation
            for operation in structure.operations
            if operation.kind in readers and any(part.position == unit.index + 1 for part in operation.inputs.parts)
        )

    return [reader(unit) for unit in structure.units]


def _array(values: Tensor) -> NDArray[np.float64]:
    return values.detach().cpu().double().numpy()
