"""What the pickles in a file ask for, read without running any of it: why torch's safe loading refused the file."""

from __future__ import annotations

import contextlib
import io
import pickletools
import re
import zipfile
from collections import deque
from pathlib import Path
from typing import Any

PROTOCOL = 2  # the one that torch writes, and that its safe loading reads
OLD_PICKLES = 5  # in a file of torch's old format, before the bytes of its tensors
HARMLESS = re.compile(  # what torch's safe loading takes; a pickle of other names is refused
    r"torch\.((cuda\.|sparse\.)*\w+|(_utils|_tensor)\._rebuild_\w+|storage\.\w+Storage|nn\.parameter\.Parameter)"
    r"|torch\.serialization\._get_layout|collections\.(OrderedDict|Counter)|_codecs\.encode"
    r"|(builtins|__builtin__)\.(set|bytearray|complex)"
)


def refusal(path: Path) -> tuple[str, str] | None:
    """What a file that torch refused should hold, and what it holds instead, as text; None where that doesn't show."""
    asked, protocol = _read(path)
    if code := next((name for name in asked if not HARMLESS.fullmatch(name)), None):
        return "tensors alone", f"a pickle that asks for {code[:100]} (nothing was run)"
    if asked and protocol != PROTOCOL:
        return f"pickle protocol {PROTOCOL}", f"protocol {protocol}"
    return None


def _read(path: Path) -> tuple[list[str], int]:
    """What a file's pickles would import, as module.name in their order, and their newest protocol."""
    names: list[str] = []
    protocol = 0
    with contextlib.suppress(Exception):  # bytes that are no pickle raise one of many types
        pickles = io.BytesIO(_pickled(path))
        for _ in range(OLD_PICKLES):
            # The last two objects on the stack, where they are strings. From protocol 4 on they are the parts of a
            # name, and a part that occurred before comes from the memo.
            last: deque[str | None] = deque([None, None], maxlen=2)
            memo: dict[int, str | None] = {}
            for opcode, given, _ in pickletools.genops(pickles):
                argument: Any = given
                protocol = max(protocol, opcode.proto, argument if opcode.name == "PROTO" else 0)
                match opcode.name:
                    case "FRAME":
                        pass
                    case "MEMOIZE":
                        memo[len(memo)] = last[1]
                    case "PUT" | "BINPUT" | "LONG_BINPUT":
                        memo[argument] = last[1]
                    case "GET" | "BINGET" | "LONG_BINGET":
                        last.append(memo.get(argument))
                    case "GLOBAL" | "INST":
                        names.append(".".join(argument.split(" ")))
                        last.append(None)
                    case "STACK_GLOBAL":
                        names.append(f"{last[0]}.{last[1]}")
                        last.append(None)
                    case _:
                        last.append(argument if isinstance(argument, str) else None)
    return names, protocol


def _pickled(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return b"".join(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
