"""Flow matching: compartments of a network that predicts velocities on straight paths, composed like any others."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor

from intarsia.backbone import Backbone, UViT, UViTConfig
from intarsia.compartments import Compartment, FullCopy, TrainData, Trainee, TrainSettings, train
from intarsia.composition import (
    CompartmentMember,
    CompositeDenoiser,
    Full,
    Gaussian,
    SampleSettings,
    default_prior,
    sample,
)
from intarsia.diffusion import Cosine, Flow, from_x0, keyed_normal
from intarsia.errors import IncompatibleError
from intarsia.routers import Basis, GaussianBank, GaussianPart

SETTINGS = TrainSettings(adapter=FullCopy(), steps=100, rows=16, lr=5e-3, precision="float32", threads=1)


def flow_backbone() -> Backbone:
    torch.manual_seed(0)
    network = UViT(UViTConfig(image_size=4, patch_size=2, channels=1, dim=16, depth=3, heads=2))
    return Backbone(network, Flow(), prediction="velocity")


def trained(name: str, centre: float, count: int, backbone: Backbone, basis: Basis) -> tuple[Compartment, GaussianPart]:
    """A compartment of pictures around one brightness, and its part of the weights."""
    ids = [hashlib.sha256(f"{name} {k}".encode()).hexdigest() for k in range(count)]
    latents = centre + 0.1 * torch.stack([keyed_normal((1, 4, 4), name, k) for k in range(count)])
    trainee = Trainee(backbone, TrainData(name, latents, ids, [None] * count), SETTINGS)
    for _ in train([trainee]):
        pass
    part = GaussianPart.fit(latents, ids, None, basis)
    compartment = Compartment(
        name, (name,), SETTINGS.adapter, trainee.average, {}, {}, {}, count, "f" * 64, backbone.digests
    )
    return compartment, part


@pytest.fixture(scope="module")
def model() -> CompositeDenoiser:
    backbone, basis = flow_backbone(), Basis.fit(keyed_normal((64, 1, 4, 4), "core"))
    both = [trained("dark", -0.8, 30, backbone, basis), trained("light", 0.8, 10, backbone, basis)]
    members = [CompartmentMember(backbone, compartment, precision="float32") for compartment, _ in both]
    weights = Gaussian(GaussianBank([part for _, part in both]), backbone.schedule)
    return CompositeDenoiser(members, default_prior(members), weights, Full(), backbone.schedule, (1, 4, 4))


def velocity(x0_hat: Tensor, x_t: Tensor, t: float) -> Tensor:
    return from_x0("velocity", x0_hat, x_t, 1 - t, t)


# science.md section 3: the same weights mix velocities; at s = 1 the log-odds are log lambda
def test_weights_mix_velocities_and_start_at_the_prior(model: CompositeDenoiser) -> None:
    x_t = keyed_normal((5, 1, 4, 4), "x_t")
    for t in (0.3, 0.7, 1.0):
        run, times = model.run(range(5)), torch.full((5,), t)
        composed = velocity(run(x_t, times), x_t, t)
        alone = torch.stack([velocity(m.x0_hat(x_t, times, [None] * 5), x_t, t) for m in model.members], dim=1)
        torch.testing.assert_close(composed, (run.trace[0][:, :, None, None, None] * alone).sum(dim=1))
    torch.testing.assert_close(run.trace[0], model.prior.float().expand(5, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "heun", "dpmpp_2m"])
def test_every_sampler_draws_from_them(model: CompositeDenoiser, sampler: str) -> None:
    result = sample(model, 40, SampleSettings(steps=12, sampler=sampler), decode=lambda x: x)
    brightness, leading = result.images.mean(dim=(1, 2, 3)), result.weights[-1].argmax(dim=1)
    assert set(leading.tolist()) == {0, 1}, "some are dark and some are light"
    assert brightness[leading == 0].mean() < -0.4
    assert brightness[leading == 1].mean() > 0.4


def test_members_of_another_process_are_refused(model: CompositeDenoiser) -> None:
    member = model.members[0]
    assert isinstance(member, CompartmentMember)
    other = Backbone(member.backbone.network, Cosine(), prediction="velocity")
    with pytest.raises(IncompatibleError, match="another forward process"):
        CompartmentMember(other, member.compartment)
