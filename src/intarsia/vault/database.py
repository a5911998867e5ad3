"""The databases that an index may be kept in: a file of SQLite, or PostgreSQL by URL.

What is forgotten must leave them as it leaves the folders. SQLite is told to overwrite what it deletes, also where its
users chose a write-ahead log. PostgreSQL
keeps deleted rows in pages, in its log and in its statistics. So each vault has a schema of its own there, which is
dropped and made again as a whole, and the files of its tables go with it; the tables are unlogged, so that no row
reaches the log, a standby or a base backup; and no statistics are kept of their columns. A server that crashed empties
such tables, which is noticed and mended: an index can always be made again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Connection,
    Dialect,
    Engine,
    MetaData,
    NullPool,
    String,
    TypeDecorator,
    create_engine,
    make_url,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateSchema, DropSchema
from sqlalchemy.types import TypeEngine

from intarsia.errors import SettingsError, VaultError, require

SQLITE, POSTGRESQL = "sqlite", "postgresql"
_DRIVERS = {SQLITE: "pysqlite", POSTGRESQL: "psycopg"}
_SECRETS = {"password", "passfile", "sslpassword"}
_PATIENCE = 10  # seconds to wait for a server that does not answer
_LOCK_PATIENCE = 60  # seconds to wait for somebody who reads the tables that are to go


class Text(TypeDecorator[str]):
    """Text that any database takes and orders alike: PostgreSQL knows no NUL, and sorts as its locale does."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        return dialect.type_descriptor(String(collation="C") if dialect.name == POSTGRESQL else String())

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:
        return None if value is None else value.replace("\\", "\\\\").replace("\0", "\\0")

    def process_result_value(self, value: str | None, dialect: object) -> str | None:
        if value is None:
            return None
        return "\\".join(part.replace("\\0", "\0") for part in value.split("\\\\"))


def check_url(url: str) -> URL:
    """Parse a database URL that will be stored in the vault; a relative file becomes an absolute one.

    Raises:
        SettingsError: it is none, or holds a password.
        MissingExtra: the client of the database is not installed.
    """
    try:
        parsed = make_url(url)
        backend, _, driver = parsed.drivername.partition("+")
        good = backend in _DRIVERS and driver in ("", _DRIVERS[backend]) and parsed.database
    except (SQLAlchemyError, ValueError):
        good = None
    if not good:
        raise SettingsError(
            f"the index cannot be kept at '{_masked(url)}'; expected a database of SQLite or PostgreSQL, as "
            "sqlite:////folder/file.db or postgresql+psycopg://user@host/database"
        )
    if parsed.password is not None or _SECRETS & set(parsed.query):
        raise SettingsError(
            f"the index URL '{_masked(url)}' holds a password, which would be stored in the vault; leave it out and "
            "give it to the database's client in its own way (PGPASSWORD, or a password file named by PGPASSFILE)"
        )
    if backend == POSTGRESQL:
        require("psycopg", "postgres")
    elif not str(parsed.database).startswith("file:"):
        parsed = parsed.set(database=str(Path(str(parsed.database)).absolute()))
    return parsed.set(drivername=f"{backend}+{_DRIVERS[backend]}")


def _masked(url: str) -> str:
    """A URL that can be shown, whatever it is."""
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError):
        return url.rpartition("@")[2]
    return str(parsed.set(query={key: "***" if key in _SECRETS else each for key, each in parsed.query.items()}))


def file_url(path: Path, *, read_only: bool = False) -> URL:
    """An SQLite file."""
    query = {"mode": "ro", "uri": "true"} if read_only else {}
    database = f"file:{quote(str(path))}" if read_only else str(path)
    return URL.create(SQLITE, database=database, query=query)


@contextlib.contextmanager
def engine_of(url: URL, vault: str) -> Iterator[Engine]:
    """An engine that keeps no connection: the file under it may be replaced at any time.

    Args:
        vault: the vault's id, by which its schema in PostgreSQL is called.
    """
    postgres = url.get_backend_name() == POSTGRESQL
    patience = {"connect_timeout": _PATIENCE} if postgres and "connect_timeout" not in url.query else {}
    engine = create_engine(url, poolclass=NullPool, connect_args=patience)
    try:
        yield engine.execution_options(schema_translate_map={None: _schema(vault)}) if postgres else engine
    finally:
        engine.dispose()


def _schema(vault: str) -> str:
    return f"intarsia_{vault}"


def clear_tables(connection: Connection, metadata: MetaData, vault: str) -> None:
    """Make the tables, in place of those that were there, or without the rows of this vault."""
    if connection.dialect.name == POSTGRESQL:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_PATIENCE}s'")
        connection.execute(DropSchema(_schema(vault), cascade=True, if_exists=True))
        connection.execute(CreateSchema(_schema(vault)))
        metadata.create_all(connection, checkfirst=False)
        _leave_no_copies(connection, metadata, vault)
        return
    connection.exec_driver_sql("PRAGMA secure_delete=ON")
    metadata.create_all(connection)
    for table in reversed(metadata.sorted_tables):
        connection.execute(table.delete().where(table.c.vault == vault))


def _leave_no_copies(connection: Connection, metadata: MetaData, vault: str) -> None:
    """Keep rows out of PostgreSQL's log and statistics; for empty tables."""
    for table in reversed(metadata.sorted_tables):  # a logged table must not refer to one that is not
        still = ", ".join(f'ALTER COLUMN "{column.name}" SET STATISTICS 0' for column in table.columns)
        name = f'"{_schema(vault)}"."{table.name}"'
        connection.exec_driver_sql(f"ALTER TABLE {name} SET UNLOGGED")
        connection.exec_driver_sql(f"ALTER TABLE {name} {still}")


def empty_log(engine: Engine) -> None:
    """Bring what was changed from SQLite's write-ahead log, if the file has one, into the file: both are overwritten.

    Raises:
        VaultError: somebody reads an older state, which therefore still stands there.
    """
    if engine.dialect.name != SQLITE:
        return
    with engine.connect() as connection:
        busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar()
    if busy:
        raise VaultError(
            f"the index {engine.url} is being read by another process, so that what was deleted still stands in its "
            "log; end that, then list the vault again"
        )


@contextlib.contextmanager
def database_errors(where: str, kinds: tuple[type[Exception], ...] = (SQLAlchemyError,)) -> Iterator[None]:
    """Turn what a database refuses into one clear line."""
    try:
        yield
    except kinds as error:
        raise VaultError(
            f"the index {where} cannot be read or written ({reason_of(error)}); see that the database is up and the "
            "disk not full, then list the vault again"
        ) from error


def reason_of(error: Exception) -> str:
    """What went wrong, in one line and without values."""
    return (str(getattr(error, "orig", None) or error).strip() or type(error).__name__).split("\n")[0]
