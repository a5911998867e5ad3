"""The index can be made again from the folders at any time, in the vault or in another database."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import intarsia
from intarsia.errors import SettingsError, VaultError
from intarsia.vault import Vault
from intarsia.vault.index import Catalogue

from .helpers import grown, tiny_backbone, toy_source, traces


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


def test_any_database_by_url(tmp_path: Path) -> None:
    file = tmp_path / "shared.db"
    make = [
        Vault.create(
            tmp_path / f"{k}.vault", backbone=(tiny_backbone(), toy_source("core", 24)), url=f"sqlite:///{file}"
        )
        for k in range(2)
    ]
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


def test_a_password_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds a password") as caught:
        Vault.create(tmp_path / "a.vault", backbone="uvit-tiny-8", url="sqlite://me:secret@/x.db")
    assert "secret" not in str(caught.value)
    with pytest.raises(SettingsError, match="cannot be kept at"):
        Vault.create(tmp_path / "a.vault", backbone="uvit-tiny-8", url="nosuchdb://x")
    assert list(tmp_path.iterdir()) == []


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
    with pytest.raises(VaultError, match=r"shared\.db cannot be read or written") as caught:
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
