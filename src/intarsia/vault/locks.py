"""Locks that go with the process that holds them: a lock file, and a folder held without a file in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from intarsia.errors import VaultError
from intarsia.files import disk_errors


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[str | None]:
    """Hold a lock file; yields None, or who holds it. The file is empty when nobody does, so no trace stays."""
    with disk_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _try_lock(handle):
            yield f"process {os.pread(handle, 20, 0).decode('ascii', 'replace').strip() or '(unknown)'}"
            return
        with disk_errors(path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        try:
            yield None
        finally:
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


@contextlib.contextmanager
def folder_lock(folder: Path, busy: str) -> Iterator[None]:
    """Hold a folder itself, without a file in it.

    Raises:
        VaultError: somebody else holds it (the message is `busy`), or it is gone.
    """
    if not folder.exists():
        raise VaultError(f"{folder}: has gone in the meantime; begin again")
    with disk_errors(folder):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Between opening and locking, the folder may have been replaced by another, or removed.
        if not _try_lock(handle) or not folder.exists() or not os.path.samestat(os.fstat(handle), folder.stat()):
            raise VaultError(busy)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
