"""Signatures that show whether a run folder was made by this user, with a secret key in the cache's folder.

The config of each run that begins here is signed with the key (HMAC-SHA256), and so is each file of sampled test images.
Without the key neither can be forged. Where the key is lost or can't be stored, this user's earlier runs count as
untrusted: they remain usable, but paths in their configs must be repeated, and their images are sampled again.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from functools import cache
from pathlib import Path

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_text
from ragaf_exp.core.safe_files import read_bounded
from ragaf_exp.store.entries import locate_cache

SIGNATURE = ".signature"  # of config.yaml, in the run folder
LENGTH = 32  # bytes of the key
CONFIG = 2**20  # bytes of the largest config that is signed


def sign(folder: Path) -> None:
    """Sign the config of a run folder as written by this user."""
    write_text(folder / SIGNATURE, _of_config(folder) + "\n", own=True)


def made_here(folder: Path) -> bool:
    """Whether a run folder's config is signed with this user's key. The path must be resolved."""
    try:
        signature = read_bounded(folder / SIGNATURE, 2 * CONFIG).decode("ascii").strip()
        return hmac.compare_digest(signature, _of_config(folder))
    except (OSError, UnicodeDecodeError, UserError):
        return False


def seal(purpose: str, content: bytes) -> str:
    """Sign content with this user's key, as 64 hex digits; `purpose` separates signatures of different kinds."""
    return hmac.new(_key(str(locate_cache(""))), f"{purpose}\n".encode() + content, hashlib.sha256).hexdigest()


def _of_config(folder: Path) -> str:
    return seal("config", read_bounded(folder / "config.yaml", CONFIG))


@cache
def _key(folder: str) -> bytes:
    """Read the key in a folder, or create it; if the folder can't be written to, the key lives as long as this process."""
    path = Path(folder) / f".key-{os.getuid()}"
    new = secrets.token_bytes(LENGTH)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_once(path, new)
        if len(known := path.read_bytes()) == LENGTH and path.stat().st_uid == os.getuid():
            return known
    return new


def _write_once(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, atomically; an existing one stays."""
    if path.exists():
        return
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
