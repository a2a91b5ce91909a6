"""A proximal update on an accelerator: one read of the device, few operations. The meta device stands in for it.

Meta tensors hold no values, so that whatever would wait for one (item, bool, nonzero, a mask as an index) raises.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from methods.ecc import ECC
from methods.ecc.metric import ChannelNorms
from methods.ecc.prox import channel_price, descending, keep_channels
from shared.networks import build, structure, zero_channels

PLAIN = {"input_size": 28, "in_channels": 1, "num_classes": 10}


class Accelerator(TorchDispatchMode):
    """Counts operations and transfers; what is read has the values of `content`: number of entries -> tensor."""

    def __init__(self, content):
        super().__init__()
        self.content, self.reads, self.writes, self.operations = content, 0, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if func is torch.ops.aten._to_copy.default and "device" in kwargs and kwargs["device"] != args[0].device:
            self.reads, self.writes = self.reads + args[0].is_meta, self.writes + (not args[0].is_meta)
            if args[0].is_meta:
                return self.content(args[0].numel()).view(args[0].shape).to(args[0].dtype)
        else:
            joins = func in (torch.ops.aten.cat.default, torch.ops.aten.stack.default)  # refuse numbers elsewhere too
            assert len({tensor.device for tensor in tensors if joins or tensor.ndim}) <= 1, f"{func} on two devices"
            self.operations += any(tensor.is_meta for tensor in tensors) and not func.is_view
        return func(*args, **kwargs)


def state_of(parameter):
    """What the fused Adam holds for a parameter after a step."""
    moment = torch.empty_like(parameter)
    return {"step": torch.ones((), device=parameter.device), "exp_avg": moment, "exp_avg_sq": moment.clone()}


def on_accelerator(multiplier=0.25):
    model = build("mobilenet", width_multiplier=multiplier, **PLAIN).to(memory_format=torch.channels_last)
    table = structure(model)
    model = model.to("meta")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    optimizer.state.update({parameter: state_of(parameter) for parameter in model.parameters()})
    return model, table, optimizer


def proximal_update(model, table, optimizer):
    """As in a run, with one channel of every unit to go."""
    norms = ChannelNorms(model, table, optimizer)
    bound = torch.tensor(table.upper_bounds).double() - 1
    alive = torch.arange(max(table.upper_bounds)) < torch.tensor(table.upper_bounds)[:, None]
    with Accelerator(lambda count: 1 + torch.rand(count, generator=torch.Generator().manual_seed(0))) as seen:
        a = norms()
        y = channel_price(descending(a), bound=bound, step_size=1e-3)
        dead = alive & ~keep_channels(a, bound=bound, dual=y, rho=10.0, step_size=1e-3)
        zero_channels(model, table, dead, optimizer)
    assert dead.sum(1).tolist() == [1] * len(table.units)
    return seen


def test_a_proximal_update_reads_the_device_once():
    seen = proximal_update(*on_accelerator())
    assert seen.reads == 1
    assert seen.writes == 1  # which entries are zeroed


def test_operations_depend_on_tensors_and_not_on_channels():
    narrow, wide = (proximal_update(*on_accelerator(multiplier)).operations for multiplier in (0.25, 1.0))
    _, table, _ = on_accelerator()
    read = [part for unit in table.units for part in unit.slices if part.role in ("consumer", "depthwise")]
    zeroed = [part for unit in table.units for part in unit.slices if not part.tensor.endswith(("mean", "var"))]
    assert narrow == wide <= 6 * len(read) + 3 * len(zeroed) + 20


def test_a_mask_on_the_device_is_read_once():
    model, table, optimizer = on_accelerator()
    mask = torch.empty(len(table.units), max(table.upper_bounds), dtype=torch.bool, device="meta")
    with Accelerator(torch.ones) as seen:
        zero_channels(model, table, mask, optimizer)
    assert (seen.reads, seen.writes) == (1, 1)


def test_nothing_to_remove_is_no_work_for_the_device():
    model, table, optimizer = on_accelerator()
    with Accelerator(torch.ones) as seen:
        zero_channels(model, table, torch.zeros(len(table.units), max(table.upper_bounds), dtype=bool), optimizer)
    assert (seen.reads, seen.writes, seen.operations) == (0, 0, 0)


def test_a_run_reads_the_device_once_per_proximal_update(tiny_task, monkeypatch):
    """Besides the losses at the end, together, and which channels are alive at the start."""
    task = tiny_task(0.5, iterations=60, network="mobilenet")
    task = replace(task, network=copy.deepcopy(task.network).to("meta"))
    updates = []
    original = ChannelNorms.__call__
    monkeypatch.setattr(ChannelNorms, "__call__", lambda self: updates.append(1) or original(self))

    def trainer(self, model):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        optimizer.state.update({parameter: state_of(parameter) for parameter in model.parameters()})
        loss = torch.zeros((), device="meta")
        return SimpleNamespace(optimizer=optimizer, step=lambda: (self.ledger.spend_iteration(), loss)[1])

    monkeypatch.setattr(type(task), "trainer", trainer)
    with Accelerator(lambda count: 1 + torch.rand(count, generator=torch.Generator().manual_seed(0))) as seen:
        outcome = ECC().run(task)
    assert outcome.notes["widths"] != list(task.structure.upper_bounds)
    assert 10 < len(updates) < 60
    assert seen.reads <= len(updates) + 2
