"""What a hostile client sends: too much, too slowly, or something that wants to be taken for something else."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from uvicorn.server import ServerState

from intarsia.errors import CorruptError, VaultError
from intarsia.serving.faults import fault_of
from intarsia.serving.limits import Answers, Limits
from intarsia.serving.metrics import Lines, Metrics, Watch
from intarsia.serving.run import _Patient
from intarsia.vault import Vault

from .conftest import Client

IMAGES = "/v1/images/generations"
SHAPE = {"message", "type", "param", "code"}


def test_every_failure_has_one_shape(client: Client, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, nobody = client(), client()
    nobody.headers.pop("authorization")
    answers = {
        401: nobody.get("/v1/me"),
        404: owner.get("/v1/nothing"),
        405: owner.delete("/v1/me"),
        413: owner.post(IMAGES, content=b" " * (8 * 2**20 + 1)),
        422: owner.post(IMAGES, content=b"{"),
    }
    monkeypatch.setattr(Vault, "sources", lambda self: 1 / 0)
    answers[500] = owner.get("/v1/sources")
    for status, answer in answers.items():
        assert answer.status_code == status
        assert set(answer.json()) == {"error"}
        assert set(answer.json()["error"]) == SHAPE
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("error", [CorruptError, VaultError, RuntimeError])
def test_what_is_wrong_here_is_told_to_the_log_alone(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    def fail(self: Vault) -> None:
        raise error("/srv/secret/art.vault is broken")

    monkeypatch.setattr(Vault, "sources", fail)
    answer = client().get("/v1/sources")
    assert answer.status_code in (500, 503)
    assert "secret" not in answer.text
    assert "secret" in caplog.text


BODIES: dict[str, bytes] = {
    "not JSON": b"{'n': 1}",
    "a list": b"[]",
    "a number": b"1",
    "nothing": b"",
    "another encoding": '{"prompt": "é"}'.encode("latin-1"),
    "a lone surrogate": b'{"prompt": "\\ud800"}',
    "a lone surrogate as a name": b'{"\\ud800": 1}',
    "a number beyond all": b'{"seed": 1e400}',
    "no number": b'{"guidance_scale": NaN}',
    "infinity": b'{"guidance_scale": Infinity}',
    "a long number": b'{"seed": ' + b"9" * 5000 + b"}",
    "deep": b'{"sources": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a name twice": b'{"n": 1, "n": 99}',
    "many sources": json.dumps({"sources": ["oak"] * 20_000}).encode(),
    "the same source twice": b'{"sources": ["oak", "oak"]}',
    "a long prompt": json.dumps({"prompt": "x" * 5000}).encode(),
    "a source with a zero byte": b'{"sources": ["oak\\u0000"]}',
    "a source of another folder": b'{"sources": ["../compartments/oak"]}',
    "previews without a stream": b'{"partial_images": 3}',
    "a PNG that loses something": b'{"output_compression": 50}',
    "a control character": b'{"prompt": "a\\u0000b\\r\\nX-Evil: 1"}',
}


@pytest.mark.parametrize("case", BODIES)
def test_a_body_that_is_none_is_refused(client: Client, case: str) -> None:
    answer = client().post(IMAGES, content=BODIES[case], headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text
    assert set(answer.json()["error"]) == SHAPE
    assert "\n" not in answer.json()["error"]["message"]


@pytest.mark.parametrize("scale", [1e38, -1e38, 101])
def test_guidance_that_no_picture_would_outlast_is_refused_at_once(client: Client, scale: float) -> None:
    answer = client().post(IMAGES, json={"guidance_scale": scale})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "guidance_scale")


PATHS = (
    "../../vault.json",
    "..%2f..%2fvault.json",
    "%2e%2e/vault.json",
    "....//vault.json",
    "/etc/passwd",
    "oak%00",
    "x" * 9000,
)


@pytest.mark.parametrize("path", [*PATHS, "x" * 9000])
def test_no_path_leads_out(client: Client, path: str) -> None:
    owner = client()
    for route in ("/tile/", "/v1/receipts/", "/v1/tickets/", "/v1/jobs/", "/v1/models/", "/page/", "/"):
        answer = owner.get(f"{route}{path}")
        assert answer.status_code in (400, 404), f"{route}{path}"
        assert "manifest_root" not in answer.text
        assert "image_shape" not in answer.text
    for verb, route in (("POST", f"/v1/sources/{path}/forget"), ("DELETE", f"/v1/principals/{path}")):
        assert owner.request(verb, route, json={}).status_code in (400, 404, 405), route


def test_a_body_that_comes_too_slowly_is_given_up() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it was never whole")

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    limits = Answers(Limits(app, most=10**6, seconds=0.1))
    asyncio.run(limits({"type": "http", "method": "POST", "headers": []}, receive, send))
    assert sent[0]["status"] == 408
    assert set(json.loads(sent[1]["body"])["error"]) == SHAPE


def test_connections_of_any_event_loop_are_taken() -> None:
    """Those of uvloop, which is used where it is installed, are of no class of asyncio's."""

    class Transport:
        def get_extra_info(self, name: str) -> None:
            return None

        def close(self) -> None:
            return None

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nothing was asked")

    async def connect() -> None:
        config = uvicorn.Config(app, http=_Patient, lifespan="off")
        config.load()
        protocol = _Patient(config=config, server_state=ServerState(), app_state={})
        protocol.connection_made(Transport())
        protocol.connection_lost(None)

    asyncio.run(connect())


def test_what_is_no_request_is_refused_in_the_same_shape() -> None:
    sent = bytearray()

    class Transport(asyncio.Transport):
        def __init__(self) -> None:
            super().__init__()
            self.ended = False

        def write(self, data: bytes) -> None:
            sent.extend(data)

        def is_closing(self) -> bool:
            return self.ended

        def close(self) -> None:
            self.ended = True

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nothing was asked")

    async def connect() -> bool:
        config = uvicorn.Config(app, http=_Patient, lifespan="off")
        config.load()
        protocol = _Patient(config=config, server_state=ServerState(), app_state={})
        protocol.connection_made(transport := Transport())
        protocol.data_received(b"\x16\x03\x01 garbage\r\n\r\n")
        return transport.ended

    assert asyncio.run(connect()), "nothing more is read"
    head, _, body = bytes(sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request")
    assert b"x-content-type-options: nosniff" in head.lower()
    assert set(json.loads(body)["error"]) == SHAPE


def test_no_redirect_carries_a_key_elsewhere(client: Client) -> None:
    """Behind a proxy with TLS it would name http."""
    answer = client().get("/v1/models/", headers={"Host": "evil.example"}, follow_redirects=False)
    assert (answer.status_code, set(answer.json()["error"])) == (404, SHAPE)
    assert "location" not in answer.headers


def test_the_log_has_one_line_per_request_whatever_it_says(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    acme = client("acme")
    with caplog.at_level(logging.INFO, logger="intarsia.serving.access"):
        acme.post(IMAGES, json={"prompt": 'x"}\n{"status": 200}'}, headers={"User-Agent": "evil\tname"})
        acme.get("/v1/%0a%7b%22status%22:1%7d")
    lines = [record.getMessage() for record in caplog.records if record.name == "intarsia.serving.access"]
    assert [json.loads(line)["status"] for line in lines] == [400, 404]
    assert [json.loads(line)["route"] for line in lines] == [IMAGES, "none"]
    key = acme.headers["authorization"].split("_", 2)
    assert json.loads(lines[0])["key"] == key[1]
    assert key[2] not in caplog.text, "no secret"
    assert "prompt" not in caplog.text


def test_what_else_is_logged_is_one_line_too(caplog: pytest.LogCaptureFixture) -> None:
    forged = 'nothing\n{"level": "info", "message": "all is well"}'
    try:
        raise RuntimeError(forged)
    except RuntimeError as error:
        fault_of(error)
    fault_of(CorruptError(forged))
    lines = [Lines().format(record) for record in caplog.records]
    assert [line.count("\n") for line in lines] == [0, 0]
    told = [json.loads(line) for line in lines]
    assert [each["level"] for each in told] == ["error", "error"]
    assert forged in told[0]["traceback"]
    assert forged in told[1]["message"]


def test_the_figures_count_and_name_nobody(client: Client) -> None:
    acme = client("acme")
    acme.post(IMAGES, json={"n": 2, "user": "somebody", "prompt": ""})
    acme.get("/v1/some-guess")
    text = acme.get("/metrics").text
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    posted = (("method", "POST"), ("route", IMAGES), ("status", "200"))
    assert found[("intarsia_requests_total", *posted)] == 1
    assert found[("intarsia_images_total",)] == 2
    assert found[("intarsia_pass_rows_count",)] >= 3
    assert found[("intarsia_memory_bytes",)] > 0
    for word in ("acme", "somebody", "oak", "some-guess", acme.headers["authorization"].split("_")[1]):
        assert word not in text


def test_a_service_whose_vault_is_gone_is_alive_and_not_ready(client: Client, vault: Vault) -> None:
    owner = client()
    assert owner.get("/readyz").status_code == 200
    vault.root.rename(vault.root.with_name("elsewhere"))
    assert owner.get("/healthz").status_code == 200
    answer = owner.get("/readyz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_vault")
    assert str(vault.root) not in answer.text
    assert owner.post(IMAGES, json={}).status_code == 503
    assert not vault.root.exists(), "nothing is made in its place"
    vault.root.with_name("elsewhere").rename(vault.root)
    assert owner.get("/readyz").status_code == 200
    assert owner.post(IMAGES, json={}).status_code == 200


def test_credit_waits_for_itself_alone_and_is_bounded(client: Client) -> None:
    """Those who draw have threads and places of their own, however many ask for credit."""
    owner = client()
    service = owner.app.state.service
    begun, go_on = threading.Event(), threading.Event()
    service.claims.submit(lambda: (begun.set(), go_on.wait(60)))
    assert begun.wait(60)
    drawn = owner.post(IMAGES, json={}).json()
    claim = {"receipt": drawn["intarsia"]["receipt"], "repeats": 1}
    with ThreadPoolExecutor(1) as pool:
        service._claiming.most = 1
        waits = pool.submit(owner.post, "/v1/credit", json=claim)
        while not service._claiming.taken:
            time.sleep(0.001)
        refused = owner.post("/v1/credit", json=claim)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        for _ in range(5):  # by then another thread would have reckoned it
            assert owner.post(IMAGES, json={}).status_code == 200
        assert not waits.done(), "it is reckoned after the one before"
        go_on.set()
        assert waits.result().status_code == 200


def test_a_client_that_went_away_is_no_fault_of_the_service() -> None:
    metrics = Metrics()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it was never whole")

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError("nobody is there")

    watch = Watch(Answers(Limits(app, most=10, seconds=1)), metrics=metrics)
    asyncio.run(watch({"type": "http", "method": "POST", "headers": []}, receive, send))
    assert b'status="499"' in metrics.text()
    assert b'status="500"' not in metrics.text()


def test_a_busy_service_says_when_to_come_again(client: Client) -> None:
    owner = client()
    owner.app.state.service.engine._most_waiting = 0
    answer = owner.post(IMAGES, json={})
    assert (answer.status_code, answer.json()["error"]["type"]) == (429, "rate_limit_error")
    assert int(answer.headers["retry-after"]) >= 1
    assert owner.get("/healthz").status_code == 200
