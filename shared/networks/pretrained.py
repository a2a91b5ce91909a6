"""Loads a checkpoint file into a network: reads it without executing anything in it, checks it, then copies it.

The files that the zoo's networks name as `published_weights` load as they are. torchvision has no MobileNet v1. The one
of ECC's published code, converted from TensorFlow, is changed as it is loaded: it loses its background class, and its
kernels are turned, so that the network here computes the same (see shared.networks.zoo.mobilenet).
"""

from __future__ import annotations

import contextlib
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as tensors_of  # of bytes: its readers of files refuse paths that are no UTF-8
from torch import Tensor, nn

from shared.errors import BadInput
from shared.networks import build, zoo
from shared.networks.pickles import refusal
from shared.networks.trace import structure

WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which training scripts keep the state dict
PREFIXES = ("module.", "_orig_mod.", "model.")  # that DataParallel, torch.compile and Lightning add to names
OPTIONAL = ".num_batches_tracked"  # missing in files older than torch 0.4.1; no code here reads it
NEVER_NEGATIVE = (".running_var", OPTIONAL)
LONGEST_NAME = 80  # that a message shows, in characters
SAVE = "torch.save(network.state_dict(), FILE), or safetensors"


def load_checkpoint(model: nn.Module, path: Path) -> None:
    """Copy the tensors of the checkpoint file `path` into `model`, a network from `build`.

    The file is safetensors, or a state dict saved by torch, plain or under one of the keys `WRAPPERS`. Its names may
    have `PREFIXES` or be those of the network's published weights. `model` changes only if everything fits.

    Raises BadInput for a file that can't be read or would run code, for tensors that are missing, unexpected, not
    finite, impossible as a statistic or of another shape, for another number of classes, and for another network.
    """
    config: Any = model.config
    network, own = str(config["name"]), model.state_dict()
    tensors = _as_own(_state_dict(path), model)
    missing = [name for name in own if name not in tensors and not name.endswith(OPTIONAL)]
    unexpected = [name for name in tensors if name not in own]
    if missing or unexpected:
        if (other := _owner(tensors)) not in (None, network):
            raise BadInput(f"a checkpoint of {network} in {path}", f"one of {other}", f"--network {other}")
        got = " and ".join(
            f"{len(some)} {what} ({_first(some)})"
            for what, some in (("missing", missing), ("unexpected", unexpected))
            if some
        )
        raise BadInput(f"the tensors of {network} in {path}", got, f"a checkpoint of {network}")
    _check_shapes(model, tensors, path)
    plain = {name: _plain(name, tensor, own[name].dtype, path) for name, tensor in tensors.items()}
    model.load_state_dict({**own, **plain})


def _state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors in a file, by name; raises BadInput where it holds anything else."""
    content = _content(path)
    for _ in WRAPPERS:  # counted, since a dict of a file may hold itself
        content = _wrapped(content) or content
    if not isinstance(content, Mapping):
        raise BadInput(f"a state dict in {path}", type(content).__name__, SAVE)
    other = [str(name) for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if other or not content:
        raise BadInput(f"a state dict in {path}", f"a dict with {_first(other) if other else 'nothing in it'}", SAVE)
    return {name: _dense(name, tensor, path) for name, tensor in content.items()}


def _dense(name: str, tensor: Tensor, path: Path) -> Tensor:
    """The tensor in a form that `from_published` can turn and cut; raises BadInput where there is none."""
    if tensor.layout == torch.strided and not (tensor.is_nested or tensor.is_quantized):
        with contextlib.suppress(RuntimeError):  # of float4, which packs two numbers in a byte
            return tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor
    nested = "nested " if tensor.is_nested else ""
    raise BadInput(f"dense tensors in {path}", f"{_first([name])} of {nested}{tensor.dtype} ({tensor.layout})", SAVE)


def _wrapped(content: Any) -> Mapping[str, Any] | None:
    wrapped = (content.get(key) for key in WRAPPERS) if isinstance(content, Mapping) else ()
    return next((inner for inner in wrapped if isinstance(inner, Mapping)), None)


def _content(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"  # 8 bytes of length, then JSON
        if is_safetensors:
            return tensors_of(path.read_bytes())
        with warnings.catch_warnings(action="ignore"):  # what torch warns of, this module refuses in one line
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BadInput("a checkpoint file", f"{path} ({error.strerror})", "the path of one") from None
    except Exception as error:  # a damaged file makes torch raise one of many types
        if isinstance(error, pickle.UnpicklingError) and (reason := refusal(path)) is not None:
            expected, got = reason
            raise BadInput(f"{expected} in {path}", got, SAVE) from None
        raise BadInput(f"a checkpoint in {path}", f"a file that can't be read ({type(error).__name__})", SAVE) from None


def _as_own(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """`tensors` with the names and layout of `model`, without what a published file holds besides."""
    for prefix in PREFIXES * 2:  # in any order
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] = getattr(model, "from_published", dict)
    return convert(tensors)


def _owner(tensors: Mapping[str, Tensor]) -> str | None:
    """The network of the zoo whose tensors have these names; None if there is none."""

    def required(tensors: Mapping[str, Tensor]) -> set[str]:
        return {name for name in tensors if not name.endswith(OPTIONAL)}

    for network in zoo.names():
        try:
            with torch.device("meta"):
                model = build(network)
        except BadInput:  # a file of a user's that can't be used, and that is not asked for
            continue
        if required(_as_own(dict(tensors), model)) == required(model.state_dict()):
            return network
    return None


def _check_shapes(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    config: Any = model.config
    own, network = model.state_dict(), config["name"]
    wrong = [name for name, tensor in tensors.items() if tensor.shape != own[name].shape]
    if not wrong:
        return
    layers = structure(model)
    last = next(o for o in reversed(layers.operations) if o.kind in ("conv", "transposed_conv", "linear"))
    weight = f"{last.module}.weight"
    same_rank = tensors[weight].ndim == own[weight].ndim
    if same_rank and set(wrong) == {name for name in own if name.startswith(f"{last.module}.")}:
        classes = tensors[weight].shape[1 if last.kind == "transposed_conv" else 0]
        raise BadInput(f"{layers.outputs} classes in {path}", classes, "the checkpoint for this data set")
    name = wrong[0]
    shapes = f"{tuple(tensors[name].shape)}{f', and {len(wrong) - 1} more' if len(wrong) > 1 else ''}"
    expected = f"{name} of {network} as {tuple(own[name].shape)} in {path}"
    raise BadInput(expected, shapes, f"a checkpoint at width multiplier {config['width_multiplier']}")


def _plain(name: str, tensor: Tensor, dtype: torch.dtype, path: Path) -> Tensor:
    """The tensor in the network's own `dtype`; raises BadInput where it has no real numbers that fit there."""
    real = not (tensor.is_meta or tensor.is_complex()) and tensor.is_floating_point() == dtype.is_floating_point
    try:
        plain = tensor.to(dtype) if real else None
    except NotImplementedError:  # of bare bits
        plain = None
    if plain is None:
        got = f"{name} of {tensor.dtype} on {tensor.device}"
        raise BadInput(f"tensors of real floating numbers in {path}", got, SAVE)
    if not bool(torch.isfinite(plain).all()):  # asked of the network's dtype, which is the narrower one of a float64
        raise BadInput(f"finite numbers in {path}", f"infinity or NaN in {name}", "another checkpoint")
    if name.endswith(NEVER_NEGATIVE) and bool((plain < 0).any()):
        raise BadInput(f"statistics of batches in {path}", f"a number below 0 in {name}", "another checkpoint")
    return plain


def _first(some: list[str], count: int = 3) -> str:
    return ", ".join(name[:LONGEST_NAME] for name in some[:count]) + (", …" if len(some) > count else "")
