"""Pictures in files, decoded, and as RGB of 8 bits.

Orientation in EXIF is left as stored and transparency is dropped, as in the training of torchvision's weights.
"""

from __future__ import annotations

import errno
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.errors import BadInput, printable

BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF, and a value of the second
SIXTEEN_BITS = ("PNG", "PPM")  # formats whose integers Pillow scales to 16 bits
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # the machine's trouble, no file's


def open_image(path: str | Path) -> Image.Image:
    """The picture in a file as RGB of 8 bits, see `rgb`. Raises BadInput as `decoded` and `rgb` do, naming the file."""
    image = decoded(path)
    try:
        return rgb(image)
    except BadInput as error:
        expected, got, hint = error.parts
        raise BadInput(f"{expected} in {path}", got, hint) from None
    except ValueError as error:  # a mode that Pillow can't convert, such as LAB
        raise BadInput(f"a picture that becomes RGB in {path}", f"{error}", "saving it as RGB of 8 bits") from None


def decoded(path: str | Path) -> Image.Image:
    """The picture in a file, as it is stored.

    Raises BadInput naming a file that is missing, can't be read, is truncated or no image, or has too many pixels.
    Warns of a picture so large that Pillow does.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or np.inf):
                name = printable(path)
                warnings.warn(f"{name} has {image.width}x{image.height} pixels; try scaling it down", stacklevel=2)
            image.load()
            return image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadInput(f"no more pixels than Pillow allows in {path}", f"{error}", "scaling it down") from None
    except Exception as error:  # a damaged file may raise anything
        number = error.errno if isinstance(error, OSError) else None
        if isinstance(error, MemoryError) or number in EXHAUSTED:
            raise
        hint = "fetching it again" if number in (None, errno.ENOENT) else "the same command once it can be read"
        raise BadInput(f"a whole image in {path}", f"{type(error).__name__}: {error}", hint) from None


def rgb(image: Image.Image) -> Image.Image:
    """The picture as RGB of 8 bits.

    Of grey values with 16 bits the upper 8 remain, as Pillow does with colours of 16 bits. Raises BadInput where the
    value of white is unknown, see `_grey`, and ValueError for a mode that Pillow can't convert.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(_grey(image))
    if image.mode == "P":  # Pillow warns of transparency on the direct way
        image = image.convert("RGBA")
    return image.convert("RGB")


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    """The values of a picture of one channel with more than 8 bits, as 8 bits.

    Black is 0. White is 65535 where the format says that it has 16 bits, and 4095 for 12. Numbers of 32 bits don't tell
    it. Those from 0 to 1 in floating point are shares of white, and whole ones up to 255 have 8 bits. Other integers
    up to 65535 have 16. Raises BadInput for all others, and for those above 255 in signed integers of 16 bits.
    """
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    bits = tags.get(BITS_PER_SAMPLE, (None,))[0]
    low, high = values.min(), values.max()
    whole = image.mode == "I" or bool((values == np.rint(values)).all())
    if image.mode.startswith("I;16"):
        grey = values >> (4 if bits == 12 else 8)
    elif image.mode == "I" and image.format in SIXTEEN_BITS:
        grey = values >> 8
    elif image.mode == "F" and low >= 0 and high <= 1:
        grey = np.rint(values * 255)
    elif whole and low >= 0 and high <= 255:
        grey = values
    elif image.mode == "I" and bits != 16 and low >= 0 and high <= 65535:
        grey = values >> 8
    else:
        numbers = "floating-point numbers" if image.mode == "F" else "integers"
        raise BadInput(
            "grey values whose white is known", f"{numbers} from {low:g} to {high:g}", "saving it with 8 or 16 bits"
        )
    eight: NDArray[np.uint8] = grey.astype(np.uint8)
    return np.uint8(255) - eight if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else eight
