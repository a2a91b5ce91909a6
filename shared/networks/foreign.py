"""Networks that are not of the zoo: named by file, by module or by a package's entry point, and brought into one form.

The form is the forward pass as torch.fx traces it in evaluation mode, over the network's own modules. So auxiliary
heads are gone, of a dict the entry "out" is left, and random depth and dropout are off.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torchvision.ops import StochasticDepth

from shared.errors import BadInput
from shared.networks import GROUP
from shared.networks.forward import WRAPPED, complaint, graph_of
from shared.networks.pruning import active_widths, compact, resized, zero_channels
from shared.networks.rules import is_known
from shared.networks.trace import structure

COLOURS = 3  # channels that a grey image is repeated over where the network can't take one
AGREEMENT = 1e-6  # of the largest output, in float64: by how much a cut network may differ from the masked one
AGREEMENT_OF_TRACE = 1e-4  # the same of the traced and the original pass, in float32
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, StochasticDepth)


@dataclass(frozen=True)
class Foreign:
    """What makes a network. source: hash of the file that defines it."""

    name: str  # without folders
    make: Callable[..., Any]
    source: str

    def facts(self, attribute: str) -> Mapping[str, Any]:
        """A dict by data set that the class has as an attribute, as classes of the zoo do; else an empty one."""
        return getattr(self.make, attribute, None) or {}


@cache
def find(name: str) -> Foreign:
    """The network FILE.py:NAME, package.module:NAME, or of an entry point.

    NAME is a class, a function that returns a module, or a module. Raises BadInput where there is none.
    """
    entries = [entry for entry in entry_points(group=GROUP) if entry.name == name]
    place, _, attribute = (entries[0].value if entries else name).rpartition(":")
    if not place or not attribute:
        raise BadInput("a network", repr(name), "its id, FILE.py:NAME or package.module:NAME")
    try:
        module = _of_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        made: Any = module
        for part in attribute.split("."):
            made = getattr(made, part)
    except FileNotFoundError:
        raise BadInput(f"a file {place}", "no file", "its path from the current folder") from None
    except (Exception, SystemExit) as error:
        raise BadInput(f"{attribute} in {place}", complaint(error), "repairing it, or another name") from None
    if not (callable(made) or isinstance(made, nn.Module)):
        raise BadInput(f"a class, a function or a module as {name}", repr(type(made)), "another name")
    shown = name if entries or not place.endswith(".py") else f"{Path(place).name}:{attribute}"
    try:
        shown.encode()  # records hold it
    except UnicodeEncodeError:
        raise BadInput("a file with a name in UTF-8", repr(place), "another name; its folders may have any") from None
    return Foreign(shown, made, _hash(made, module))


def build(foreign: Foreign, sizes: Mapping[str, Any], own: Mapping[str, Any]) -> nn.Module:
    """The dense network, in the form above, with `input_shape`.

    sizes: num_classes, in_channels, input_size (height, width) and width_multiplier, of which a network gets those that
    its signature names. own: further arguments. Raises BadInput where it can't be built or followed.
    """
    module = _made(foreign, sizes, own)
    shape = (sizes["in_channels"], *sizes["input_size"])
    try:
        return _plain(module, shape)
    except BadInput as error:
        if shape[0] != 1:
            raise
        in_grey = error
    try:
        return _plain(module, shape, repeats=COLOURS)
    except BadInput as error:
        # a network that was made for grey images can't take three channels, which says nothing
        raise (in_grey if "in_channels" in _signature(foreign.make) else error) from None


def check(model: nn.Module) -> None:
    """Raise BadInput unless a network that is cut computes what it computes with the same channels at zero.

    What a trace can't see, such as hooks, shows here. One forward pass each in float64, on noise.
    """
    table = structure(model)
    if not table.units:
        raise BadInput("a network with channels that can be removed", "none", "python -m bench networks")
    units = len(structure(resized(model, [1] * len(table.units), table)).units)
    if units != len(table.units):  # a map of one channel, which scales all of another, is taken for an equal one then
        got = f"{len(table.units)} units, and {units} where each has one channel"
        raise BadInput("units that stay apart", got, "a gate that no other layer reads")
    masked = _stirred(model)
    dead = torch.zeros(len(table.units), max(table.upper_bounds), dtype=torch.bool)
    for row, bound in zip(dead, table.upper_bounds, strict=True):
        row[torch.randperm(bound, generator=torch.Generator().manual_seed(bound))[: bound // 2]] = True
    zero_channels(masked, table, dead)
    small = compact(masked, table)
    shape: Any = model.input_shape
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        try:
            expected, got = masked(images), small(images)
        except Exception as error:
            raise BadInput("a network that runs with fewer channels", complaint(error), "plain layers") from None
    wanted = tuple((torch.tensor(table.upper_bounds) - dead.sum(1)).tolist())
    if active_widths(small) != wanted:
        raise BadInput(f"widths {wanted} of a cut network", active_widths(small), "plain layers")
    if not (worst := _apart(expected, got)) <= AGREEMENT:
        difference = f"a difference by {worst:.2g} of the largest output"
        raise BadInput("a cut network that computes what the masked one does", difference, "a network without hooks")


def _apart(expected: Tensor, got: Tensor) -> float:
    return float((expected - got).abs().max() / expected.abs().max().clamp(min=1e-30))


def _stirred(model: nn.Module) -> nn.Module:
    """A copy in float64 and evaluation mode, with running statistics and scales that are not all alike."""
    stirred = copy.deepcopy(model).double().eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in stirred.state_dict().items():
            if name.endswith("running_mean"):
                tensor.copy_(torch.randn(tensor.shape, generator=draw) * 0.1)
            elif name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=draw) + 0.5)
    return stirred


def _of_file(path: Path) -> Any:
    """The module of a file. What it imports as it is loaded is searched for beside it, too, and is its own."""
    if not path.is_file():
        raise FileNotFoundError(path)
    name = f"bench_network_{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # for any name that ends with .py
    module = importlib.util.module_from_spec(spec)
    before, folder = set(sys.modules), str(path.absolute().parent)
    sys.modules[name] = module  # dataclasses look their module up
    sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
        for other in set(sys.modules) - before - {name}:
            if Path(getattr(sys.modules[other], "__file__", None) or "/").parent == Path(folder):
                del sys.modules[other]  # another file's may have the same name
    return module


def _hash(made: Any, module: Any) -> str:
    """Of the file that was named, and of the one that defines the class or function."""
    kind = type(made) if isinstance(made, nn.Module) else inspect.unwrap(made)
    files = {module.__file__}
    with contextlib.suppress(TypeError):  # a partial, or a built-in
        files.add(inspect.getsourcefile(kind))
    digest = hashlib.sha256()
    for file in sorted(filter(None, files)):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()[:16]


def _made(foreign: Foreign, sizes: Mapping[str, Any], own: Mapping[str, Any]) -> nn.Module:
    if isinstance(foreign.make, nn.Module):
        return copy.deepcopy(foreign.make)
    named = _signature(foreign.make)
    if sizes["width_multiplier"] != 1 and "width_multiplier" not in named:
        raise BadInput(f"{foreign.name} to take a width multiplier", "none in its signature", "its own arguments")
    # functions like torchvision's hand all that they do not name to a class
    hands_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in named.values())
    wanted = {*named, "num_classes"} if hands_on else set(named)
    arguments = {**{name: value for name, value in sizes.items() if name in wanted}, **own}
    try:
        module = foreign.make(**arguments)
    except BadInput:
        raise
    except Exception as error:
        text = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise BadInput(f"{foreign.name} with ({text})", complaint(error), "--network-arg NAME=VALUE") from None
    if not isinstance(module, nn.Module):
        raise BadInput(f"a torch module from {foreign.name}", type(module).__name__, "returning the network alone")
    return module


def _signature(make: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(make).parameters
    except ValueError:  # of what is not written in Python
        return {}


class _Plain(fx.GraphModule):
    """A traced network. torch.fx leaves attributes behind when it copies a module; these go along."""

    def __deepcopy__(self, memo: dict[int, Any]) -> fx.GraphModule:
        copied = super().__deepcopy__(memo)
        for name in ("input_shape", "config", "keeps_residual_trunk"):
            if hasattr(self, name):
                setattr(copied, name, getattr(self, name))
        return copied


def _plain(module: nn.Module, shape: tuple[int, int, int], repeats: int = 1) -> nn.Module:
    """The forward pass in evaluation mode as a module; `repeats` lets an image of one channel stand for several."""
    module.eval()
    root, graph = graph_of(module, is_known)
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            if not str(node.target).startswith(WRAPPED):  # a tensor that the pass makes
                setattr(module, str(node.target), getattr(root, str(node.target)))
            node.target = str(node.target).removeprefix(WRAPPED)
        elif node.target in (F.batch_norm, F.instance_norm):
            raise BadInput("batch norm as a layer, which knows whether it trains", f"a function at '{node.name}'", "it")
        elif node.op == "placeholder" and repeats > 1:
            with graph.inserting_after(node):
                wide = graph.call_method("expand", (node, -1, repeats, -1, -1))
            node.replace_all_uses_with(wide, delete_user_cb=lambda user, wide=wide: user is not wide)
        elif node.op == "output" and isinstance(node.args[0], dict) and "out" in node.args[0]:
            node.args = (node.args[0]["out"],)
    plain = _Plain(module, graph, type(module).__name__)
    plain.graph.eliminate_dead_code()
    plain.recompile()
    plain.delete_all_unused_submodules()
    for name, parameter in plain.named_parameters():
        if not parameter.requires_grad:
            raise BadInput("parameters that train", f"'{name}' frozen", "requires_grad_() on the network")
    for layer in plain.modules():
        if isinstance(layer, DROPOUTS):
            layer.p = 0.0
    plain.input_shape = shape  # type: ignore[assignment]
    plain.keeps_residual_trunk = getattr(module, "keeps_residual_trunk", False)  # type: ignore[assignment]
    structure(plain)  # refuses what can't be followed
    _check_same(module, plain, repeats)
    return plain.train()


@torch.no_grad()
def _check_same(module: nn.Module, plain: nn.Module, repeats: int) -> None:
    """Raise BadInput where the traced pass is not the module's, as after operations in place on what is used again."""
    shape: Any = plain.input_shape
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    expected = module.eval()(images.expand(-1, shape[0] * repeats, -1, -1))
    expected = expected["out"] if isinstance(expected, dict) else expected
    if not (worst := _apart(expected, plain.eval()(images))) <= AGREEMENT_OF_TRACE:
        got = f"a difference by {worst:.2g} of the largest output"
        raise BadInput("a forward pass that torch.fx traces as it is", got, "x = x + y in place of x += y")
