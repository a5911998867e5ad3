"""A PostgreSQL server of one's own: Debian's, in a folder of its own, on a port of the loopback address."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

USER, PASSWORD = "intarsia", "inlaid-7f"
_SETTINGS = {
    "fsync": "off",
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",  # those of a vault end with it, which the garbage collector decides
    "shared_buffers": "16MB",
    "unix_socket_directories": "",
}


class Postgres:
    """A server that is started and stopped at will."""

    def __init__(self, home: Path):
        self.data, self.port, self._home = home / "data", free_port(), home
        # PostgreSQL refuses to run as root.
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        password = home / "password"
        password.write_text(PASSWORD)
        if self._account is not None:
            for path in (home, password):
                os.chown(path, self._account.pw_uid, self._account.pw_gid)
        options = ["--auth=scram-sha-256", f"--pwfile={password}", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"]
        self._run("initdb", "-D", str(self.data), "-U", USER, *options)

    def start(self) -> None:
        settings = " ".join(f"-c {name}='{value}'" for name, value in {**_SETTINGS, "port": self.port}.items())
        self._run(
            "pg_ctl", "start", "-D", str(self.data), "-w", "-t", "120", "-l", str(self._home / "log"), "-o", settings
        )

    def stop(self, *, crash: bool = False) -> None:
        """End it in order, or at once, as a power cut would."""
        if (self.data / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "-D", str(self.data), "-w", "-t", "120", "-m", "immediate" if crash else "fast")

    def create(self, database: str, *options: str) -> str:
        """A new, empty database; its URL without the password, which belongs into PGPASSWORD."""
        self.query(" ".join([f'CREATE DATABASE "{database}"', *options]))
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{database}"

    def where(self, database: str) -> str:
        """What psycopg takes to connect."""
        return f"host=127.0.0.1 port={self.port} user={USER} password={PASSWORD} dbname={database}"

    def query(self, statement: str, *, database: str = "postgres") -> list[tuple[object, ...]]:
        """What a statement gives."""
        import psycopg

        with psycopg.connect(self.where(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _run(self, name: str, *words: str) -> None:
        account = self._account
        who = {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        # Into a file: the server goes on after the command, and would hold a pipe open.
        with (self._home / "commands").open("w+") as said:
            done = subprocess.run(
                [tool(name), *words],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd=self._home,
                check=False,
                **who,
            )
            said.seek(0)
            log = self._home / "log"
            assert done.returncode == 0, f"{name}: {said.read()}{log.read_text() if log.exists() else ''}"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running server, gone with its folder afterwards."""
    with tempfile.TemporaryDirectory(prefix="intarsia-postgres-") as home:
        server = Postgres(Path(home))
        try:
            server.start()
            yield server
        finally:
            server.stop()


def tool(name: str) -> str:
    """A program of PostgreSQL; Debian keeps those of the server beside each version."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = str(places[-1]) if places else shutil.which(name)
    assert found, f"no {name} on this machine; `make integration` installs PostgreSQL"
    return found


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
