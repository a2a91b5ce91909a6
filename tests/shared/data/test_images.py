"""Batches as a function of (seed, index), and augmentation against naive shifts and flips image by image."""

import hashlib
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from shared.data import BatchStream, Dataset, Split
from shared.objective import segmentation

MEAN, STD = 0.3, 0.4


def numbered_split(count: int, channels: int = 1, height: int = 5, width: int = 6, seed: int = 0) -> Split:
    """Random images whose label is their number."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, channels, height, width), generator=draw, dtype=torch.uint8)
    return Split(images, torch.arange(count), MEAN, STD)


def variants(image: torch.Tensor, shift: int) -> dict[tuple[int, int, bool], torch.Tensor]:
    """All that augmentation may make of one uint8 image (channels, h, w), pixel by pixel: black outside."""
    channels, height, width = image.shape
    made = {}
    for down, right, flip in itertools.product(range(-shift, shift + 1), range(-shift, shift + 1), (False, True)):
        result = torch.empty(channels, height, width)
        for channel, row, column in itertools.product(range(channels), range(height), range(width)):
            from_row, from_column = row - down, column - right
            if flip:
                from_column = width - 1 - column - right
            inside = 0 <= from_row < height and 0 <= from_column < width
            value = float(image[channel, from_row, from_column]) if inside else 0.0
            result[channel, row, column] = (value / 255 - MEAN) / STD
        made[down, right, flip] = result
    return made


@pytest.mark.parametrize(("channels", "shift"), [(1, 0), (1, 2), (3, 1)])
def test_augmentation_is_a_shift_and_a_flip_of_the_labelled_image(channels: int, shift: int) -> None:
    split = numbered_split(10, channels)
    possible = [variants(image, shift) for image in split.images]
    stream = BatchStream(split, seed=4, batch_size=10, shift=shift)
    seen = set()
    for index in range(60):
        images, labels = stream.batch(index)
        assert images.shape == (10, channels, 5, 6) and images.dtype == torch.float32
        for image, label in zip(images, labels.tolist(), strict=True):
            made = torch.stack(list(possible[label].values()))
            matching = ((made - image).abs().amax((1, 2, 3)) < 1e-5).nonzero().flatten().tolist()
            assert len(matching) == 1
            seen.add(matching[0])
    assert len(seen) == (2 * shift + 1) ** 2 * 2  # every shift and flip comes up among 600 images


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 100), indices=st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_a_batch_depends_on_seed_and_index_alone(seed: int, indices: list[int]) -> None:
    split = numbered_split(17)
    one, other = (BatchStream(split, seed, batch_size=4) for _ in range(2))
    in_order = [one.batch(index) for index in range(max(indices) + 1)]
    for index in indices:
        images, labels = other.batch(index)
        assert torch.equal(images, in_order[index][0]) and torch.equal(labels, in_order[index][1])


def test_seeds_give_other_orders_and_other_augmentation() -> None:
    split = numbered_split(64)
    streams = [BatchStream(split, seed, batch_size=64) for seed in (0, 1)]
    (_, labels), (_, other) = (stream.batch(0) for stream in streams)
    assert not torch.equal(labels, other)
    same_image = Split(split.images[:1].repeat(64, 1, 1, 1), split.labels, MEAN, STD)
    images, others = (BatchStream(same_image, seed, batch_size=64).batch(0)[0] for seed in (0, 1))
    assert not torch.equal(images, others)


@pytest.mark.parametrize(("count", "batch_size"), [(12, 4), (13, 4), (5, 5), (7, 6)])
def test_an_epoch_visits_each_image_at_most_once_and_all_but_the_rest(count: int, batch_size: int) -> None:
    stream, per_epoch = BatchStream(numbered_split(count), seed=2, batch_size=batch_size), count // batch_size
    orders = []
    for epoch in range(3):
        batches = [stream.batch(epoch * per_epoch + place)[1] for place in range(per_epoch)]
        visited = torch.cat(batches).tolist()
        assert len(set(visited)) == len(visited) == per_epoch * batch_size
        orders.append(tuple(visited))
    assert len(set(orders)) == 3


def test_evaluation_batches_are_the_images_in_order_without_augmentation() -> None:
    split = numbered_split(11, channels=3)
    expected = (split.images.double() / 255 - MEAN) / STD
    for limit, count in ((None, 11), (7, 7), (50, 11)):
        images, labels = (torch.cat(parts) for parts in zip(*split.batches(4, limit), strict=True))
        torch.testing.assert_close(images.double(), expected[:count], rtol=1e-5, atol=1e-6)
        assert labels.tolist() == list(range(count))
    sizes = [len(labels) for _, labels in split.batches(4, 7)]
    assert sizes == [4, 3]


def test_images_are_channels_last() -> None:
    """Convolutions are quicker on it; a stream that loses it slows every method down."""
    split = numbered_split(8, channels=3)
    for images in (split.take(torch.arange(8))[0], BatchStream(split, 0, 8).batch(0)[0]):
        assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("batch_size", [0, -1, 9])
def test_batch_sizes_outside_the_split_are_refused(batch_size: int) -> None:
    with pytest.raises(ValueError, match=rf"in 1\.\.8, got {batch_size}"):
        BatchStream(numbered_split(8), 0, batch_size)


def test_batches_of_labelled_images_stay_as_they_are_bit_for_bit() -> None:
    """Records and shipped weights were made with these very batches."""
    stream = BatchStream(numbered_split(64, channels=2, height=7, width=9), seed=3, batch_size=32)
    digest = hashlib.sha256()
    for index in range(4):
        images, labels = stream.batch(index)
        digest.update(images.contiguous().numpy().tobytes() + labels.numpy().tobytes())
    assert digest.hexdigest()[:16] == "b166013c60d33db7"


@pytest.mark.parametrize("shift", [0, 2])
def test_labels_of_pixels_move_with_the_pixels(shift: int) -> None:
    """Images that show their own labels still do after augmentation; what comes in is black and ignored."""
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(1, 200, (12, 5, 6), generator=draw).to(torch.uint8)
    split = Split(labels[:, None], labels, MEAN, STD, segmentation(255))
    seen = set()
    for index in range(20):
        images, maps = BatchStream(split, seed=4, batch_size=12, shift=shift).batch(index)
        assert maps.shape == (12, 5, 6) and maps.dtype == torch.int64
        shown = ((images[:, 0] * STD + MEAN) * 255).round().long()
        assert torch.equal(torch.where(maps == 255, 0, maps), shown)
        seen |= {int(count) for count in (maps == 255).sum((1, 2))}
    # rows and columns that come in: none, or up to `shift` of either
    assert seen == {30 - (5 - rows) * (6 - columns) for rows in range(shift + 1) for columns in range(shift + 1)}


def resizable(labels: torch.Tensor) -> Dataset:
    images = torch.randint(0, 256, (4, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    split = Split(images, labels, MEAN, STD)
    return Dataset("some", split, split, split, ("a", "b"), "files and rule")


@pytest.mark.parametrize("size", [(64, 64), (40, 20), (9, 13)])
def test_resized_images_are_those_of_torchvision(size: tuple[int, int]) -> None:
    dataset = resizable(torch.zeros(4, dtype=torch.int64))
    resized = dataset.resized(size)
    assert resized.input_shape == (1, *size) and resized.fingerprint != dataset.fingerprint
    expected = (v2.functional.resize(dataset.train.images.float() / 255, size, antialias=True) - MEAN) / STD
    for split in (resized.train, resized.search, resized.test):
        torch.testing.assert_close(split.take(torch.arange(4))[0], expected, rtol=0, atol=1e-5)
    assert BatchStream(resized.train, 0, 4).batch(0)[0].shape == (4, 1, *size)
    assert resized.train.images.shape == (4, 1, 28, 28)  # nothing is kept twice


def test_a_data_set_at_its_own_size_is_itself_and_label_maps_are_not_resized() -> None:
    dataset = resizable(torch.zeros(4, dtype=torch.int64))
    assert dataset.resized((28, 28)) is dataset
    with pytest.raises(ValueError, match=r"\(28, 28\), the size of the label maps, got \(64, 64\)"):
        resizable(torch.zeros(4, 28, 28, dtype=torch.int64)).resized((64, 64))
