"""Checkpoints of an unfinished training: written atomically, with a checksum, only tensors and plain values."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import secrets
import socket
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)

_MAGIC = b"luigi_prune checkpoint 2\n"
_DIGEST_BYTES = 32


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write `content` to a temporary file, flush it to the disk and rename it to `path`."""
    payload = io.BytesIO()
    torch.save(content, payload)
    view = payload.getbuffer()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            file.write(_MAGIC + _digest(view))
            file.write(view)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_payload(path: Path) -> bytes | None:
    """Return the bytes of the checkpoint at `path`; None if it is missing or, with a warning, damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("checkpoint %s cannot be read (%s); training starts anew", path, error)
        return None
    header, payload = content[: len(_MAGIC) + _DIGEST_BYTES], content[len(_MAGIC) + _DIGEST_BYTES :]
    if header != _MAGIC + _digest(payload):
        log.warning("checkpoint %s is damaged or of another version; training starts anew", path)
        return None
    return payload


def decode(payload: bytes) -> dict[str, Any]:
    """Return the content of a checkpoint, on the CPU; unpickles only tensors and plain values."""
    content: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return content


def discard(checkpoint: Path) -> None:
    """Delete the checkpoint of a training whose result has been stored."""
    Path(checkpoint).unlink(missing_ok=True)


def _digest(payload: bytes | memoryview) -> bytes:
    return hashlib.blake2b(payload, digest_size=_DIGEST_BYTES).digest()
