"""Traces a forward pass with torch.fx, and says in one line why one can't be traced."""

from __future__ import annotations

import copy
import sysconfig
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from shared.errors import BadInput

WRAPPED = "model."  # before every name in the traced graph, see _Root


class _Root(nn.Module):
    """Calls the model with images alone, so that Python fills in its other arguments."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        return self.model(images)


class _Tracer(fx.Tracer):
    def __init__(self, is_known: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self._is_known = is_known

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return self._is_known(m) or super().is_leaf_module(m, module_qualified_name)


def traced(model: nn.Module, is_known: Callable[[nn.Module], bool]) -> tuple[nn.Module, fx.Graph]:
    """As `graph_of` a copy of the model on the meta device in evaluation mode."""
    check_tensors(model)
    return graph_of(meta_copy(model), is_known)


def graph_of(model: nn.Module, is_known: Callable[[nn.Module], bool]) -> tuple[nn.Module, fx.Graph]:
    """A module with the model as the attribute `model`, and its graph.

    is_known: says of a module whether it is one node of the graph. Raises BadInput for a model that torch.fx can't
    trace, and for tensors that are not parameters and buffers of one layer alone.
    """
    check_tensors(model)
    root = _Root(model)
    try:
        return root, _Tracer(is_known).trace(root)
    except BadInput:
        raise
    except Exception as error:  # whatever the model's own code raises when its tensors are not numbers
        raise BadInput(
            "a forward pass that does the same whatever its input's values and sizes",
            complaint(error),
            "a forward pass without conditions on tensors and shapes",
        ) from None


def complaint(error: BaseException) -> str:
    """An error of the model's own code or of torch in one line, and where in the user's code it was raised."""
    return f"{' '.join(str(error).split())[:160] or type(error).__name__}{_place(error)}"


def _place(error: BaseException) -> str:
    """Where in the user's code an error was raised, as text; empty where the libraries alone had a part in it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_user_s(Path(frame.filename))]
    return f" (in {Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def _is_user_s(file: Path) -> bool:
    standard, own = Path(sysconfig.get_path("stdlib")), Path(__file__).parent
    libraries = {Path(torch.__file__).parent} | (set() if "site-packages" in file.parts else {standard})
    of_suite = own in file.parents and own / "zoo" not in file.parents
    return file.suffix == ".py" and not of_suite and libraries.isdisjoint(file.parents)


def meta_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode with float32 tensors on the meta device, whatever the model's are; copies no data."""
    meta: dict[int, Any] = {}  # deepcopy takes these in place of the originals
    for parameter in model.parameters():
        meta[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in model.buffers():
        meta[id(buffer)] = torch.empty_like(buffer, device="meta")
    try:
        return copy.deepcopy(model, meta).eval().float()
    except Exception as error:
        raise BadInput(
            "a module that can be copied", complaint(error), "tensors that are parameters or buffers"
        ) from None


def check_tensors(model: nn.Module) -> None:
    """Raise BadInput where channels can't be removed from a tensor because it is computed, shared or not there yet."""
    owners: dict[int, tuple[int, str]] = {}
    for path, module in model.named_modules():
        if parametrize.is_parametrized(module) or any(_computed(module)):
            names = sorted(getattr(module, "parametrizations", {})) or list(_computed(module))
            got = f"'{path}.{names[0]}', computed anew in each forward pass, as weight norm or a mask does"
            raise BadInput("weights that are parameters of their layers", got, "removing it: its effect stays")
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            own = f"{path}.{name}".lstrip(".")
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise BadInput("layers of known sizes", f"'{own}' of a lazy layer", "calling the network once before")
            owner, first = owners.setdefault(id(parameter), (id(module), own))
            if owner != id(module) or first != own:
                raise BadInput("a parameter for one layer", f"'{first}' and '{own}' in one", "a parameter for each")


def _computed(module: nn.Module) -> Iterable[str]:
    """Names of tensors that stand where a layer of this kind has parameters."""
    return (name for name in ("weight", "bias") if isinstance(vars(module).get(name), Tensor))
