"""A service in a process of its own, and clients that ask it as strangers do, for measurements."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

IMAGES = "/v1/images/generations"
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Lost(Exception):
    """The connection broke before there was a whole answer."""


@dataclass
class Served:
    """A running `intarsia serve`; `key` may do everything, `log` is what it said on its standard error."""

    process: subprocess.Popen[str]
    host: str
    port: int
    key: str
    log: Path
    seconds: float = field(default=0.0)

    def client(self, key: str | None = None) -> Client:
        return Client(self.host, self.port, key or self.key)

    def kill(self) -> None:
        """As a power cut of the process: it can do nothing about it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    @property
    def resident(self) -> int:
        """Bytes of memory that it holds."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE

    @property
    def handles(self) -> int:
        """Open files and sockets."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def faults(self) -> list[str]:
        """Lines of its log that tell of errors, or are no JSON object, as every one should be."""
        return [line for line in self.log.read_text(encoding="utf-8").splitlines() if _is_fault(line)]


def _is_fault(line: str) -> bool:
    try:
        return json.loads(line).get("level") in ("error", "critical")
    except ValueError:
        return True


@contextlib.contextmanager
def served(root: Path, *options: str, log: Path | None = None) -> Iterator[Served]:
    """Serve the vault in a folder; `seconds` is the time until it was ready, the log lies beside the vault."""
    log, began = log or root.with_name("service.log"), time.perf_counter()
    command = [sys.executable, "-m", "intarsia", "serve", str(root), "--port", "0", "--json", *options]
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            said = ""
            while not said.endswith("}\n"):
                line = process.stdout.readline()
                if not line:
                    raise SystemExit(f"the service did not begin: {log.read_text(encoding='utf-8')}")
                said += line
            told = json.loads(said)
            host, _, port = told["url"].removeprefix("http://").rstrip("/").rpartition(":")
            service = Served(process, host, int(port), told["key"], log)
            _wait_until_ready(service)
            service.seconds = time.perf_counter() - began
            yield service
        finally:
            process.terminate()


def _wait_until_ready(service: Served) -> None:
    end = time.monotonic() + 120
    while True:
        with contextlib.suppress(Lost):
            if service.client().ask("GET", "/readyz")[0] == 200:
                return
        if time.monotonic() > end:
            raise SystemExit("the service was not ready within two minutes")
        time.sleep(0.05)


class Client:
    """One connection, made again where it broke."""

    def __init__(self, host: str, port: int, key: str):
        self._connection = http.client.HTTPConnection(host, port, timeout=120)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def ask(self, verb: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and document; a body of bytes is sent as it is.

        Raises:
            Lost: there was no whole answer.
        """
        kept = self._connection.sock is not None
        try:
            self._connection.request(verb, path, _encoded(body), self._headers)
            answer = self._connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if kept and isinstance(error, (http.client.RemoteDisconnected, ConnectionError)):
                return self.ask(verb, path, body)  # the service had closed a connection that was idle
            raise Lost(str(error)) from error
        kind = answer.headers.get("Content-Type", "")
        return answer.status, json.loads(data) if "json" in kind else data

    def draw(self, **settings: object) -> tuple[int, Any]:
        """Ask for images."""
        return self.ask("POST", IMAGES, settings)

    def stream(self, **settings: object) -> Generator[tuple[str, Mapping[str, Any]], None, None]:
        """The events of a drawing; whoever leaves the iterator leaves the service too.

        Raises:
            Lost: the service refused, or the stream broke.
        """
        try:
            self._connection.request("POST", IMAGES, _encoded(settings | {"stream": True}), self._headers)
            answer = self._connection.getresponse()
            if answer.status != 200:
                raise Lost(f"{answer.status}: {answer.read()!r}")
            kind = ""
            for line in answer:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "event":
                    kind = value
                elif name == "data" and value != "[DONE]":
                    yield kind, json.loads(value)
        except (OSError, http.client.HTTPException) as error:
            raise Lost(str(error)) from error
        finally:
            self.close()

    def close(self) -> None:
        self._connection.close()


def _encoded(body: object) -> bytes | None:
    return body if isinstance(body, bytes) or body is None else json.dumps(body).encode()


def guest(service: Served, name: str, sources: Sequence[str]) -> str:
    """Add a principal with these grants; returns its key."""
    admin = service.client()
    key: str = admin.ask("POST", "/v1/principals", {"name": name})[1]["key"]
    status, told = admin.ask("POST", "/v1/grants", {"principal": name, "sources": list(sources)})
    assert status == 201, told
    return key


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile, in seconds."""
    p50, p95 = np.percentile(seconds, [50, 95])
    return {"p50": float(p50), "p95": float(p95)}
