"""Two services on two machines, and one vault that they share."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from intarsia.serving import ServeSettings, create_app
from intarsia.vault import Vault

from ..vault.helpers import grown, tiny_backbone, toy_source

SETTINGS = ServeSettings(precision="float32", steps=2)


def test_what_one_service_is_told_the_other_keeps_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, machines = f"file://{tmp_path}/bucket/art.vault", []
    monkeypatch.setenv("INTARSIA_COPIES", str(tmp_path / "0"))
    core = (tiny_backbone(), toy_source("core", 24))
    grown(Vault.create(url, backbone=core, url=f"sqlite:///{tmp_path}/heads.db"), "oak", "elm")
    with ExitStack() as stack:
        for number in range(2):
            monkeypatch.setenv("INTARSIA_COPIES", str(tmp_path / str(number)))
            machines.append(Vault.open(url))
        keeper = machines[0].add_principal("keeper", scopes=["read", "admin", "erase"])
        acme = machines[1].add_principal("acme")
        first, second = (
            stack.enter_context(TestClient(create_app(vault, SETTINGS, owner=None), raise_server_exceptions=False))
            for vault in machines
        )
        admin, client = ({"Authorization": f"Bearer {key}"} for key in (keeper, acme))
        terms = {"principal": "acme", "sources": ["oak", "elm"], "quota": "3/day"}
        granted = first.post("/v1/grants", headers=admin, json=terms)
        assert granted.status_code == 201, granted.text

        def draw(service: TestClient, source: str) -> int:
            asked = {"prompt": "", "n": 2, "sources": [source]}
            return int(service.post("/v1/images/generations", headers=client, json=asked).status_code)

        assert draw(second, "oak") == 200
        assert draw(first, "oak") == 403  # two of three are drawn
        gone = first.post("/v1/sources/elm/forget", headers=admin, json={})
        assert gone.status_code in (200, 202), gone.text
        assert draw(second, "elm") == 403
        listed = second.get("/v1/sources", headers=admin).json()
        assert "elm" not in str(listed)
