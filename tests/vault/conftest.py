"""One empty vault is made per session; each test gets a copy, so that all have the same id and can be compared."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from intarsia.vault import Vault

from .helpers import grown, tiny_backbone, toy_source


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vaults") / "empty.vault"
    Vault.create(root, backbone=(tiny_backbone(), toy_source("core", 24)))
    return root


@pytest.fixture(scope="session")
def trained(empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With sources `oak` and `elm`, trained."""
    root = tmp_path_factory.mktemp("vaults") / "trained.vault"
    shutil.copytree(empty, root)
    grown(Vault.open(root), "oak", "elm")
    return root


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[Path], Vault]:
    """Opens a copy of a vault's folder."""
    made: list[Path] = []

    def copy(root: Path) -> Vault:
        made.append(tmp_path / f"copy-{len(made)}.vault")
        shutil.copytree(root, made[-1])
        return Vault.open(made[-1])

    return copy


@pytest.fixture
def vault(fresh: Callable[[Path], Vault], empty: Path) -> Vault:
    """An empty vault."""
    return fresh(empty)


@pytest.fixture
def pair(fresh: Callable[[Path], Vault], trained: Path) -> Vault:
    """A vault with `oak` and `elm`, trained."""
    return fresh(trained)


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """A test does not outlive a power cut; the tests of crashes see to fsync themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        patch.setattr(os, "sync", lambda: None)
        yield
