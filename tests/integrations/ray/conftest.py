"""A Ray cluster of two nodes on this machine, as `ray start` makes one, with a time limit on everything."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

SECONDS = float(os.environ.get("INTARSIA_TEST_SECONDS", "180"))
"""For a cluster to begin, and for each job in it. A machine that does much else needs more."""


@dataclass(frozen=True)
class Node:
    """A node of its own: `process` is `ray start`, in whose session is all that Ray runs there."""

    process: subprocess.Popen[bytes]

    def tasks(self, name: str) -> list[psutil.Process]:
        """The processes of this node that run a task or an actor with this in its name."""
        return [each for each in self._family() if name in " ".join(each.info["cmdline"] or [])]

    def kill(self) -> None:
        """As a power cut does."""
        for each in self._family():
            with contextlib.suppress(psutil.Error):
                each.kill()
        self.process.wait()

    def _family(self) -> Iterator[psutil.Process]:
        for each in psutil.process_iter(["cmdline"]):
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(each.pid) == self.process.pid:
                    yield each


@dataclass(frozen=True)
class RayCluster:
    """A head, and a node that can be lost."""

    address: str
    head: Node
    other: Node


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[RayCluster]:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # for the drivers too
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # the paths of Ray's sockets must be short
    address = f"127.0.0.1:{_free_port()}"
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        port = address.rpartition(":")[2]
        words = f"--head --port {port} --temp-dir {folder} --include-dashboard false"
        head = _started(stack, folder / "head.log", words.split())
        yield RayCluster(address, head, _started(stack, folder / "other.log", ["--address", address]))


def _started(stack: contextlib.ExitStack, log: Path, words: list[str]) -> Node:
    """A node that runs. Ray gives its agents 15 seconds to begin, so where much else runs it is tried again."""
    usual = ["--node-ip-address", "127.0.0.1", "--num-cpus", "2", "--object-store-memory", "100000000", "--block"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *words, *usual]
    patient = {"RAY_worker_register_timeout_seconds": str(int(SECONDS)), "RAY_USAGE_STATS_ENABLED": "0"}
    end = time.monotonic() + SECONDS
    while True:
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, env=os.environ | patient, stdout=file, stderr=file, start_new_session=True
            )
        node = Node(process)
        if _runs(node, log, end):
            stack.callback(node.kill)
            return node
        node.kill()
        assert time.monotonic() < end, f"the node does not begin: {log.read_text()}"


def _runs(node: Node, log: Path, end: float) -> bool:
    """Wait until a node runs; False if it has ended instead, or takes too long."""
    while node.process.poll() is None and time.monotonic() < end:
        if "Ray runtime started" in log.read_text():
            return True
        time.sleep(0.2)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
