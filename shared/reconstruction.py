"""Least-squares reconstruction of the layers that read a pruned unit, from Gram matrices.

AMC (He et al., ECCV 2018) takes the selection and the reconstruction from He, Zhang, Sun, "Channel Pruning for
Accelerating Very Deep Neural Networks" (ICCV 2017): keep the input channels with the largest weights, then choose the
weights that best reproduce the layer's former output. With rows X of its input (n, columns) and outputs Y = X W (the
bias cancels), the weights of the kept columns S are argmin |Y - X_S W'|^2 = (X_S'X_S)^-1 X_S'Y. Since X'Y = X'X W, it
is enough to collect the Gram matrix X'X, once per network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from shared.networks import Structure, Unit
from shared.networks.pruning import channel_entries, owned

CALIBRATION_IMAGES = 3000
POSITIONS_PER_BATCH = 10  # random pixels of the output map, the same for all images of a batch (AMC's published code)
MAXIMUM_COLUMNS = 2304  # 3x3 at 256 channels; wider layers keep their weights
RIDGE = 1e-8  # times the Gram matrix's mean diagonal; without it, inputs that are always zero make it singular


def calibration_batches(batch_size: int) -> int:
    """Number of batches with at least `CALIBRATION_IMAGES`, as many as AMC takes."""
    return math.ceil(CALIBRATION_IMAGES / batch_size)


def input_rows(layer: nn.Conv2d | nn.Linear, inputs: Tensor, positions: int, draw: torch.Generator) -> Tensor:
    """The input patches that the layer's weight is multiplied with, at random output pixels: (rows, columns).

    inputs: (batch, channels, h, w) or (batch, features). columns = weight[0].numel(), in the order of
    weight.flatten(1). A convolution gives `positions` rows per image, or one per pixel of a smaller output map. The
    pixels are drawn without replacement and are the same for all images. A linear layer gives one row per image.
    """
    if isinstance(layer, nn.Linear):
        return inputs
    (high, wide), (down, right), (spread_y, spread_x) = layer.kernel_size, layer.stride, layer.dilation
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        raise ValueError(f"expected zero padding in pixels, got {layer.padding!r}; try padding=(h, w)")
    pad_y, pad_x = layer.padding
    padded = F.pad(inputs, (pad_x, pad_x, pad_y, pad_y))
    span_y, span_x = spread_y * (high - 1) + 1, spread_x * (wide - 1) + 1
    rows = (padded.shape[2] - span_y) // down + 1
    columns = (padded.shape[3] - span_x) // right + 1
    patches = []
    for place in torch.randperm(rows * columns, generator=draw)[:positions].tolist():
        top, left = place // columns * down, place % columns * right
        patch = padded[:, :, top : top + span_y : spread_y, left : left + span_x : spread_x]
        patches.append(patch.flatten(1))
    return torch.cat(patches)


@dataclass(frozen=True)
class _Solver:
    """Solves the least squares for any number of kept channels with one Cholesky factorisation.

    Columns are ordered by falling importance, so the kept ones are the first d. The leading d x d block of the factor L
    of X'X is the factor of those columns' own Gram matrix.
    """

    factor: Tensor  # L (columns, columns), lower triangular, float64
    projected: Tensor  # L' W (columns, outputs), float64

    def solve(self, columns: int, outputs: Tensor | None) -> Tensor:
        """The weights that replace the dense ones where the first `columns` columns are kept: (outputs, columns)."""
        target = self.projected[:columns] if outputs is None else self.projected[:columns, outputs]
        # L_S L_S' W' = X_S'Y = L_S (L'W)_S, one triangular solve
        return torch.linalg.solve_triangular(self.factor[:columns, :columns].T, target, upper=True).T


class Reconstruction:
    """Chooses the channels that a unit keeps at a width, and solves for the weights of the unit's consumers.

    model: the unpruned network. It is put into evaluation mode and run once over `batches` of (images, labels).
    draw: generator of the output pixels. Channels rank by `importance`, (units, largest upper bound), by default the L1
    norm of their consumer weights.

    `skipped` names the consumers that keep their weights: those with more than MAXIMUM_COLUMNS columns, transposed
    convolutions, and those that read other channels beside the unit's.
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        batches: Iterable[tuple[Tensor, Tensor]],
        draw: torch.Generator,
        importance: Tensor | None = None,
        *,
        positions: int = POSITIONS_PER_BATCH,
    ) -> None:
        parameters = dict(model.named_parameters())
        norms = consumer_norms(model, structure) if importance is None else importance
        norms = norms.to(next(model.parameters()).device)
        self._orders = [
            row[: unit.upper_bound].sort(descending=True, stable=True).indices
            for unit, row in zip(structure.units, norms, strict=True)
        ]
        self._solvers: dict[str, _Solver] = {}
        consumers = {part.tensor: unit for unit in structure.units for part in unit.slices if part.role == "consumer"}
        fitted = {
            name: layer
            for name, unit in consumers.items()
            if (layer := sole_reader(model, unit, name)) and layer.weight[0].numel() <= MAXIMUM_COLUMNS
        }
        self.skipped = tuple(name.removesuffix(".weight") for name in consumers if name not in fitted)
        grams = _grams(model, fitted, batches, positions, draw)
        for name, gram in grams.items():
            weight = parameters[name].detach().flatten(1)  # (outputs, columns)
            channels = self._orders[consumers[name].index]
            order = channel_entries(channels, weight.shape[1] // len(channels))
            self._solvers[name] = _factorise(gram[order][:, order], weight[:, order])

    def kept_channels(self, unit: int, width: int) -> Tensor:
        """Indices of the `width` most important channels of a unit, ascending; among equals the lower index is kept."""
        return self._orders[unit][:width].sort().values

    def weight(self, name: str, unit: int, width: int, outputs: Tensor | None = None) -> Tensor | None:
        """The solved weights of consumer tensor `name` of a unit at `width`: (outputs, columns), float64.

        Columns are those of weight.flatten(1) that belong to the kept channels, as `kept_channels` orders them.
        outputs: indices of the output channels to return; None returns all. The result is None for a tensor that keeps
        its weights.
        """
        solver = self._solvers.get(name)
        if solver is None:
            return None
        per_channel = len(solver.factor) // len(self._orders[unit])
        solved = solver.solve(width * per_channel, outputs)
        return solved[:, channel_entries(self._orders[unit][:width].argsort(), per_channel)]


def consumer_norms(model: nn.Module, structure: Structure) -> Tensor:
    """L1 norm of each channel's consumer weights: (units, largest upper bound), zero-padded."""
    parameters = dict(model.named_parameters())

    def norms(unit: Unit) -> Tensor:
        of_layers = [
            owned(parameters[part.tensor].detach().abs(), part, unit.upper_bound)
            .transpose(0, part.dim)
            .reshape(unit.upper_bound, -1)
            .sum(1)
            for part in unit.slices
            if part.role == "consumer"
        ]
        return torch.stack(of_layers).sum(0)

    return pad_sequence([norms(unit) for unit in structure.units], batch_first=True)


def sole_reader(model: nn.Module, unit: Unit, name: str) -> nn.Conv2d | nn.Linear | None:
    """The layer whose weight has this name, if it is no transposed convolution and reads this unit's channels alone."""
    layer = dict(model.named_modules()).get(name.removesuffix(".weight"))
    parts = [part for part in unit.slices if part.tensor == name and part.role == "consumer"]
    if not isinstance(layer, nn.Conv2d | nn.Linear) or len(parts) != 1:
        return None
    return layer if layer.weight.shape[1] == unit.upper_bound * parts[0].repeat else None


@contextmanager
def inputs_seen(layers: Mapping[str, nn.Module], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """While it lasts, `see` gets the input of each of these layers, after its name, whenever the layer is called."""

    def hook(name: str, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return layer.register_forward_pre_hook(lambda _, inputs: see(name, inputs[0]))

    handles = [hook(name, layer) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _grams(
    model: nn.Module,
    layers: dict[str, nn.Conv2d | nn.Linear],
    batches: Iterable[tuple[Tensor, Tensor]],
    positions: int,
    draw: torch.Generator,
) -> dict[str, Tensor]:
    """X'X of every layer, float64 (columns, columns), by weight name."""
    grams = {
        name: layer.weight.new_zeros((layer.weight[0].numel(),) * 2, dtype=torch.float64)
        for name, layer in layers.items()
    }

    def add(name: str, inputs: Tensor) -> None:
        rows = input_rows(layers[name], inputs, positions, draw).double()
        grams[name].addmm_(rows.T, rows)

    with inputs_seen(layers, add):
        model.eval()
        for images, _ in batches:
            model(images)
    return grams


def _factorise(gram: Tensor, weight: Tensor) -> _Solver:
    """A solver from the Gram matrix (columns, columns) and the dense weight (outputs, columns).

    Columns of both are ordered by falling importance. The ridge enters both sides of the normal equations, so it pulls
    towards the dense weights and not towards zero: columns whose input was always zero keep their weights.
    """
    ridge = RIDGE * float(gram.diagonal().mean()) or 1.0
    factor = torch.linalg.cholesky(gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    return _Solver(factor, factor.T @ weight.double().T)
