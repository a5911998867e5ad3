"""Folders that are made whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from intarsia.errors import VaultError
from intarsia.files import disk_errors, sync_folder, sync_tree
from intarsia.vault.locks import folder_lock


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A scratch folder that becomes `path` when the block ends, and vanishes when it raises.

    It is held while it is filled; those of killed processes, which nobody holds, are removed first.

    Raises:
        VaultError: there is something at `path` already, another process is making it, or the disk is full.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise VaultError(f"{path} exists already; choose another place or remove it")
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    with disk_errors(path):
        _sweep(path)
        try:
            scratch.mkdir(parents=True)
            with folder_lock(scratch, f"{path}: another process is making it; choose another place"):
                yield scratch
                sync_tree(scratch)
                os.replace(scratch, path)
                sync_folder(path.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _sweep(path: Path) -> None:
    """Remove scratch folders for `path` that no living process holds."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{32}}\.part")
    beside = list(path.parent.iterdir()) if path.parent.is_dir() else []
    for scratch in beside:
        if ours.fullmatch(scratch.name) and scratch.is_dir():
            with contextlib.suppress(VaultError), folder_lock(scratch, "held"):
                shutil.rmtree(scratch, ignore_errors=True)
