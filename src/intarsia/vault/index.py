"""The index: a catalogue of sources, samples and compartments for listings and searches. Derived, never the truth.

It is always made again from the folders, in one fixed order, so that the same folders give the same bytes and nothing
that was forgotten can linger in a free page. By default it is one SQLite file; a URL may name any database that
SQLAlchemy knows.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, ForeignKeyConstraint, Index, insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from intarsia.data import Manifest, Sample
from intarsia.errors import VaultError
from intarsia.files import sync_folder
from intarsia.vault.database import Text, check_url, clear_tables, database_errors, empty_log, engine_of, file_url
from intarsia.vault.records import CompartmentInfo, SourceInfo
from intarsia.vault.store import INDEX_FILE

_ROWS = 5000
_ASKED = 500  # values in one question


class _Base(DeclarativeBase):
    """Every table has the vault's id in its key, so that one database may index several vaults."""

    type_annotation_map = {str: Text()}  # noqa: RUF012 - SQLAlchemy wants a plain dictionary


class _VaultRow(_Base):
    """Says that the index was made: a PostgreSQL server that crashed leaves empty tables."""

    __tablename__ = "vaults"
    vault: Mapped[str] = mapped_column(primary_key=True)


class _SourceRow(_Base):
    __tablename__ = "sources"
    vault: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    licence: Mapped[str]
    attribution: Mapped[str]
    count: Mapped[int]
    labels: Mapped[str]
    manifest_root: Mapped[str]
    signer: Mapped[str | None]


class _SampleRow(_Base):
    __tablename__ = "samples"
    vault: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    file_name: Mapped[str]
    text: Mapped[str | None]
    label: Mapped[str | None]
    risk: Mapped[str | None]
    batch: Mapped[int]
    __table_args__ = (
        ForeignKeyConstraint(["vault", "source"], ["sources.vault", "sources.name"], ondelete="CASCADE"),
        Index("samples_by_id", "vault", "id"),
    )


class _CompartmentRow(_Base):
    __tablename__ = "compartments"
    vault: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    sources: Mapped[str]
    adapter: Mapped[str]
    count: Mapped[int]
    labels: Mapped[str]
    steps: Mapped[int]
    routers: Mapped[str]
    manifest_root: Mapped[str]
    digest: Mapped[str]
    epsilon: Mapped[float | None]
    delta: Mapped[float | None]


class Catalogue:
    """The index of one vault.

    Args:
        root: the vault's folder.
        vault: the vault's id.
        url: a database; None is the SQLite file in the vault's folder.

    Raises:
        SettingsError: the URL is none of SQLite or PostgreSQL.
        MissingExtra: the client of the database is not installed.
    """

    def __init__(self, root: Path, vault: str, url: str | None):
        self._file, self._vault, self._url = root / INDEX_FILE, vault, check_url(url) if url else None

    def rebuild(
        self, scratch: Path, sources: Sequence[tuple[SourceInfo, Manifest]], compartments: Sequence[CompartmentInfo]
    ) -> None:
        """Make the index anew; `scratch` is a folder on the same disk as the vault.

        Raises:
            VaultError: the database cannot be written.
        """
        if self._url is not None:
            with (
                database_errors(str(self._url)),
                engine_of(self._url, self._vault) as engine,
            ):
                with engine.begin() as connection:
                    clear_tables(connection, _Base.metadata, self._vault)
                    self._fill(connection, sources, compartments)
                empty_log(engine)
            return
        fresh = scratch / INDEX_FILE
        fresh.unlink(missing_ok=True)
        with (
            database_errors(str(self._file)),
            engine_of(file_url(fresh), self._vault) as engine,
            engine.connect() as connection,
        ):
            # The file is brought to the disk as a whole below: a journal would only cost time.
            connection.exec_driver_sql("PRAGMA journal_mode=OFF")
            connection.exec_driver_sql("PRAGMA synchronous=OFF")
            connection.commit()
            _Base.metadata.create_all(connection)
            self._fill(connection, sources, compartments)
            connection.commit()
        sync_folder(fresh)
        os.replace(fresh, self._file)
        sync_folder(self._file.parent)

    def exists(self) -> bool:
        """Whether there is something to ask; a database elsewhere is taken to be there."""
        return self._url is not None or self._file.exists()

    def sources(self) -> list[SourceInfo]:
        """All sources, by name."""
        query = select(_SourceRow).where(_SourceRow.vault == self._vault).order_by(_SourceRow.name)
        with self._session() as session:
            return [_source(row) for row in session.scalars(query)]

    def compartments(self) -> list[CompartmentInfo]:
        """All compartments, by name."""
        query = select(_CompartmentRow).where(_CompartmentRow.vault == self._vault).order_by(_CompartmentRow.name)
        with self._session() as session:
            return [_compartment(row) for row in session.scalars(query)]

    def samples(
        self, *, prefix: str = "", label: str | None = None, text: str | None = None
    ) -> list[tuple[str, Sample]]:
        """(source, sample) of samples whose id starts with `prefix`, of this label, with `text` in any case."""
        query = select(_SampleRow).where(
            _SampleRow.vault == self._vault, _SampleRow.id.startswith(prefix.lower(), autoescape=True)
        )
        if label is not None:
            query = query.where(_SampleRow.label == label)
        if text is not None:
            query = query.where(_SampleRow.text.icontains(text, autoescape=True))
        with self._session() as session:
            rows = session.scalars(query.order_by(_SampleRow.source, _SampleRow.id))
            return [(row.source, _sample(row)) for row in rows]

    def holders(self, name: str, ids: Sequence[str] | None = None) -> tuple[str, ...]:
        """The other sources that hold some of these samples of a source too, sorted; None is all that it holds."""
        query = select(_SampleRow.source).distinct().where(_SampleRow.vault == self._vault, _SampleRow.source != name)
        own = select(_SampleRow.id).where(_SampleRow.vault == self._vault, _SampleRow.source == name)
        with self._session() as session:
            if ids is None:
                return tuple(sorted(session.scalars(query.where(_SampleRow.id.in_(own)))))
            parts = (ids[start : start + _ASKED] for start in range(0, len(ids), _ASKED))
            return tuple(
                sorted({each for part in parts for each in session.scalars(query.where(_SampleRow.id.in_(part)))})
            )

    @contextlib.contextmanager
    def _session(self) -> Iterator[Session]:
        """Raises VaultError if there is no index of ours, or a row of it is none."""
        url, where = self._url or file_url(self._file, read_only=True), str(self._url or self._file)
        kinds = (SQLAlchemyError, ValueError, TypeError)
        with database_errors(where, kinds), engine_of(url, self._vault) as engine, Session(engine) as session:
            if self._url is not None and session.get(_VaultRow, self._vault) is None:
                raise VaultError(f"{where} holds no index of this vault; list the vault again")
            yield session

    def _fill(
        self,
        connection: Connection,
        sources: Sequence[tuple[SourceInfo, Manifest]],
        compartments: Sequence[CompartmentInfo],
    ) -> None:
        connection.execute(insert(_VaultRow), {"vault": self._vault})
        for info, manifest in sources:
            connection.execute(insert(_SourceRow), {"vault": self._vault, **_values(info, _SourceRow)})
            for rows in _blocks(manifest):
                values = [
                    {
                        "vault": self._vault,
                        "source": info.name,
                        "id": s.id,
                        "file_name": s.file_name,
                        "text": s.text,
                        "label": s.label,
                        "risk": s.risk,
                        "batch": s.batch,
                    }
                    for s in rows
                ]
                connection.execute(insert(_SampleRow), values)
        for compartment in compartments:
            connection.execute(insert(_CompartmentRow), {"vault": self._vault, **_values(compartment, _CompartmentRow)})


def _blocks(manifest: Manifest) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(manifest), _ROWS):
        yield manifest.samples[start : start + _ROWS]


_LISTS = ("labels", "sources", "routers")


def _values(info: SourceInfo | CompartmentInfo, table: type[_Base]) -> dict[str, Any]:
    """The columns of a row; lists become JSON text."""
    names = [column.name for column in table.__table__.columns if column.name != "vault"]
    return {name: json.dumps(getattr(info, name)) if name in _LISTS else getattr(info, name) for name in names}


def _source(row: _SourceRow) -> SourceInfo:
    return SourceInfo(
        name=row.name,
        owner=row.owner,
        licence=row.licence,
        attribution=row.attribution,
        count=row.count,
        labels=tuple(json.loads(row.labels)),
        manifest_root=row.manifest_root,
        signer=row.signer,
    )


def _sample(row: _SampleRow) -> Sample:
    return Sample(row.id, row.file_name, row.text, row.label, row.risk, row.batch)


def _compartment(row: _CompartmentRow) -> CompartmentInfo:
    return CompartmentInfo(
        name=row.name,
        sources=tuple(json.loads(row.sources)),
        adapter=row.adapter,
        count=row.count,
        labels=tuple(json.loads(row.labels)),
        steps=row.steps,
        routers=tuple(json.loads(row.routers)),
        manifest_root=row.manifest_root,
        digest=row.digest,
        epsilon=row.epsilon,
        delta=row.delta,
    )
