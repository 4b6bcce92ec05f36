"""Decoding of plain JPEG files by OpenCV, from bytes that are read once: neither a Pillow image nor a copy is made.

Plain is a file whose header holds nothing that changes how its pixels are read. Others, such as photos with EXIF data,
several pictures or four channels, are opened by Pillow first (see decode.decode), which also names a file's faults.
"""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISREG

import cv2
import numpy as np

START, END, TAIL = b"\xff\xd8", b"\xff\xd9", 64  # markers, and the last bytes of a whole file that the end is in
FRAMES, SCAN = (0xC0, 0xC1, 0xC2), 0xDA  # markers of Huffman-coded frames, and of the first scan
TABLES = (0xC4, 0xDB, 0xDD, 0xFE)  # markers of tables and comments
APPLICATIONS = {0xE0: b"JFIF\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}  # marker -> start of its content in a plain file
LEAST = 14  # bytes of such a segment that readers rely on
COLOUR = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
REDUCED = {  # 1/n of the sides; OpenCV adds the channels of COLOUR to "greyscale"
    1: COLOUR, 2: COLOUR | cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: COLOUR | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: COLOUR | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}  # fmt: skip


def jpeg_content(path: str | Path, count: int = -1) -> bytes | None:
    """Read a file that begins like a JPEG; None for others, and for what is not there or can't be read.

    Args:
        path: The file.
        count: Bytes to read, -1 for all.
    """
    try:
        if not S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb", buffering=0) as file:
            if file.read(len(START)) != START:
                return None
            file.seek(0)
            return file.read(count)
    except OSError:
        return None


def plain_size(content: bytes) -> tuple[int, int] | None:
    """Read the width and height of a plain JPEG of one or three channels from its header; None if it is not plain.

    Args:
        content: The file's bytes, at least those up to the first scan.
    """
    at, size = len(START) if content.startswith(START) else len(content), None
    while at + 10 <= len(content) and content[at] == 0xFF:
        marker, end = content[at + 1], at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == SCAN:
            return size
        if marker in FRAMES and content[at + 4] == 8 and content[at + 9] in (1, 3):  # bits and channels
            size = int.from_bytes(content[at + 7 : at + 9], "big"), int.from_bytes(content[at + 5 : at + 7], "big")
        elif marker not in TABLES and not _is_plain(marker, content[at + 4 : end]):
            return None
        at = end
    return None


def _is_plain(marker: int, segment: bytes) -> bool:
    return marker in APPLICATIONS and segment.startswith(APPLICATIONS[marker]) and len(segment) >= LEAST - 2


def decode_jpeg(content: bytes, size: tuple[int, int], side: int) -> np.ndarray | None:
    """Decode an upright JPEG of one or three channels at the smallest sufficient of 1, 1/2, 1/4 and 1/8 of its size.

    Args:
        content: The file's bytes.
        size: Its width and height.
        side: Pixels that the shorter side must keep.

    Returns:
        RGB (H, W, 3) uint8; None if it is damaged, or may be cut short, which OpenCV would not report.
    """
    if END not in content[-TAIL:]:
        return None
    scale = next(scale for scale in (8, 4, 2, 1) if scale == 1 or min(size) >= scale * side)
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), REDUCED[scale])
    except cv2.error:
        return None
