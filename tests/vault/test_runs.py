"""Training in a vault: the same bytes however often it was interrupted, and never with other settings by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from intarsia.compartments import Lora
from intarsia.errors import CorruptError, IncompatibleError, SettingsError, VaultError
from intarsia.files import digest_of
from intarsia.routers import GaussianSettings
from intarsia.vault import Vault

from .helpers import ROUTER, all_bytes, grown, quick, toy_source


def interrupted(vault: Vault, steps: int) -> None:
    run = vault.training("oak", quick(), routers=[ROUTER], save_every=1)
    for _ in range(steps):
        next(run)
    run.close()


@pytest.mark.parametrize("stops", [[0], [1], [3], [1, 1, 1]])
def test_resumed_equals_uninterrupted(vault: Vault, trained: Path, stops: list[int]) -> None:
    grown(vault, "oak", train=False)
    for steps in stops:
        interrupted(vault, steps)
    seen = [step.step for step in vault.training("oak", quick(), routers=[ROUTER])]
    assert seen == list(range(sum(stops) + 1, 5))
    grown(vault, "elm")
    assert all_bytes(vault.root) == all_bytes(trained)


@pytest.mark.parametrize(
    ("changes", "routers", "words"),
    [
        ({"seed": 1}, [ROUTER], "settings.seed 0 there, 1 here"),
        ({"lr": 0.5}, [ROUTER], "settings.lr None there, 0.5 here"),
        ({"adapter": Lora(rank=2, targets=("attn.qkv",))}, [ROUTER], "settings.adapter.rank 1 there, 2 here"),
        ({}, [GaussianSettings()], "routers.gaussian.rounds"),
        ({}, [ROUTER, "prototype"], "routers.prototype"),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_other_settings_are_refused_by_field(
    vault: Vault, changes: dict[str, object], routers: list[object], words: str, finished: bool
) -> None:
    grown(vault, "oak", train=finished)
    if not finished:
        interrupted(vault, 1)
    with pytest.raises(SettingsError) as caught:
        vault.training("oak", quick(**changes), routers=routers)
    assert words in str(caught.value)
    assert "restart=True" in str(caught.value)


def test_restart_replaces_what_is_there(vault: Vault) -> None:
    grown(vault, "oak")
    (first,) = vault.compartments()
    (second,) = vault.train("oak", quick(seed=1), routers=[ROUTER], restart=True)
    assert second.digest != first.digest
    assert vault.compartments() == [second]
    (third,) = vault.train("oak", quick(), routers=[ROUTER], restart=True)
    assert third == first


def test_the_old_compartment_serves_while_its_successor_trains(vault: Vault) -> None:
    grown(vault, "oak")
    before = all_bytes(vault.root / "compartments/oak")
    run = vault.training("oak", quick(seed=1), routers=[ROUTER], restart=True, save_every=1)
    next(run)
    assert vault.compose(precision="float32").names == ("oak",)
    assert all_bytes(vault.root / "compartments/oak") == before
    run.close()
    assert [step.step for step in vault.training("oak", quick(seed=1), routers=[ROUTER])] == [2, 3, 4]


def test_what_is_trained_is_left_as_it_is(pair: Vault) -> None:
    before = all_bytes(pair.root)
    assert list(pair.training(["oak", "elm"], quick(), routers=[ROUTER])) == []
    assert all_bytes(pair.root) == before


def test_another_number_of_threads_is_refused_under_way_and_forgiven_when_done(vault: Vault) -> None:
    import torch

    grown(vault, "oak", train=False)
    settings = quick(threads=None)
    run = vault.training("oak", settings, routers=[ROUTER], save_every=1)
    next(run)
    run.close()
    torch.set_num_threads(2)
    try:
        with pytest.raises(SettingsError, match=r"environment\.threads 1 there, 2 here"):
            vault.training("oak", settings, routers=[ROUTER])
        torch.set_num_threads(1)
        vault.train("oak", settings, routers=[ROUTER])
        torch.set_num_threads(2)
        assert list(vault.training("oak", settings, routers=[ROUTER])) == []
    finally:
        torch.set_num_threads(1)


def test_samples_that_changed_meanwhile_are_refused(vault: Vault, tmp_path: object) -> None:
    import shutil

    grown(vault, "oak", train=False)
    interrupted(vault, 1)
    kept = vault.root.parent / "training"
    shutil.copytree(vault.root / "training/oak", kept)
    vault.forget("oak")
    vault.add_source("oak", toy_source("oak", 4))
    shutil.copytree(kept, vault.root / "training/oak")
    with pytest.raises(IncompatibleError, match=r"of other samples .* restart=True"):
        vault.training("oak", quick(), routers=[ROUTER])
    vault.train("oak", quick(), routers=[ROUTER], restart=True)
    assert vault.verify().ok


def test_a_run_whose_source_went_away_before_its_first_step(vault: Vault) -> None:
    grown(vault, "oak", train=False)
    run = vault.training("oak", quick(), routers=[ROUTER])
    vault.forget("oak")
    with pytest.raises(VaultError, match="gone in the meantime"):
        next(run)


def test_a_damaged_checkpoint_is_said_so(vault: Vault) -> None:
    grown(vault, "oak", train=False)
    interrupted(vault, 1)
    state = vault.root / "training/oak/state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(CorruptError, match=r"state\.safetensors"):
        next(vault.training("oak", quick(), routers=[ROUTER]))


def test_slices_are_kept_with_their_digests(pair: Vault) -> None:
    compartment = pair.compartment("oak")
    folder = pair.root / "compartments/oak/slices"
    assert sorted(path.name for path in folder.iterdir()) == ["slice-1.safetensors", "slice-2.safetensors"]
    digests = {path.stem: digest_of(path.read_bytes()) for path in folder.iterdir()}
    assert compartment.training["slices"] == digests
    assert list((pair.root / "training").iterdir()) == []
