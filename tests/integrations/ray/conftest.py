"""A Ray cluster of two nodes on this machine, as `ray start` makes one, with a time limit on everything."""

from __future__ import annotations

import contextlib
import os
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
    """A node of its own: `process` is `ray start`, whose children are all that Ray runs there."""

    process: subprocess.Popen[bytes]

    def tasks(self, name: str) -> list[psutil.Process]:
        """The processes of this node that run a task or an actor with this in its name."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                found += [child] if name in " ".join(child.cmdline()) else []
        return found

    def kill(self) -> None:
        """As a power cut does."""
        with contextlib.suppress(psutil.Error):
            family = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            for each in family:
                with contextlib.suppress(psutil.Error):
                    each.kill()
        self.process.wait()


@dataclass(frozen=True)
class RayCluster:
    """A head, and a node that can be lost."""

    address: str
    head: Node
    other: Node


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # the paths of Ray's sockets must be short
    address = f"127.0.0.1:{_free_port()}"
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        head = _started(stack, folder, ["--head", "--port", address.rpartition(":")[2], "--temp-dir", folder])
        _wait_for(address)
        other = _started(stack, folder, ["--address", address])
        yield RayCluster(address, head, other)


def _started(stack: contextlib.ExitStack, folder: str, words: list[str]) -> Node:
    usual = ["--node-ip-address", "127.0.0.1", "--num-cpus", "2", "--object-store-memory", "100000000", "--block"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *words, *usual, "--include-dashboard", "false"]
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_DOCKER_CPU_WARNING": "1", "PYTHONWARNINGS": "ignore"}
    with (Path(folder) / f"start-{len(os.listdir(folder))}.log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | quiet, stdout=log, stderr=log)
    node = Node(process)
    stack.callback(node.kill)
    return node


def _wait_for(address: str) -> None:
    host, port = address.split(":")
    end = time.monotonic() + SECONDS
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        assert time.monotonic() < end, f"no cluster at {address}"
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
