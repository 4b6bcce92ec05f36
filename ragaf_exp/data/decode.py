"""Safe decoding of image files in any common format. A bad file raises a one-line UserError that names it.

Decoders are limited to the formats named here (Pillow has some that run other programs), sizes are checked by
the file's header before anything is decoded, and Pillow's warnings are either raised here as errors or ignored.
"""

from __future__ import annotations

import io
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ragaf_exp.core.errors import UserError
from ragaf_exp.data.jpeg import decode_jpeg, jpeg_content, plain_size

MAX_PIXELS = 64_000_000  # a decompression bomb beyond this
HEAD = 4096  # bytes at the start of a JPEG that usually have all of its header
FULL_16 = 16384  # values from which on greyscale uses all of 16 bits
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF")
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values for which width and height are exchanged
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")

# Set once, since catching warnings during a call isn't thread-safe; logged problems are raised as errors too.
warnings.filterwarnings("ignore", module="PIL")
logging.getLogger("PIL").setLevel(logging.CRITICAL)
_STDERR = threading.Lock()


def check_header(path: str | Path) -> tuple[int, int]:
    """Read the width and height of an image from its header, as stored. Raises UserError as read_image would."""
    with _open(path) as picture:
        return picture.size


def upright_size(path: str | Path, content: bytes | None = None) -> tuple[int, int]:
    """Read the height and width of an image from its header, with its EXIF orientation. Raises UserError as read_image.

    content: the file's bytes, if they have been read already.
    """
    head = jpeg_content(path, HEAD) if content is None else content
    if head is not None and (size := _plain_size(head)):
        return size[1], size[0]
    with _open(path, content) as picture:
        width, height = picture.size
        return (width, height) if _orientation(picture) in TURNED else (height, width)


def decode(path: str | Path, content: bytes | None = None, side: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
    """Decode an image, with its EXIF orientation applied.

    Args:
        path: The file.
        content: Its bytes, if they have been read already.
        side: Pixels that the shorter side must keep; a JPEG is decoded at the smallest of 1/8, 1/4 and 1/2 of its size
            that has them (DCT scaling, several times faster). 0 decodes at full size.

    Returns:
        RGB (H, W, 3) uint8, and alpha (H, W) uint8 or None if everything is opaque.

    Raises:
        UserError: The file is missing, too large, damaged or not an image.
    """
    if side:
        content = jpeg_content(path) if content is None else content
        if content is not None and (pixels := _plain(content, side)) is not None:
            return pixels, None
    with _open(path, content) as picture, _silent_libtiff() if picture.format == "TIFF" else nullcontext():
        try:
            if side and content is not None and _is_simple(picture):
                pixels = decode_jpeg(content, picture.size, side)
                if pixels is not None:
                    return pixels, None
            picture.load()
            return _channels(_upright(picture))
        except Exception as error:  # a decoder may raise anything on damaged bytes
            raise UserError(_damaged(path, error)) from None


def _plain(content: bytes, side: int) -> np.ndarray | None:
    """Decode a plain JPEG as `decode` does; None for other files."""
    size = _plain_size(content)
    return decode_jpeg(content, size, side) if size else None


def _plain_size(content: bytes) -> tuple[int, int] | None:
    size = plain_size(content)
    return size if size and 0 < size[0] * size[1] <= MAX_PIXELS else None


def _is_simple(picture: Image.Image) -> bool:
    """Whether an opened file is a JPEG that OpenCV decodes to the same picture."""
    return picture.format == "JPEG" and picture.mode in ("RGB", "L") and _orientation(picture) == 1


def orientation(path: str | Path, content: bytes | None = None) -> int:
    """Read the EXIF orientation of an image, 1 (upright) where there is none. Raises UserError as `decode` does.

    content: the file's bytes, if they have been read already.
    """
    if content is not None and plain_size(content):
        return 1
    with _open(path, content) as picture:
        return _orientation(picture)


def _orientation(picture: Image.Image) -> int:
    try:
        described = picture.info.keys() & {"exif", "xmp"}
        return int(picture.getexif().get(ORIENTATION, 1)) if described else 1
    except Exception:  # damaged EXIF says nothing about the pixels
        return 1


def read_labels(path: str | Path, content: bytes | None = None) -> np.ndarray:
    """Read a label mask as (H, W) int64, unscaled: the indices of an indexed image, the levels of a greyscale one.

    A colour image with equal channels counts as greyscale. Raises UserError as `decode` does, and for colours. content:
    the file's bytes, if they have been read already.
    """
    with _open(path, content) as picture, _silent_libtiff() if picture.format == "TIFF" else nullcontext():
        try:
            picture.load()
            values = _labels(_upright(picture))
        except Exception as error:  # a decoder may raise anything on damaged bytes
            raise UserError(_damaged(path, error)) from None
    if values is None:
        raise UserError(f"{path}: is a colour picture; a mask holds one label per pixel: save it as greyscale or indexed")
    return values


def _labels(picture: Image.Image) -> np.ndarray | None:
    """Convert a decoded image to labels (H, W); None if its channels differ."""
    if picture.mode in ("PA", "LA", "La"):
        return np.asarray(picture)[..., 0].astype(np.int64)
    if picture.mode == "F":
        return np.rint(np.asarray(picture)).astype(np.int64)
    values = np.asarray(picture)
    if values.ndim == 2:  # "1" holds bool, "P" indices, "L" and "I" levels
        return values.astype(np.int64)
    colours = np.asarray(picture.convert("RGB"))
    equal = (colours == colours[..., :1]).all()
    return colours[..., 0].astype(np.int64) if equal else None


@contextmanager
def _silent_libtiff() -> Iterator[None]:
    """Suppress the messages that libtiff, a C library, writes directly to the process's stderr."""
    with _STDERR:
        try:
            stderr = os.dup(2)
        except OSError:  # there is no stderr
            yield
            return
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(sink)
            os.close(stderr)


def _open(path: str | Path, content: bytes | None = None) -> Image.Image:
    """Open an image and check its header, without decoding it."""
    name = Path(path)
    try:
        if content is None and name.is_dir():
            raise UserError(f"{path}: is a directory, not an image; name a file in it")
        if content is None and name.exists() and not name.is_file():
            raise UserError(f"{path}: is a device or pipe, not a file; save the image to a file")
        if (name.stat().st_size if content is None else len(content)) == 0:
            raise UserError(f"{path}: is empty (0 bytes); replace it with a whole image")
        picture = Image.open(name if content is None else io.BytesIO(content), formats=FORMATS)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file; check the path") from None
    except PermissionError:
        raise UserError(f"{path}: may not be read (permission denied); make it readable (chmod +r)") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: is not an image, or not one of PNG, JPEG, WebP, BMP, TIFF, GIF; convert it") from None
    except Image.DecompressionBombError:
        raise UserError(_too_large(path)) from None
    except UserError:
        raise
    except Exception as error:  # a decoder may raise anything on damaged bytes
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"{path}: can't be read ({error.strerror}); fix that or the path") from None
        raise UserError(_damaged(path, error)) from None
    width, height = picture.size
    if width * height > MAX_PIXELS:
        picture.close()
        raise UserError(_too_large(path, f"{width} x {height} pixels"))
    if width * height == 0:
        picture.close()
        raise UserError(f"{path}: has no pixels ({width} x {height}); replace it with a whole image")
    return picture


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # damaged EXIF says nothing about the pixels
        return picture


def _channels(picture: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Split a decoded image of any mode into RGB and alpha."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return np.repeat(_eight_bits(np.asarray(picture))[..., None], 3, 2), None
    if not picture.has_transparency_data:
        return np.asarray(picture.convert("RGB")), None
    rgba = np.asarray(picture.convert("RGBA"))
    alpha = rgba[..., 3]
    return rgba[..., :3], None if alpha.min() == 255 else alpha


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Convert greyscale (H, W) of 16 or 32 bits or float to uint8, by its full scale. Raises ValueError for NaN.

    The file of a scan of 10 to 14 bits stored in 16 does not state its scale; the largest value is used instead.
    """
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} values are NaN or infinite")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        values, scale = values - low, max(high - low, 1e-9)
    else:
        scale = 1.0 if high <= 1 else 255.0 if high <= 255 else high if high < FULL_16 else 65535.0
    return np.rint(values * (255 / scale)).astype(np.uint8)


def _too_large(path: str | Path, what: str = "") -> str:
    tail = f" ({what})" if what else ""
    return f"{path}: is larger than the limit of {MAX_PIXELS // 1_000_000} megapixels{tail}; shrink it first"


def _damaged(path: str | Path, error: Exception) -> str:
    reason = " ".join(str(error).replace(os.linesep, " ").split())[:120] or type(error).__name__
    return f"{path}: is damaged or cut short ({reason}); replace it with a whole image"
