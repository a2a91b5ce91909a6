"""Where training runs: what is refused in one line, and what precision and compiling do to a step, on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shared.computing import ON_CPU, Computing, computing, sent
from shared.errors import BadInput

BFLOAT16 = Computing(autocast=torch.bfloat16)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A torch that tells of GPUs: gpu(capability, count=…, arch_list=…)."""

    def tell(capability: tuple[int, int], count: int = 1, arch_list: tuple[str, ...] = ("sm_75", "sm_80")) -> None:
        facts: dict[str, Any] = {
            "is_available": True,
            "device_count": count,
            "get_device_capability": capability,
            "get_arch_list": list(arch_list),
            "get_device_name": "GPU X",
        }
        for name, answer in facts.items():
            monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        ones = torch.ones(1)
        monkeypatch.setattr(torch, "ones", lambda *_, **__: ones)

    return tell


@pytest.mark.parametrize("place", ["", "cuda", "gpu", "cuda:", "cuda:-1", "cuda:0x1", "cpu:0", "cuda:1234", " cpu"])
def test_other_places_are_refused(place: str) -> None:
    with pytest.raises(BadInput, match=r"expected --compute cpu or cuda:N, got .*; try "):
        computing(place)


def test_without_cuda_the_build_or_the_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(BadInput, match="without it; try pip install"):
        computing("cuda:0")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(BadInput, match="finds no GPU or driver; try `nvidia-smi`"):
        computing("cuda:0")


def test_an_old_drivers_own_words_are_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def old() -> bool:
        import warnings

        warnings.warn("the driver is\ntoo old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", old)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(BadInput, match="the driver is too old; try"):
        computing("cuda:0")


def test_gpus_that_are_not_there_or_that_torch_has_no_code_for(gpu: Callable[..., None]) -> None:
    gpu((8, 0), count=2)
    assert computing("cuda:1").device == torch.device("cuda:1")
    with pytest.raises(BadInput, match="below cuda:2, got cuda:2"):
        computing("cuda:2")
    gpu((6, 1))
    with pytest.raises(BadInput, match=r"code for sm_61, .*whl/cu126"):
        computing("cuda:0")


def test_a_gpu_that_fails_its_first_operation(gpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: busy\nCompile with TORCH_USE_CUDA_DSA")

    gpu((8, 0))
    monkeypatch.setattr(torch, "ones", fail)
    with pytest.raises(BadInput, match="cuda:0 to compute, got CUDA error: busy Compile"):
        computing("cuda:0")


def test_bfloat16_where_the_hardware_has_it(gpu: Callable[..., None]) -> None:
    gpu((8, 0))
    assert computing("cuda:0").autocast is torch.bfloat16
    assert computing("cuda:0").label == "GPU X, CUDA 13.0, bfloat16 in training, no TF32"
    gpu((7, 5))
    assert computing("cuda:0").autocast is None
    assert computing("cpu") == ON_CPU and ON_CPU.label == "cpu"


def test_what_is_told_decides_figures_and_no_more(gpu: Callable[..., None]) -> None:
    gpu((8, 0), count=2)
    assert computing("cuda:0").label == computing("cuda:1").label
    variants = [ON_CPU, Computing(compiled=True), computing("cuda:0"), replace(computing("cuda:0"), autocast=None)]
    assert len({variant.label for variant in variants}) == len(variants)


def test_a_compiler_that_is_missing_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(_: object) -> Callable[[Tensor], Tensor]:
        def run(_: Tensor) -> Tensor:
            raise RuntimeError("InvalidCxxCompiler:\nnone found")

        return run

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(BadInput, match=r"torch\.compile to work on cpu, got .*none found; try .* no --compile"):
        computing("cpu", compiled=True)


def test_full_float32_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    ON_CPU.enter()
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (3, 2)])
def test_torch_starts_no_more_threads_than_usable_cores(
    before: int, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr("shared.computing.usable_cores", lambda: 2)
    torch.set_num_threads(before)
    try:
        ON_CPU.enter()
        assert torch.get_num_threads() == after
    finally:
        torch.set_num_threads(threads)


def test_what_is_on_the_device_stays_there() -> None:
    tensor = torch.ones(3)
    assert sent(tensor, torch.device("cpu")) is tensor
    assert sent(tensor, torch.device("meta")).is_meta


def losses(task: Any, network: nn.Module, steps: int) -> list[float]:
    trainer = task.trainer(network)
    return [trainer.step().item() for _ in range(steps)]


@pytest.fixture
def activations(monkeypatch: pytest.MonkeyPatch) -> set[torch.dtype]:
    """In which types activations came out of the layers before them."""
    seen: set[torch.dtype] = set()
    relu = nn.ReLU.forward

    def listen(self: nn.ReLU, x: Tensor) -> Tensor:
        seen.add(x.dtype)
        return relu(self, x)

    monkeypatch.setattr(nn.ReLU, "forward", listen)
    return seen


def test_training_in_bfloat16_learns_as_in_float32(
    tiny_task: Callable[..., Any], activations: set[torch.dtype]
) -> None:
    """Forward passes alone are rounded: to 8 bits, a 256th."""
    task = tiny_task(iterations=60)
    start = task.copy_of_dense()
    exact, rounded = copy.deepcopy(start), copy.deepcopy(start)
    full = losses(task, exact, 25)
    assert activations == {torch.float32}
    activations.clear()
    task.ledger.training_iterations = 0
    half = losses(replace(task, computing=BFLOAT16), rounded, 25)
    assert torch.bfloat16 in activations
    assert half != full
    assert half == pytest.approx(full, rel=0.2, abs=0.02)
    assert {tensor.dtype for tensor in rounded.parameters()} == {torch.float32}
    assert all(parameter.grad.dtype == torch.float32 for parameter in rounded.parameters())
    assert task.search_accuracy(rounded) == pytest.approx(task.search_accuracy(exact), abs=0.1)


def test_scores_are_float32_whatever_training_is(tiny_task: Callable[..., Any], activations: set[torch.dtype]) -> None:
    task = replace(tiny_task(), computing=BFLOAT16)
    task.search_accuracy(task.network)
    assert activations == {torch.float32}


def test_a_compiled_step_is_the_same_step(tiny_task: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs captured and run as they are: what is in the network's own hands, not the compiler's."""
    compile_, calls = torch.compile, []

    def captured(model: Any) -> Any:
        calls.append(model)
        return compile_(model, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", captured)
    task = tiny_task(iterations=20)
    plain, compiled = task.copy_of_dense(), task.copy_of_dense()
    expected = losses(task, plain, 4)
    task.ledger.training_iterations = 0
    assert losses(replace(task, computing=Computing(compiled=True)), compiled, 4) == pytest.approx(expected, rel=1e-4)
    assert calls == [compiled]
    for (name, one), other in zip(plain.state_dict().items(), compiled.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5, msg=name)
