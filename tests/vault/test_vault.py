"""The face of the vault: make, open, add, list, choose, compose, and one clear line for whatever is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from intarsia.backbone import Backbone
from intarsia.composition import Ancestral, SampleSettings
from intarsia.data import Columns, encode_png
from intarsia.errors import (
    CorruptError,
    IncompatibleError,
    IngestError,
    InputError,
    IntarsiaError,
    SettingsError,
    UnknownName,
    VaultError,
)
from intarsia.vault import Decision, Vault
from intarsia.vault.records import read_record, write_record

from .helpers import ROUTER, all_bytes, grown, pictures, quick, tiny_backbone, toy_source

Fresh = Callable[[Path], Vault]


def test_the_flow(tmp_path: Path) -> None:
    with Vault.create(tmp_path / "toy.vault", backbone=(tiny_backbone(), toy_source("core", 24))) as vault:
        assert (vault.sources(), vault.compartments(), vault.image_shape) == ([], [], (1, 4, 4))
        info = vault.add_source("oak", toy_source("oak"), owner="Ann", attribution="by Ann")
        assert (info.owner, info.licence, info.attribution, info.count) == ("Ann", "CC-BY-4.0", "by Ann", 5)
        assert info.labels == ("label-oak-0", "label-oak-1")
        (trained,) = vault.train("oak", quick())
        assert (trained.name, trained.sources, trained.adapter, trained.routers) == (
            "oak",
            ("oak",),
            "lora",
            ("gaussian",),
        )
        grown(vault, "elm")
    again = Vault.open(tmp_path / "toy.vault")
    assert [source.name for source in again.sources()] == ["elm", "oak"]
    assert trained in again.compartments()
    composition = again.compose(precision="float32")
    assert composition.names == ("elm", "oak")
    assert composition.licences == {"elm": "CC-BY-4.0", "oak": "CC-BY-4.0"}
    assert composition.isolated
    done: list[tuple[int, int]] = []
    result = composition.sample(3, seed=7, steps=4, on_progress=lambda *at: done.append(at))
    assert result.images.shape == (3, 1, 4, 4)
    assert result.weights.shape == (4, 3, 2)
    assert done[-1] == (4, 4)
    settings = SampleSettings(seed=7, steps=4, sampler="ddim", spacing="log_snr", eta=0.5)
    spaced = composition.sample(3, seed=7, steps=4, sampler="ddim", spacing="log_snr", eta=0.5)
    assert spaced.settings == settings


def test_a_source_comes_back_as_it_was_added(vault: Vault) -> None:
    source = toy_source("oak")
    vault.add_source("oak", source)
    back = vault.source("oak")
    assert back == source
    assert np.array_equal(back.images, source.images)


def test_a_folder_is_read_with_its_terms(vault: Vault, tmp_path: Path) -> None:
    for k, image in enumerate(pictures("beech", 3)):
        place = tmp_path / "beech" / "ab"[k % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{k}.png").write_bytes(encode_png(image))
    with pytest.raises(InputError, match="no owner and licence"):
        vault.add_source("beech", tmp_path / "beech")
    info = vault.add_source("beech", tmp_path / "beech", owner="Bea", licence="mit", columns=Columns())
    assert (info.licence, info.count, info.labels) == ("MIT", 3, ("a", "b"))


def test_pictures_of_the_core_are_refused_and_near_ones_reported(vault: Vault) -> None:
    core = toy_source("core", 24)
    with pytest.raises(IngestError, match="could never be forgotten"):
        vault.add_source("copies", core)
    near = core.images[:2].copy()
    near[:, 0, 0] ^= 4
    source = toy_source("near", images=near)
    with pytest.raises(IngestError, match="allow near duplicates"):
        vault.add_source("near", source, allow_near=False)
    assert vault.sources() == []
    overlaps = vault.add_source("near", source).overlaps
    assert {(pair.first_source, pair.second.id) for pair in overlaps} == {("core", id) for id in source.manifest.ids}
    assert {pair.first.id for pair in overlaps} <= set(core.manifest.ids)


def test_pictures_that_other_sources_hold_are_reported(vault: Vault) -> None:
    first = vault.add_source("oak", toy_source("oak"))
    second = vault.add_source("elm", toy_source("elm", images=pictures("oak", 2)))
    assert first.overlaps == ()
    assert [(pair.first_source, pair.second_source, pair.distance) for pair in second.overlaps] == [
        ("oak", "elm", 0.0)
    ] * 2
    assert vault.sources()[0].overlaps == ()


def test_choosing_gives_each_source_a_verdict_with_a_reason(vault: Vault) -> None:
    vault.add_source("oak", toy_source("oak", licence="CC-BY-SA-4.0"))
    grown(vault, "elm", "ash")
    vault.train("oak", quick(), routers=[ROUTER])
    vault.add_source("fir", toy_source("fir"))
    free = vault.select(refuse=["share-alike"])
    assert free.names == ("ash", "elm")
    assert [decision.name for decision in free.decisions] == ["ash", "elm", "fir", "oak"]
    assert free.decisions[2] == Decision(
        "fir", False, "trained", "it has no compartment yet; train it with `intarsia train`"
    )
    assert "share-alike" in free.decisions[3].reason
    assert vault.select(owners=["owner of elm"]).names == ("elm",)
    assert vault.select(licences=["cc-by-sa-4.0"]).names == ("oak",)
    assert vault.select(licences=[]).names == ()
    assert vault.compose(free.names, precision="float32").names == ("ash", "elm")


def test_one_member_is_the_compartment_itself(pair: Vault) -> None:
    alone = pair.compose("oak", precision="float32").sample(3, seed=5, steps=3)
    nearly = {"oak": 1 - 1e-9, "elm": 1e-9}
    both = pair.compose(["oak", "elm"], prior=nearly, weights="prior", routing="threshold:0.01", precision="float32")
    assert torch.equal(alone.images, both.sample(3, seed=5, steps=3).images)


def test_one_source_alone_needs_no_router_part(vault: Vault) -> None:
    grown(vault, "oak", "elm", train=False).train(["oak", "elm"], quick(), routers=[])
    assert len(vault.compose("oak", precision="float32").sample(1, steps=1).images) == 1
    with pytest.raises(IncompatibleError, match="no router part 'gaussian'"):
        vault.compose(precision="float32")


def test_prior_weights_and_routing_are_passed_on(pair: Vault) -> None:
    model = pair.compose(prior={"oak": 3, "elm": 1}, weights="uniform", routing=Ancestral(), precision="float32").model
    assert model.prior.tolist() == [0.25, 0.75]
    assert (model.weights.name, model.routing.name) == ("uniform", "ancestral")
    assert pair.compose(["oak", "elm"], precision="float32").names == ("oak", "elm")


def test_router_parts_beside_the_gaussian(vault: Vault) -> None:
    from intarsia.routers import HeadSettings, PrototypeSettings

    grown(vault, "oak", "elm", train=False)
    parts = [ROUTER, HeadSettings(steps=2, batch=4, hidden=4), PrototypeSettings(prototypes=2, rounds=1)]
    infos = vault.train(["oak", "elm"], quick(), routers=parts)
    assert {info.routers for info in infos} == {("gaussian", "prototype", "reference")}
    for weights in ("gaussian", "prototype", "reference"):
        composition = vault.compose(weights=weights, precision="float32")
        assert composition.isolated
        result = composition.sample(2, steps=2)
        torch.testing.assert_close(result.weights.sum(-1), torch.ones(2, 2))
    assert vault.verify().ok


def test_the_path_filter_is_had_by_name(pair: Vault) -> None:
    composition = pair.compose(weights="ito", routing="full", precision="float32")
    weights = composition.sample(2, steps=3).weights
    assert composition.isolated
    assert torch.equal(weights[0], torch.full((2, 2), 0.5))
    assert not torch.equal(weights[1], weights[0])


def test_a_soup_is_one_network_of_all(pair: Vault) -> None:
    composition = pair.compose(weights="soup", precision="float32")
    result = composition.sample(2, steps=3)
    assert composition.names == ("soup of elm, oak",)
    assert set(composition.licences) == {"elm", "oak"}
    assert result.calls.tolist() == [3, 3]
    with pytest.raises(SettingsError, match="averaged into one"):
        composition.credit(result)


WRONG = {
    "unknown source": (lambda v: v.compose(["oka"]), UnknownName, "did you mean 'oak'"),
    "unknown source to forget": (lambda v: v.forget("fir"), UnknownName, "known: ash, elm, oak"),
    "unknown source to train": (lambda v: v.train("fir", quick()), UnknownName, "unknown source 'fir'"),
    "not trained": (
        lambda v: v.compose(["oak", "ash"]),
        SettingsError,
        "'ash' cannot be used: it has no compartment",
    ),
    "nothing": (lambda v: v.compose([]), SettingsError, "at least one source"),
    "twice": (lambda v: v.compose(["oak", "oak"]), SettingsError, "each source once"),
    "unknown weights": (lambda v: v.compose(weights="gausian"), UnknownName, "did you mean 'gaussian'"),
    "unknown routing": (lambda v: v.compose(routing="ful"), UnknownName, "did you mean 'full'"),
    "a part that was not fitted": (
        lambda v: v.compose(weights="reference"),
        IncompatibleError,
        "has no router part 'ref",
    ),
    "a prior that leaves one out": (lambda v: v.compose(prior={"oak": 1}), SettingsError, "leaves out elm"),
    "a prior of a stranger": (lambda v: v.compose(prior={"oka": 1}), UnknownName, "did you mean 'oak'"),
    "a prior of nothing": (lambda v: v.compose(prior={"oak": 1, "elm": 0}), SettingsError, "above 0"),
    "a taken name": (lambda v: v.add_source("oak", toy_source("fir")), VaultError, "in the vault already; forget it"),
    "a bad name": (lambda v: v.add_source("../oak", toy_source("fir")), InputError, "not a lower-case slug"),
    "a bad licence": (lambda v: v.add_source("fir", toy_source("fir"), licence="free"), InputError, "not an SPDX"),
    "no pictures": (
        lambda v: v.add_source("fir", toy_source("fir", 1).select(lambda s: False)),
        InputError,
        "no images",
    ),
    "unknown router part": (lambda v: v.train("ash", quick(), routers=["gauss"]), UnknownName, "router part 'gauss'"),
    "a router part twice": (lambda v: v.train("ash", quick(), routers=["gaussian", ROUTER]), SettingsError, "twice"),
    "another size": (
        lambda v: v.add_source("fir", toy_source("fir", images=np.zeros((1, 8, 8, 3), np.uint8))),
        IncompatibleError,
        "8x8 with 3 channels, the backbone takes 4x4 with 1",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_clear_line_and_nothing_half_done(pair: Vault, case: str) -> None:
    action, kind, words = WRONG[case]
    pair.add_source("ash", toy_source("ash"))
    before = all_bytes(pair.root)
    with pytest.raises(kind) as caught:
        action(pair)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all_bytes(pair.root) == before


def test_no_vault_is_no_vault(tmp_path: Path) -> None:
    with pytest.raises(VaultError, match="does not exist"):
        Vault.open(tmp_path / "nowhere")
    with pytest.raises(VaultError, match="is no vault"):
        Vault.open(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"format": 1}', b"\xff\xfe"])
def test_a_damaged_record_is_said_so(pair: Vault, damage: bytes) -> None:
    (pair.root / "vault.json").write_bytes(damage)
    with pytest.raises(CorruptError, match=r"vault\.json"):
        Vault.open(pair.root)


def test_a_changed_record_is_said_so(pair: Vault) -> None:
    record = pair.root / "vault.json"
    record.write_text(record.read_text().replace('"image_shape": [\n    1', '"image_shape": [\n    3'))
    with pytest.raises(CorruptError, match="digest does not fit"):
        Vault.open(pair.root)


def test_a_vault_of_an_earlier_version_is_said_so(pair: Vault) -> None:
    path = pair.root / "vault.json"
    record = {key: value for key, value in read_record(path).items() if key not in ("ledger", "format")}
    write_record(path, record)
    before = all_bytes(pair.root)
    with pytest.raises(VaultError, match="made by an earlier version and keeps no ledger; make a new vault") as caught:
        Vault.open(pair.root)
    assert "\n" not in str(caught.value)
    assert all_bytes(pair.root) == before


def test_a_vault_of_a_newer_version_is_said_so(pair: Vault) -> None:
    record = pair.root / "vault.json"
    record.write_text(record.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(SettingsError, match="newer than 1"):
        Vault.open(pair.root)


def test_creating_where_something_is(tmp_path: Path, empty: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(VaultError, match="exists already"):
        Vault.create(tmp_path, backbone=empty)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_a_compartment_of_another_backbone_is_refused(pair: Vault, tmp_path: Path) -> None:
    other = Vault.create(tmp_path / "other.vault", backbone=(tiny_backbone(seed=1), toy_source("core", 24)))
    grown(other, "ash")
    for part in ("sources/ash", "compartments/ash"):
        shutil.copytree(other.root / part, pair.root / part)
    with pytest.raises(IncompatibleError, match="another network"):
        pair.compose(["oak", "ash"])


def test_a_compartment_of_another_basis_is_refused(pair: Vault, tmp_path: Path) -> None:
    other = Vault.create(tmp_path / "other.vault", backbone=(tiny_backbone(), toy_source("another-core", 24)))
    grown(other, "ash")
    for part in ("sources/ash", "compartments/ash"):
        shutil.copytree(other.root / part, pair.root / part)
    with pytest.raises(IncompatibleError, match="basis"):
        pair.compose(["oak", "ash"], precision="float32")
    assert pair.compose(["oak", "ash"], weights="prior", precision="float32").names == ("oak", "ash")


def test_another_backbone_in_the_folder_is_noticed(pair: Vault) -> None:
    shutil.rmtree(pair.root / "backbone")
    tiny_backbone(seed=1).save(pair.root / "backbone")
    with pytest.raises(CorruptError, match="not the backbone with which"):
        Vault.open(pair.root).compose()


def test_a_damaged_source_can_be_forgotten(pair: Vault) -> None:
    (pair.root / "sources/elm/source.json").write_text("{")
    (pair.root / "compartments/elm/compartment.json").write_text("{")
    with pytest.raises(CorruptError):
        pair.compose(["elm"])
    assert pair.compose(["oak"], precision="float32").names == ("oak",)
    pair.forget("elm")
    assert pair.verify().ok


def test_a_compartment_that_lost_its_source_can_be_forgotten(pair: Vault) -> None:
    shutil.rmtree(pair.root / "sources/elm")
    assert pair.forget("elm").gone == ("elm",)
    assert pair.verify().ok


def test_what_lost_its_source_keeps_the_name_until_it_is_forgotten(pair: Vault, empty: Path) -> None:
    pair.forget("oak")
    pair.training("elm", quick(seed=1), routers=[ROUTER], restart=True).close()
    shutil.rmtree(pair.root / "sources/elm")
    for left in ("compartment", "training"):
        with pytest.raises(VaultError, match="of an earlier source 'elm' is still in the vault; forget 'elm' first"):
            pair.add_source("elm", toy_source("elm"))
        if left == "compartment":
            shutil.rmtree(pair.root / "compartments/elm")
    assert pair.names() == ["elm"]
    assert pair.forget("elm").gone == ()
    assert all_bytes(pair.root) == all_bytes(empty)


@pytest.mark.parametrize("kind", ["sources", "compartments"])
def test_a_stray_folder_stops_no_change(pair: Vault, kind: str) -> None:
    shutil.copytree(pair.root / kind / "oak", pair.root / kind / "stray")
    assert pair.forget("elm").gone == ("elm",)
    assert [source.name for source in pair.sources()] == ["oak"]
    assert [compartment.name for compartment in pair.compartments()] == ["oak"]
    assert f"{kind}/stray" in {problem.where for problem in pair.verify().problems}
    pair.forget("oak")
    assert pair.names() == (["stray"] if kind == "sources" else []), "a copy of a compartment learned from the source"


def test_a_compartment_of_other_samples_is_not_composed_under_this_licence(pair: Vault, fresh: Fresh) -> None:
    other = grown(fresh(pair.root), train=False)
    other.forget("oak")
    other.add_source("oak", toy_source("oak", 4))
    other.train("oak", quick(), routers=[ROUTER])
    shutil.rmtree(pair.root / "compartments/oak")
    shutil.copytree(other.root / "compartments/oak", pair.root / "compartments/oak")
    with pytest.raises(IncompatibleError, match=r"compartment 'oak' learned from other samples .* forget 'oak'"):
        pair.compose(["elm", "oak"])
    shutil.rmtree(pair.root / "sources/oak")
    with pytest.raises(CorruptError, match="'oak' learned from 'oak', which is not in the vault; forget 'oak'"):
        pair.compose(["oak"])
    assert pair.compose(["elm"], precision="float32").names == ("elm",)


def test_every_error_is_one_of_ours() -> None:
    assert all(issubclass(kind, IntarsiaError) for _, kind, _ in WRONG.values())


def test_latent_vaults_decode(tmp_path: Path) -> None:
    from intarsia.backbone import Autoencoder, AutoencoderConfig, UViT, UViTConfig
    from intarsia.diffusion import Cosine

    torch.manual_seed(0)
    autoencoder = Autoencoder(AutoencoderConfig(image_size=4, channels=1, latent_channels=2, widths=(8,), finish=4))
    network = UViT(UViTConfig(image_size=2, patch_size=1, channels=2, dim=8, depth=3, heads=2))
    backbone = Backbone(network, Cosine(), autoencoder=autoencoder)
    vault = Vault.create(tmp_path / "latent.vault", backbone=(backbone, toy_source("core", 24)))
    grown(vault, "oak")
    result = vault.compose(precision="float32").sample(2, steps=2)
    assert result.images.shape == (2, 1, 4, 4)
    assert result.latents.shape == (2, 2, 2, 2)
    assert vault.verify().ok
