"""Writes a new method as a package of its own, which runs as it is: one file, one class, one registration."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from methods import registry
from shared.errors import BadInput

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def write(name: str, folder: Path) -> list[Path]:
    """Write the package of the method `name` into the new folder `folder`/bench-`name`; returns its files.

    Raises BadInput for a name that is taken or malformed, and where the folder exists or can't be written.
    """
    if not _NAME.fullmatch(name):
        raise BadInput("a name of small letters, digits and single hyphens", repr(name), "new-method my-method")
    if name in registry.names():
        raise BadInput("the name of a method that is not there yet", repr(name), "another name")
    module = f"bench_{name.replace('-', '_')}"
    words = name.split("-")
    texts = {
        "name": name,
        "module": module,
        "title": " ".join(words).capitalize(),
        "class_name": "".join(word.capitalize() for word in words),
    }
    place = folder / f"bench-{name}"
    try:
        place.mkdir(parents=True)
        files = {place / "pyproject.toml": "pyproject.toml", place / f"{module}.py": "method.py"}
        for path, name_of_template in files.items():
            template = (Path(__file__).parent / f"{name_of_template}.template").read_text(encoding="utf-8")
            path.write_text(Template(template).substitute(texts), encoding="utf-8")
    except OSError as error:
        raise BadInput("a folder that can be made", f"{place} ({error.strerror})", "--to FOLDER") from None
    return list(files)
