"""New folders are whole or not there, and what killed processes left of them goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from intarsia.errors import VaultError
from intarsia.vault.folders import new_folder
from intarsia.vault.locks import folder_lock
from intarsia.vault.store import COMPARTMENTS, SOURCES, Store


def test_a_store_holds_the_names_that_it_lists_and_nothing_else(tmp_path: Path) -> None:
    for folder in ("sources/oak", "compartments/elm", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "sources/file").write_text("x")
    (tmp_path / "sources/link").symlink_to(tmp_path / "elsewhere")
    store = Store(tmp_path, lambda scratch: None)
    asked = [
        "oak",
        "elm",
        "file",
        "link",
        "",
        ".",
        "..",
        "../compartments/elm",
        f"{tmp_path}/elsewhere",
        "a\0b",
        "x" * 300,
    ]
    for kind, names in ((SOURCES, ["oak"]), (COMPARTMENTS, ["elm"])):
        assert [name for name in asked if store.holds(kind, name)] == store.names(kind) == names


def test_scratch_folders_that_nobody_holds_are_removed(tmp_path: Path) -> None:
    names = [f".out.{digit * 32}.part" for digit in "ab"] + [".out.old.part", f".other.{'a' * 32}.part"]
    for name in names:
        (tmp_path / name / "inner").mkdir(parents=True)
    with folder_lock(tmp_path / names[1], "held"), new_folder(tmp_path / "out") as scratch:
        (scratch / "x").write_text("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names[1:], "out"])
    assert (tmp_path / "out/x").read_text() == "x"


def test_a_folder_in_the_making_is_held(tmp_path: Path) -> None:
    """Who comes second takes nothing away from the first, who then finds the place taken."""

    def both() -> None:
        with new_folder(tmp_path / "out") as first:
            with new_folder(tmp_path / "out") as second:
                (second / "x").write_text("second")
            assert first.exists()

    with pytest.raises(VaultError, match="out: cannot be written"):
        both()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "x"]
