from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from intarsia.backbone import Backbone
from intarsia.errors import CorruptError, IncompatibleError, SettingsError
from intarsia.files import tensors_to_bytes
from intarsia.routers import (
    BackboneFeatures,
    Basis,
    BasisFeatures,
    PrototypeBank,
    PrototypePart,
    PrototypeSettings,
    mid_features,
)

Draws = tuple[Tensor, list[str]]


def bytes_of(part: PrototypePart) -> bytes:
    return tensors_to_bytes(part.tensors()) + json.dumps(part.settings(), sort_keys=True).encode()


@pytest.fixture(scope="module")
def features(basis: Basis) -> BasisFeatures:
    return BasisFeatures(basis)


@pytest.fixture(scope="module")
def parts(draws: list[Draws], features: BasisFeatures) -> list[PrototypePart]:
    return [PrototypePart.fit(*each, features) for each in draws]


def test_the_nearest_prototype_names_the_source(
    parts: list[PrototypePart], draws: list[Draws], features: BasisFeatures
) -> None:
    bank = PrototypeBank(parts)
    hits = [(bank(features(latents)).argmax(1) == k).float().mean() for k, (latents, _) in enumerate(draws)]
    assert min(hits) > 0.75


def test_scores_are_minus_the_nearest_squared_distance_in_mean_radii(parts: list[PrototypePart]) -> None:
    f = torch.randn(5, 6)
    radius = sum(part.radius.item() for part in parts) / 3
    found = PrototypeBank(parts)(f)
    for i, part in enumerate(parts):
        nearest = (f[:, None] - part.centroids).square().sum(-1).min(1).values
        torch.testing.assert_close(found[:, i], -nearest / radius)


def test_finds_the_centres_of_clusters(basis: Basis) -> None:
    """Three tight clusters, three prototypes; the radius is the clusters' own."""
    centres = torch.tensor([[3.0, 0, 0, 0, 0, 0], [0, 3, 0, 0, 0, 0], [0, 0, 3, 0, 0, 0]])
    latents = (centres.repeat(100, 1) + 0.1 * torch.randn(300, 6)).reshape(-1, 1, 2, 3)
    settings = PrototypeSettings(prototypes=3)
    part = PrototypePart.fit(latents, [f"{k:03d}" for k in range(300)], BasisFeatures(basis), settings=settings)
    found = part.centroids @ basis.rows
    assert torch.cdist(centres, found).min(1).values.max() < 0.05
    assert part.radius.item() == pytest.approx(6 * 0.1**2, rel=0.15)


def test_order_threads_and_strangers_are_irrelevant(draws: list[Draws], features: BasisFeatures) -> None:
    latents, names = draws[0]
    once = bytes_of(PrototypePart.fit(latents, names, features))
    order = torch.randperm(300).tolist()
    torch.set_num_threads(2)
    PrototypePart.fit(*draws[1], features)
    assert bytes_of(PrototypePart.fit(latents[order], [names[k] for k in order], features)) == once


def test_a_removed_sample_was_never_there(draws: list[Draws], features: BasisFeatures) -> None:
    latents, names = draws[0]
    without = bytes_of(PrototypePart.fit(latents[1:], names[1:], features))
    assert bytes_of(PrototypePart.fit(latents[1:].flip(0), names[:0:-1], features)) == without
    assert bytes_of(PrototypePart.fit(latents, names, features)) != without


@pytest.mark.parametrize("count", [1, 2, 5])
def test_never_more_prototypes_than_pictures(draws: list[Draws], features: BasisFeatures, count: int) -> None:
    latents, names = draws[0]
    part = PrototypePart.fit(latents[:count], names[:count], features)
    assert len(part.centroids) == count
    assert part.radius > 0
    assert len(PrototypePart.fit(latents[:1].expand(9, -1, -1, -1), names[:9], features).centroids) == 1


def test_backbone_features_are_mean_tokens_at_a_small_time(backbone: Backbone) -> None:
    x0 = torch.randn(300, 1, 4, 4)
    expected = mid_features(backbone, x0, torch.full((300,), 0.05)).mean(1)
    torch.testing.assert_close(BackboneFeatures(backbone)(x0), expected)


def test_parts_that_do_not_fit_are_refused(
    parts: list[PrototypePart], draws: list[Draws], core: Tensor, backbone: Backbone
) -> None:
    other = PrototypePart.fit(*draws[0], BasisFeatures(Basis.fit(core, 3)))
    with pytest.raises(IncompatibleError, match="different feature maps"):
        PrototypeBank([parts[0], other])
    with pytest.raises(SettingsError, match="at least one"):
        PrototypeBank([])
    maps = (BackboneFeatures(backbone), BackboneFeatures(backbone, 0.2), BasisFeatures(Basis.fit(core)))
    assert len({each.fingerprint() for each in maps}) == 3
    for wrong in ({"prototypes": 0}, {"rounds": 0}, {"holdout": 1.0}):
        with pytest.raises(SettingsError, match="must be at least 1"):
            PrototypeSettings(**wrong)


def test_stored_and_read_back(parts: list[PrototypePart]) -> None:
    part = parts[0]
    assert bytes_of(PrototypePart.from_tensors(part.tensors(), json.loads(json.dumps(part.settings())))) == bytes_of(
        part
    )
    with pytest.raises(CorruptError, match="lacks radius"):
        PrototypePart.from_tensors({"centroids": part.centroids}, part.settings())
    with pytest.raises(CorruptError, match="cannot be read"):
        PrototypePart.from_tensors(part.tensors(), {})
