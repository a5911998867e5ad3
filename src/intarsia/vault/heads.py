"""Which state of a shared vault counts, and who may change it: one row in a database that all machines reach.

The row names no source and no sample: the number of the state, the object that describes it, whether a writer has left
objects behind, and the key that signs the ledger. A writer holds an advisory lock of PostgreSQL, which goes with its
connection, and moves the head over that connection: who has lost the lock cannot move it.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, QueuePool, create_engine, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from intarsia.digests import digest_of
from intarsia.errors import VaultError
from intarsia.vault.database import POSTGRESQL, check_url, reason_of
from intarsia.vault.locks import file_lock

_TABLE = """CREATE TABLE IF NOT EXISTS intarsia_heads (vault TEXT PRIMARY KEY, number BIGINT NOT NULL,
    state TEXT NOT NULL, littered INTEGER NOT NULL, signer TEXT NOT NULL)"""
OVERTAKEN = "somebody else has changed this vault meanwhile, and nothing was changed here; try again"
# A connection whose other end has vanished is given up within half a minute, and its lock with it.
_ALIVE: Mapping[str, int] = MappingProxyType(
    {"connect_timeout": 10, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}
)
_SERVER_ALIVE = "-c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"


@dataclass(frozen=True)
class Head:
    """The state that counts: its number, the object that describes it, and whether there may be objects of others."""

    number: int
    state: str
    littered: bool


@dataclass
class Heads:
    """The head of one vault.

    Args:
        url: the database, as it stands in the vault's record.
        vault: the vault's id.

    Raises:
        SettingsError, MissingExtra: as `check_url`.
    """

    url: str
    vault: str
    _engine: Engine = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parsed = check_url(self.url)
        self._database = str(parsed.database)
        self._postgres = parsed.get_backend_name() == POSTGRESQL
        if self._postgres:
            alive = {**_ALIVE, "options": _SERVER_ALIVE}
            pool: dict[str, Any] = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 8, "pool_pre_ping": True}
            self._engine = create_engine(parsed, connect_args=alive, isolation_level="AUTOCOMMIT", **pool)
        else:
            self._engine = create_engine(parsed, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        weakref.finalize(self, self._engine.dispose)

    def create(self, signer: str) -> None:
        """Make the row, of state 0.

        Raises:
            VaultError: there is one, or the database cannot be written.
        """
        values = {"vault": self.vault, "signer": signer}
        with self._connected() as connection:
            with self._sole_maker(connection):
                connection.execute(text(_TABLE))
            connection.execute(text("INSERT INTO intarsia_heads VALUES (:vault, 0, '', 1, :signer)"), values)

    @contextlib.contextmanager
    def _sole_maker(self, connection: Connection) -> Iterator[None]:
        """Two that make the table at once would be in each other's way."""
        if not self._postgres:
            yield
            return
        connection.execute(text("SELECT pg_advisory_lock(7235906)"))
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(7235906)"))

    def drop(self) -> None:
        """Take the row away, if there is one."""
        with self._connected() as connection:
            connection.execute(text("DELETE FROM intarsia_heads WHERE vault = :vault"), {"vault": self.vault})

    def look(self) -> Head:
        """The state that counts right now.

        Raises:
            VaultError: the database cannot be read, or knows no such vault.
        """
        number, state, littered, _ = self._row()
        return Head(int(number), str(state), bool(littered))

    @property
    def signer(self) -> str:
        """The key that signs the ledger."""
        return str(self._row()[3])

    @contextlib.contextmanager
    def sole(self, what: str) -> Iterator[Connection | None]:
        """Be the only one on all machines to do something; yields None if somebody else does it.

        Raises:
            VaultError: the database cannot be reached.
        """
        digest = digest_of(f"{self.vault}/{what}".encode())
        if not self._postgres:
            beside = Path(f"{self._database}-{digest[:16]}.lock")
            with file_lock(beside) as holder, self._connected() as connection:
                yield connection if holder is None else None
            return
        key = {"key": int(digest[:16], 16) - (1 << 63)}
        with self._connected() as connection:
            held = connection.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar()
            try:
                yield connection if held else None
            finally:
                if held:
                    with contextlib.suppress(SQLAlchemyError):  # a connection that is lost has lost its lock
                        connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)

    def litter(self, connection: Connection) -> None:
        """Say that objects may be left behind from now on."""
        self._update(connection, "littered = 1", {})

    def tidy(self, connection: Connection) -> None:
        """Say that there are none but those of the state that counts."""
        self._update(connection, "littered = 0", {})

    def advance(self, connection: Connection, head: Head, state: str) -> Head:
        """Make another state count in place of `head`.

        Raises:
            VaultError: the lock was lost, and nothing is changed, or it is not known whether it is.
        """
        values = {"old": head.number, "state": state}
        if not self._update(connection, "number = number + 1, state = :state", values, "AND number = :old"):
            raise VaultError(OVERTAKEN)
        return Head(head.number + 1, state, littered=True)

    def _update(self, connection: Connection, what: str, values: Mapping[str, Any], also: str = "") -> bool:
        statement = text(f"UPDATE intarsia_heads SET {what} WHERE vault = :vault {also}")
        with self._errors():
            return bool(connection.execute(statement, {"vault": self.vault, **values}).rowcount)

    def _row(self) -> tuple[Any, ...]:
        query = text("SELECT number, state, littered, signer FROM intarsia_heads WHERE vault = :vault")
        with self._connected() as connection:
            row = connection.execute(query, {"vault": self.vault}).first()
        if row is None:
            raise VaultError(f"the database {self._shown} does not know this vault; restore it from a backup")
        return tuple(row)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        with self._errors():
            connection = self._engine.connect()
        with connection, self._errors():
            yield connection

    @property
    def _shown(self) -> str:
        return str(check_url(self.url))

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError as error:
            raise VaultError(f"the database {self._shown} knows this vault already") from error
        except SQLAlchemyError as error:
            raise VaultError(
                f"the database {self._shown} cannot be reached ({reason_of(error)}), so that it is not known which "
                "state of this vault counts; see that it is up, then try again"
            ) from error
