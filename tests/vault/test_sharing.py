"""Machines that share a vault see each other's changes, exclude each other, and leave nothing of what is forgotten.

A machine is played by a folder of copies of its own; buckets by a folder, the database by SQLite. With a real S3 server
and a real PostgreSQL the same is tried by `make integration`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Connection

from intarsia.errors import CorruptError, ForbiddenError, SettingsError, VaultError
from intarsia.vault import Vault
from intarsia.vault.bucket import Bucket
from intarsia.vault.heads import Heads
from intarsia.vault.origin import Origin

from ..servers.both import both
from ..servers.postgres import Postgres
from ..servers.swift import Swift
from .helpers import ROUTER, all_bytes, grown, quick, tiny_backbone, toy_source, traces

Machine = Callable[[str], Vault]
SERVERS = pytest.param("servers", marks=pytest.mark.integration)


@dataclass(frozen=True)
class Ground:
    """Where a shared vault is, and the folders in which bucket and database keep their bytes."""

    url: str
    database: str
    kept: Sequence[Path]


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Swift, Postgres]]:
    with both() as running:
        yield running


@pytest.fixture(params=["folder", SERVERS])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Ground:
    if request.param == "folder":
        (tmp_path / "kept").mkdir()
        return Ground(
            f"file://{tmp_path}/kept/bucket/art.vault", f"sqlite:///{tmp_path}/kept/heads.db", [tmp_path / "kept"]
        )
    return on_servers(request.getfixturevalue("servers"))


def on_servers(servers: tuple[Swift, Postgres]) -> Ground:
    import s3fs

    (objects, database), s3 = servers, s3fs.S3FileSystem()
    for earlier in s3.ls(""):  # or its bytes would be found on the disk
        bucket = Bucket(f"s3://{earlier}/studio")
        bucket.remove(bucket.all_names())
    name = f"vaults-{uuid.uuid4().hex[:8]}"
    s3.mkdir(name)
    return Ground(f"s3://{name}/studio/art.vault", database.create(name), [objects.disks])


@pytest.fixture
def on(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """`on("a")`: the vault as it is opened on machine `a`."""

    def on(machine: str) -> Vault:
        monkeypatch.setenv("INTARSIA_COPIES", str(tmp_path / machine))
        return Vault.open(ground.url)

    return on


@pytest.fixture
def a(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vault:
    """Made on machine `a`."""
    monkeypatch.setenv("INTARSIA_COPIES", str(tmp_path / "a"))
    return made(ground)


def made(ground: Ground) -> Vault:
    return Vault.create(ground.url, backbone=(tiny_backbone(), toy_source("core", 24)), url=ground.database)


def kept(ground: Ground, words: Iterable[str]) -> list[str]:
    """Which of the words the bucket or the database holds."""
    return sorted({word for folder in ground.kept for word in traces(folder, words)})


def test_what_one_machine_does_another_has(a: Vault, on: Machine, ground: Ground) -> None:
    b = on("b")
    assert b.sources() == []
    grown(a, "oak", "elm")
    assert [source.name for source in b.sources()] == ["elm", "oak"]
    assert all_bytes(b.root) == all_bytes(a.root)
    assert [entry.line for entry in b.ledger.entries()] == [entry.line for entry in a.ledger.entries()]
    b.train("oak", quick(steps=6), routers=[ROUTER], restart=True)
    assert a.compartments() == b.compartments()
    a.compose().sample(2, steps=2, seed=1)
    assert [entry.kind for _, entry, _ in b.history()[-2:]] == ["compose", "sample"]
    assert a.verify().problems == b.verify().problems == ()
    assert a.place == ground.url


def test_nothing_is_left_of_what_is_forgotten(a: Vault, on: Machine, ground: Ground, tmp_path: Path) -> None:
    b = on("b")
    grown(a, "oak", "elm")
    sample = b.source("elm").manifest.samples[0]
    words = [*a.source("oak").manifest.ids, "oak", "caption of oak 1", sample.id]
    assert kept(ground, words) == sorted(words)
    b.forget("elm", [sample.id])
    b.forget("oak")
    assert kept(ground, words) == traces(tmp_path / "b", words) == []
    assert traces(tmp_path / "a", words) == sorted(words)  # it has not looked yet
    assert [source.name for source in a.sources()] == ["elm"]
    assert traces(tmp_path / "a", words) == []
    assert stored(b) == belonging(b)
    assert b.verify().ok


def test_a_machine_that_is_drawing_notices_what_another_takes_back(a: Vault, on: Machine) -> None:
    b = on("b")
    grown(a, "oak", "elm")
    a.add_principal("acme")
    a.grant(["oak", "elm"], "acme", quota="10/day")
    drawing = b.compose(principal="acme")
    drawing.sample(4, steps=2)
    with pytest.raises(ForbiddenError, match="may draw 6 more"):
        a.compose(principal="acme").sample(7, steps=2)
    steps: list[int] = []

    def progress(done: int, of: int) -> None:
        steps.append(done)
        if done == 1:
            a.revoke("elm", "acme")

    with pytest.raises(ForbiddenError, match="elm"):
        drawing.sample(1, steps=3, on_progress=progress)
    assert steps == [1]


def test_only_one_machine_writes_or_trains_at_a_time(a: Vault, on: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    b = on("b")
    monkeypatch.setattr("intarsia.vault.store._PATIENCE", 0.0)
    grown(a, "oak", train=False)
    with a._store.change(), pytest.raises(VaultError, match="another machine is changing this vault"):
        b.add_source("elm", toy_source("elm"))
    for step in a.training("oak", quick(), routers=[ROUTER]):
        if step.step == 1:
            with pytest.raises(VaultError, match="is being trained on another machine"):
                b.forget("oak")
    b.forget("oak")
    assert a.names() == []


@pytest.mark.parametrize("failing", ["write", "advance", "remove", "tidy"])
def test_a_writer_that_dies_leaves_the_old_state_or_the_new(
    failing: str, a: Vault, on: Machine, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(a, "oak", "elm", train=False)
    b = on("b")
    b.sources()
    words = [*a.source("oak").manifest.ids, "oak"]
    on("a")
    forget_and_die(ground, failing)
    forgotten = failing in ("remove", "tidy")
    assert ("oak" in b.names()) != forgotten
    assert stored(b) == belonging(b)  # whoever looks tidies up
    assert {source.name for source in b.sources()} == ({"elm"} if forgotten else {"elm", "oak"})
    assert {source.name for source in on("a").sources()} == ({"elm"} if forgotten else {"elm", "oak"})
    assert b.verify().problems == on("a").verify().problems == ()
    assert stored(b) == belonging(b)
    if forgotten:
        assert kept(ground, words) == traces(tmp_path, words) == []
    else:
        on("a").forget("oak")
        assert [source.name for source in b.sources()] == ["elm"]


def test_a_copy_that_dies_while_it_catches_up_does_so_later(
    a: Vault, on: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = on("b")
    grown(a, "oak", "elm", train=False)
    with monkeypatch.context() as patch:
        patch.setattr(Origin, "_complete", died)
        with pytest.raises(Died):
            b.sources()
    a.forget("oak")
    assert [source.name for source in b.sources()] == ["elm"]
    assert all_bytes(b.root) == all_bytes(a.root)
    assert b.verify().ok


def test_a_writer_that_lost_its_lock_changes_nothing(a: Vault, on: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    b = on("b")
    assert a._origin is not None
    publish = a._origin.publish

    def late() -> None:
        grown(b, "elm", train=False)
        publish()

    with monkeypatch.context() as patch:
        patch.setattr(a._origin, "publish", late)
        patch.setattr(Heads, "sole", anybody)
        with pytest.raises(VaultError, match="somebody else has changed this vault meanwhile"):
            grown(a, "oak", train=False)
    assert [source.name for source in a.sources()] == [source.name for source in b.sources()] == ["elm"]
    assert a.verify().problems == ()


def test_the_head_moves_from_the_state_that_a_writer_knew_or_not_at_all(tmp_path: Path) -> None:
    heads = Heads(f"sqlite:///{tmp_path}/heads.db", "0" * 32)
    heads.create("key")
    with heads.sole("write") as held:
        assert held is not None
        first = heads.look()
        heads.advance(held, first, "objects/one")
        with pytest.raises(VaultError, match="somebody else has changed this vault"):
            heads.advance(held, first, "objects/another")
    assert heads.look().state == "objects/one"
    with pytest.raises(VaultError, match="knows this vault already"):
        heads.create("key")


def test_damage_in_the_bucket_is_named(a: Vault, on: Machine) -> None:
    grown(a, "oak", train=False)
    assert a._origin is not None
    chunk = a._origin._state().places["sources/oak"]["source.json"][0][0]
    a._origin.bucket.write({"objects/strange": b"x", chunk: b"{}"})
    assert [problem.where for problem in a.verify().problems] == [chunk, "objects/strange"]
    with pytest.raises(CorruptError, match="not what was written there"):
        on("b")


@pytest.mark.parametrize("ground", ["folder"], indirect=True)
def test_places_that_are_none_are_refused(a: Vault, tmp_path: Path) -> None:
    core = (tiny_backbone(), toy_source("core", 24))
    database = f"sqlite:///{tmp_path}/other.db"
    with pytest.raises(VaultError, match="is not empty"):
        Vault.create(a.place, backbone=core, url=database)
    with pytest.raises(SettingsError, match="needs a database"):
        Vault.create(f"file://{tmp_path}/new.vault", backbone=core)
    with pytest.raises(VaultError, match="is no vault, or cannot be seen"):
        Vault.open(f"file://{tmp_path}/new.vault")
    for place in ("gs://bucket/x", "s3://bucket", "https://host/x"):
        with pytest.raises(SettingsError, match="no vault can be kept at"):
            Vault.open(place)
    (tmp_path / "kept/heads.db").unlink()
    with pytest.raises(VaultError, match="cannot be reached"):
        a.sources()


def forget_and_die(ground: Ground, failing: str) -> None:
    """Forget `oak`, and die as this is called; with real servers by SIGKILL."""
    if ground.url.startswith("s3:"):
        done = subprocess.run([sys.executable, "-c", KILLED, ground.url, failing], check=False)
        assert done.returncode == -signal.SIGKILL
        return
    vault = Vault.open(ground.url)
    assert vault._origin is not None
    setattr(vault._origin.bucket if failing in ("write", "remove") else vault._origin.heads, failing, died)
    with pytest.raises(Died):
        vault.forget("oak")


KILLED = """
import os, signal, sys
from intarsia.vault import Vault
vault, failing = Vault.open(sys.argv[1]), sys.argv[2]
target = vault._origin.bucket if failing in ("write", "remove") else vault._origin.heads
setattr(target, failing, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
vault.forget("oak")
"""


class Died(BaseException):
    """What a kill is like: nobody handles it."""


def died(*_: object, **__: object) -> None:
    raise Died


@contextmanager
def anybody(heads: Heads, what: str) -> Iterator[Connection]:
    """A lock that locks nobody out."""
    with heads._connected() as connection:
        yield connection


def stored(vault: Vault) -> set[str]:
    """The names of all objects in the bucket, older versions included."""
    assert vault._origin is not None
    return vault._origin.bucket.all_names()


def belonging(vault: Vault) -> set[str]:
    """The names of the objects that the state that counts consists of."""
    assert vault._origin is not None
    return vault._origin._state().objects(vault._origin.heads.look().state) | {"vault.json"}


@pytest.mark.integration
@pytest.mark.parametrize("status", ["Enabled", "Suspended"])
def test_older_versions_of_what_is_forgotten_go_too(
    status: str, servers: tuple[Swift, Postgres], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    ground = on_servers(servers)
    monkeypatch.setenv("INTARSIA_COPIES", str(tmp_path / "a"))
    s3, bucket = s3fs.S3FileSystem(), ground.url.split("/")[2]
    s3.call_s3("put_bucket_versioning", Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    vault = grown(made(ground), "oak", "elm", train=False)
    words = [*vault.source("oak").manifest.ids, "oak"]
    s3.call_s3("put_bucket_versioning", Bucket=bucket, VersioningConfiguration={"Status": status})
    assert vault._origin is not None
    place = vault._origin._state().places["sources/oak"]["source.json"][0][0]
    s3.rm_file(f"{bucket}/studio/art.vault/{place}")  # which leaves a version, and a mark
    vault.forget("oak")
    assert kept(ground, words) == []
    assert stored(vault) == belonging(vault)
    assert vault.verify().problems == ()


@pytest.mark.integration
def test_the_lock_goes_with_the_connection(servers: tuple[Swift, Postgres], tmp_path: Path) -> None:
    database = servers[1]
    heads = Heads(database.create("locks"), "0" * 32)
    heads.create("key")
    with heads.sole("write") as held:
        assert held is not None
        with heads.sole("write") as other, heads.sole("training/oak") as another:
            assert (other is None, another is None) == (True, False)
        database.query("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'", database="locks")
        with heads.sole("write") as other:
            assert other is not None
        head = heads.look()
        with pytest.raises(VaultError, match="cannot be reached"):
            heads.advance(held, head, "another")
    assert heads.look().number == 0


@pytest.mark.integration
def test_servers_that_are_down_are_one_clear_line(
    servers: tuple[Swift, Postgres], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = on_servers(servers)
    monkeypatch.setenv("INTARSIA_COPIES", str(tmp_path / "a"))
    vault = made(ground)
    servers[1].stop()
    with pytest.raises(VaultError, match=r"cannot be reached .*so that it is not known which state") as caught:
        vault.sources()
    assert "\n" not in str(caught.value)
    servers[1].start()
    servers[0].stop()
    with pytest.raises(VaultError, match=r"s3://.*cannot be written") as caught:
        grown(vault, "oak", train=False)
    assert "\n" not in str(caught.value)
    servers[0].start()
    assert vault.sources() == []
    assert stored(vault) == belonging(vault)
    assert [source.name for source in grown(vault, "oak", train=False).sources()] == ["oak"]
