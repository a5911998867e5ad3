"""`intarsia serve --engine ray` on a cluster of two nodes: a replica is killed under load, and nobody notices."""

from __future__ import annotations

import base64
import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
import psutil
import pytest
from PIL import Image

from intarsia.data import to_uint8
from intarsia.vault import Vault

from ...vault.helpers import grown, tiny_backbone, toy_source
from .conftest import SECONDS, RayCluster

pytestmark = pytest.mark.integration

STEPS, REQUESTS, CLIENTS = 60, 24, 6


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    vault = Vault.create(tmp_path / "art.vault", backbone=(tiny_backbone(), toy_source("core", 24)))
    grown(vault, "oak", "elm")
    vault.add_principal("acme")
    vault.grant(["oak", "elm"], "acme")
    return vault


@contextmanager
def served(vault: Vault, cluster: RayCluster) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    words = ["serve", str(vault.root), "--port", "0", "--json", "--precision", "float32", "--batch-invariant"]
    words += ["--engine", "ray", "--address", cluster.address, "--replicas", "2"]
    command = [sys.executable, "-m", "intarsia.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        limit = threading.Timer(4 * SECONDS, process.kill)
        limit.start()
        try:
            assert process.stdout is not None
            said = ""
            while not said.endswith("}\n"):
                line = process.stdout.readline()
                assert line, "the service did not begin"
                said += line
            yield process, json.loads(said)["url"], json.loads(said)["key"]
        finally:
            limit.cancel()
            process.terminate()


def replicas(cluster: RayCluster) -> list[psutil.Process]:
    return [*cluster.head.tasks("ServeReplica"), *cluster.other.tasks("ServeReplica")]


def test_no_request_is_lost_with_a_replica_and_what_is_revoked_no_replica_draws(
    vault: Vault, cluster: RayCluster
) -> None:
    key = vault.new_key("acme")
    head = {"Authorization": f"Bearer {key}"}
    with (
        served(vault, cluster) as (process, url, owner),
        httpx2.Client(base_url=url, timeout=SECONDS, headers=head) as client,
    ):

        def ask(seed: int) -> httpx2.Response:
            request = {"seed": seed, "num_inference_steps": STEPS, "sources": ["oak", "elm"]}
            return client.post("/v1/images/generations", json=request)

        assert ask(0).status_code == 200
        before = replicas(cluster)
        assert len(before) == 2
        with ThreadPoolExecutor(CLIENTS) as clients:
            answers = [clients.submit(ask, seed) for seed in range(REQUESTS)]
            while sum(answer.done() for answer in answers) < REQUESTS // 4:
                time.sleep(0.01)
            before[0].kill()
            left = REQUESTS - sum(answer.done() for answer in answers)
            got = [answer.result() for answer in answers]
        assert left > CLIENTS, "the replica was killed too late to be under load"
        assert [each.status_code for each in got] == [200] * REQUESTS
        composed = vault.compose(["elm", "oak"], precision="float32")
        for seed in (0, REQUESTS // 2, REQUESTS - 1):
            alone = composed.sample(1, seed=seed, steps=STEPS, batch_invariant=True)
            assert (_pixels(got[seed]) == to_uint8(alone.images)[0, ..., 0]).all()
        receipt = got[-1].json()["intarsia"]["receipt"]
        assert client.get(f"/v1/receipts/{receipt}").status_code == 200
        admin = {"Authorization": f"Bearer {owner}"}
        assert client.delete("/v1/grants/acme/oak", headers=admin).status_code == 200
        assert {ask(seed).status_code for seed in range(8)} == {403}
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=SECONDS) == 0
    assert not replicas(cluster)
    assert not vault.verify().problems


def _pixels(answer: httpx2.Response) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))))
