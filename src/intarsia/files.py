"""Files that are whole or not there: atomic writes, digests, and tensors kept in safetensors.

Tensors are read from nothing else, and only once their digest is checked, if there is a record of it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from intarsia.errors import CorruptError, VaultError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


def digest_of(data: bytes) -> str:
    """The sha256 of some bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: object) -> bytes:
    """The byte string for a JSON value, what digests and fingerprints are taken of: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a read-only one or a missing permission into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            free = shutil.disk_usage(path.parent if path.parent.exists() else Path.cwd()).free
            raise VaultError(
                f"{path}: no space left on the disk ({free >> 20} MiB free); free some room, then run again"
            ) from error
        raise VaultError(f"{path}: cannot be written ({os.strerror(error.errno or 0)})") from error


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that whoever looks finds the old bytes or the new ones, never half of them.

    Raises:
        VaultError: the disk is full or the place cannot be written; the old file, if any, is untouched.
    """
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    with disk_errors(path):
        try:
            with scratch.open("wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(scratch, path)
            sync_folder(path.parent)
        finally:
            scratch.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write a JSON value atomically, indented for people; the same value gives the same bytes.

    Raises:
        VaultError: see `write_atomic`.
    """
    write_atomic(
        path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CorruptError: the file is missing or holds something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CorruptError(f"{path}: missing; this folder is not complete") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise CorruptError(
            f"{path}: not valid JSON ({error}); restore it from a backup or remove the folder"
        ) from error
    if not isinstance(value, dict):
        raise CorruptError(f"{path}: holds a JSON {type(value).__name__}, expected an object")
    return value


def tensors_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Serialise by name in safetensors; the same tensors give the same bytes."""
    ready = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    return safetensors.torch.save(ready, metadata={"format": "pt"})


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors to a safetensors file atomically; returns the sha256 of the file."""
    data = tensors_to_bytes(tensors)
    write_atomic(path, data)
    return digest_of(data)


def read_checked(path: Path, *, digest: str | None = None) -> bytes:
    """The bytes of a file; with `digest`, their sha256 is checked.

    Raises:
        CorruptError: missing, or not the recorded bytes.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CorruptError(f"{path}: missing; its record expects it") from error
    found = digest_of(data)
    if digest is not None and found != digest:
        raise CorruptError(
            f"{path}: sha256 is {found[:16]}…, its record says {digest[:16]}…; restore it or train it again"
        )
    return data


def load_tensors(path: Path, *, digest: str | None = None) -> dict[str, Tensor]:
    """Read a safetensors file; with `digest`, its sha256 is checked before a byte of it is parsed.

    Raises:
        CorruptError: missing, not the recorded bytes, or not safetensors.
    """
    data = read_checked(path, digest=digest)
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CorruptError(f"{path}: not a whole safetensors file ({error}); restore it or train it again") from error
