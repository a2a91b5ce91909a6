"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017), shipped with the suite: no download.

The four gzipped IDX files beside this module come from Debian's package dataset-fashion-mnist (Expat licence, see their
NOTICE). Debian compresses them anew, so the SHA-256 is checked on the decompressed contents.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

import torch

from shared import locks
from shared.cache import atomic_write, cache_dir, content_key
from shared.data.images import Dataset, Split
from shared.errors import BadInput
from shared.rng import generator

SOURCE = Path(__file__).parent / "fashion_mnist"
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
SEARCH_IMAGES = 5_000
SPLIT_SEED = 117
MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images, scaled to 0..1


def _unpacked(folder: Path, name: str, source: Path) -> None:
    """Decompress the IDX file `name` into `folder`, unless an intact copy is there."""
    target = folder / name
    if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == SHA256[name]:
        return
    packed = source / f"{name}.gz"
    try:
        data = gzip.decompress(packed.read_bytes())
        got = f"SHA-256 {hashlib.sha256(data).hexdigest()[:12]}…"
    except (OSError, EOFError, zlib.error) as error:
        data, got = b"", f"{type(error).__name__}: {error}"
    if hashlib.sha256(data).hexdigest() != SHA256[name]:
        raise BadInput(
            f"{packed} to hold Fashion-MNIST's {name} (SHA-256 {SHA256[name][:12]}…)", got, "git checkout of that file"
        )
    atomic_write(target, data)


def load(folder: Path | None = None, *, source: Path = SOURCE) -> Dataset:
    """Fashion-MNIST: 55,000 train and 5,000 search images, split from the 60,000 by a fixed seed, and 10,000 to test.

    folder: None, since the files ship with the suite. source: folder of the gzipped files. Raises BadInput for any
    folder, and naming the first damaged file.
    """
    from torchvision.datasets import FashionMNIST

    if folder is not None:
        raise BadInput("no --data for fashion-mnist, which ships with the suite", str(folder), "leaving --data out")
    root = cache_dir() / "data"
    raw = root / "FashionMNIST" / "raw"
    try:
        raw.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            "a cache folder that can be written", f"{raw} ({error.strerror})", "BENCH_CACHE=FOLDER"
        ) from None
    # several workers may load the data set at the same time
    with locks.held(root / "FashionMNIST.lock"):
        for name in SHA256:
            _unpacked(raw, name, source)
    given, test = (FashionMNIST(str(root), train=train, download=False) for train in (True, False))
    order = torch.randperm(len(given.data), generator=generator(SPLIT_SEED, "search split"))

    def split(images: torch.Tensor, labels: torch.Tensor) -> Split:
        return Split(images.unsqueeze(1).contiguous(), labels.long(), MEAN, STD)  # (n, 1, 28, 28)

    held_out, train = order[:SEARCH_IMAGES], order[SEARCH_IMAGES:]
    return Dataset(
        name="fashion-mnist",
        train=split(given.data[train], given.targets[train]),
        search=split(given.data[held_out], given.targets[held_out]),
        test=split(test.data, test.targets),
        classes=tuple(given.classes),
        fingerprint=content_key(SHA256, SEARCH_IMAGES, SPLIT_SEED),
    )
