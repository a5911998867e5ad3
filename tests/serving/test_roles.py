"""Every route with every kind of key. A route that is not in the table below fails: somebody must say what it takes."""

from __future__ import annotations

import re

import pytest

from intarsia.serving.static import page_files
from intarsia.vault import SCOPES, Vault

from .conftest import Client

FREE, ANY = "free", "any key"
TABLE = {
    "GET /healthz": FREE,
    "GET /readyz": FREE,
    "GET /metrics": FREE,
    "GET /v1/me": ANY,
    "GET /v1/models": "read",
    "GET /v1/models/{model}": "read",
    "GET /v1/vault": "read",
    "GET /v1/sources": "read",
    "GET /v1/receipts/{id}": "read",
    "GET /v1/ledger": "read",
    "GET /v1/ledger/checkpoint": "read",
    "GET /v1/ledger/entries": "read",
    "GET /v1/ledger/proof/inclusion": "read",
    "GET /v1/ledger/proof/consistency": "read",
    "GET /tile/{path}": "read",
    "POST /v1/images/generations": "sample",
    "POST /v1/compositions": "sample",
    "POST /v1/credit": "credit",
    "POST /v1/sources/{name}/forget": "erase",
    "GET /v1/jobs/{id}": "erase",
    "GET /v1/tickets": "erase",
    "POST /v1/tickets": "erase",
    "GET /v1/tickets/{id}": "erase",
    "POST /v1/tickets/{id}/answer": "erase",
    "POST /v1/tickets/{id}/close": "erase",
    "GET /v1/payouts": "admin",
    "GET /v1/principals": "admin",
    "GET /v1/principals/{name}": "admin",
    "POST /v1/principals": "admin",
    "DELETE /v1/principals/{name}": "admin",
    "PUT /v1/principals/{name}/rules": "admin",
    "POST /v1/principals/{name}/keys": "admin",
    "PUT /v1/principals/{name}/keys/{id}": "admin",
    "DELETE /v1/principals/{name}/keys/{id}": "admin",
    "POST /v1/grants": "admin",
    "DELETE /v1/grants/{principal}/{source}": "admin",
}
NOT_DESCRIBED = {"/openapi.json", *(file.path for file in page_files())}


def test_every_route_takes_the_scope_of_the_table_and_no_other_opens_it(client: Client, vault: Vault) -> None:
    nobody = client()
    nobody.headers.pop("authorization")
    document = nobody.get("/openapi.json").json()
    routes = {f"{verb.upper()} {path}" for path, verbs in document["paths"].items() for verb in verbs}
    assert routes == set(TABLE), "list the route above with the scope that it takes"
    strange = client()
    strange.headers["authorization"] = "Bearer int_000000000000_" + "A" * 43
    keys = {scope: client("acme", scope) for scope in SCOPES}
    for route, needed in TABLE.items():
        verb, path = route.split(" ")
        place = re.sub(r"\{\w+\}", "none", path)

        def ask(who, verb: str = verb, place: str = place) -> tuple[int, str]:
            answer = who.request(verb, place, json={"dry_run": True} if verb == "POST" else None)
            error = answer.json().get("error", {}) if "json" in answer.headers["content-type"] else {}
            return answer.status_code, error.get("code", "")

        if needed == FREE:
            assert ask(nobody)[0] == 200, route
            continue
        assert ask(nobody) == (401, "missing_api_key"), route
        assert ask(strange) == (401, "invalid_api_key"), route
        for scope, who in keys.items():
            status, code = ask(who)
            opened = code != "missing_scope" and status != 401
            assert opened == (needed in (ANY, scope)), f"{route} with a key for {scope}: {status} {code}"
            assert status < 500, f"{route}: {status}"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "int_1_2", "Bearer " + "x" * 10_000])
def test_what_is_no_key_opens_nothing(client: Client, header: str) -> None:
    asker = client()
    asker.headers["authorization"] = header
    answer = asker.get("/v1/me")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["type"] == "authentication_error"


def test_the_application_has_no_route_that_the_document_does_not_tell_of(client: Client) -> None:
    asker = client()
    told = set(asker.get("/openapi.json").json()["paths"]) | NOT_DESCRIBED
    has = {route.path.replace(":path}", "}") for route in asker.app.routes if hasattr(route, "path")}
    assert has - {""} <= told
    for page in ("/docs", "/redoc"):
        assert asker.get(page).status_code == 404, "they load scripts from elsewhere"
