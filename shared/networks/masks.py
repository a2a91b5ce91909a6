"""Input masks: values of a convolution's input that are zero for every image.

Yang, Zhu, Liu, "Energy-Constrained Compression for Deep Neural Networks via Weighted Sparse Projection and Layer Input
Masking", ICLR 2019, section 4.2. A mask is a buffer of its layer, (channels, height, width), so it is saved, copied and
cut with the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

MASK = "input_mask"


def mask_inputs(network: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Multiply the inputs of these layers by masks, by the layers' names; a mask takes the place of an older one."""
    for name, mask in masks.items():
        layer = network.get_submodule(name)
        if not hasattr(layer, MASK):
            layer.register_forward_pre_hook(_masked)
        layer.register_buffer(MASK, mask)


def masks_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The masks in a state dict, by the layers' names."""
    return {name.removesuffix(f".{MASK}"): mask for name, mask in state.items() if name.endswith(f".{MASK}")}


def load_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict into a plain network of the same shapes, with the masks that it holds."""
    device = next(network.parameters()).device
    mask_inputs(network, {name: torch.empty_like(mask, device=device) for name, mask in masks_of(state).items()})
    network.load_state_dict(state)


def _masked(layer: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0] * layer.input_mask,)
