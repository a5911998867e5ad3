"""A small latent space, a broad core in it, and sources whose densities are known."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor

from intarsia.backbone import Backbone, UViT, UViTConfig
from intarsia.diffusion import Cosine, GaussianMixture, keyed_generator, keyed_normal
from intarsia.routers import Basis

SHAPE = (1, 2, 3)


@pytest.fixture(scope="session")
def core() -> Tensor:
    """400 latents that cover all of the sources, stretched along some directions."""
    stretch = torch.tensor([3.0, 2.5, 2.0, 1.5, 1.0, 0.5])
    return (keyed_normal((400, 6), "core") * stretch + 0.3).reshape(-1, *SHAPE)


@pytest.fixture(scope="session")
def basis(core: Tensor) -> Basis:
    return Basis.fit(core)


@pytest.fixture(scope="session")
def truths() -> list[GaussianMixture]:
    """Three sources: two components each, overlapping, float64."""

    def truth(key: int) -> GaussianMixture:
        root = 0.35 * keyed_normal((2, 6, 6), "root", key, dtype=torch.float64)
        covariance = root @ root.mT + 0.05 * torch.eye(6, dtype=torch.float64)
        mean = 1.2 * keyed_normal((2, 6), "mean", key, dtype=torch.float64)
        return GaussianMixture.from_moments(torch.tensor([0.3, 0.7]).double(), mean, covariance)

    return [truth(key) for key in range(3)]


Draws = tuple[Tensor, list[str]]


@pytest.fixture(scope="session")
def draws(truths: list[GaussianMixture]) -> list[Draws]:
    """300 latents of each source with their ids."""
    return [
        (truth.sample(300, keyed_generator("draws", key)).float().reshape(-1, *SHAPE), ids_of(f"source {key}", 300))
        for key, truth in enumerate(truths)
    ]


def ids_of(name: str, count: int) -> list[str]:
    return [hashlib.sha256(f"{name} {number}".encode()).hexdigest() for number in range(count)]


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """Tiny and untrained: its features are a fixed random map, its places clearly marked, as training marks them."""
    torch.manual_seed(0)
    network = UViT(UViTConfig(image_size=4, patch_size=2, channels=1, dim=32, depth=3, heads=4))
    torch.nn.init.normal_(network.pos_embed)
    return Backbone(network, Cosine())


@pytest.fixture(scope="session")
def pictures() -> list[GaussianMixture]:
    """Three sources of 4x4 latents, one Gaussian each, overlapping."""
    mean = 0.8 * keyed_normal((3, 16), "pictures", dtype=torch.float64)
    return [
        GaussianMixture.from_moments(torch.ones(1).double(), m[None], 0.3 * torch.eye(16).double()[None]) for m in mean
    ]


@pytest.fixture(scope="session")
def picture_core() -> Tensor:
    """A core that covers them."""
    return 1.1 * keyed_normal((2000, 1, 4, 4), "picture core")


@pytest.fixture(scope="session")
def picture_draws(pictures: list[GaussianMixture]) -> list[Draws]:
    return [
        (
            source.sample(400, keyed_generator("pictures", key)).float().reshape(-1, 1, 4, 4),
            ids_of(f"pictures {key}", 400),
        )
        for key, source in enumerate(pictures)
    ]
