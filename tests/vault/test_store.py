"""New folders are whole or not there, and what killed processes left of them goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from intarsia.errors import VaultError
from intarsia.vault.folders import new_folder
from intarsia.vault.locks import folder_lock


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
