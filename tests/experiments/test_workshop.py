"""Compartments of tables: wherever an engine trains them, they are the same, and what is finished is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from intarsia.errors import SettingsError
from intarsia.experiments.reproduce import Inputs, reproduce
from intarsia.experiments.reproduce.workshop import Workshop
from intarsia.vault import Vault
from intarsia.vault.engines import Here

from ..vault.helpers import ROUTER, quick, tiny_backbone, toy_source


def nobody(*_: object) -> None:
    """Is told."""


def test_an_engine_makes_the_same_compartments_and_none_twice(tmp_path: Path) -> None:
    vault = Vault.create(tmp_path / "art.vault", backbone=(tiny_backbone(), toy_source("core", 24)))
    sources = [toy_source(name) for name in ("oak", "elm", "fir")]
    made = {}
    for name, engine in (("here", None), ("there", Here())):
        workshop, told = Workshop(tmp_path / name, vault.backbone, vault.core, nobody, engine), []
        workshop.team("one", sources[:1], quick(), [ROUTER], nobody)
        team = workshop.team("one", sources, quick(), [ROUTER], lambda *step, told=told: told.append(step))
        made[name] = {each.name: each.digest for each in team.compartments.values()}
        assert told[-1] == (12, 12)
        assert min(told) > (3, 12)  # the first one was there
        assert not list((tmp_path / name / "unfinished").rglob("*.safetensors"))
    assert made["here"] == made["there"]


def test_an_engine_is_refused_where_it_would_not_be_used(tmp_path: Path) -> None:
    for name, complaint in (("life", "on this machine; leave --engine out"), ("exactness", "leave --engine out")):
        with pytest.raises(SettingsError, match=complaint):
            reproduce(name, tmp_path / name, inputs=Inputs(engine=Here()), on_phase=nobody, on_step=nobody)
        assert not (tmp_path / name).exists()
