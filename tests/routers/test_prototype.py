from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from intarsia.errors import CorruptError, IncompatibleError, SettingsError
from intarsia.files import tensors_to_bytes
from intarsia.routers import Basis, PrototypeBank, PrototypePart, PrototypeSettings, prototype
from intarsia.routers.expectation import farthest_first

Draws = tuple[Tensor, list[str]]


def bytes_of(part: PrototypePart) -> bytes:
    return tensors_to_bytes(part.tensors()) + json.dumps(part.settings(), sort_keys=True).encode()


@pytest.fixture(scope="module")
def parts(draws: list[Draws], basis: Basis) -> list[PrototypePart]:
    return [PrototypePart.fit(*each, basis) for each in draws]


def test_the_nearest_prototype_names_the_source(parts: list[PrototypePart], draws: list[Draws], basis: Basis) -> None:
    bank = PrototypeBank(parts)
    hits = [(bank(latents).argmax(1) == k).float().mean() for k, (latents, _) in enumerate(draws)]
    assert min(hits) > 0.75


def test_scores_are_minus_the_nearest_squared_distance_in_half_the_mean_radius(
    parts: list[PrototypePart], basis: Basis
) -> None:
    x0_hat = torch.randn(5, 1, 2, 3)
    f = basis.project(x0_hat)
    radius = sum(part.radius.item() for part in parts) / 3
    found = PrototypeBank(parts)(x0_hat)
    for i, part in enumerate(parts):
        nearest = (f[:, None] - part.centroids).square().sum(-1).min(1).values
        torch.testing.assert_close(found[:, i], -2 * nearest / radius)


def test_finds_the_centres_of_clusters(basis: Basis) -> None:
    """Three tight clusters, three prototypes; the radius is the clusters' own."""
    centres = torch.tensor([[3.0, 0, 0, 0, 0, 0], [0, 3, 0, 0, 0, 0], [0, 0, 3, 0, 0, 0]])
    latents = (centres.repeat(100, 1) + 0.1 * torch.randn(300, 6)).reshape(-1, 1, 2, 3)
    settings = PrototypeSettings(prototypes=3)
    part = PrototypePart.fit(latents, [f"{k:03d}" for k in range(300)], basis, settings=settings)
    found = part.centroids @ basis.rows
    assert torch.cdist(centres, found).min(1).values.max() < 0.05
    assert part.radius.item() == pytest.approx(6 * 0.1**2, rel=0.15)


def test_order_and_strangers_are_irrelevant(draws: list[Draws], basis: Basis) -> None:
    latents, names = draws[0]
    once = bytes_of(PrototypePart.fit(latents, names, basis))
    order = torch.randperm(300).tolist()
    PrototypePart.fit(*draws[1], basis)
    assert bytes_of(PrototypePart.fit(latents[order], [names[k] for k in order], basis)) == once


def test_fitted_on_one_thread(draws: list[Draws], basis: Basis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the caller's setting: how a sum is split decides its last bits."""
    seen = []
    monkeypatch.setattr(
        prototype, "farthest_first", lambda *a: seen.append(torch.get_num_threads()) or farthest_first(*a)
    )
    torch.set_num_threads(2)
    PrototypePart.fit(*draws[0], basis)
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2


def test_a_removed_sample_was_never_there(draws: list[Draws], basis: Basis) -> None:
    latents, names = draws[0]
    without = bytes_of(PrototypePart.fit(latents[1:], names[1:], basis))
    assert bytes_of(PrototypePart.fit(latents[1:].flip(0), names[:0:-1], basis)) == without
    assert bytes_of(PrototypePart.fit(latents, names, basis)) != without


@pytest.mark.parametrize("count", [1, 2, 5])
def test_never_more_prototypes_than_pictures(draws: list[Draws], basis: Basis, count: int) -> None:
    latents, names = draws[0]
    part = PrototypePart.fit(latents[:count], names[:count], basis)
    assert len(part.centroids) == count
    assert part.radius > 0
    assert len(PrototypePart.fit(latents[:1].expand(9, -1, -1, -1), names[:9], basis).centroids) == 1


def test_parts_that_do_not_fit_are_refused(parts: list[PrototypePart], draws: list[Draws], core: Tensor) -> None:
    other = PrototypePart.fit(*draws[0], Basis.fit(core, 3))
    with pytest.raises(IncompatibleError, match="different bases"):
        PrototypeBank([parts[0], other])
    with pytest.raises(SettingsError, match="at least one"):
        PrototypeBank([])
    with pytest.raises(IncompatibleError, match="fit it again"):
        PrototypePart.from_tensors(parts[0].tensors(), parts[0].settings(), other.basis)
    for wrong in ({"prototypes": 0}, {"rounds": 0}, {"holdout": 1.0}):
        with pytest.raises(SettingsError, match=f"{next(iter(wrong))} is"):
            PrototypeSettings(**wrong)


def test_stored_and_read_back(parts: list[PrototypePart], basis: Basis) -> None:
    part = parts[0]
    again = PrototypePart.from_tensors(part.tensors(), json.loads(json.dumps(part.settings())), basis)
    assert bytes_of(again) == bytes_of(part)
    with pytest.raises(CorruptError, match="lacks radius"):
        PrototypePart.from_tensors({"centroids": part.centroids}, part.settings(), basis)
    with pytest.raises(CorruptError, match="cannot be read"):
        PrototypePart.from_tensors(part.tensors(), {}, basis)
