"""Drawing by replicas: what they send, what a client gets, and what becomes of a request whose replica is lost."""

from __future__ import annotations

import asyncio
import shutil
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from ray.exceptions import ActorDiedError

from intarsia.errors import SettingsError, VaultError
from intarsia.serving import ServeSettings, create_app
from intarsia.serving.callers import Caller
from intarsia.serving.replica import Replica, Sent, mark_of
from intarsia.serving.schemas import ImageRequest
from intarsia.vault import SCOPES, Key, Vault

with warnings.catch_warnings(action="ignore"):  # those of Ray Serve, on import
    from intarsia.serving.replicas import RayReplicas, Scaling

SETTINGS = ServeSettings(precision="float32", batch_invariant=True, steps=3)


class Drawing:
    """An answer of Ray Serve: what a replica sends, up to where the replica is lost."""

    def __init__(self, sent: AsyncIterator[Sent], lost_after: int | None):
        self._sent, self._left, self.cancelled = sent, lost_after, False

    async def __aiter__(self) -> AsyncGenerator[Sent, None]:
        async for each in self._sent:
            if self._left == 0:
                raise ActorDiedError
            self._left = None if self._left is None else self._left - 1
            yield each

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Handle:
    """One of Ray Serve, of a replica in this process; it loses the first requests after so many messages each."""

    replica: Replica
    losses: list[int] = field(default_factory=list)
    asked: list[ImageRequest] = field(default_factory=list)
    before: Callable[[int], object] = lambda number: None

    @property
    def draw(self) -> Handle:
        return self

    def remote(self, caller: Caller, request: ImageRequest) -> Drawing:
        self.before(len(self.asked))
        self.asked.append(request)
        return Drawing(self.replica.draw(caller, request), self.losses.pop(0) if self.losses else None)


@pytest.fixture
def handle(vault: Vault) -> Handle:
    mark = mark_of(vault.root)
    assert mark is not None
    return Handle(Replica(str(vault.root), mark, SETTINGS))


@pytest.fixture
def pair(vault: Vault, handle: Handle) -> Iterator[tuple[TestClient, TestClient]]:
    """Clients with the owner's key: of a service that draws here, and of one with replicas."""
    text, owner = Key.make(scopes=SCOPES)
    apps = [create_app(vault, SETTINGS, owner=owner, replicas=each) for each in (None, RayReplicas(handle, 2))]
    head = {"Authorization": f"Bearer {text}"}
    with TestClient(apps[0], headers=head) as here, TestClient(apps[1], headers=head) as there:
        yield here, there


def drawn(client: TestClient, **request: Any) -> Any:
    return client.post("/v1/images/generations", json=request)


def test_a_client_gets_the_same_whoever_draws(pair: tuple[TestClient, TestClient]) -> None:
    here, there = pair
    request = {"seed": 5, "n": 2, "sources": ["oak"]}
    answers = [drawn(client, **request, response_format="b64_json", output_format="webp").json() for client in pair]
    for answer in answers:
        answer["created"] = 0
    receipts = [answer["intarsia"].pop("receipt") for answer in answers]
    assert [each.pop("b64_json") for each in answers[0]["data"]]
    assert [each.pop("b64_json") for each in answers[1]["data"]]
    assert answers[0] == answers[1]
    # What was drawn came back with the answer, and is with the service.
    credit = {"receipt": receipts[1], "sources": ["oak", "elm"]}
    assert there.post("/v1/credit", json=credit).status_code == 200
    assert here.post("/v1/credit", json=credit).status_code == 404
    assert there.get(f"/v1/receipts/{receipts[1]}").json()["sources"][0]["source"] == "oak"
    assert "intarsia_images_total 2.0" in there.get("/metrics").text


@pytest.mark.parametrize(
    ("request_", "status"),
    [({"n": 99}, 400), ({"sources": ["fir"]}, 400), ({"model": "dall-e-3"}, 404), ({"weights": "joint"}, 400)],
)
def test_a_fault_is_the_same_whoever_draws(
    pair: tuple[TestClient, TestClient], request_: dict[str, Any], status: int
) -> None:
    for stream in (False, True):
        here, there = (drawn(client, **request_, stream=stream) for client in pair)
        assert here.status_code == there.status_code == status
        assert here.json() == there.json()


@pytest.mark.parametrize("losses", [[0], [1], [2, 3], [1, 1, 1]])
def test_a_request_whose_replica_is_lost_is_drawn_by_another_and_told_of_once(
    pair: tuple[TestClient, TestClient], handle: Handle, losses: list[int]
) -> None:
    _, there = pair
    request = {"stream": True, "partial_images": 2, "n": 2}
    handle.losses = list(losses)
    lines = drawn(there, **request).text.splitlines()
    kinds = [line.partition(".")[2] for line in lines if line.startswith("event: ")]
    assert kinds == ["partial_image"] * 4 + ["completed"] * 2
    assert len(handle.asked) == len(losses) + 1
    assert len({each.seed for each in handle.asked}) == 1
    assert handle.asked[0].seed is not None


def test_what_is_forgotten_before_a_request_is_drawn_again_is_not_drawn(
    vault: Vault, pair: tuple[TestClient, TestClient], handle: Handle
) -> None:
    handle.losses = [1]
    handle.before = lambda number: number and Vault.open(vault.root).forget("oak")
    answer = drawn(pair[1], sources=["oak"])
    assert len(handle.asked) == 2
    assert (answer.status_code, "oak" in answer.json()["error"]["message"]) == (400, True)


def test_a_request_that_loses_one_replica_after_the_other_is_told_so(
    pair: tuple[TestClient, TestClient], handle: Handle
) -> None:
    handle.losses = [1, 1, 1, 1]
    answer = drawn(pair[1])
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json()["error"]["code"] == "lost"


def test_what_is_revoked_or_forgotten_elsewhere_a_replica_draws_no_more(vault: Vault, handle: Handle) -> None:
    caller = Caller("acme", "id", ("sample",), None)

    async def ask(request: ImageRequest) -> list[Sent]:
        return [sent async for sent in handle.replica.draw(caller, request)]

    request = ImageRequest(sources=["oak"])
    assert [sent.message.kind for sent in asyncio.run(ask(request))] == ["accepted", "answer"]
    service = handle.replica._service
    assert service.library.loaded.nbytes > 0
    assert not service.receipts._drawn
    Vault.open(vault.root).revoke("oak", "acme")
    (sent,) = asyncio.run(ask(request))
    assert sent.message.document["status"] == 403
    Vault.open(vault.root).forget("oak")
    service.library.sweep()
    assert service.library.loaded.nbytes == 0
    assert not service.library._kept


def test_a_replica_refuses_a_copy_of_the_vault(vault: Vault, tmp_path: Path) -> None:
    mark = mark_of(vault.root)
    assert mark is not None
    shutil.copytree(vault.root, tmp_path / "copy.vault")
    for root in (tmp_path / "copy.vault", tmp_path / "nothing"):
        with pytest.raises(VaultError, match="not the vault's folder on this machine"):
            Replica(str(root), mark, SETTINGS)


def test_numbers_of_replicas_are_read() -> None:
    assert (Scaling.read("3").least, Scaling.read("3").most) == (3, 3)
    assert Scaling.read("1:4", cpus=2) == Scaling(1, 4, 2)
    for text in ("", "a", "1:", ":2", "1:2:3", "-1", "0", "4:1"):
        with pytest.raises(SettingsError, match="replicas"):
            Scaling.read(text)
