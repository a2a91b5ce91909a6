"""Which files count: links, loops, hidden files, names that are not UTF-8."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from shared.data.files import groups, held_out, once, pictures
from shared.errors import BadInput


def wanted(name: str) -> bool:
    return name.endswith(".png")


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """A part of a set: three pictures of cats, one of them in a folder, and two of dogs."""
    root = tmp_path / "set" / "train"
    for name in ("cat/a.png", "cat/b.png", "cat/deep/c.png", "dog/a.png", "dog/b.png"):
        write(root / name)
    return root


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def counted(part: Path) -> list[str]:
    return [os.path.relpath(picture.path, part) for picture in once(pictures(part, wanted))[0]]


ALL = ["cat/a.png", "cat/b.png", "cat/deep/c.png", "dog/a.png", "dog/b.png"]


def test_files_are_listed_as_torchvision_lists_them(part: Path) -> None:
    write(part / "cat/a/z.png")
    write(part / "cat/a-b.png")
    (part / "cat/note.txt").write_text("x")
    (part / "README.png").write_text("of no class")
    listed = [(picture.path, picture.group) for picture in pictures(part, wanted)]
    oracle = ImageFolder(str(part), is_valid_file=wanted)
    assert listed == [(path, oracle.classes[label]) for path, label in oracle.samples]
    assert groups(part) == oracle.classes


def to_picture(part: Path) -> None:
    (part / "cat/0.png").symlink_to(part / "cat/b.png")
    (part / "cat/1.png").symlink_to("0.png")


def to_picture_of_another_class(part: Path) -> None:
    (part / "cat/0.png").symlink_to("../dog/a.png")


def to_folder(part: Path) -> None:
    (part / "cat/again").symlink_to("deep")


def to_another_class(part: Path) -> None:
    (part / "cat/dogs").symlink_to(part / "dog")


def to_itself(part: Path) -> None:
    (part / "cat/loop").symlink_to(part / "cat")
    (part / "cat/deep/loop").symlink_to(part / "cat")
    (part / "cat/one").symlink_to("two")
    (part / "cat/two").symlink_to("one")


def to_the_whole(part: Path) -> None:
    (part / "cat/all").symlink_to(part)
    (part / "dog/set").symlink_to("../..")
    (part / "dog/disk").symlink_to("/")


def many_loops(part: Path) -> None:
    for number in range(12):  # each leads to all others: 12! ways through them
        (part / "cat" / f"loop{number}").symlink_to("../cat/deep")
        (part / "cat/deep" / f"back{number}").symlink_to("..")


def hidden(part: Path) -> None:
    for folder in (".ipynb_checkpoints", ".thumbnails", "__MACOSX", "@eaDir", "lost+found"):
        write(part / "cat" / folder / "a.png")
        write(part / folder / "a.png")
    write(part / "cat/._a.png")
    (part / "cat/._gone.png").symlink_to("nowhere")


@pytest.mark.parametrize(
    "change",
    [
        *(to_picture, to_picture_of_another_class, to_folder, to_another_class, to_itself, to_the_whole),
        *(many_loops, hidden),
    ],
)
def test_a_picture_counts_once_and_hidden_ones_do_not(change: Callable[[Path], None], part: Path) -> None:
    assert counted(part) == ALL
    change(part)
    assert counted(part) == ALL
    assert groups(part) == ["cat", "dog"]


@pytest.mark.parametrize("link", ["", "train", "train/cat", "train/cat/deep", "train/cat/a.png"])
@pytest.mark.parametrize("change", [lambda part: None, to_folder, to_another_class, to_itself])
def test_links_to_elsewhere_are_followed(link: str, change: Callable[[Path], None], part: Path, tmp_path: Path) -> None:
    moved = part.parent / link
    moved.rename(tmp_path / "elsewhere")
    moved.symlink_to(tmp_path / "elsewhere")
    change(part)
    (part / "cat/0.png").symlink_to("b.png")
    found = [(picture.group, os.path.basename(picture.path)) for picture in once(pictures(part, wanted))[0]]
    assert found == [(path.split("/")[0], path.split("/")[-1]) for path in ALL]


def test_pictures_in_a_hidden_store_of_the_set_are_followed(part: Path) -> None:
    """As git-annex keeps them."""
    (part / ".store").mkdir()
    for number, name in enumerate(ALL):
        (part / name).rename(part / ".store" / f"{number}.png")
        (part / name).symlink_to(part / ".store" / f"{number}.png")
    assert counted(part) == ALL


@settings(max_examples=40)
@given(links=st.lists(st.tuples(st.sampled_from(range(5)), st.sampled_from(range(6)), st.booleans()), max_size=8))
def test_any_links_between_folders_and_pictures(
    links: list[tuple[int, int, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("set")
    places = [root / name for name in ("cat", "cat/deep", "dog", "dog/deep", "dog/deep/er", ".")]
    for number, place in enumerate(places[:5]):
        write(place / f"{number}.png")
    before = counted(root)
    for number, (source, target, to_file) in enumerate(links):
        goal = places[target] / f"{target}.png" if to_file and target < 5 else places[target]
        (places[source] / f"link{number}{'.png' if goal.suffix else ''}").symlink_to(goal)
    assert counted(root) == before


def test_a_picture_of_two_classes_or_splits_is_refused(part: Path, tmp_path: Path) -> None:
    write(tmp_path / "store/x.png")
    (part / "cat/x.png").symlink_to(tmp_path / "store/x.png")
    (part / "cat/y.png").symlink_to(tmp_path / "store/x.png")
    assert sorted(counted(part)) == sorted([*ALL, "cat/x.png"])
    (part / "dog/z.png").symlink_to(tmp_path / "store/x.png")
    with pytest.raises(BadInput, match=rf"one class of one split, got {part}/cat/x\.png and {part}/dog/z\.png, which"):
        counted(part)

    (part / "dog/z.png").unlink()
    other = part.parent / "val"
    other.symlink_to("train")
    with pytest.raises(BadInput, match=r"train/cat/a\.png and .*val/cat/a\.png, which are one file"):
        once(pictures(part, wanted), pictures(other, wanted))


def test_a_link_to_the_other_split_does_not_count_there(part: Path) -> None:
    other = part.parent / "val"
    write(other / "cat/new.png")
    (other / "cat/old.png").symlink_to(part / "cat/a.png")
    train, val = once(pictures(part, wanted), pictures(other, wanted))
    assert len(train) == 5 and [Path(picture.path).name for picture in val] == ["new.png"]


@pytest.mark.parametrize("place", ["bird", "cat/more", "cat/deep/more"])
def test_a_link_to_a_folder_that_is_gone_is_named(place: str, part: Path) -> None:
    """As of a disk that is not mounted; its pictures must not be missed in silence."""
    (part / place).symlink_to("/nowhere/pictures")
    with pytest.raises(BadInput, match=rf"lead somewhere, got {part}/{place} \(No such file or directory\); try"):
        counted(part)
    (part / place).unlink()
    (part / f"{place}.txt").symlink_to("/nowhere/notes.txt")
    assert counted(part) == ALL


def test_a_folder_that_cannot_be_read_is_named(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refuse(folder: str) -> object:
        if folder.endswith("deep"):
            raise PermissionError(13, "Permission denied", folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(BadInput, match=rf"can be read, got {part}/cat/deep \(Permission denied\); try chmod"):
        pictures(part, wanted)


@given(names=st.lists(st.binary(min_size=1, max_size=9).map(os.fsdecode), min_size=2, max_size=9, unique=True))
def test_names_of_any_bytes_are_split(names: list[str]) -> None:
    chosen = held_out(names, 1)
    assert len(chosen) == 1
    assert names[chosen[0]] == names[::-1][held_out(names[::-1], 1)[0]]


def test_names_in_utf_8_are_split_as_ever() -> None:
    """The splits of stored runs rest on it."""
    names = [f"n01440764_{number}.JPEG" for number in range(30)] + ["ünï 文.JPEG"]
    assert held_out(names, 5) == [5, 11, 21, 25, 26]
