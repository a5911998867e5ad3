"""What a state of a shared vault consists of: files, cut into chunks, each an object of a bucket.

A state is described by one object, that names every file beside the folders, and for every folder of a source, a
compartment and so on the object that lists its files. Objects are never written twice. So a state is whole as soon as
it counts, and what does not change from one state to the next is not sent again.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intarsia.digests import canonical_json, digest_of
from intarsia.errors import CorruptError
from intarsia.vault.bucket import Bucket

OBJECTS = "objects"
_CHUNK = 4 << 20
_AT_ONCE = 8

Chunk = tuple[str, str, int]
"""The name of an object, and the sha256 and length of what it holds."""
Chunks = tuple[Chunk, ...]
Files = Mapping[str, Chunks]
"""By path below a folder; of a place that is a file the path is empty."""


@dataclass(frozen=True)
class State:
    """By place, the files there; and the objects that list the files of folders."""

    places: Mapping[str, Files] = field(default_factory=dict)
    lists: Mapping[str, str] = field(default_factory=dict)

    def objects(self, itself: str) -> set[str]:
        """The names of all objects of this state, which the object `itself` describes."""
        chunks = {name for files in self.places.values() for each in files.values() for name, _, _ in each}
        return {itself, *self.lists.values(), *chunks}

    def description(self) -> bytes:
        """What the object says that describes it."""
        files = {place: files[""] for place, files in self.places.items() if place not in self.lists}
        return canonical_json({"files": files, "folders": dict(self.lists)})

    def data(self) -> bytes:
        """All of it, for a file on this machine."""
        return canonical_json(
            {"places": {place: dict(files) for place, files in self.places.items()}, "lists": dict(self.lists)}
        )

    @classmethod
    def parse(cls, data: bytes) -> State:
        """Read what `data` gives."""
        record = json.loads(data)
        return cls({place: _files(files) for place, files in record["places"].items()}, record["lists"])


def read_state(bucket: Bucket, name: str, known: State) -> State | None:
    """The state that an object describes; None if it, or a list it names, has gone, as another state counts by now.

    Args:
        known: a state whose lists need not be read again.

    Raises:
        CorruptError: an object is not what was written.
        VaultError: the bucket cannot be read.
    """
    if not name:
        return State()
    data = bucket.read(name)
    if data is None:
        return None
    record = _object(bucket, name, data)
    held = {name: known.places[place] for place, name in known.lists.items()}
    wanted = [name for name in record["folders"].values() if name not in held]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for name, found in zip(wanted, threads.map(bucket.read, wanted), strict=True):
            if found is None:
                return None
            held[name] = _files(_object(bucket, name, found))
    files = {place: _files({"": chunks}) for place, chunks in record["files"].items()}
    return State(files | {place: held[name] for place, name in record["folders"].items()}, record["folders"])


def _object(bucket: Bucket, name: str, data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise CorruptError(f"{bucket.url}/{name}: damaged ({error}); restore the bucket from a backup") from error
    if not isinstance(found, dict):
        raise CorruptError(f"{bucket.url}/{name}: damaged; restore the bucket from a backup")
    return found


def _files(record: Mapping[str, Any]) -> Files:
    return {path: tuple((str(name), str(sha), int(size)) for name, sha, size in each) for path, each in record.items()}


def send(bucket: Bucket, root: Path, places: Iterable[str], before: State) -> tuple[State, str]:
    """Put what stands at these places into the bucket; the state that follows, and the object that describes it.

    Raises:
        VaultError: the bucket cannot be written; then objects may be there that belong to no state.
    """
    now, lists, out = dict(before.places), dict(before.lists), _Outbox(bucket)
    for place in places:
        known = now.pop(place, {})
        lists.pop(place, None)
        path = root / place
        if path.is_dir():
            now[place] = {each: out.file(path / each, known.get(each, ())) for each in _paths(path)}
            lists[place] = out.put(canonical_json(dict(now[place])))
        elif path.exists():
            now[place] = {"": out.file(path, known.get("", ()))}
    state = State(now, lists)
    name = out.put(state.description())
    out.send()
    return state, name


@dataclass
class _Outbox:
    """Objects on their way to a bucket, many at a time."""

    bucket: Bucket
    waiting: dict[str, bytes] = field(default_factory=dict)

    def put(self, data: bytes) -> str:
        """Another object; its name."""
        name = f"{OBJECTS}/{uuid.uuid4().hex}"
        self.waiting[name] = data
        if len(self.waiting) >= _AT_ONCE * _AT_ONCE:
            self.send()
        return name

    def file(self, path: Path, known: Chunks) -> Chunks:
        """The chunks of a file; those that the bucket holds already, at the same place of it, are not sent again."""
        chunks: list[Chunk] = []
        with path.open("rb") as file:
            while data := file.read(_CHUNK):
                old = known[len(chunks)] if len(chunks) < len(known) else ("", "", 0)
                same = old[1:] == (digest_of(data), len(data))
                chunks.append(old if same else (self.put(data), digest_of(data), len(data)))
        return tuple(chunks)

    def send(self) -> None:
        """Send all that waits."""
        self.bucket.write(self.waiting)
        self.waiting.clear()


def _paths(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and not is_scratch(path.name))
    return sorted(path.relative_to(folder).as_posix() for path in found)


def is_scratch(name: str) -> bool:
    """Whether a file is one in the making, which nobody reads."""
    return name.startswith(".") and name.endswith(".part")


def fetch(bucket: Bucket, files: Files, target: Path, held: Files, here: Path) -> None:
    """Make files at `target` as they are in a state; those that stand `here` with the same bytes are copied.

    Args:
        held: what `here` holds.

    Raises:
        CorruptError: an object is missing, or not what was written.
        VaultError: the bucket cannot be read.
    """
    work = []
    for path, chunks in files.items():
        place = target / path if path else target
        place.parent.mkdir(parents=True, exist_ok=True)
        old = here / path if path else here
        if held.get(path) == chunks and old.is_file():
            shutil.copyfile(old, place)
        else:
            work.append((place, chunks))
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(lambda item: item[0].write_bytes(b"".join(_read(bucket, item[1]))), work))


def _read(bucket: Bucket, chunks: Chunks) -> Iterator[bytes]:
    for name, sha, _ in chunks:
        data = bucket.read(name)
        if data is None or digest_of(data) != sha:
            what = "missing" if data is None else "not what was written there"
            raise CorruptError(f"{bucket.url}/{name}: {what}; restore the bucket from a backup")
        yield data
