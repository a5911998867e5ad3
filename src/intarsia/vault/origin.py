"""A vault that several machines share: its states in a bucket, which of them counts in a database, and a copy here.

Whoever uses the vault works on a copy of the state that counts, a folder like any vault's, and looks whether another
state counts by now whenever it would look at the folder. A writer holds the vault on all machines, brings its copy
up to date, changes it as it would a vault of its own, sends what changed, and makes the new state count: as soon as one
row of the database says so, the change is made. Then what the old state held alone is deleted. So a kill at any moment
leaves the old state or the new; what the killed process left in its copy or in the bucket goes before anything else
happens.

vault.json        the vault's record, with the database's URL; the one object that has a name
objects/          chunks of files, lists of files, and the description of the state that counts (`states`)

COPIES/ID/NAME/           the copy; its `origin.json` says whose
COPIES/ID/state.json      what the copy holds, and the objects it came from
COPIES/ID/number          the number of that state
COPIES/ID/unsure.json     the places of which it is not known what they hold, as they were about to change
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sqlalchemy import Connection

from intarsia.errors import CorruptError, VaultError
from intarsia.files import disk_errors, sync_folder, sync_tree, write_atomic, write_json
from intarsia.vault.bucket import Bucket
from intarsia.vault.heads import OVERTAKEN, Head, Heads
from intarsia.vault.locks import folder_lock
from intarsia.vault.states import OBJECTS, Files, State, fetch, is_scratch, read_state, send

ORIGIN_FILE, RECORD = "origin.json", "vault.json"
FOLDERS = ("sources", "compartments", "training", "principals", "permits", "budgets")
_ALWAYS = ("sources", "compartments", "training", "principals", "permits")  # of these, also where they are empty
SIGNER = "ledger/key"
# Of this machine alone, or kept elsewhere.
_HERE = ("lock", "index.db", ORIGIN_FILE, SIGNER, "work", "ledger/receipts")
_TRIES, _POLL = 20, 0.2
_WRITER = "write"


@dataclass(frozen=True)
class Look:
    """How a copy stands: another state counts by now; a writer is changing the copy, or has left it half-changed; and
    objects may be left in the bucket.
    """

    behind: bool
    unsure: bool
    littered: bool


class Origin:
    """Where the vault of a copy comes from.

    Args:
        root: the copy.
        url: of the bucket.
        database: the database's URL, as it stands in the vault's record.
        vault: the vault's id.

    `before_change` is told of the places that are about to change in the copy, as another state is put in place.
    """

    def __init__(self, root: Path, url: str, database: str, vault: str):
        self.root, self.url, self._database, self._vault = root, url, database, vault
        self.before_change: Callable[[Sequence[str]], None] = lambda places: None
        self._connection: Connection | None = None

    @cached_property
    def bucket(self) -> Bucket:
        return Bucket(self.url)

    @cached_property
    def heads(self) -> Heads:
        return Heads(self._database, self._vault)

    def look(self) -> Look:
        """How the copy stands to the state that counts.

        Raises:
            VaultError: the database cannot be reached.
        """
        head = self.heads.look()
        return Look(head.number != self._number, self._unsure.exists(), head.littered)

    @contextlib.contextmanager
    def writing(self, patience: float) -> Iterator[None]:
        """Be the only writer on all machines, with the state that counts; for who holds the copy.

        Raises:
            VaultError: another machine is changing the vault; or it cannot be reached.
        """
        deadline = time.monotonic() + patience
        with contextlib.ExitStack() as stack:
            while (connection := stack.enter_context(self.heads.sole(_WRITER))) is None:
                stack.close()
                if time.monotonic() >= deadline:
                    raise VaultError(f"{self.url}: another machine is changing this vault; try again when it has ended")
                time.sleep(_POLL)
            self._connection = connection
            try:
                self.pull()
                if self.heads.look().littered:
                    self._sweep(connection)
                yield
            finally:
                self._connection = None

    @contextlib.contextmanager
    def sole_trainer(self, name: str) -> Iterator[None]:
        """Hold the training of a source on all machines.

        Raises:
            VaultError: another machine does.
        """
        with self.heads.sole(f"training/{name}") as connection:
            if connection is None:
                raise VaultError(
                    f"source '{name}' is being trained on another machine; wait for that to end, or stop it"
                )
            yield

    def tidy(self) -> None:
        """Delete what a killed writer left in the bucket, unless a writer is at work right now."""
        if self._connection is None and self.heads.look().littered:
            with self.heads.sole(_WRITER) as connection:
                if connection is not None and self.heads.look().littered:
                    self._sweep(connection)

    def pull(self) -> None:
        """Bring the copy to the state that counts; for who holds it.

        Raises:
            CorruptError: an object is not what was written.
            VaultError: bucket or database cannot be reached; or a source is trained here that was changed elsewhere.
        """
        for _ in range(_TRIES):
            head, before, unsure = self.heads.look(), self._state(), self._read_unsure()
            if head.number == self._number and not unsure:
                return
            state = read_state(self.bucket, head.state, before)
            if state is not None and self._replace(head, before, state, unsure):
                return
            time.sleep(_POLL)
        raise CorruptError(f"{self.url}: the state that counts is not whole; restore the bucket from a backup")

    def _replace(self, head: Head, before: State, state: State, unsure: set[str]) -> bool:
        """Put another state in place of what the copy holds; False if that has gone by now."""
        places = sorted(unsure | {*before.places, *state.places})
        changed = [each for each in places if each in unsure or before.places.get(each) != state.places.get(each)]
        staging = self.root / "work" / uuid.uuid4().hex
        with contextlib.ExitStack() as held, disk_errors(self.root, scratch=staging):
            staging.mkdir(parents=True)
            held.callback(shutil.rmtree, staging, ignore_errors=True)
            for place in changed:
                if place.startswith("training/") and (self.root / place).exists():
                    busy = f"source '{place[9:]}' is being trained here, and was changed elsewhere; stop that training"
                    held.enter_context(folder_lock(self.root / place, busy))
            for number, place in enumerate(changed):
                if place in state.places:
                    known: Files = {} if place in unsure else before.places.get(place, {})
                    try:
                        fetch(self.bucket, state.places[place], staging / f"new-{number}", known, self.root / place)
                    except CorruptError:
                        if self.heads.look().number == head.number:
                            raise
                        return False  # another state counts by now, and this one is being deleted
            sync_tree(staging)
            write_json(self._unsure, changed)
            self.before_change(changed)
            for number, place in enumerate(changed):
                _move(staging / f"new-{number}", self.root / place, staging / f"old-{number}")
            self._complete()
        self._write_state(state, head.number)
        return True

    def _complete(self) -> None:
        """What a copy needs beside the files of a state."""
        for folder in _ALWAYS:
            (self.root / folder).mkdir(exist_ok=True)
        if not (self.root / SIGNER).exists():
            write_atomic(self.root / SIGNER, b"")
            (self.root / SIGNER).chmod(0o600)
            (self.root / SIGNER).write_text(self.heads.signer, encoding="utf-8")

    def begin(self, places: Iterable[str]) -> None:
        """Say what will be changed in the copy: if it does not come to count, it is taken back."""
        write_json(self._unsure, sorted(places))

    def publish(self) -> None:
        """Make what was changed count; for the only writer, after `begin`.

        Raises:
            VaultError: bucket or database cannot be reached: then nothing is changed, or (the message says so) only
                what was to go is still in the bucket.
        """
        assert self._connection is not None
        head, before = self.heads.look(), self._state()
        if head.number != self._number:
            raise VaultError(f"{self.url}: {OVERTAKEN}")
        self.heads.litter(self._connection)
        state, name = send(self.bucket, self.root, sorted(self._read_unsure()), before)
        after = self.heads.advance(self._connection, head, name)
        self._write_state(state, after.number)
        try:
            self.bucket.remove(before.objects(head.state) - state.objects(name) - {""})
        except VaultError as error:
            raise VaultError(
                f"the change is made, but what it took away is still in the bucket until this can go on: {error}"
            ) from error
        self.heads.tidy(self._connection)

    def create(self) -> None:
        """Make all that stands in the copy the first state.

        Raises:
            VaultError: bucket or database cannot be written; then nothing is left of it, as far as they let go.
        """
        self.heads.create((self.root / SIGNER).read_text(encoding="utf-8"))
        try:
            with self.heads.sole(_WRITER) as self._connection:
                assert self._connection is not None
                self._write_state(State(), 0)
                self.begin(_places(self.root))
                self.publish()
            self._connection = None
            self.bucket.write({RECORD: (self.root / RECORD).read_bytes()})
        except BaseException:
            self._connection = None
            with contextlib.suppress(VaultError):
                self.bucket.remove(self.bucket.all_names())
            with contextlib.suppress(VaultError):
                self.heads.drop()
            raise

    def problems(self) -> list[tuple[str, str]]:
        """What is wrong with the bucket: by object, what. Their lengths are looked at, not all their bytes."""
        head = self.heads.look()
        state = read_state(self.bucket, head.state, State())
        if state is None:
            return [(head.state, "missing; restore the bucket from a backup")]
        sizes = self.bucket.sizes()
        chunks = {name: size for files in state.places.values() for each in files.values() for name, _, size in each}
        found = [
            (name, f"{sizes.get(name, 'no')} bytes, expected {size}; restore the bucket from a backup")
            for name, size in sorted(chunks.items())
            if sizes.get(name) != size
        ]
        strange = self.bucket.all_names() - state.objects(head.state) - {RECORD}
        return found + [(name, "belongs to no state that counts; remove it") for name in sorted(strange)]

    def _sweep(self, connection: Connection) -> None:
        """Delete every object that does not belong to the state that counts."""
        head = self.heads.look()
        state = read_state(self.bucket, head.state, self._state())
        if state is None:
            raise CorruptError(f"{self.url}: the state that counts is not whole; restore the bucket from a backup")
        strange = self.bucket.all_names() - state.objects(head.state)
        self.bucket.remove(name for name in strange if name.startswith(f"{OBJECTS}/"))
        self.heads.tidy(connection)

    @property
    def _number(self) -> int:
        try:
            return int(self._beside("number").read_text())
        except (FileNotFoundError, ValueError):
            return -1

    def _state(self) -> State:
        try:
            return State.parse(self._beside("state.json").read_bytes())
        except (FileNotFoundError, ValueError, KeyError):
            return State()

    def _write_state(self, state: State, number: int) -> None:
        write_atomic(self._beside("state.json"), state.data())
        write_atomic(self._beside("number"), str(number).encode())
        self._unsure.unlink(missing_ok=True)

    @property
    def _unsure(self) -> Path:
        return self._beside("unsure.json")

    def _read_unsure(self) -> set[str]:
        return set(json.loads(self._unsure.read_bytes())) if self._unsure.exists() else set()

    def _beside(self, name: str) -> Path:
        return self.root.parent / name


def _places(root: Path) -> Iterator[str]:
    """Every place of a vault that belongs to its state: the folders of `FOLDERS`, and single files elsewhere."""
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root).as_posix()
        first = place.split("/")[0]
        if first in FOLDERS:
            if place.count("/") == 1:
                yield place
        elif path.is_file() and not is_scratch(path.name) and not any(_within(place, each) for each in _HERE):
            yield place


def _within(place: str, folder: str) -> bool:
    return place == folder or place.startswith(f"{folder}/")


def _move(staged: Path, target: Path, away: Path) -> None:
    """Put what is staged, if anything, in the place of what stands there; a file is replaced at once."""
    if target.exists() and not (target.is_file() and staged.exists()):
        os.replace(target, away)
    if staged.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(staged, target)
    if target.parent.exists():
        sync_folder(target.parent)
