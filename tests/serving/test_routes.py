"""What the other routes answer, each once along its main way."""

from __future__ import annotations

import base64
import time
from typing import get_args

import pytest

from intarsia.data import OBLIGATIONS
from intarsia.ledger import Checkpoint, Receipt
from intarsia.merkle import continues, includes, leaf_hash
from intarsia.serving.schemas import USUAL, Refused, Scope
from intarsia.vault import SCOPES, USUAL_SCOPES, Vault

from .conftest import Client

IMAGES = "/v1/images/generations"


def test_a_principal_sees_what_was_granted_and_the_keeper_sees_all(client: Client) -> None:
    acme, owner = client("acme"), client()
    (oak,) = acme.get("/v1/sources").json()["data"]
    assert (oak["name"], oak["permitted"], oak["state"]) == ("oak", True, "trained")
    everything = owner.get("/v1/sources").json()["data"]
    assert [(each["name"], each["permitted"]) for each in everything] == [("elm", True), ("oak", True)]
    admin = {
        each["name"]: each["permitted"] for each in client("acme", "read", "admin").get("/v1/sources").json()["data"]
    }
    assert admin == {"elm": False, "oak": True}, "to see is not to draw from"
    assert acme.get("/v1/me").json() == {
        "principal": "acme",
        "scopes": ["read", "sample", "credit"],
        "expires": None,
        "quotas": [],
    }
    about = acme.get("/v1/vault").json()
    assert about["conditioning"] == {"labels": ["label-oak-0", "label-oak-1"], "text": False}
    assert about["weights"] == ["gaussian", "ito", "prior", "soup", "uniform"], "there is no part for the others"
    assert acme.get("/v1/models").json()["data"][0]["id"] == "intarsia"
    assert acme.get("/v1/models/gpt").status_code == 404


def test_the_ledger_is_checked_from_what_the_service_says(client: Client, vault: Vault) -> None:
    acme = client("acme")
    head = acme.get("/v1/ledger").json()
    before = head["size"]
    acme.post(IMAGES, json={})
    head = acme.get("/v1/ledger").json()
    checkpoint = Checkpoint.open(acme.get("/v1/ledger/checkpoint").text, vault.ledger.key)
    assert (checkpoint.size, base64.b64encode(checkpoint.root).decode()) == (head["size"], head["root"])
    entries = acme.get("/v1/ledger/entries", params={"start": 0, "end": head["size"]}).json()["data"]
    for number in (0, head["size"] - 1):
        proof = acme.get("/v1/ledger/proof/inclusion", params={"index": number, "size": head["size"]}).json()
        hashes = [base64.b64decode(each) for each in proof["hashes"]]
        leaf = leaf_hash(entries[number]["line"].encode())
        assert includes(checkpoint.root, head["size"], number, leaf, hashes)
    grown = acme.get("/v1/ledger/proof/consistency", params={"first": before, "second": head["size"]}).json()
    roots = (base64.b64decode(grown["first_root"]), base64.b64decode(grown["second_root"]))
    hashes = [base64.b64decode(each) for each in grown["hashes"]]
    assert continues(roots[0], before, roots[1], head["size"], hashes)
    tile = acme.get(f"/tile/0/000.p/{head['size']}").content
    assert tile == b"".join(leaf_hash(each["line"].encode()) for each in entries)
    bundle = acme.get(f"/tile/entries/000.p/{head['size']}").content
    assert bundle.startswith(len(entries[0]["line"]).to_bytes(2, "big") + entries[0]["line"].encode())
    assert acme.get("/tile/0/000").status_code == 404
    for wrong in ("/tile/0/x", "/tile/0/../../vault.json", "/tile/entries/000.p/0", "/tile/99/000"):
        assert acme.get(wrong).status_code in (400, 404), wrong
    assert acme.get("/v1/ledger/entries", params={"start": 5, "end": 5}).status_code == 400


def test_a_receipt_is_for_those_whose_images_it_is_of(client: Client, vault: Vault) -> None:
    vault.add_principal("bee")
    acme, bee, owner = client("acme"), client("bee"), client()
    id = acme.post(IMAGES, json={"seed": 3}).json()["intarsia"]["receipt"]
    document = acme.get(f"/v1/receipts/{id}").json()
    assert Receipt.of(document).check().size > int(id)
    assert owner.get(f"/v1/receipts/{id}").json() == document
    assert bee.get(f"/v1/receipts/{id}").json() == acme.get("/v1/receipts/0").json()


def test_credit_is_shared_out_among_what_the_key_may_use(client: Client) -> None:
    acme, owner = client("acme"), client()
    drawn = owner.post(IMAGES, json={"seed": 3, "n": 2}).json()
    file = {"image": drawn["data"][1]["b64_json"], "repeats": 2}
    by_file = owner.post("/v1/credit", json=file).json()
    by_receipt = owner.post(
        "/v1/credit", json={"receipt": drawn["intarsia"]["receipt"], "index": 1, "repeats": 2}
    ).json()
    assert by_file == by_receipt
    assert [each["source"] for each in by_file["shares"]] == ["elm", "oak"]
    assert sum(each["share"] for each in by_file["shares"]) == pytest.approx(1)
    assert all(each["low"] <= each["share"] <= each["high"] for each in by_file["shares"])
    assert [each["source"] for each in acme.post("/v1/credit", json=file).json()["shares"]] == ["oak"]
    assert acme.post("/v1/credit", json=file | {"sources": ["elm"]}).status_code == 403
    assert acme.post("/v1/credit", json={"receipt": drawn["intarsia"]["receipt"]}).status_code == 404
    for wrong in ({}, {"image": "%%%"}, {"image": "aGVsbG8="}, {"receipt": drawn["intarsia"]["receipt"], "index": 2}):
        assert owner.post("/v1/credit", json=wrong).status_code == 400, wrong


def test_principals_keys_and_grants_come_and_go(client: Client, vault: Vault) -> None:
    owner = client()
    made = owner.post("/v1/principals", json={"name": "studio", "refuse": ["share-alike"], "until": "2999-01-31"})
    assert made.status_code == 201
    assert vault.authenticate(made.json()["key"]) == "studio"
    assert owner.post("/v1/principals", json={"name": "studio"}).json()["error"]["code"] == "taken"
    grants = {"principal": "studio", "sources": ["elm"], "quota": "5/day"}
    assert owner.post("/v1/grants", json=grants).json()["grants"][0]["quota"] == "5/day"
    assert owner.post("/v1/grants", json=grants | {"quota": "5/week"}).status_code == 400
    another = owner.post("/v1/principals/studio/keys", json={"scopes": ["read"], "replace": True}).json()["key"]
    (studio,) = [each for each in owner.get("/v1/principals").json()["data"] if each["name"] == "studio"]
    assert studio["keys"] == [{"id": another.split("_")[1], "until": None, "scopes": ["read"]}]
    assert studio["grants"] == [{"source": "elm", "until": None, "quota": "5/day"}]
    told = owner.get("/v1/principals/studio").json()
    reason = "granted to 'studio', 5/day, 5 left"
    assert told == studio | {"grants": [studio["grants"][0] | {"used": 0, "permitted": True, "reason": reason}]}
    assert owner.get("/v1/principals/nobody").status_code == 404
    assert owner.delete(f"/v1/principals/studio/keys/{another.split('_')[1]}").status_code == 200
    assert owner.delete("/v1/grants/studio/elm").status_code == 200
    assert owner.delete("/v1/grants/studio/elm").status_code == 404
    assert owner.delete("/v1/principals/studio").status_code == 200
    assert [each.name for each in vault.principals()] == ["acme"]
    for wrong in ({"name": "../x"}, {"name": "A B"}, {"licences": ["free"]}, {"until": "soon"}):
        assert owner.post("/v1/principals", json={"name": "x"} | wrong).status_code == 400, wrong
    for wrong in ({"scopes": ["all"]}, {"refuse": ["copyleft"]}, {"scopes": []}):
        assert owner.post("/v1/principals", json={"name": "x"} | wrong).status_code == 422, wrong


def test_what_was_said_of_a_principal_is_changed(client: Client, vault: Vault) -> None:
    owner, acme = client(), client("acme")
    vault.grant("elm", "acme")
    acme_key = acme.headers["authorization"].split("_")[1]
    changed = owner.put("/v1/principals/acme/rules", json={"owners": ["owner of elm"], "refuse": ["share-alike"]})
    assert (changed.status_code, changed.json()["owners"], changed.json()["licences"]) == (200, ["owner of elm"], None)
    assert acme.post(IMAGES, json={}).json()["intarsia"]["sources"] == ["elm"]
    assert "sha256" not in changed.text
    owner.put("/v1/principals/acme/rules", json={})
    assert acme.post(IMAGES, json={}).json()["intarsia"]["sources"] == ["elm", "oak"], "what is left out is no rule"
    terms = {"until": "2999-12-31", "scopes": ["read"]}
    told = owner.put(f"/v1/principals/acme/keys/{acme_key}", json=terms).json()
    assert told == {"principal": "acme", "id": acme_key, "until": "3000-01-01T00:00:00Z", "scopes": ["read"]}
    assert acme.get("/v1/me").json()["expires"] == "3000-01-01T00:00:00Z"
    assert acme.post(IMAGES, json={}).json()["error"]["code"] == "missing_scope"
    assert owner.put("/v1/principals/nobody/rules", json={}).status_code == 404
    assert owner.put("/v1/principals/acme/keys/0", json=terms).status_code == 404
    assert owner.put(f"/v1/principals/acme/keys/{acme_key}", json={"until": "2999-12-31"}).status_code == 422
    assert owner.put(f"/v1/principals/acme/keys/{acme_key}", json=terms | {"until": "2001"}).status_code == 400


def test_scopes_and_obligations_of_the_document_are_those_of_the_vault() -> None:
    assert set(get_args(Scope)) == set(SCOPES)
    assert list(USUAL_SCOPES) == USUAL
    (each,) = get_args(get_args(Refused)[0])
    assert set(get_args(each)) == set(OBLIGATIONS)


def test_a_source_that_is_forgotten_is_gone_when_the_answer_comes(client: Client, vault: Vault) -> None:
    owner, acme = client(), client("acme")
    old = acme.post(IMAGES, json={}).json()["intarsia"]["receipt"]
    ticket = owner.post("/v1/tickets", json={"source": "oak"}).json()
    assert owner.get(f"/v1/tickets/{ticket['id']}").json()["drawn"][0]["count"] == 1
    answer = owner.post(f"/v1/tickets/{ticket['id']}/answer")
    assert answer.status_code == 202
    assert acme.post(IMAGES, json={}).status_code == 403
    job = owner.get(f"/v1/jobs/{answer.json()['job']}").json()
    assert (job["state"], len(job["receipts"])) == ("done", 1)
    assert owner.get(f"/v1/tickets/{ticket['id']}").json()["state"] == "done"
    assert owner.post(f"/v1/tickets/{ticket['id']}/answer").status_code == 400
    assert owner.get(f"/v1/receipts/{old}").status_code == 404, "it named the source"
    assert [each["name"] for each in owner.get("/v1/sources").json()["data"]] == ["elm"]


def test_tickets_are_closed_for_a_reason(client: Client) -> None:
    owner = client()
    ticket = owner.post("/v1/tickets", json={"source": "oak", "received": "2026-01-01"}).json()
    assert ticket["overdue"]
    assert owner.post(f"/v1/tickets/{ticket['id']}/close", json={"reason": ""}).status_code == 422
    closed = owner.post(f"/v1/tickets/{ticket['id']}/close", json={"reason": "withdrawn"}).json()
    assert (closed["state"], closed["source"]) == ("closed", None)
    assert [each["id"] for each in owner.get("/v1/tickets").json()["data"]] == [ticket["id"]]
    for wrong in ("00000000", "..", "x" * 500):
        assert owner.get(f"/v1/tickets/{wrong}").status_code == 404, wrong


@pytest.mark.integration
def test_samples_leave_and_a_job_trains_again(client: Client, vault: Vault) -> None:
    owner = client()
    id = vault.source("oak").manifest.ids[0]
    plan = owner.post("/v1/sources/oak/forget", json={"samples": [id], "dry_run": True}).json()
    assert (plan["samples"], plan["left"], plan["compartments"]) == ([id], 4, ["oak"])
    assert plan["seconds"] > 0
    job = owner.post("/v1/sources/oak/forget", json={"samples": [id]}).json()["job"]
    assert owner.post(IMAGES, json={"sources": ["oak"]}).status_code in (400, 403)
    until = time.monotonic() + 60
    while (told := owner.get(f"/v1/jobs/{job}").json())["state"] in ("waiting", "running"):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert told["state"] == "done"
    assert told["result"][0]["after"].keys() == {"oak"}
    assert owner.post(IMAGES, json={"sources": ["oak"]}).status_code == 200
    assert not vault.unfinished()


def test_a_payout_is_shown_as_it_would_be_and_told_to_nobody(client: Client, vault: Vault) -> None:
    owner = client()
    owner.post(IMAGES, json={"n": 2, "seed": 1, "num_inference_steps": 3})
    before = vault.ledger.checkpoint()
    asked = {"amount": "10.01", "period": "2000..2999"}
    told = owner.get("/v1/payouts", params=asked).json()
    assert [line["minor"] for line in told["lines"]] == sorted((line["minor"] for line in told["lines"]), reverse=True)
    assert sum(line["minor"] for line in told["lines"]) == told["minor"] == 1001
    assert {line["source"] for line in told["lines"]} == {"oak", "elm"}
    assert (told["recorded"], vault.ledger.checkpoint()) == (False, before)
    nothing = owner.get("/v1/payouts", params=asked | {"period": "1999"})
    assert nothing.status_code == 400
    assert nothing.json()["error"]["message"] == "nothing was drawn in 1999, so nobody earned anything then"
