"""The index can be made again from the folders at any time, in the vault or in another database.

What holds in any database is tried in SQLite, and in a real PostgreSQL by `make integration`.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine

import intarsia
from intarsia.data import Manifest
from intarsia.errors import MissingExtra, SettingsError, VaultError
from intarsia.vault import Vault
from intarsia.vault.database import check_url
from intarsia.vault.index import Catalogue

from ..servers.postgres import PASSWORD, Postgres, postgres
from .helpers import ROUTER, grown, pictures, quick, tiny_backbone, toy_source, traces

POSTGRES = pytest.param("postgres", marks=pytest.mark.integration)
BOTH = ["sqlite", POSTGRES]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", PASSWORD)
        yield server


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shared.db'}"
    server: Postgres = request.getfixturevalue("server")
    # A locale that sorts otherwise than bytes do.
    name = f"index{tmp_path.name[-40:]}"
    return server.create(name, "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'")


def made(place: Path, url: str) -> Vault:
    return Vault.create(place, backbone=(tiny_backbone(), toy_source("core", 24)), url=url)


@pytest.mark.integration
def test_made_again_it_has_the_same_bytes_also_in_another_process(pair: Vault) -> None:
    before = (pair.root / "index.db").read_bytes()
    pair.reindex()
    assert (pair.root / "index.db").read_bytes() == before
    code = "import sys; from intarsia.vault import Vault; Vault.open(sys.argv[1]).reindex()"
    environment = {**os.environ, "PYTHONPATH": str(Path(intarsia.__file__).parents[1]), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, str(pair.root)], env=environment, check=True)
    assert (pair.root / "index.db").read_bytes() == before


def test_samples_are_found_by_id_label_and_caption(pair: Vault) -> None:
    catalogue = Catalogue(pair.root, pair.record.id, None)
    sample = pair.source("oak").manifest.samples[0]
    assert catalogue.samples(prefix=sample.id[:8]) == [("oak", sample)]
    assert {source for source, _ in catalogue.samples(label="label-elm-1")} == {"elm"}
    assert len(catalogue.samples(text="caption of")) == 10
    assert catalogue.samples(text="%") == []


def test_one_database_for_several_vaults(url: str, tmp_path: Path) -> None:
    make = [made(tmp_path / f"{k}.vault", url) for k in range(2)]
    grown(make[0], "oak", train=False)
    grown(make[1], "elm", train=False)
    assert [[source.name for source in Vault.open(vault.root).sources()] for vault in make] == [["oak"], ["elm"]]
    assert make[0].verify().ok
    assert not (make[0].root / "index.db").exists()
    words = {*make[0].source("oak").manifest.ids, "oak"}
    make[0].forget("oak")
    assert make[0].sources() == []
    assert traces(tmp_path, words) == []
    assert [source.name for source in make[1].sources()] == ["elm"]


def test_any_database_gives_what_the_folders_hold(url: str, tmp_path: Path) -> None:
    """Names sort by their bytes whatever the locale; a caption may hold anything that is Unicode."""
    vault = made(tmp_path / "a.vault", url)
    for name in ("a-z", "ab", "a_b"):
        vault.add_source(name, toy_source(name))
    odd = replace(toy_source("odd").manifest.samples[0], text="NUL \0, \\0, \\\0 and 100%_ \U0001f333", label="É")
    rest = toy_source("odd").manifest.samples[1:]
    source = replace(toy_source("odd"), manifest=Manifest((odd, *rest)))
    vault.add_source("odd", source)
    vault.train("ab", quick(), routers=[ROUTER])
    report = vault.verify()
    assert report.problems == ()
    assert [source.name for source in vault.sources()] == ["a-z", "a_b", "ab", "odd"]
    assert [compartment.name for compartment in vault.compartments()] == ["ab"]
    catalogue = Catalogue(vault.root, vault.record.id, url)
    assert catalogue.samples(text="nul \0, \\0") == [("odd", odd)]
    assert catalogue.samples(text="100%_") == catalogue.samples(label="É") == [("odd", odd)]
    assert catalogue.samples(prefix=odd.id[:9].upper()) == [("odd", odd)]
    assert catalogue.samples(text="NUL_") == []


def test_the_tables_of_an_earlier_version_are_made_again(url: str, tmp_path: Path) -> None:
    vault = grown(made(tmp_path / "a.vault", url), "oak", train=False)
    engine = create_engine(check_url(url))
    with engine.begin() as connection:
        place = "" if url.startswith("sqlite") else f"intarsia_{vault.record.id}."
        connection.exec_driver_sql(f"DROP TABLE {place}compartments")
        connection.exec_driver_sql(f"DELETE FROM {place}vaults")
    engine.dispose()
    assert [source.name for source in vault.sources()] == ["oak"]
    assert vault.verify().ok


@pytest.mark.integration
@pytest.mark.parametrize("reading", [False, True])
def test_a_write_ahead_log_keeps_nothing_either(tmp_path: Path, reading: bool) -> None:
    """Such as a dashboard turns on that stays connected; one that is in the middle of reading is waited for."""
    place = tmp_path / "db"
    place.mkdir()
    vault = made(tmp_path / "a.vault", f"sqlite:///{place / 'shared.db'}?timeout=0")
    vault.add_source("oak", toy_source("oak"))
    gone = toy_source("oak").manifest.samples[0]
    with closing(sqlite3.connect(place / "shared.db")) as connection:
        assert connection.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
        connection.execute("BEGIN" if reading else "SELECT 1")
        assert len(connection.execute("SELECT * FROM samples").fetchall()) == 5
        if reading:
            with pytest.raises(VaultError, match=r"the change is made, but not the index, .* read by another process"):
                vault.forget("oak", [gone.id])
            connection.rollback()
            vault.sources()
        else:
            vault.forget("oak", [gone.id])
        assert traces(place, [gone.id, gone.text or ""]) == []
        assert vault.verify().ok


def test_a_crash_of_the_server_empties_the_index_which_is_noticed(server: Postgres, tmp_path: Path) -> None:
    vault = grown(made(tmp_path / "a.vault", server.create("crashes")), "oak", train=False)
    server.stop(crash=True)
    with pytest.raises(VaultError, match=r"cannot be read or written \(.*connection.* refused"):
        vault.sources()
    server.start()
    assert server.query(f"SELECT * FROM intarsia_{vault.record.id}.sources", database="crashes") == []
    assert [source.name for source in vault.sources()] == ["oak"]


@pytest.mark.integration
def test_postgres_keeps_nothing_of_what_was_forgotten(tmp_path: Path) -> None:
    """Neither in pages, nor in its log, statistics or free files; not even while somebody holds an old snapshot."""
    import psycopg

    with postgres() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", PASSWORD)
        vault = made(tmp_path / "a.vault", server.create("erasure"))
        vault.add_source("oak", toy_source("oak", 12, images=pictures("oak", 12)))
        grown(vault, "elm", train=False)
        words = [*vault.source("oak").manifest.ids, "oak", "caption of oak", "label-oak"]
        server.query("ANALYZE", database="erasure")
        with psycopg.connect(server.where("erasure")) as other:
            other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            other.execute("SELECT count(*) FROM pg_class")
            vault.forget("oak")
        assert [source.name for source in vault.sources()] == ["elm"]
        server.stop()
        assert traces(server.data, words) == []
        assert traces(server.data, ["caption of elm 0"]) == ["caption of elm 0"]
        logs = {path for path in (server.data / "pg_wal").iterdir() if path.is_file()}
        assert not any(b"caption of elm" in path.read_bytes() for path in logs)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite://me:secret@/x.db", "holds a password"),
        ("postgresql://me@host/db?password=secret", "holds a password"),
        ("nosuchdb://me:secret@host/x", "cannot be kept at"),
        ("mysql+pymysql://host/x", "cannot be kept at"),
        ("postgresql+asyncpg://host/x", "cannot be kept at"),
        ("postgresql://host:secret/x", "cannot be kept at"),
        ("sqlite://", "cannot be kept at"),
        ("index.db", "cannot be kept at"),
    ],
)
def test_a_url_that_is_none_or_holds_a_password_is_refused(url: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        Vault.create(tmp_path / "a.vault", backbone="uvit-tiny-8", url=url)
    assert "me:secret" not in str(caught.value)
    assert "password=secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_relative_file_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    vault = made(tmp_path / "a.vault", "sqlite:///shared.db")
    assert vault.record.index_url == f"sqlite+pysqlite:///{tmp_path / 'shared.db'}"


def test_postgres_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"intarsia\[postgres\]"):
        Vault.create(tmp_path / "a.vault", backbone="uvit-tiny-8", url="postgresql://host/db")


@pytest.mark.parametrize("junk", [b"not a database" * 100, b""], ids=["junk", "empty"])
def test_junk_in_place_of_the_index_is_made_again(pair: Vault, junk: bytes) -> None:
    good = (pair.root / "index.db").read_bytes()
    (pair.root / "index.db").write_bytes(junk)
    assert [source.name for source in pair.sources()] == ["elm", "oak"]
    assert (pair.root / "index.db").read_bytes() == good


def test_a_row_that_is_none_of_ours_is_made_again(pair: Vault) -> None:
    with closing(sqlite3.connect(pair.root / "index.db")) as connection, connection:
        connection.execute("UPDATE sources SET labels = 'no JSON'")
    assert pair.sources()[0].labels == ("label-elm-0", "label-elm-1")


def test_a_stale_index_is_not_believed(pair: Vault) -> None:
    old = (pair.root / "index.db").read_bytes()
    pair.forget("elm")
    (pair.root / "work/stale-index").touch()
    (pair.root / "index.db").write_bytes(old)
    assert [source.name for source in Vault.open(pair.root).sources()] == ["oak"]
    assert not (pair.root / "work/stale-index").exists()


def test_a_database_elsewhere_is_filled_at_creation_and_again_when_it_is_lost(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    vault = Vault.create(tmp_path / "a.vault", backbone=(tiny_backbone(), toy_source("core", 24)), url=url)
    assert vault.sources() == []
    grown(vault, "oak", train=False)
    (tmp_path / "shared.db").unlink()
    assert [source.name for source in Vault.open(vault.root).sources()] == ["oak"]


def test_a_database_that_cannot_be_reached_is_one_clear_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'place' / 'shared.db'}"
    core = (tiny_backbone(), toy_source("core", 24))
    with pytest.raises(VaultError, match=r"shared\.db cannot be read or written \(unable to open") as caught:
        Vault.create(tmp_path / "a.vault", backbone=core, url=url)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "place").mkdir()
    vault = grown(Vault.create(tmp_path / "a.vault", backbone=core, url=url), "oak", train=False)
    (tmp_path / "place").rename(tmp_path / "elsewhere")
    with pytest.raises(VaultError, match="the change is made, but not the index"):
        vault.forget("oak")
    assert vault.names() == []
    with pytest.raises(VaultError, match="cannot be read or written"):
        vault.sources()
    (tmp_path / "elsewhere").rename(tmp_path / "place")
    assert vault.sources() == []


def test_the_tables(pair: Vault) -> None:
    with closing(sqlite3.connect(pair.root / "index.db")) as connection:
        counts = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("sources", "samples", "compartments")
        }
    assert counts == {"sources": 2, "samples": 10, "compartments": 2}
