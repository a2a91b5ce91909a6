"""Pictures of all modes as RGB of 8 bits; arrays of NumPy and files written byte by byte as oracles."""

from __future__ import annotations

import errno
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageCms

from shared.data.decoding import open_image, rgb
from shared.errors import BadInput

HEIGHT, WIDTH = 4, 6
SHAPE = (HEIGHT, WIDTH)
RAMP = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(SHAPE).astype(np.uint16)
EIGHT = (RAMP >> 8).astype(np.uint8)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures") / "picture"


def read(content: bytes, file: Path) -> np.ndarray:
    """The pixels of a file with this content: (h, w, 3). No warning is given."""
    file.write_bytes(content)
    with warnings.catch_warnings(action="error"):
        image = open_image(file)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def tiff(values: np.ndarray, bits: int, kind: int = 1, photometric: int = 1) -> bytes:
    """An uncompressed grey TIFF in the byte order of `values`. kind: 1 unsigned, 2 signed, 3 floating point."""
    order, data = (">" if values.dtype.byteorder == ">" else "<"), values.tobytes()
    height, width = SHAPE
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(data)}
    fields = b"".join(struct.pack(order + "HHIHH", tag, 3, 1, value, 0) for tag, value in (tags | {339: kind}).items())
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    return head + data + struct.pack(order + "H", len(tags) + 1) + fields + bytes(4)


def png(values: np.ndarray, colour: int) -> bytes:
    """A PNG of 16 bits. colour: 0 grey, 2 RGB, 4 grey and alpha, 6 RGB and alpha."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


SIXTEEN: dict[str, Callable[[np.ndarray], bytes]] = {
    "PNG": lambda values: png(values, 0),
    "PNG by Pillow": lambda values: saved(Image.fromarray(values), "PNG"),
    "TIFF": lambda values: tiff(values, 16),
    "TIFF, big-endian": lambda values: tiff(values.astype(">u2"), 16),
    "TIFF, white is 0": lambda values: tiff(65535 - values, 16, photometric=0),
    "TIFF, LZW": lambda values: saved(Image.fromarray(values), "TIFF", compression="tiff_lzw"),
    "PGM": lambda values: b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + values.astype(">u2").tobytes(),
    "plain PGM": lambda values: b"P2 %d %d 65535\n" % (WIDTH, HEIGHT) + " ".join(map(str, values.ravel())).encode(),
}


@pytest.mark.parametrize("form", SIXTEEN)
@settings(max_examples=30)
@given(values=arrays(np.uint16, SHAPE))
def test_grey_of_16_bits_keeps_its_upper_8(form: str, values: np.ndarray, file: Path) -> None:
    assert np.array_equal(read(SIXTEEN[form](values), file), grey(values >> 8))


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_colours_of_16_bits_do_so_too(colour: int, channels: int, file: Path) -> None:
    assert np.array_equal(read(png(np.repeat(RAMP[..., None], channels, axis=2), colour), file), grey(EIGHT))


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_every_order_of_bytes(mode: str) -> None:
    data = RAMP.astype({"I;16B": ">u2", "I;16N": "=u2"}.get(mode, "<u2")).tobytes()
    assert np.array_equal(np.asarray(rgb(Image.frombytes(mode, (WIDTH, HEIGHT), data))), grey(EIGHT))


def test_a_pgm_of_another_white(file: Path) -> None:
    values = np.linspace(0, 1000, RAMP.size).round().astype(">u2")
    expected = (values / 1000 * 65535).round().astype(np.uint16).reshape(SHAPE) >> 8
    assert np.array_equal(read(b"P5 %d %d 1000\n" % (WIDTH, HEIGHT) + values.tobytes(), file), grey(expected))


def test_12_bits(file: Path) -> None:
    pairs = (RAMP >> 4).astype(int).reshape(-1, 2)
    packed = [(one >> 4, (one & 15) << 4 | other >> 8, other & 255) for one, other in pairs]
    assert np.array_equal(read(tiff(np.array(packed, np.uint8), 12), file), grey(EIGHT))


@pytest.mark.parametrize(("dtype", "kind"), [("<i4", 2), (">i4", 2), ("<u4", 1)])
@settings(max_examples=30)
@given(values=arrays(np.uint16, SHAPE), highest=st.integers(256, 65535))
def test_integers_of_32_bits_up_to_65535_have_16(
    dtype: str, kind: int, values: np.ndarray, highest: int, file: Path
) -> None:
    values[0, 0] = highest
    assert np.array_equal(read(tiff(values.astype(dtype), 32, kind), file), grey(values >> 8))


@pytest.mark.parametrize(("dtype", "bits", "kind"), [("<i4", 32, 2), ("<f4", 32, 3), (">f4", 32, 3), ("<i2", 16, 2)])
def test_whole_numbers_up_to_255_have_8_bits(dtype: str, bits: int, kind: int, file: Path) -> None:
    assert EIGHT.max() == 255
    assert np.array_equal(read(tiff(EIGHT.astype(dtype), bits, kind), file), grey(EIGHT))


@settings(max_examples=30)
@given(values=arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32)))
def test_floating_point_from_0_to_1_is_a_share_of_white(values: np.ndarray, file: Path) -> None:
    expected = grey(np.rint(values * np.float32(255)).astype(np.uint8))
    assert np.array_equal(read(tiff(values, 32, 3), file), expected)
    assert np.array_equal(read(saved(Image.fromarray(values), "PPM"), file), expected)  # a PFM
    assert np.array_equal(read(tiff(values, 32, 3, photometric=0), file), 255 - expected)


@pytest.mark.parametrize(
    ("values", "bits", "kind", "got"),
    [
        (RAMP.astype("<f4") / 257 * 0.99, 32, 3, "floating-point numbers from 0 to 252.45"),
        (RAMP.astype("<f4") / 60000, 32, 3, "floating-point numbers from 0 to 1.09225"),
        (RAMP.astype("<f4") / 65535 - 0.25, 32, 3, "floating-point numbers from -0.25 to 0.75"),
        (RAMP.astype("<f4"), 32, 3, "floating-point numbers from 0 to 65535"),
        (RAMP.astype("<f4") * np.float32(np.nan), 32, 3, "floating-point numbers from nan to nan"),
        (RAMP.astype("<i4") - 1, 32, 2, "integers from -1 to 65534"),
        (RAMP.astype("<i4") + 1, 32, 2, "integers from 1 to 65536"),
        ((RAMP >> 1).astype("<i2"), 16, 2, "integers from 0 to 32767"),
    ],
)
def test_an_unknown_white_is_refused(values: np.ndarray, bits: int, kind: int, got: str, file: Path) -> None:
    with pytest.raises(BadInput) as caught:
        read(tiff(values, bits, kind), file)
    assert str(caught.value) == (
        f"expected grey values whose white is known in {file}, got {got}; try saving it with 8 or 16 bits"
    )


def test_a_mode_without_a_way_to_rgb_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    image = ImageCms.applyTransform(Image.new("RGB", (4, 3), "red"), lab)
    assert image is not None
    image.save(file, "TIFF")

    def refuse(*_: object) -> None:
        raise ValueError("conversion from LAB to RGB not supported")

    monkeypatch.setattr(Image.Image, "convert", refuse)  # older versions of Pillow do so
    with pytest.raises(BadInput, match=r"becomes RGB in .*picture, got conversion from LAB.*; try saving it as RGB"):
        open_image(file)


# --- what other modes become


def test_transparency_is_dropped(file: Path) -> None:
    palette = Image.fromarray(EIGHT).convert("P")
    hidden = np.dstack([EIGHT, EIGHT, EIGHT, np.zeros_like(EIGHT)])
    for image, options in (
        (palette, {"transparency": 0}),
        (palette, {"transparency": bytes(range(256))}),
        (Image.fromarray(EIGHT), {"transparency": 0}),
        (Image.fromarray(hidden), {}),
        (Image.fromarray(hidden[..., 2:]), {}),
    ):
        assert np.array_equal(read(saved(image, "PNG", **options), file), grey(EIGHT)), image.mode


def test_one_bit_and_cmyk(file: Path) -> None:
    assert np.array_equal(read(saved(Image.fromarray(EIGHT > 99), "PNG"), file), grey(np.where(EIGHT > 99, 255, 0)))
    assert np.ptp(read(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), file) - [[[255, 0, 0]]]) <= 4


def test_orientation_is_left_as_stored(file: Path) -> None:
    """As in the training of torchvision's weights, whose loader ignores it."""
    image = Image.fromarray(grey(EIGHT))
    exif = image.getexif()
    exif[0x0112] = 6
    assert np.array_equal(read(saved(image, "PNG", exif=exif), file), grey(EIGHT))


# --- files that can't be used


def test_too_many_pixels(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (30, 10)).save(file, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 149)
    with pytest.raises(
        BadInput, match=rf"no more pixels than Pillow allows in {file}, got .*298.*; try scaling it down"
    ):
        open_image(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 299)
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    with pytest.warns(UserWarning, match=rf"{file} has 30x10 pixels; try scaling it down"):
        assert open_image(file).size == (30, 10)
    with warnings.catch_warnings(action="error"), pytest.raises(BadInput, match="try scaling it down"):
        open_image(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with warnings.catch_warnings(action="error"):
        assert open_image(file).size == (30, 10)


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (OSError("image file is truncated"), "fetching it again"),
        (SyntaxError("broken PNG file"), "fetching it again"),
        (OSError(errno.ENOENT, "No such file"), "fetching it again"),
        (OSError(errno.EACCES, "Permission denied"), "the same command once it can be read"),
        (OSError(errno.EIO, "Input/output error"), "the same command once it can be read"),
    ],
)
def test_what_to_try(error: Exception, hint: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hint in str(refused(error, BadInput, file, monkeypatch))


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(errno.EMFILE, "Too many open files"), OSError(errno.ENOMEM, "")]
)
def test_trouble_of_the_machine_is_no_file_s(error: Exception, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(error, type(error), file, monkeypatch) is error


def refused(error: Exception, kind: type[Exception], file: Path, monkeypatch: pytest.MonkeyPatch) -> Exception:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(kind) as caught:
        open_image(file)
    return caught.value
