"""Which files of a folder are a data set's: each picture once, whatever links lead to it, and none that is hidden.

A part of a set (its train, its val) has a folder per group, which is a class or a city.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from shared.errors import BadInput

ASIDE = ("__MACOSX", "@eaDir", "lost+found")  # what macOS, Synology's disks and ext4 put beside files


class Picture(NamedTuple):
    """A picture of a part. file: its path without links.

    links: 2 for a picture that is a link itself, 1 for one that is behind a link to a folder, 0 for all others. It does
    not matter whether the group's folder, or one above it, is a link.
    """

    path: str
    group: str
    file: str
    links: int


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is left out: `._a.JPEG`, `.ipynb_checkpoints`, `__MACOSX`."""
    return name.startswith(".") or name in ASIDE


def groups(folder: Path) -> list[str]:
    """Names of the folders in `folder` in order, also of those that are links. Hidden ones are left out.

    Raises BadInput for a folder that can't be read.
    """
    with _entries(str(folder)) as entries:
        return sorted(entry.name for entry in entries if not is_hidden(entry.name) and _is_folder(entry))


def pictures(part: Path, wanted: Callable[[str], bool], *, deep: bool = True) -> list[Picture]:
    """The files below each group of `part` whose names are `wanted`, group by group, and in order within a group.

    Links to folders are followed, and no folder is entered twice for a group. deep: also files in folders of a group.
    Raises BadInput for a folder that can't be read.
    """
    base = os.path.realpath(part)
    found: list[Picture] = []
    for group in groups(part):
        top = os.path.join(part, group)
        home = os.path.realpath(top)
        for here, real in _folders(top, base) if deep else [(top, home)]:
            behind_link = real != home + here[len(top) :]
            with _entries(here) as entries:
                for entry in entries:
                    if is_hidden(entry.name) or not wanted(entry.name) or _is_folder(entry):
                        continue
                    if entry.is_symlink():
                        found.append(Picture(entry.path, group, os.path.realpath(entry.path), 2))
                    else:
                        found.append(Picture(entry.path, group, os.path.join(real, entry.name), int(behind_link)))
    return sorted(found, key=lambda picture: (picture.group, *os.path.split(picture.path)))


def _folders(top: str, base: str) -> Iterator[tuple[str, str]]:
    """`top` and the folders below it, each with its path without links: those behind links last.

    A link to `base`, or to a folder that holds it, leads back to the whole part and is left out.
    """
    folders, links, seen = deque([top]), deque[str](), set[str]()
    while folders or links:
        here = (folders or links).popleft()
        real = os.path.realpath(here)
        if real in seen or os.path.join(base, "").startswith(os.path.join(real, "")):
            continue
        seen.add(real)
        yield here, real
        with _entries(here) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if not is_hidden(entry.name) and _is_folder(entry):
                    (links if entry.is_symlink() else folders).append(entry.path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one. A loop of links is none.

    Raises BadInput for a link that leads nowhere and has no file's extension: it may have been a folder of pictures.
    """
    if not entry.is_symlink():
        return entry.is_dir()
    try:
        return stat.S_ISDIR(os.stat(entry.path).st_mode)
    except OSError as error:
        if error.errno == errno.ELOOP or os.path.splitext(entry.name)[1]:
            return False
        raise BadInput("links that lead somewhere", f"{entry.path} ({error.strerror})", "mending it") from None


@contextmanager
def _entries(folder: str) -> Iterator[Iterable[os.DirEntry[str]]]:
    try:
        with os.scandir(folder) as entries:
            yield entries
    except OSError as error:
        raise BadInput("a folder that can be read", f"{folder} ({error.strerror})", "chmod u+rx on it") from None


def once(*parts: Sequence[Picture]) -> list[list[Picture]]:
    """The pictures of a set's parts, each file once: where the fewest `links` lead to it, else the first of its group.

    Raises BadInput for a file that is as close in two parts or groups, since its part or label is unknown then.
    """
    kept: dict[str, tuple[int, Picture]] = {}
    for links in (0, 1, 2):
        for part, listed in enumerate(parts):
            for picture in listed:
                if picture.links != links:
                    continue
                first, other = kept.setdefault(picture.file, (part, picture))
                if other.links == links and (first, other.group) != (part, picture.group):
                    got = f"{other.path} and {picture.path}, which are one file"
                    raise BadInput("every picture in one class of one split", got, "taking one of them away")
    return [[picture for picture in listed if kept[picture.file][1] is picture] for listed in parts]


def sizes(folder: Path, paths: Iterable[str]) -> list[tuple[str, int]]:
    """Path relative to `folder` and size in bytes of each file, for a fingerprint that needs no file contents.

    The paths are the same in every locale. Raises BadInput naming a broken link.
    """
    try:
        return [(_utf8(os.path.relpath(path, folder)), os.stat(path).st_size) for path in paths]
    except OSError as error:
        raise BadInput("files that can be read", f"{error.filename} ({error.strerror})", "fetching it again") from None


def _utf8(path: str) -> str:
    """A path as a locale in UTF-8 decodes it; bytes that are no UTF-8 become lone surrogates."""
    return os.fsencode(path).decode(errors="surrogateescape")


def held_out(names: Sequence[str], count: int) -> list[int]:
    """Indices, in order, of the `count` files of the validation split: those whose names have the lowest hashes.

    The split depends on the bytes of the files' names alone. Adding or removing one file exchanges at most one file of
    the split.
    """
    ranked = sorted(range(len(names)), key=lambda index: hashlib.blake2b(os.fsencode(names[index])).digest())
    return sorted(ranked[:count])


def checked_folder(folder: Path | None, name: str, parts: Sequence[str], hint: str) -> Path:
    """`folder`, if it has the subfolders `parts` of data set `name`. Raises BadInput naming the first missing one."""
    if folder is None:
        raise BadInput(f"the folder of {name}", "no --data", "--data DIR")
    for part in ("", *parts):
        if not (folder / part).is_dir():
            raise BadInput(f"{name} in {folder}", f"no folder {folder / part}", hint)
    return folder
