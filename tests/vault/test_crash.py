"""A kill, a failing disk or a full one at any moment leaves the old state or the new one, never one in between."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import intarsia
from intarsia.errors import VaultError
from intarsia.vault import Vault

from .helpers import all_bytes, grown, quick, toy_source, traces

KILLS = Path(__file__).with_name("kills.py")
Fresh = Callable[[Path], Vault]
Action = Callable[[Vault], object]


def run_kills(*arguments: object) -> dict[str, Any]:
    folders = [str(Path(intarsia.__file__).parents[1]), str(KILLS.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    command = [sys.executable, str(KILLS), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


FINISHED = {"train", "retrain", "extend", "forget a sample", "forget a neighbour", "forbid"}
"""What a finisher makes whole: killed at any moment, it ends with the bytes of an uninterrupted run."""
UNCHANGED = {"draw", "draw jointly", "payout", "ticket", "close a ticket", "pack"}
"""What changes nothing in the vault but its ledger."""


def check_outcomes(found: dict[str, dict[str, Any]], *, least: int) -> None:
    for case, outcome in found.items():
        assert [outcome[wrong] for wrong in ("other", "untrue", "left")] == [0] * 3, (case, outcome)
        assert outcome["problems"] == [], case
        assert outcome["moments"] >= least, (case, outcome)
        assert outcome["new"], (case, outcome)
        assert bool(outcome["old"]) == (case not in FINISHED | UNCHANGED), (case, outcome)


def test_killed_at_some_moments(empty: Path, trained: Path, tmp_path: Path) -> None:
    check_outcomes(run_kills("killed", empty, trained, tmp_path, 2, "add", "forget"), least=2)


@pytest.mark.parametrize(("disk", "case"), [("broken", "forget"), ("full", "import")])
def test_a_disk_that_fails_at_some_moments(disk: str, case: str, empty: Path, trained: Path, tmp_path: Path) -> None:
    check_outcomes(run_kills(disk, empty, trained, tmp_path, 4, case), least=4)


@pytest.mark.integration
def test_killed_at_many_moments(empty: Path, trained: Path, tmp_path: Path) -> None:
    check_outcomes(run_kills("killed", empty, trained, tmp_path, 16), least=3)


@pytest.mark.integration
@pytest.mark.parametrize("disk", ["broken", "full"])
def test_a_disk_that_fails_at_many_moments(disk: str, empty: Path, trained: Path, tmp_path: Path) -> None:
    check_outcomes(run_kills(disk, empty, trained, tmp_path, 12), least=3)


@pytest.mark.integration
def test_killed_at_random_again_and_again(empty: Path, tmp_path: Path) -> None:
    found = run_kills("at-random", empty, tmp_path, 40)
    assert found["problems"] == []
    assert found["clean"], "after forgetting all, something of the killed work is left"
    assert len(found["seen"]) >= 5, "the children did next to nothing"


def test_two_processes_change_one_vault(empty: Path, tmp_path: Path) -> None:
    assert run_kills("together", empty, tmp_path, 1.0) == {"statuses": [0] * 3, "problems": [], "clean": True}


class Failing:
    """Makes the n-th call of any of some functions of `os` fail as a disk does."""

    def __init__(self, patch: pytest.MonkeyPatch, n: int, code: int, names: tuple[str, ...] = ("replace", "fsync")):
        self.left, self.code = n, code
        for name in names:
            patch.setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            self.left -= 1
            if self.left == 0:
                raise OSError(self.code, os.strerror(self.code))
            return real(*arguments)

        return call


def test_a_forget_cut_short_is_finished_before_anything_is_composed(pair: Vault, fresh: Fresh, trained: Path) -> None:
    """The process lives on, and asks the same vault again."""
    with pytest.MonkeyPatch.context() as patch:
        # The third rename is the first after the decision: new salts for the other source, and the plan, come before.
        Failing(patch, 3, errno.EIO, names=("replace",))
        with pytest.raises(VaultError):
            pair.forget("elm")
    assert list((pair.root / "work").iterdir())
    assert pair.compose(precision="float32").names == ("oak",)
    assert [path.name for path in (pair.root / "work").iterdir()] == ["stale-index"]
    assert traces(pair.root, ["elm"]) == []
    assert [source.name for source in pair.sources()] == ["oak"]
    assert not list((pair.root / "work").iterdir())
    other = fresh(trained)
    other.forget("elm")
    assert all_bytes(pair.root) == all_bytes(other.root)


def test_a_writer_that_lives_is_not_disturbed(pair: Vault) -> None:
    holder = "import fcntl, os, sys; h = os.open(sys.argv[1], os.O_RDWR); fcntl.flock(h, fcntl.LOCK_EX); "
    holder += "os.pwrite(h, str(os.getpid()).encode(), 0); print('held', flush=True); sys.stdin.read()"
    lock = pair.root / "lock"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", holder, str(lock)], **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(VaultError, match=f"process {process.pid} is changing this vault"):
            pair.forget("elm")
        with pytest.raises(VaultError, match="try again"):
            pair.add_source("ash", toy_source("ash"))
        (pair.root / "work" / "under-way").mkdir()
        assert Vault.open(pair.root).compose(precision="float32").names == ("elm", "oak")
        assert (pair.root / "work" / "under-way").exists(), "a reader swept away what a live writer is making"
        process.communicate()
    assert pair.forget("elm").gone == ("elm",)
    assert lock.read_bytes() == b""
    assert not list((pair.root / "work").iterdir())


def test_a_source_in_training_is_neither_trained_twice_nor_forgotten(vault: Vault) -> None:
    grown(vault, "oak", train=False)
    steps = vault.training("oak", quick())
    next(steps)
    with pytest.raises(VaultError, match="'oak' is being trained"):
        next(Vault.open(vault.root).training("oak", quick()))
    with pytest.raises(VaultError, match="'oak' is being trained"):
        vault.forget("oak")
    grown(vault, "elm")
    assert len(list(steps)) == 3
    assert [info.name for info in vault.compartments()] == ["elm", "oak"]


def test_a_full_disk_is_one_clear_line_on_create(tmp_path: Path) -> None:
    from .helpers import tiny_backbone

    core = toy_source("core", 6)
    with pytest.MonkeyPatch.context() as patch:
        Failing(patch, 3, errno.ENOSPC)
        with pytest.raises(VaultError, match="no space left on the disk") as caught:
            Vault.create(tmp_path / "new.vault", backbone=(tiny_backbone(), core))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
