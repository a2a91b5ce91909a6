"""The importances of all channels against their plain definition, for kinds of Adam, layouts and chunk sizes."""

from __future__ import annotations

import pytest
import torch

from methods.ecc import metric
from methods.ecc.metric import ChannelNorms
from shared.networks import build, importance, structure

NETWORKS = {
    "mobilenet": {"width_multiplier": 0.125, "input_size": 16, "in_channels": 1, "num_classes": 4},
    "alexnet": {"width_multiplier": 0.125, "input_size": 64, "num_classes": 4},
}
OPTIMIZERS = {
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-2, weight_decay=1e-2),
    "fused": lambda parameters: torch.optim.Adam(parameters, lr=1e-2, fused=True),
    "foreach": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, betas=(0.8, 0.9), eps=1e-3, foreach=True),
}


def trained(network, make, steps, layout=torch.contiguous_format, dtype=torch.float32):
    torch.manual_seed(0)
    model = build(network, **NETWORKS[network]).to(dtype, memory_format=layout)
    optimizer = make(list(model.parameters()))
    for step in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter) / (1 + step)
        optimizer.step()
    return model, optimizer


def plain_metric(optimizer, fisher=False):
    """B by its formula, from the optimiser's state."""
    metrics = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            corrected = state["exp_avg_sq"] / (1 - group["betas"][1] ** state["step"].item())
            metrics[parameter] = corrected if fisher else corrected.sqrt() + group["eps"]
    return metrics


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-11)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("fisher", [False, True])
def test_equals_the_definition(fisher, kind, network, layout, dtype, tolerance):
    model, optimizer = trained(network, OPTIMIZERS[kind], steps=3, layout=layout, dtype=dtype)
    table, metrics = structure(model), plain_metric(optimizer, fisher)
    by_name = {name: metrics[parameter] for name, parameter in model.named_parameters()}
    found = ChannelNorms(model, table, optimizer, fisher=fisher)()
    assert found.dtype == torch.float64 and found.device.type == "cpu"
    torch.testing.assert_close(found, importance(model, table, by_name).double(), rtol=tolerance, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("entries", [1, 100, 10_000])
def test_large_tensors_in_chunks_equal_all_together(entries, layout, monkeypatch):
    model, optimizer = trained("alexnet", OPTIMIZERS["adam"], steps=1, layout=layout)
    table, numbers = structure(model), []
    for size in (entries, 10**9):
        monkeypatch.setattr(metric, "CHUNK_ENTRIES", size)
        numbers.append(ChannelNorms(model, table, optimizer)())
    torch.testing.assert_close(*numbers, rtol=2e-5, atol=0.0)


@pytest.mark.parametrize("entries", [1, 10**9])
@pytest.mark.parametrize("fisher", [False, True])
def test_shares_add_up_to_the_number_of_layers_that_read_a_unit(fisher, entries, monkeypatch):
    monkeypatch.setattr(metric, "CHUNK_ENTRIES", entries)
    model, optimizer = trained("mobilenet", OPTIMIZERS["adam"], steps=2)
    table = structure(model)
    found = ChannelNorms(model, table, optimizer, fisher=fisher, shares=True)()
    readers = [sum(part.role in ("consumer", "depthwise") for part in unit.slices) for unit in table.units]
    torch.testing.assert_close(found.sum(1), torch.tensor(readers, dtype=torch.float64), rtol=1e-5, atol=0)


def test_follows_steps_and_a_restored_optimizer():
    model, optimizer = trained("mobilenet", OPTIMIZERS["adam"], steps=1)
    norms = ChannelNorms(model, structure(model), optimizer)
    before = norms()
    saved = optimizer.state_dict()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert not torch.equal(norms(), before)
    optimizer.load_state_dict(saved)  # new tensors in place of the old ones
    torch.testing.assert_close(norms(), ChannelNorms(model, structure(model), optimizer)())


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_adam_moves_along_the_mean_gradient_in_this_metric(kind):
    """w - alpha B^-1 m, with m the bias-corrected mean gradient, is where Adam went: B is the metric of (6)."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(50, dtype=torch.float64))
    optimizer = OPTIMIZERS[kind]([weight])
    (group,) = optimizer.param_groups
    group["weight_decay"] = 0.0
    for step in range(1, 6):
        before = weight.detach().clone()
        weight.grad = torch.randn_like(weight) / step
        optimizer.step()
        mean = optimizer.state[weight]["exp_avg"] / (1 - group["betas"][0] ** step)
        expected = before - 1e-2 * mean / plain_metric(optimizer)[weight]
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-11, atol=0.0)
