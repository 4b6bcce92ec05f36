"""Reading of what a browser sends: pictures, JSON and base64 arrays. Anything invalid raises a one-line UserError."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

import numpy as np
from PIL import Image

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import parse_json
from ragaf_exp.data.decode import decode

MAX_SIDE = 4096  # pixels
STARTS = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"RIFF": "WEBP"}  # a file's first bytes -> its format


def check_picture(content: bytes, what: str) -> None:
    """Check a picture's format, by its content, and its size, before anything is decoded.

    Raises:
        UserError: It is not a PNG, JPEG or WebP, is damaged, or larger than 4096 pixels a side.
    """
    kind = next((kind for start, kind in STARTS.items() if content.startswith(start)), None)
    if kind is None:
        raise UserError(f"{what}: must be a PNG, JPEG or WebP picture")
    try:
        with Image.open(io.BytesIO(content), formats=[kind]) as picture:
            width, height = picture.size
    except Image.DecompressionBombError as error:
        raise UserError(f"{what}: has too many pixels; at most {MAX_SIDE} a side are allowed; shrink it first") from error
    except Exception as error:  # a decoder may raise anything on damaged bytes
        raise UserError(f"{what}: is damaged or cut short; send a whole picture") from error
    if max(width, height) > MAX_SIDE:
        raise UserError(f"{what}: is {width}x{height}; at most {MAX_SIDE} pixels a side are allowed; shrink it first")


def read_rgb(content: bytes, what: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Decode an uploaded picture.

    Returns:
        RGB (H,W,3) uint8, and alpha (H,W) uint8 or None where all is opaque.

    Raises:
        UserError: As `check_picture`, and for damaged pixels.
    """
    check_picture(content, what)
    return decode(what, content)


def read_object(content: bytes) -> dict[str, Any]:
    """Parse a JSON object. Raises UserError for other content."""
    try:
        value = parse_json(content)
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"the request is not JSON ({error}); send an object") from error
    if not isinstance(value, dict):
        raise UserError("the request must be a JSON object")
    return value


def to_base64(array: np.ndarray) -> str:
    """Encode an array's bytes, little-endian and row by row."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def from_base64(text: Any, dtype: str, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Decode an array.

    Args:
        text: Base64 of its bytes.
        dtype: NumPy's name of the type, such as <i2.
        shape: The shape that it must have.
        what: Its key, for messages.

    Raises:
        UserError: It is not base64, or has another size.
    """
    content = read_base64(text, what)
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if len(content) != expected:
        size = "x".join(map(str, shape))
        raise UserError(f"{what}: has {len(content)} bytes, and {expected} are needed for {size} values")
    return np.frombuffer(content, dtype).reshape(shape).copy()


def read_base64(text: Any, what: str) -> bytes:
    """Decode base64, or a data URL of it. Raises UserError for anything else."""
    if not isinstance(text, str):
        raise UserError(f"{what}: must be base64 text")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"{what}: is not base64") from error


def data_url(content: bytes, kind: str = "png") -> str:
    """Return a picture as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def png(picture: np.ndarray) -> bytes:
    """Encode (H,W), (H,W,3) or (H,W,4) uint8 as PNG, quickly rather than small."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
