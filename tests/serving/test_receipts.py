"""Receipts of images: for those who drew them, also after the service was begun again, until a source is forgotten."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from intarsia.errors import VaultError
from intarsia.ledger import Receipt
from intarsia.serving import ServeSettings, create_app
from intarsia.vault import Vault
from intarsia.vault.kept import KEPT, KeptReceipts

from ..vault.helpers import pictures, toy_source, traces
from .conftest import Client

IMAGES = "/v1/images/generations"
DRAW = {"seed": 3, "num_inference_steps": 1}


@contextmanager
def restarted(vault: Vault, principal: str) -> Iterator[TestClient]:
    app = create_app(Vault.open(vault.root), ServeSettings(precision="float32"))
    with TestClient(app, headers={"Authorization": f"Bearer {vault.new_key(principal)}"}) as client:
        yield client


def drawn(client: TestClient, **settings: object) -> str:
    return client.post(IMAGES, json=DRAW | settings).json()["intarsia"]["receipt"]


def sealed(vault: Vault) -> list[Path]:
    return sorted((vault.root / KEPT).iterdir())


def test_a_receipt_outlasts_the_service_for_whom_it_is(client: Client, vault: Vault) -> None:
    vault.add_principal("bee")
    acme = client("acme")
    id = drawn(acme)
    document = acme.get(f"/v1/receipts/{id}").json()
    with restarted(vault, "acme") as later:
        assert later.get(f"/v1/receipts/{id}").json() == document
        assert Receipt.of(document).check().size > int(id)
        for strange in ("0", f"0{id}", "x", "1" * 15, "9" * 400):
            assert later.get(f"/v1/receipts/{strange}").status_code == 404
        lost = later.post("/v1/credit", json={"receipt": id})
        assert (lost.status_code, lost.json()["error"]["param"]) == (404, "receipt")
        assert "as 'image'" in lost.json()["error"]["message"]
    with restarted(vault, "bee") as other:
        assert other.get(f"/v1/receipts/{id}").json() == other.get("/v1/receipts/0").json()
    assert traces(vault.root / KEPT, ["oak", "acme", vault.compartments()[-1].digest]) == []
    assert vault.verify().ok


@pytest.mark.parametrize("whole", [True, False])
def test_nothing_of_it_is_left_once_a_source_was_forgotten_by_anybody(
    client: Client, vault: Vault, whole: bool
) -> None:
    owner = client()
    both, alone = drawn(owner), drawn(owner, sources=["elm"])
    one = None if whole else vault.source("oak").manifest.ids[0]
    iter(Vault.open(vault.root).forgetting("oak", one)).close()
    assert owner.get(f"/v1/receipts/{both}").status_code == 404, "though it was in memory"
    assert owner.get(f"/v1/receipts/{alone}").status_code == 200
    assert owner.post("/v1/credit", json={"receipt": both}).status_code == 404
    kept = KeptReceipts(vault.root)
    assert kept.get(int(both)) is None, "the key went with the data"
    assert kept.get(int(alone)) is not None
    assert len(sealed(vault)) == 2
    assert kept.sweep() == 1
    assert [path.name for path in sealed(vault)] == [f"{alone}.sealed"]


def test_a_receipt_that_was_made_while_something_was_forgotten_is_not_kept(client: Client, vault: Vault) -> None:
    """Between the ledger's entry and the file of the receipt; the file would be sealed with a key that stays."""
    result = vault.compose("elm", precision="float32").sample(1, steps=1)
    iter(vault.forgetting("oak", vault.source("oak").manifest.ids[0])).close()
    service = client().app.state.service
    id = service.receipts.keep(result, None)
    assert client().get(f"/v1/receipts/{id}").status_code == 404
    assert not (vault.root / KEPT).exists()


def test_more_samples_leave_the_receipts_that_are_there(client: Client, vault: Vault) -> None:
    acme = client("acme")
    id = drawn(acme)
    vault.extend("oak", toy_source("oak", images=pictures("more", 2)))
    assert acme.get(f"/v1/receipts/{id}").status_code == 200


def test_what_a_forgetting_over_http_left_sealed_is_removed(client: Client, vault: Vault) -> None:
    owner = client()
    drawn(owner)
    owner.post("/v1/sources/oak/forget", json={})
    end = time.monotonic() + 60
    while sealed(vault):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_oldest_go_first_and_junk_harms_nobody(client: Client, vault: Vault) -> None:
    owner = client()
    numbers = [int(drawn(owner)) for _ in range(3)]
    receipts = [KeptReceipts(vault.root).get(number) for number in numbers]
    few = KeptReceipts(vault.root, most=2)
    assert receipts[0] is not None
    seal = few.seal(receipts[0])
    assert seal is not None
    few.keep(receipts[0], seal)
    assert [path.name for path in sealed(vault)] == [f"{number}.sealed" for number in numbers[1:]]
    (vault.root / KEPT / f"{numbers[1]}.sealed").write_bytes(b"junk")
    (vault.root / KEPT / ".7.sealed.0.part").write_bytes(b"of a killed process")
    assert few.sweep() == 1
    assert [path.name for path in sealed(vault)] == [f"{numbers[2]}.sealed"]


def test_a_full_disk_costs_the_receipt_its_life_and_nobody_their_images(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise VaultError("no space left")

    monkeypatch.setattr(KeptReceipts, "keep", full)
    acme = client("acme")
    id = drawn(acme)
    assert acme.get(f"/v1/receipts/{id}").status_code == 200
    assert "will not outlast this service" in caplog.text
