"""Whether the installed torch has machine code for a GPU, and which wheel has it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from shared.errors import BadInput

# CUDA 13 has no code for GPUs before Turing; the wheels for CUDA 12.6 end with torch 2.14
TURING, MAXWELL = (7, 5), (5, 0)
OLD_WHEEL = (
    'pip install "torch==2.14.*" torchvision --index-url https://download.pytorch.org/whl/cu126 '
    "(the newest torch with code for GPUs before Turing)"
)
NEW_WHEEL = "pip install --upgrade torch torchvision"


def missing_code(arch_list: Sequence[str], capability: tuple[int, int]) -> BadInput | None:
    """The error for a torch build that can't run on a GPU, naming a wheel that can; None for a build that can.

    arch_list: torch.cuda.get_arch_list(), such as ["sm_60", "sm_90a", "compute_90"]; empty for builds without CUDA.
    capability: torch.cuda.get_device_capability(), (6, 1) for a GTX 1080 Ti.

    Machine code (sm_) runs on the same major version from its minor version on; with the suffix "a" on that version
    alone. PTX (compute_) runs on every later GPU; with a suffix it is bound like machine code. Example: a GPU of
    version 8.6 runs sm_80 and compute_75, but neither sm_75, sm_89 nor compute_80a. Source: CUDA programming guide,
    "Binary and PTX compatibility".
    """
    if any(_runs(arch, capability) for arch in arch_list):
        return None
    name = f"sm_{capability[0]}{capability[1]}"
    if capability < MAXWELL:
        wheel = "another GPU: no torch that this suite runs on has code for it"
    else:
        wheel = OLD_WHEEL if capability < TURING else NEW_WHEEL
    has = f"code for {', '.join(arch_list)} alone" if arch_list else "no CUDA code at all"
    return BadInput(f"a torch with code for {name}", f"one with {has}", wheel)


def _runs(arch: str, capability: tuple[int, int]) -> bool:
    parts = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch)
    if parts is None:  # an AMD GPU, such as "gfx90a"
        return False
    kind, major, minor, suffix = parts.groups()
    built = (int(major), int(minor))
    if suffix == "a":
        return capability == built
    same_family = capability[0] == built[0] and capability >= built
    return capability >= built if kind == "compute" and not suffix else same_family
