from __future__ import annotations

import pytest
import torch

from intarsia.backbone import Autoencoder, AutoencoderConfig
from intarsia.diffusion import keyed_normal
from intarsia.errors import SettingsError


@pytest.mark.parametrize(
    ("config", "latent_shape"),
    [
        (AutoencoderConfig(), (8, 8, 8)),
        (AutoencoderConfig(widths=(8,), latent_channels=2), (2, 16, 16)),
        (AutoencoderConfig(image_size=24, channels=1, widths=(8, 8, 16), latent_channels=3), (3, 3, 3)),
    ],
)
def test_shapes(config: AutoencoderConfig, latent_shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    module, images = Autoencoder(config), torch.zeros(2, config.channels, config.image_size, config.image_size)
    assert config.latent_shape == module.latent_shape == latent_shape
    latents = module.encode(images)
    assert latents.shape == (2, *latent_shape)
    assert module.decode(latents).shape == images.shape


def test_normalising_changes_latents_and_not_images() -> None:
    torch.manual_seed(0)
    module = Autoencoder(AutoencoderConfig(image_size=8, widths=(8,), latent_channels=2))
    images = 1 + 3 * keyed_normal((300, 3, 8, 8), "images")  # more than one batch
    with torch.no_grad():
        before = module.decode(module.encode(images))
        module.normalise(images)
        latents = module.encode(images)
        torch.testing.assert_close(module.decode(latents), before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(2), atol=1e-4, rtol=1e-4)
    assert {"shift", "scale"} <= set(module.state_dict())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [({"widths": ()}, "widths is empty"), ({"image_size": 30}, "image_size 30 is not a multiple of 4")],
)
def test_impossible_shapes_are_refused(changes: dict, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        AutoencoderConfig(**changes)
