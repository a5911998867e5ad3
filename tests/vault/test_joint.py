"""The paper's classifier: to be had by name, marked as not isolated, and kept nowhere."""

from __future__ import annotations

import pytest
import torch

from intarsia.errors import SettingsError
from intarsia.vault import Vault
from intarsia.vault.composing import compose

from .helpers import all_bytes, grown, pictures, toy_source


@pytest.mark.integration
def test_joint_weights_are_fitted_for_the_composition_and_leave_no_trace(vault: Vault) -> None:
    grown(vault, "oak", "elm", "ash")
    before = all_bytes(vault.root)
    composition = vault.compose(["oak", "elm"], weights="joint", routing="full", precision="float32")
    assert not composition.isolated
    assert vault.compose(["oak", "elm"], precision="float32").isolated
    weights = composition.sample(3, seed=1, steps=2).weights
    again = vault.compose(["oak", "elm"], weights="joint", routing="full", precision="float32")
    assert again.sample(3, seed=1, steps=2).weights.equal(weights)
    assert weights.std().item() > 0, "the classifier looks at the image"
    assert all_bytes(vault.root) == before


def test_nothing_is_fitted_to_images_that_the_compartments_have_not_learned_from(pair: Vault) -> None:
    """Or forgetting one of them, which leaves these compartments in use, would leave a composition that knows it."""
    drawn = pair.compose(["oak", "elm"], weights="joint", routing="full", precision="float32").sample(3, steps=2)
    new = toy_source("elm", images=pictures("more elm", 3))
    pair.extending("elm", new)
    composition = pair.compose(["oak", "elm"], weights="joint", routing="full", precision="float32")
    pair.forgetting("elm", new.manifest.ids[:1])
    assert composition.sample(3, steps=2).weights.equal(drawn.weights)


def test_one_source_alone_needs_no_classifier(vault: Vault) -> None:
    grown(vault, "oak")
    alone, plain = (vault.compose("oak", weights=kind, precision="float32") for kind in ("joint", "prior"))
    assert alone.isolated
    ours, theirs = (each.sample(3, seed=1, steps=2) for each in (alone, plain))
    assert torch.equal(ours.images, theirs.images)
    assert ours.router_passes == 0


def test_joint_weights_need_the_images(vault: Vault) -> None:
    grown(vault, "oak", "elm")
    members = [vault.compartment(name) for name in ("oak", "elm")]
    with pytest.raises(SettingsError, match="fitted on the images of all sources"):
        compose(members, vault.backbone, vault.core, weights="joint")
