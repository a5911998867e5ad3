"""The vault's folders: one writer at a time, and changes that happen whole or not at all.

A change is staged in `work/<id>/` and decided by writing `work/<id>/plan.json`; then renames carry it out, the work
folder goes, and the index is made again. Whoever finds a work folder without a plan throws it away; one with a plan is
carried out. So a kill at any moment leaves the old state or the new. What a change has to say to the ledger stands in
its plan, and is appended, once, when the plan is carried out. Before the first rename `work/stale-index` is written and
the index removed, if it tells of what changes: until that file goes the index is not believed, and whoever lists makes
it again. So an empty `work/` says that the index agrees with the folders.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from intarsia.errors import VaultError
from intarsia.files import disk_errors, read_json, sync_folder, write_json
from intarsia.ledger import Entry, Event, Ledger, Proof, Receipt
from intarsia.vault.change import Change
from intarsia.vault.clock import Clock, utc_now
from intarsia.vault.locks import file_lock, folder_lock
from intarsia.vault.salts import Salts

RECORD_FILE = "vault.json"
LOCK_FILE = "lock"
INDEX_FILE = "index.db"
PLAN_FILE = "plan.json"
STALE_FILE = "stale-index"
BACKBONE, CORE, SOURCES, COMPARTMENTS, TRAINING, PRINCIPALS, PERMITS, BUDGETS, WORK, LEDGER = (
    "backbone",
    "core",
    "sources",
    "compartments",
    "training",
    "principals",
    "permits",
    "budgets",
    "work",
    "ledger",
)
_INDEXED = (SOURCES, COMPARTMENTS)
_POLL = 0.2
_MANY = 100


class Store:
    """The folders of one vault.

    Args:
        root: the vault's folder.
        reindex: makes the index again from the folders, using a scratch folder that it is given.
        clock: what time the ledger says it is.
    """

    def __init__(self, root: Path, reindex: Callable[[Path], None], *, clock: Clock = utc_now):
        self.root, self._reindex = root, reindex
        self.ledger, self.salts = Ledger(root / LEDGER, clock=clock), Salts(root)

    def source(self, name: str) -> Path:
        return self.root / SOURCES / name

    def compartment(self, name: str) -> Path:
        return self.root / COMPARTMENTS / name

    def training(self, name: str) -> Path:
        return self.root / TRAINING / name

    def principal(self, name: str) -> Path:
        return self.root / PRINCIPALS / name

    def permit(self, name: str) -> Path:
        return self.root / PERMITS / name

    def budget(self, name: str) -> Path:
        return self.root / BUDGETS / name

    def names(self, kind: str) -> list[str]:
        """The folders of a kind (`SOURCES`, `COMPARTMENTS`, …), sorted; no file in them is opened."""
        try:
            with os.scandir(self.root / kind) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []  # copying tools drop empty folders

    def everyone(self) -> list[str]:
        """Every name under which something of a source may be stored, sorted."""
        return sorted({name for kind in (SOURCES, COMPARTMENTS, TRAINING) for name in self.names(kind)})

    def sole_trainer(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Hold the training folder of a source.

        Raises:
            VaultError: somebody else does.
        """
        return folder_lock(self.training(name), f"source '{name}' is being trained; wait for that to end, or stop it")

    @contextlib.contextmanager
    def locked(self, *, patience: float = 0.0) -> Iterator[None]:
        """Be the only writer, after at most `patience` seconds; what an interrupted one left is settled first.

        Raises:
            VaultError: another process is writing, or the folder cannot be written.
        """
        deadline = time.monotonic() + patience
        with contextlib.ExitStack() as stack:
            while (holder := stack.enter_context(file_lock(self.root / LOCK_FILE))) is not None:
                stack.close()
                if time.monotonic() >= deadline:
                    raise VaultError(f"{self.root}: {holder} is changing this vault; try again when it has finished")
                time.sleep(_POLL)
            self._recover()
            yield

    def tell(self, event: Event, *, unrecorded: bool = False) -> Receipt | None:
        """Record what changes nothing in the vault; without a lock, so that nobody waits for a long change.

        Args:
            unrecorded: go without (and return None) if the vault cannot be written.

        Raises:
            VaultError: it cannot be written.
            CorruptError: the ledger is damaged.
        """
        entry, openings = event.entry(self.salts.all(event.sources), self.ledger.clock())
        if not self.ledger.writable:
            if unrecorded:
                return None
            raise VaultError(
                f"{self.root}: cannot be written, so that its ledger cannot say what is drawn from it; make it "
                "writable, or draw from it unrecorded (--unrecorded, unrecorded=True in Python)"
            )
        return Receipt(entry, openings, self.ledger.append([entry])[0], self.ledger.key)

    def settle(self) -> None:
        """Finish or undo what an interrupted writer left, unless a writer is at work right now.

        Raises:
            VaultError: something was left, and the folder cannot be written.
        """
        if not self.names(WORK):
            return
        with file_lock(self.root / LOCK_FILE) as holder:
            if holder is None:
                self._recover()

    @contextlib.contextmanager
    def change(self, *, patience: float = 0.0) -> Iterator[Change]:
        """Stage a change inside the block; it is carried out when the block ends, dropped when it raises.

        Raises:
            VaultError: as `locked`; something that is needed cannot be read; or the disk is full: what was there before
                is untouched, or the change is finished by whoever uses the vault next, or (the message says so) it is
                made and only the index is not.
        """
        with self.locked(patience=patience):
            staging = self.root / WORK / uuid.uuid4().hex
            change = Change(staging, self.ledger, self.salts)
            with disk_errors(self.root, scratch=staging):
                staging.mkdir(parents=True)
                try:
                    yield change
                    if change.moves:
                        sync_tree(staging)
                        sync_folder(staging.parent)
                        # Where the ledger ends is asked before anything is decided: a damaged one must not stop a plan.
                        entries = [each.entry.line.decode() for each in change.recorded]
                        plan = {"moves": change.moves, "entries": entries, "since": self.ledger.end()}
                        change.announce(change.recorded)
                        write_json(staging / PLAN_FILE, plan)
                finally:
                    if not (staging / PLAN_FILE).exists():
                        shutil.rmtree(staging, ignore_errors=True)
            if change.moves:
                change.proofs = self._carry_out(staging)
                if _is_indexed(change.moves):
                    self._refresh_after_change()

    @property
    def stale(self) -> bool:
        """Whether the index may disagree with the folders: they were changed, and it was not made again since."""
        return (self.root / WORK / STALE_FILE).exists()

    def distrust_index(self) -> None:
        """Mark the index as stale. The file goes at once: it may hold what is being forgotten."""
        with disk_errors(self.root):
            (self.root / WORK).mkdir(exist_ok=True)
            (self.root / WORK / STALE_FILE).touch()
            sync_folder(self.root / WORK)
            (self.root / INDEX_FILE).unlink(missing_ok=True)
            sync_folder(self.root)

    def refresh_index(self) -> None:
        """Make the index again from the folders; for the only writer.

        Raises:
            VaultError: it cannot be written.
        """
        scratch = self.root / WORK / uuid.uuid4().hex
        with disk_errors(self.root):
            scratch.mkdir(parents=True)
            try:
                self._reindex(scratch)
                (self.root / WORK / STALE_FILE).unlink(missing_ok=True)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            sync_folder(scratch.parent)

    def _refresh_after_change(self) -> None:
        try:
            self.refresh_index()
        except VaultError as error:
            raise VaultError(f"the change is made, but not the index, which the next listing makes: {error}") from error

    def _recover(self) -> None:
        """Renames and removals alone: nobody's folder is opened, as whoever comes here may have no business in it."""
        for name in self.names(WORK):
            staging = self.root / WORK / name
            if (staging / PLAN_FILE).exists():
                self._carry_out(staging)
            else:
                with disk_errors(self.root):
                    shutil.rmtree(staging)

    def _carry_out(self, staging: Path) -> tuple[Proof, ...]:
        """Do what the plan says, from wherever it stands: every move is made once, however often this is called.

        Returns:
            Proofs of the entries that were appended now.
        """
        plan = read_json(staging / PLAN_FILE)
        if _is_indexed(plan["moves"]):
            self.distrust_index()
        entries = [Entry(line.encode()) for line in plan.get("entries", [])]
        proofs = self.ledger.append(entries, since=plan["since"]) if entries else ()
        with disk_errors(self.root):
            for target, staged in plan["moves"].items():
                self._move(staging, self.root / target, None if staged is None else staging / staged)
            for folder in sorted({(self.root / target).parent for target in plan["moves"]}):
                sync_folder(folder)
            # Without its plan the folder is rubbish, which any later writer may throw away.
            (staging / PLAN_FILE).unlink()
            shutil.rmtree(staging)
            sync_folder(staging.parent)
        return proofs

    @staticmethod
    def _move(staging: Path, target: Path, staged: Path | None) -> None:
        if staged is not None and not staged.exists():
            return
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            os.replace(target, staging / f"old-{uuid.uuid4().hex}")
        if staged is not None:
            os.replace(staged, target)


def _is_indexed(targets: Iterable[str]) -> bool:
    """Whether the index tells of any of these places."""
    return any(target.split("/")[0] in _INDEXED for target in targets)


def sync_tree(folder: Path) -> None:
    """Bring all files below a folder, and the folders, to the disk."""
    paths = [folder, *folder.rglob("*")]
    if len(paths) > _MANY:
        # Thousands of small pictures: one by one would take ten milliseconds each.
        os.sync()
        return
    for path in paths:
        sync_folder(path)


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
