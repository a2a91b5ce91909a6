"""Whether an installed torch has code for a GPU, and which wheel has."""

from __future__ import annotations

import re
from collections.abc import Sequence

from shared.errors import BadInput

# CUDA 13 has no code before Turing; the index of CUDA 12.6 ends with torch 2.14
TURING, MAXWELL = (7, 5), (5, 0)
OLD_WHEEL = (
    'pip install "torch==2.14.*" torchvision --index-url https://download.pytorch.org/whl/cu126 '
    "(the newest torch with code for GPUs before Turing)"
)
NEW_WHEEL = "pip install --upgrade torch torchvision"


def missing_code(arch_list: Sequence[str], capability: tuple[int, int]) -> BadInput | None:
    """Why a torch build can't run on a device and which wheel can; None when it can.

    arch_list: as torch.cuda.get_arch_list() says ("sm_60", "sm_90a", "compute_90", …; empty for builds without CUDA).
    capability: as torch.cuda.get_device_capability() says, (6, 1) for a GTX 1080 Ti. Machine code (sm_) runs on its own
    major version from its minor version on, that with suffix "a" on exactly its version; PTX (compute_) on every later
    device, with a suffix like machine code. Source: CUDA programming guide, "Binary and PTX compatibility".
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
    if parts is None:  # not a GPU of NVIDIA's, "gfx90a"
        return False
    kind, major, minor, suffix = parts.groups()
    built = (int(major), int(minor))
    if suffix == "a":
        return capability == built
    same_family = capability[0] == built[0] and capability >= built
    return capability >= built if kind == "compute" and not suffix else same_family
