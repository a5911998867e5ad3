"""Forgetting over HTTP: nothing goes without a receipt, and what is out of use is said to be so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from intarsia.errors import VaultError
from intarsia.ledger import Receipt, check_offline, read_receipts
from intarsia.serving import create_app
from intarsia.serving.jobs import DONE, Jobs
from intarsia.serving.work import main
from intarsia.vault import Vault
from intarsia.vault.receipts import ReceiptFolder

from .conftest import Client

IMAGES = "/v1/images/generations"


def handed(vault: Vault) -> list[Path]:
    return sorted(vault.root.with_name("art.vault.receipts").iterdir())


def owing(vault: Vault, name: str) -> Vault:
    """With a sample of a source forgotten, and its compartment not yet trained again."""
    iter(vault.forgetting(name, vault.source(name).manifest.ids[0])).close()
    return vault


def test_the_receipt_lies_beside_the_vault_as_the_client_got_it(client: Client, vault: Vault) -> None:
    owner = client()
    job = owner.get(f"/v1/jobs/{owner.post('/v1/sources/oak/forget', json={}).json()['job']}").json()
    (path,) = handed(vault)
    assert [receipt.document() for receipt in read_receipts(path)] == job["receipts"]
    assert list(check_offline(path).says["sources"]) == ["oak"]


def test_a_service_that_was_killed_over_the_receipt_makes_it_when_it_begins_again(
    client: Client, vault: Vault, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def killed(place: ReceiptFolder, receipts: Sequence[Receipt]) -> Path:
        raise VaultError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(ReceiptFolder, "write", killed)
        assert client().post("/v1/sources/oak/forget", json={}).status_code == 202
        assert [path.suffix for path in handed(vault)] == [".promised"]
    with TestClient(create_app(Vault.open(vault.root))):
        (path,) = handed(vault)
    assert check_offline(path).says["event"] == "forget"
    assert str(path) in caplog.text


def test_nothing_is_forgotten_where_no_receipt_can_be_written(
    client: Client, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise VaultError("no space left on /srv/secret")

    monkeypatch.setattr("intarsia.vault.receipts.write_promises", full)
    answer = client().post("/v1/sources/oak/forget", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_receipt")
    assert "secret" not in answer.text
    assert "oak" in vault.names()


def test_what_a_job_trained_is_handed_out_with_what_began_it(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two forgettings in a row: the second job finds that the first has done the work of both, and says so."""
    said: list[str] = []

    def here(root: Path, action: str, *names: str) -> list[dict[str, object]]:
        capsys.readouterr()
        main(str(root), action, *names)
        said.extend(lines := capsys.readouterr().out.splitlines())
        return [json.loads(line) for line in lines]

    monkeypatch.setattr("intarsia.serving.jobs.Work", here)
    monkeypatch.setattr("os.nice", lambda by: None)
    first = vault.forgetting("oak", vault.source("oak").manifest.ids[0]).receipts
    second = vault.forgetting("elm", vault.source("elm").manifest.ids[0]).receipts
    jobs = Jobs(vault.root, ReceiptFolder(vault.root, vault.ledger, folder=tmp_path / "out"))
    begun = [
        jobs.resume("forget", ["oak", "elm"], [each.document() for each in receipts]) for receipts in (first, second)
    ]
    jobs._worker.shutdown()
    assert [(job.state, job.error) for job in begun] == [(DONE, None)] * 2, said
    told = {path.name: [each.entry.kind for each in read_receipts(path)] for path in (tmp_path / "out").iterdir()}
    assert sorted(told.values()) == [["forget"], ["forget", "train"], ["train"]]


def test_a_key_hears_which_of_its_sources_are_left_out_and_why(client: Client, vault: Vault) -> None:
    vault.grant("elm", "acme")
    owing(vault, "elm")
    acme, owner = client("acme"), client()
    for who in (acme, owner):
        drawn = who.post(IMAGES, json={"seed": 1, "num_inference_steps": 1}).json()["intarsia"]
        joined = who.post("/v1/compositions", json={}).json()
        assert drawn["sources"] == joined["sources"] == ["oak"]
        assert list(drawn["left_out"]) == ["elm"]
        assert "out of use: samples were forgotten" in drawn["left_out"]["elm"]
        shown = {each["name"]: each["reason"] for each in who.get("/v1/sources").json()["data"]}
        assert joined["left_out"] == drawn["left_out"] == {"elm": shown["elm"]}
        named = who.post("/v1/compositions", json={"sources": ["oak"], "weights": "prior", "routing": "full"}).json()
        assert named == joined | {"left_out": {}, "weights": "prior", "routing": "full"}
    assert (joined["prior"], joined["licences"], joined["isolated"]) == ({"oak": 1.0}, {"oak": "CC-BY-4.0"}, True)
    vault.revoke("elm", "acme")
    assert acme.post("/v1/compositions", json={}).json()["left_out"] == {}, "of what is not granted nothing is told"
    assert acme.post("/v1/compositions", json={"sources": ["elm"]}).status_code == 403
    assert acme.post("/v1/compositions", json={"weights": "joint"}).status_code == 400
