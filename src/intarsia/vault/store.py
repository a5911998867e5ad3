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
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from intarsia.data import is_name
from intarsia.errors import VaultError
from intarsia.files import disk_errors, read_json, sync_folder, sync_tree, write_json
from intarsia.ledger import Entry, Event, Ledger, Proof, Receipt
from intarsia.ledger.log import ENTRIES_FILE, HEAD_FILE
from intarsia.vault.change import Change
from intarsia.vault.clock import Clock, utc_now
from intarsia.vault.locks import file_lock, folder_lock
from intarsia.vault.origin import Origin
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
_TOLD = tuple(f"{LEDGER}/{name}" for name in (ENTRIES_FILE, HEAD_FILE))
_POLL = 0.2
_PATIENCE = 60.0  # seconds to wait for whoever else is writing to a vault that several machines share


class Store:
    """The folders of one vault.

    Args:
        root: the vault's folder.
        reindex: makes the index again from the folders, using a scratch folder that it is given.
        clock: what time the ledger says it is.
        origin: where the vault comes from, if these folders are a copy of one that several machines share.
    """

    def __init__(
        self, root: Path, reindex: Callable[[Path], None], *, clock: Clock = utc_now, origin: Origin | None = None
    ):
        self.root, self._reindex, self._origin = root, reindex, origin
        if origin is not None:
            origin.before_change = self._distrust_if_indexed
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

    def holds(self, kind: str, name: str) -> bool:
        """Whether `name` is among the names of a kind; the others are not looked at, so that many cost no more."""
        return is_name(name) and (path := self.root / kind / name).is_dir() and not path.is_symlink()

    def everyone(self) -> list[str]:
        """Every name under which something of a source may be stored, sorted."""
        return sorted({name for kind in (SOURCES, COMPARTMENTS, TRAINING) for name in self.names(kind)})

    @contextlib.contextmanager
    def sole_trainer(self, name: str) -> Iterator[None]:
        """Hold the training folder of a source.

        Raises:
            VaultError: somebody else does.
        """
        busy = f"source '{name}' is being trained; wait for that to end, or stop it"
        with contextlib.ExitStack() as held:
            if self._origin is not None:
                held.enter_context(self._origin.sole_trainer(name))
            with folder_lock(self.training(name), busy):
                yield

    @contextlib.contextmanager
    def locked(self, *, patience: float = 0.0) -> Iterator[None]:
        """Be the only writer, after at most `patience` seconds; what an interrupted one left is settled first.

        Where machines share the vault even the ledger is written to by one at a time, so that waiting is usual there.

        Raises:
            VaultError: another process is writing, or the folder cannot be written.
        """
        deadline = time.monotonic() + (patience if self._origin is None else max(patience, _PATIENCE))
        with contextlib.ExitStack() as stack:
            while (holder := stack.enter_context(file_lock(self.root / LOCK_FILE))) is not None:
                stack.close()
                if time.monotonic() >= deadline:
                    raise VaultError(f"{self.root}: {holder} is changing this vault; try again when it has finished")
                time.sleep(_POLL)
            self._recover()
            if self._origin is not None:
                stack.enter_context(self._origin.writing(max(0.0, deadline - time.monotonic())))
            yield

    @contextlib.contextmanager
    def sharing(self, *places: str) -> Iterator[None]:
        """Write to these places in the block, beside any change; if other machines share the vault, for them too.

        Raises:
            VaultError: they share it, and one is writing for too long, or bucket or database cannot be reached.
        """
        if self._origin is None:
            yield
            return
        with self.locked(patience=_PATIENCE), self._sent(places):
            yield

    @contextlib.contextmanager
    def _sent(self, places: Iterable[str]) -> Iterator[None]:
        if self._origin is not None:
            self._origin.begin(places)
        yield
        if self._origin is not None:
            self._origin.publish()

    def tell(self, event: Event, *, unrecorded: bool = False, beside: Sequence[str] = ()) -> Receipt | None:
        """Record what changes nothing in the vault; without a lock, so that nobody waits for a long change.

        Args:
            unrecorded: go without (and return None) if the vault cannot be written.
            beside: places that were written for it.

        Raises:
            VaultError: it cannot be written.
            CorruptError: the ledger is damaged.
        """
        if not self.ledger.writable:
            if unrecorded:
                return None
            raise VaultError(
                f"{self.root}: cannot be written, so that its ledger cannot say what is drawn from it; make it "
                "writable, or draw from it unrecorded (--unrecorded, unrecorded=True in Python)"
            )
        with self.sharing(*_TOLD, *beside):
            entry, openings = event.entry(self.salts.all(event.sources), self.ledger.clock())
            return Receipt(entry, openings, self.ledger.append([entry])[0], self.ledger.key)

    def settle(self) -> None:
        """Finish or undo what an interrupted writer left, unless a writer is at work right now.

        If other machines share the vault, what they have changed is here afterwards.

        Raises:
            VaultError: something was left, and the folder cannot be written; or what others changed cannot be had.
        """
        self.follow()
        if self._origin is not None or not self.names(WORK):
            return
        with file_lock(self.root / LOCK_FILE) as holder:
            if holder is None:
                self._recover()

    def follow(self) -> None:
        """See what other machines that share the vault have changed, if they do.

        Raises:
            VaultError: bucket or database cannot be reached, or somebody here is writing for too long.
        """
        if self._origin is None:
            return
        deadline = time.monotonic() + _PATIENCE
        while True:
            found = self._origin.look()
            if not (found.behind or found.unsure or self.names(WORK)):
                break
            with file_lock(self.root / LOCK_FILE) as holder:
                if holder is None:
                    self._recover()
                    self._origin.pull()
                    break
            if not found.behind:  # somebody here is at work, on the state that counts
                break
            if time.monotonic() >= deadline:
                raise VaultError(f"{self.root}: {holder} is changing this copy; try again when it has ended")
            time.sleep(_POLL)
        if found.littered:
            self._origin.tidy()

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
                with self._sent([*change.moves, *(_TOLD if change.recorded else ())]):
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

    def _distrust_if_indexed(self, places: Iterable[str]) -> None:
        if _is_indexed(places):
            self.distrust_index()

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
            # What a shared vault was about to become is only its copy's business until it counts.
            if self._origin is None and (staging / PLAN_FILE).exists():
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
