"""A service in its own process, as its clients meet it: OpenAI's client, signals, slow and broken sockets."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from intarsia.data import to_uint8
from intarsia.ledger import Receipt
from intarsia.vault import Vault

from .test_images import pixels

pytestmark = pytest.mark.integration
README = Path(__file__).parents[2] / "README.md"
STEPS = 20


@contextmanager
def served(vault: Vault, *options: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The process, its address and its key."""
    words = ["serve", str(vault.root), "--port", "0", "--json", "--precision", "float32", *options]
    command = [sys.executable, "-m", "intarsia.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = ""
            while not said.endswith("}\n"):
                line = process.stdout.readline()
                assert line, process.stderr and process.stderr.read()
                said += line
            document = json.loads(said)
            yield process, document["url"], document["key"]
        finally:
            process.terminate()


def ready(url: str) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            if httpx2.get(f"{url}readyz").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_example_of_the_readme_runs_as_printed(vault: Vault, tmp_path: Path) -> None:
    (code,) = [text for text in re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S) if "OpenAI(" in text]
    with served(vault) as (_, url, key):
        ready(url)
        code = code.replace("http://127.0.0.1:8000/", url).replace("int_…", key)
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "drawn-0.png").read_bytes().startswith(b"\x89PNG")
    assert "elm" in done.stdout


def test_the_openai_client_draws_lists_streams_and_understands_errors(vault: Vault) -> None:
    import openai

    with served(vault, "--batch-invariant") as (_, url, key):
        ready(url)
        client = openai.OpenAI(base_url=f"{url}v1", api_key=key, max_retries=0)
        assert [each.id for each in client.models.list()] == ["intarsia"]
        assert client.models.retrieve("intarsia").object == "model"
        extra: dict[str, Any] = {"seed": 5, "num_inference_steps": 4, "sources": ["elm"]}
        drawn = client.images.generate(model="intarsia", prompt="", n=2, size="auto", extra_body=extra)
        alone = vault.compose("elm", precision="float32").sample(2, seed=5, steps=4, batch_invariant=True)
        expected = to_uint8(alone.images)[..., 0].tolist()
        assert drawn.data is not None
        assert [pixels(each.b64_json or "").tolist() for each in drawn.data] == expected
        assert drawn.model_extra is not None
        assert drawn.model_extra["intarsia"]["sources"] == ["elm"]
        stream = client.images.generate(prompt="", n=1, stream=True, partial_images=2, extra_body=extra)
        events = list(stream)
        assert [each.type for each in events] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
        assert pixels(events[-1].b64_json).tolist() == expected[0]
        with pytest.raises(openai.BadRequestError, match="this vault draws images of 4x4"):
            client.images.generate(prompt="", size="1024x1024")
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{url}v1", api_key="sk-wrong", max_retries=0).models.list()
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("dall-e-3")


@pytest.mark.parametrize("stream", [False, True])
def test_for_a_client_that_has_gone_nothing_is_drawn_on(vault: Vault, stream: bool) -> None:
    key = vault.new_key("acme")
    vault.grant("oak", "acme", quota="100/month")
    steps = 100_000  # which no machine draws before the client has gone
    with served(vault, "--max-steps", str(steps)) as (_, url, _owner):
        ready(url)
        request = {"n": 16, "num_inference_steps": steps, "stream": stream, "partial_images": 200 * stream}
        headers = {"Authorization": f"Bearer {key}"}
        ask = httpx2.stream("POST", f"{url}v1/images/generations", json=request, headers=headers, timeout=0.5)
        with contextlib.suppress(httpx2.TransportError), ask as answer:
            next(answer.iter_lines())
        end = time.monotonic() + 60
        while "intarsia_images_under_way 0.0" not in httpx2.get(f"{url}metrics", timeout=60).text:
            assert time.monotonic() < end
            time.sleep(0.1)
        while vault.allowances("acme")[0].used:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert "intarsia_images_total 0.0" in httpx2.get(f"{url}metrics", timeout=60).text


def test_what_runs_is_finished_when_the_service_is_told_to_end(vault: Vault) -> None:
    with served(vault) as (process, url, key):
        ready(url)
        got: list[httpx2.Response] = []
        request = {"n": 16, "num_inference_steps": 250}
        ask = threading.Thread(
            target=lambda: got.append(
                httpx2.post(
                    f"{url}v1/images/generations",
                    json=request,
                    headers={"Authorization": f"Bearer {key}"},
                    timeout=120,
                )
            )
        )
        ask.start()
        before = vault.ledger.end()
        time.sleep(1.0)  # it has begun
        process.send_signal(signal.SIGTERM)
        ask.join()
        assert process.wait(timeout=60) == 0
        assert got[0].status_code == 200
        assert len(got[0].json()["data"]) == 16
        assert vault.ledger.end() > before
        assert not vault.verify().problems


def test_slow_and_broken_clients_hold_nobody_up(vault: Vault) -> None:
    with served(vault) as (_, url, key):
        ready(url)
        port = int(url.rstrip("/").rpartition(":")[2])
        head = f"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        slow = []
        for beginning in ("", "POST /v1/im", head, f"{head}Content-Length: 100\r\n\r\n{{", "\x00\xff garbage\r\n\r\n"):
            for _ in range(20):
                each = socket.create_connection(("127.0.0.1", port))
                each.sendall(beginning.encode("latin-1"))
                slow.append(each)
        answer = httpx2.post(
            f"{url}v1/images/generations", json={}, headers={"Authorization": f"Bearer {key}"}, timeout=60
        )
        assert answer.status_code == 200
        assert base64.b64decode(answer.json()["data"][0]["b64_json"]).startswith(b"\x89PNG")
        for each in slow:
            each.close()
        assert httpx2.get(f"{url}healthz").status_code == 200


def test_a_kill_loses_nothing_that_was_acknowledged(vault: Vault) -> None:
    """Twice in the midst of drawing: what a client holds stands in the ledger, and quotas counted it."""
    acme = vault.new_key("acme")
    vault.grant("oak", "acme", quota="100000/month")
    drawn = 0
    for round_ in range(2):
        with served(vault, "--steps", "2") as (process, url, _):
            ready(url)
            receipts: list[Receipt] = []
            stop = threading.Event()

            def client(url: str = url, receipts: list[Receipt] = receipts, stop: threading.Event = stop) -> None:
                with contextlib.suppress(httpx2.TransportError):
                    while not stop.is_set():
                        answer = httpx2.post(
                            f"{url}v1/images/generations",
                            json={},
                            headers={"Authorization": f"Bearer {acme}"},
                            timeout=60,
                        )
                        file = base64.b64decode(answer.json()["data"][0]["b64_json"])
                        said = json.loads(Image.open(io.BytesIO(file)).text["intarsia"])
                        receipts.append(Receipt.of(said["receipt"]))

            clients = [threading.Thread(target=client) for _ in range(4)]
            for each in clients:
                each.start()
            end = time.monotonic() + 60
            while len(receipts) < 5 + 3 * round_:
                assert time.monotonic() < end
                time.sleep(0.01)
            process.kill()
            stop.set()
            for each in clients:
                each.join()
        drawn += len(receipts)
        opened = Vault.open(vault.root)
        assert not opened.verify().problems
        entries = opened.ledger.entries()
        for receipt in receipts:
            receipt.check()
            assert entries[receipt.proof.index].line == receipt.entry.line
        (allowance,) = opened.allowances("acme")
        assert allowance.used >= drawn
