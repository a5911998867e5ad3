"""The three sentences that are the product, byte by byte: isolation, exact forgetting, and nothing opened unasked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from intarsia.files import write_json
from intarsia.vault import Vault

from .helpers import ROUTER, all_bytes, grown, opened_files, quick, toy_source, traces

Fresh = Callable[[Path], Vault]


def test_training_leaves_backbone_core_and_others_alone(pair: Vault) -> None:
    before = all_bytes(pair.root, without=["index.db"])
    grown(pair, "ash")
    added = ["sources/ash", "compartments/ash", "training", "index.db"]
    after = all_bytes(pair.root, without=added)
    assert after == {name: data for name, data in before.items() if name != "training/"}
    assert (pair.root / "compartments/ash/compartment.json").exists()


def test_training_alone_equals_training_in_company(fresh: Fresh, empty: Path) -> None:
    alone, together = fresh(empty), fresh(empty)
    grown(alone, "oak", "elm")
    grown(together, "oak", "elm", train=False).train(["elm", "oak"], quick(), routers=[ROUTER])
    assert all_bytes(alone.root) == all_bytes(together.root)


def test_a_compartment_does_not_depend_on_what_else_is_in_the_vault(fresh: Fresh, empty: Path, trained: Path) -> None:
    first = grown(fresh(empty), "oak")
    assert all_bytes(first.root / "compartments/oak") == all_bytes(trained / "compartments/oak")


def test_forgotten_equals_never_there(fresh: Fresh, empty: Path, trained: Path) -> None:
    never, forgotten = grown(fresh(empty), "oak"), fresh(trained)
    assert forgotten.forget("elm").gone == ("elm",)
    assert all_bytes(forgotten.root) == all_bytes(never.root)


def test_forgotten_without_compartment_equals_never_there(vault: Vault, empty: Path) -> None:
    grown(vault, "oak", train=False)
    assert vault.forget("oak").gone == ()
    assert all_bytes(vault.root) == all_bytes(empty)


def test_forgetting_removes_a_run_under_way(vault: Vault, empty: Path) -> None:
    grown(vault, "oak", train=False)
    steps = vault.training("oak", quick(), save_every=1)
    next(steps)
    steps.close()
    assert (vault.root / "training/oak/state.safetensors").exists()
    vault.forget("oak")
    assert all_bytes(vault.root) == all_bytes(empty)


def test_forgetting_leaves_no_trace(pair: Vault) -> None:
    source = pair.source("elm")
    words = {"elm", source.owner, *source.manifest.ids, *(id[:16] for id in source.manifest.ids)}
    words |= {text for s in source.manifest for text in (s.file_name, s.text, s.label) if text}
    words |= {source.manifest.root, pair.compartments()[0].digest}
    assert len(traces(pair.root, words)) > 20, "the scan sees nothing even where everything is there"
    pair.forget("elm")
    assert traces(pair.root, words) == []


def test_forget_add_and_train_again_gives_the_first_bytes(pair: Vault, trained: Path) -> None:
    pair.forget("oak")
    grown(pair, "oak")
    assert all_bytes(pair.root) == all_bytes(trained)


def test_a_picture_that_leaves_moves_no_other_latent(vault: Vault) -> None:
    whole = toy_source("oak", 5)
    smaller = whole.without(whole.manifest.ids[:1])
    vault.add_source("oak", smaller)
    vault.train("oak", quick(), routers=[ROUTER])
    assert vault.compartment("oak").count == 4
    first = all_bytes(vault.root)
    vault.forget("oak")
    vault.add_source("oak", whole)
    vault.train("oak", quick(), routers=[ROUTER])
    assert all_bytes(vault.root) != first
    vault.forget("oak")
    vault.add_source("oak", smaller)
    vault.train("oak", quick(), routers=[ROUTER])
    assert all_bytes(vault.root) == first


@pytest.mark.parametrize("weights", ["gaussian", "uniform", "prior"])
def test_composing_opens_the_named_compartments_alone(pair: Vault, weights: str) -> None:
    grown(pair, "ash")
    again = Vault.open(pair.root)
    with opened_files() as paths:
        composition = again.compose(["oak", "ash"], weights=weights, precision="float32")
        composition.sample(2, steps=2)
    inside = {Path(p).relative_to(pair.root).as_posix() for p in paths if p.startswith(str(pair.root))}
    assert {"compartments/oak/compartment.json", "compartments/ash/adapter_model.safetensors"} <= inside
    assert not [path for path in inside if "elm" in path]
    assert not [path for path in inside if path.startswith("sources/") and not path.endswith("source.json")]


def test_composing_after_a_crash_opens_nothing_of_the_others(pair: Vault) -> None:
    """What a killed process had decided is carried out, but the index is left to whoever lists."""
    grown(pair, "ash")
    work = pair.root / "work/0"
    work.mkdir()
    write_json(work / "plan.json", {"moves": {"sources/elm": None, "compartments/elm": None}})
    (pair.root / "sources/oak/source.json").write_text("{")
    with opened_files() as paths:
        assert Vault.open(pair.root).compose(["ash"], precision="float32").names == ("ash",)
    assert not [path for path in paths if path.startswith(str(pair.root)) and ("oak" in path or "elm" in path)]
    assert [source.name for source in pair.sources()] == ["ash"]
    assert pair.names() == ["ash", "oak"]


def test_selecting_by_licence_opens_no_folder_of_a_trained_source(pair: Vault) -> None:
    """Of one without a compartment its record is read, which says what it waits for."""
    pair.add_source("yew", toy_source("yew", 40, licence="CC-BY-SA-4.0"))
    with opened_files() as paths:
        pair.select(refuse=["share-alike"])
    assert {Path(path).relative_to(pair.root).as_posix() for path in paths if "sources/" in path} == {
        "sources/yew/source.json"
    }
