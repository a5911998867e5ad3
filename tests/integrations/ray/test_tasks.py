"""What is handed to a machine and what comes back, without a cluster: isolation, bytes, resuming, unlike machines."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from intarsia.compartments import Compartment, Privacy
from intarsia.errors import CorruptError, IncompatibleError, SettingsError, VaultError
from intarsia.integrations.ray import RayEngine
from intarsia.integrations.ray.cluster import connected
from intarsia.integrations.ray.engine import _again, _Flight, _kept
from intarsia.integrations.ray.task import Parcel, Progress, Public, _check_alike, messages
from intarsia.vault import Vault
from intarsia.vault.engines import Work
from intarsia.vault.parts import chosen_parts
from intarsia.vault.training import Recipe

from ...vault.helpers import ROUTER, grown, quick, tiny_backbone, toy_source

Begin = Callable[..., tuple[Vault, dict[str, Work]]]


@pytest.fixture
def works(tmp_path: Path) -> Begin:
    """A vault, and the works of runs in it that were begun."""

    def begin(**changes: object) -> tuple[Vault, dict[str, Work]]:
        vault = Vault.create(tmp_path / "art.vault", backbone=(tiny_backbone(), toy_source("core", 24)))
        grown(vault, "oak", "elm", train=False)
        runs = vault._runs()
        recipe = Recipe(quick(**changes), chosen_parts([ROUTER]))
        begun = runs.begin(["oak", "elm"], recipe, restart=False)
        return vault, {name: runs._work(name, record) for name, record in begun}

    return begin


def test_a_parcel_holds_its_own_source_and_nothing_of_another(works: Begin) -> None:
    vault, both = works()
    data = pickle.dumps(Parcel.of(both["oak"], 1)) + pickle.dumps(Public.of(vault.backbone, vault.core))
    sample = vault.source("elm").manifest.ids[0]
    for own, other in (("caption of oak", "caption of elm"), ("file-oak-0", "file-elm-0")):
        assert own.encode() in data
        assert other.encode() not in data
    assert sample.encode() not in data
    assert vault.source("elm").images[0].tobytes() not in data
    assert str(vault.root).encode() not in data


@pytest.mark.parametrize(
    ("after", "changes"),
    [(0, {}), (3, {}), (1, {"slices": 1, "privacy": Privacy(epsilon=8, draws=2, microbatch=3)})],
)
def test_what_comes_back_is_what_is_trained_here_also_after_a_loss(
    works: Begin, after: int, changes: dict[str, object]
) -> None:
    vault, both = works(**changes)
    work, public = both["oak"], Public.of(vault.backbone, vault.core).unpacked()
    flight, seen = _Flight(0, work), []
    for message in messages(Parcel.of(work, 1), *public):
        if len(seen) == after:
            break  # the machine is lost
        assert isinstance(message, Progress)
        seen += [step.step for step in message.steps]
        _kept(flight, message)
    *between, last = messages(Parcel.of(work, 1), *public)
    for message in between:
        assert isinstance(message, Progress)
        seen += [step.step for step in message.steps]
        _kept(flight, message)
    assert isinstance(last, Compartment)
    assert seen == [1, 2, 3, 4]
    there = {path.name: path.read_bytes() for path in work.folder.glob("*.safetensors")}
    for path in work.folder.glob("*.safetensors"):
        path.unlink()
    vault.train("oak", quick(**changes), routers=[ROUTER])
    stored = vault.compartment("oak")
    assert replace(last, training=stored.training).digest == stored.digest
    slices = {path.name: path.read_bytes() for path in (vault.root / "compartments/oak/slices").iterdir()}
    assert slices == {name: data for name, data in there.items() if name.startswith("slice")}


def test_public_parts_are_as_they_were(works: Begin) -> None:
    vault, _ = works()
    backbone, core = Public.of(vault.backbone, vault.core).unpacked()
    assert backbone.digest == vault.backbone.digest
    assert core.basis.fingerprint() == vault.core.basis.fingerprint()
    assert (core.samples == vault.core.samples).all()


def test_a_machine_that_would_make_other_bytes_refuses(works: Begin) -> None:
    vault, both = works()
    parcel = Parcel.of(both["oak"], 1)
    _check_alike(parcel, vault.backbone)
    with pytest.raises(IncompatibleError, match=r"would make other bytes .*\(code "):
        _check_alike(replace(parcel, code="0" * 64), vault.backbone)
    other = dict(parcel.record) | {"environment": dict(parcel.record["environment"]) | {"torch": "1.0"}}
    with pytest.raises(IncompatibleError, match=r"torch 2.* there, 1.0 here"):
        _check_alike(replace(parcel, record=other), vault.backbone)


def test_a_checkpoint_that_was_damaged_on_its_way_is_not_kept(
    works: Begin,
) -> None:
    vault, both = works()
    work = both["oak"]
    progress = next(messages(Parcel.of(work, 1), *Public.of(vault.backbone, vault.core).unpacked()))
    assert isinstance(progress, Progress)
    (name,) = progress.saved
    bad = progress.saved[name][:-1] + bytes([progress.saved[name][-1] ^ 1])
    with pytest.raises(CorruptError, match="damaged"):
        _kept(_Flight(0, work), replace(progress, saved={name: bad}))
    assert not list(work.folder.glob("*.safetensors"))


def test_a_training_that_is_lost_again_and_again_is_given_up(
    works: Begin,
) -> None:
    _, both = works()
    flight = _again(_again(_Flight(0, both["oak"]), "crashed"), "crashed")
    assert flight.losses == 2
    with pytest.raises(VaultError, match=r"'oak' was lost 3 times in a row .*\(out of memory\)"):
        _again(flight, "out of memory")


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("ray://10.0.0.1:10001", "expected HOST:PORT of its head"),
        ("nowhere", "expected HOST:PORT of its head"),
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
    ],
)
def test_an_address_where_no_cluster_is_is_refused_at_once(address: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint), connected(address):
        pass


def test_processors_are_a_number_above_zero() -> None:
    with pytest.raises(SettingsError, match="cpus_per_task"):
        RayEngine(0)
