"""Files that are whole or not there: atomic writes, digests, and tensors kept in safetensors.

Tensors are read from nothing else, and only once their digest is checked, if there is a record of it.
"""

from __future__ import annotations

import contextlib
import errno
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

from intarsia.digests import digest_of
from intarsia.errors import CorruptError, SettingsError, VaultError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_MANY = 100
_SEAL = b'{"__metadata__":{"sha256":"'  # how a sealed file goes on after the length of its header
_LENGTH, _HEX = 8, 64
_SEALED = _LENGTH + len(_SEAL)
_BEGUN = "it was there before; begin again"


@contextlib.contextmanager
def disk_errors(path: Path, *, scratch: Path | None = None) -> Iterator[None]:
    """Turn what fails while `path` is being written into one clear line.

    What is written lies in `path` or, if given, in `scratch`; a failure at any other place is one of reading.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            free = shutil.disk_usage(path.parent if path.parent.exists() else Path.cwd()).free
            raise VaultError(
                f"{path}: no space left on the disk ({free >> 20} MiB free); free some room, then run again"
            ) from error
        reason = os.strerror(error.errno or 0)
        if error.filename is None or _is_part(Path(os.fsdecode(error.filename)), scratch or path):
            raise VaultError(f"{path}: cannot be written ({reason})") from error
        raise VaultError(f"{os.fsdecode(error.filename)}: cannot be read ({reason})") from error


def _is_part(failed: Path, written: Path) -> bool:
    """Whether a file is touched when another place is written: what is in it, its scratch file, the folder around."""
    failed, written = failed.absolute(), written.absolute()
    if failed == written.parent or failed.is_relative_to(written):
        return True
    beside = failed.relative_to(written.parent).parts if failed.is_relative_to(written.parent) else ()
    return bool(beside) and beside[0].startswith(f".{written.name}.")


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Bring all files below a folder, and the folders, to the disk."""
    paths = [folder, *folder.rglob("*")]
    if len(paths) > _MANY:
        # Thousands of small pictures: one by one would take ten milliseconds each.
        os.sync()
        return
    for path in paths:
        sync_folder(path)


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file so that whoever looks finds the old bytes or the new ones, never half of them.

    Args:
        durable: whether the new ones must survive a power cut; otherwise the old ones may come back.

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
            if durable:
                sync_folder(path.parent)
        finally:
            scratch.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write a JSON value atomically, indented for people; the same value gives the same bytes.

    Raises:
        VaultError: see `write_atomic`.
    """
    write_atomic(path, json_to_bytes(value))


def json_to_bytes(value: object) -> bytes:
    """What `write_json` writes."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_bytes(path: Path, *, missing: str) -> bytes:
    """The bytes of a file.

    Raises:
        CorruptError: it is missing; `missing` says what follows from that.
        VaultError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CorruptError(f"{path}: missing; {missing}") from error
    except OSError as error:
        raise VaultError(
            f"{path}: cannot be read ({os.strerror(error.errno or 0)}); see to its permissions and to the disk"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CorruptError: the file is missing or holds something else.
        VaultError: it cannot be read.
    """
    data = read_bytes(path, missing="this folder is not complete")
    try:
        value = json.loads(data)
    except (ValueError, UnicodeDecodeError) as error:
        raise CorruptError(
            f"{path}: not valid JSON ({error}); restore it from a backup or remove the folder"
        ) from error
    if not isinstance(value, dict):
        raise CorruptError(f"{path}: holds a JSON {type(value).__name__}, expected an object")
    return value


def check_format(path: Path, found: object, supported: int) -> None:
    """Refuse a record of another format than `supported`, the newest known here.

    Raises:
        CorruptError: the number is no number.
        SettingsError: it is of a newer version of intarsia.
    """
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise CorruptError(f"{path}: format is {found!r}, expected {supported}; restore it from a backup")
    if found > supported:
        raise SettingsError(f"{path}: format {found} is newer than {supported}, the newest known here; update intarsia")


def tensors_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Serialise by name in safetensors; the same tensors give the same bytes."""
    return safetensors.torch.save(_ready(tensors), metadata={"format": "pt"})


def _ready(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors to a safetensors file atomically; returns the sha256 of the file."""
    data = tensors_to_bytes(tensors)
    write_atomic(path, data)
    return digest_of(data)


def read_checked(path: Path, *, digest: str | None = None) -> bytes:
    """The bytes of a file; with `digest`, their sha256 is checked.

    Raises:
        CorruptError: missing, or not the recorded bytes.
        VaultError: it cannot be read.
    """
    data = read_bytes(path, missing="its record expects it")
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
    return _parsed(path, read_checked(path, digest=digest))


def save_sealed(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a safetensors file that holds its own sha256, for files that no record speaks of.

    The digest is taken of the whole file with zeros in the digest's place, and stands in the file's metadata.

    Raises:
        VaultError: see `write_atomic`.
    """
    write_atomic(path, sealed_to_bytes(tensors))


def sealed_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """What `save_sealed` writes; the same tensors give the same bytes."""
    blank = safetensors.torch.save(_ready(tensors), metadata={"sha256": "0" * _HEX})
    assert blank.startswith(_SEAL, _LENGTH)
    return blank[:_SEALED] + digest_of(blank).encode() + blank[_SEALED + _HEX :]


def read_sealed(path: Path) -> bytes:
    """The bytes of a file that `save_sealed` wrote, checked against the digest in it.

    Raises:
        CorruptError: missing, damaged, or without a digest.
        VaultError: it cannot be read.
    """
    data = read_bytes(path, missing=_BEGUN)
    check_seal(path, data)
    return data


def check_seal(path: Path, data: bytes) -> None:
    """Raises CorruptError unless bytes are what `sealed_to_bytes` makes; `path` is where they are from, or go."""
    blank = data[:_SEALED] + b"0" * _HEX + data[_SEALED + _HEX :]
    if not data.startswith(_SEAL, _LENGTH) or data[_SEALED : _SEALED + _HEX] != digest_of(blank).encode():
        raise CorruptError(
            f"{path}: the digest in it is missing or not that of its contents; it was damaged, cut short, or written "
            "by an earlier version: restore it from a backup, or remove it to begin again"
        )


def load_sealed(path: Path) -> dict[str, Tensor]:
    """Read what `save_sealed` wrote; its digest is checked before a byte of it is parsed.

    Raises:
        CorruptError, VaultError: as `read_sealed`.
    """
    return parse_sealed(path, read_bytes(path, missing=_BEGUN))


def parse_sealed(path: Path, data: bytes) -> dict[str, Tensor]:
    """The tensors in the bytes of such a file; `path` is where they are from.

    Raises:
        CorruptError: they are damaged, or without a digest.
    """
    check_seal(path, data)
    return _parsed(path, data)


def _parsed(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CorruptError(f"{path}: not a whole safetensors file ({error}); restore it or train it again") from error
