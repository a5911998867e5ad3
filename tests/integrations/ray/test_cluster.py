"""Training on a cluster of two nodes that lose a process, then a whole node: the bytes are those of training here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from intarsia.vault import Vault

from ...vault.helpers import ROUTER, all_bytes, grown, quick, tiny_backbone, toy_source
from .conftest import SECONDS, RayCluster

pytestmark = pytest.mark.integration

STEPS, SAVED = 1200, 30
DRIVER = f"""
import sys
from intarsia.compartments import Lora, TrainSettings
from intarsia.integrations.ray import RayEngine
from intarsia.routers import GaussianSettings
from intarsia.vault import Vault

router = GaussianSettings(components=(1,), pseudo_counts=(30.0,), rounds=1, class_samples=2)
lora = Lora(rank=1, targets=("attn.qkv",))
settings = TrainSettings(adapter=lora, steps={STEPS}, rows=2, slices=2, precision="float32", threads=1)
with RayEngine.connected(sys.argv[2]) as engine:
    vault = Vault.open(sys.argv[1], engine=engine)
    for step in vault.training(["elm", "fir", "oak"], settings, routers=[router], save_every={SAVED}):
        print(step.name, step.step, flush=True)
"""


@pytest.fixture
def forest(tmp_path: Path) -> Vault:
    vault = Vault.create(tmp_path / "art.vault", backbone=(tiny_backbone(), toy_source("core", 24)))
    return grown(vault, "elm", "fir", "oak", train=False)


def said(process: subprocess.Popen[str]) -> Iterator[tuple[str, int]]:
    """The steps that a driver tells of, as they come; one that takes too long is ended."""
    limit = threading.Timer(2 * SECONDS, process.kill)
    limit.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            assert re.fullmatch(r"[a-z]+ \d+\n", line), line
            name, step = line.split()
            yield name, int(step)
        assert process.wait() == 0
    finally:
        limit.cancel()


def test_a_process_and_then_a_node_are_lost_and_the_bytes_are_the_same(
    forest: Vault, cluster: RayCluster, tmp_path: Path
) -> None:
    local = tmp_path / "local.vault"
    shutil.copytree(forest.root, local)
    names = ["elm", "fir", "oak"]
    done, again, lost = dict.fromkeys(names, 0), [], []
    command = [sys.executable, "-c", DRIVER, str(forest.root), cluster.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for name, step in said(process):
            if step != done[name] + 1:
                again.append((name, done[name], step))
            done[name] = step
            if len(lost) < 2 and step % SAVED == 1 and step > SAVED:
                node = cluster.head if not lost else cluster.other
                running = node.tasks("train_parcel")
                if running and not lost:
                    running[0].kill()
                elif running:
                    node.kill()
                lost += running[:1]
    assert len(lost) == 2, "no task ran on one of the nodes"
    # Steps may be told of with their checkpoint, so that none comes again; never more come than since the newest.
    assert all(before - SAVED < step <= before + 1 and step % SAVED == 1 for _, before, step in again), again
    assert done == dict.fromkeys(names, STEPS)
    assert not forest.verify().problems
    Vault.open(local).train(names, quick(steps=STEPS), routers=[ROUTER])
    assert all_bytes(forest.root) == all_bytes(local)


def test_commands_train_and_forget_on_a_cluster_and_leave_what_they_would_leave_here(
    forest: Vault, cluster: RayCluster, tmp_path: Path
) -> None:
    local = tmp_path / "local.vault"
    shutil.copytree(forest.root, local)
    gone = forest.source("oak").manifest.ids[0]
    settings = ["--steps", "6", "--slices", "3", "--threads", "1", "--rank", "1", "--precision", "float32"]
    for root, where in ((forest.root, ["--engine", "ray", "--address", cluster.address]), (local, [])):
        _run("train", root, "elm", "oak", *settings, *where)
        _run("forget", root, "oak", "--sample", gone, "--yes", *where)
    assert all_bytes(forest.root) == all_bytes(local)


def _run(*words: object) -> object:
    command = [sys.executable, "-m", "intarsia.cli", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
