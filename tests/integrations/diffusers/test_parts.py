"""Router parts beside LoRA files: fitted to one source's images alone, right at every noise level of any scheduler."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

import diffusers

from intarsia.composition import Posterior
from intarsia.composition.weights import Memoryless
from intarsia.data import encode_png, to_float
from intarsia.diffusion import keyed_generator
from intarsia.errors import CorruptError, IncompatibleError, InputError, SettingsError, UnknownName
from intarsia.integrations.diffusers import ComposedModel, compose, fit_router, load_composition
from intarsia.integrations.diffusers.latents import cosine_basis, decode, encode, side_of, unpacked
from intarsia.integrations.diffusers.parts import RouterParts, gaussian_bank

from .tiny import draw, vae, with_unet

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs
COUNTS = {"a": 40, "b": 20}


def pictures(folder: Path, name: str, count: int) -> Path:
    """Noisy pictures, bright at the top for one owner and at the bottom for the other."""
    (folder / name).mkdir()
    ramp = np.linspace(40, 210, 16)[:, None, None] * np.ones((16, 16, 3))
    for k in range(count):
        noise = keyed_generator("pictures", name, k).normal(0, 12, ramp.shape)
        picture = (ramp[::-1] if name == "a" else ramp) + noise
        (folder / name / f"{k}.png").write_bytes(encode_png(picture.clip(0, 255).astype("uint8")))
    return folder / name


@pytest.fixture(scope="session")
def routed(loaded: Any, loras: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The two LoRA folders with router parts in them."""
    folder, out = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("routed")
    for name, count in COUNTS.items():
        shutil.copytree(loras[name], out / name)
        fit_router(loaded, pictures(folder, name, count), out / name)
    return {name: out / name for name in COUNTS}


class Seen:
    """What the shared model is shown: (x_t, timestep) of each call."""

    def __init__(self, model: torch.nn.Module):
        self.calls: list[tuple[torch.Tensor, Any]] = []
        model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        self.calls.append((kwargs["sample"], kwargs["timestep"]))


@pytest.mark.parametrize(
    "kind",
    [
        "DDPMScheduler",
        "EulerDiscreteScheduler",
        pytest.param("DPMSolverMultistepScheduler", marks=pytest.mark.integration),
    ],
)
def test_weights_are_the_densities_at_what_the_model_sees(kind: str, pipe: Any, routed: dict[str, Path]) -> None:
    """x_t = alpha x0 + sigma eps on the model's own scale, whatever the scheduler's: w_i from lambda_i p_t^i(x_t)."""
    seen = Seen(pipe.unet)
    composed = compose(pipe, routed, routing="full", most_rows=99)
    pipe.scheduler = getattr(diffusers, kind).from_config(pipe.scheduler.config)
    watched: list[torch.Tensor] = []
    draw(pipe, scale=1.0, callback_on_step_end=lambda _, k, t, found: watched.append(found["latents"].clone()) or {})
    bank = gaussian_bank([composed.composition.parts[name] for name in "ab"])
    log_prior = torch.tensor([2 / 3, 1 / 3], dtype=torch.float64).log()
    for k, (sample, timestep) in enumerate(seen.calls):
        x_t = sample[:2]  # the first member's rows
        alpha_bar = pipe.scheduler.alphas_cumprod[int(timestep if timestep.ndim == 0 else timestep[0])].double()
        if kind == "EulerDiscreteScheduler" and k:  # Euler's latents are x_t / alpha
            torch.testing.assert_close(watched[k - 1] * alpha_bar.sqrt().float(), x_t, rtol=1e-4, atol=1e-4)
        levels = alpha_bar.sqrt().expand(2), (1 - alpha_bar).sqrt().expand(2)
        expected = (bank.log_density(x_t, *levels) + log_prior).softmax(1)
        torch.testing.assert_close(composed.realised.weights[k], expected, rtol=1e-3, atol=1e-6)
    assert 0.3 < composed.realised.weights[0, 0, 0] < 0.9  # at pure noise little is said but the prior
    assert composed.realised.prior.tolist() == pytest.approx([2 / 3, 1 / 3])


@pytest.mark.parametrize("weights", ["gaussian", "prototype"])
def test_an_image_of_a_source_is_weighed_as_its_own(weights: str, pipe: Any, routed: dict[str, Path]) -> None:
    composed = compose(pipe, routed, weights=weights, routing="full")
    images = diffusers.StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    images.set_progress_bar_config(disable=True)
    for column, ramp in enumerate((torch.linspace(0.8, 0.15, 16), torch.linspace(0.15, 0.8, 16))):
        start = ramp[None, None, :, None].expand(1, 3, 16, 16)
        draw(images, seeds=[3], image=start, strength=0.01, steps=200, scale=1.0)
        # Densities look at once, prototypes at the estimate of the step before.
        assert composed.realised.weights[int(weights == "prototype"), 0, column] > 0.7


class ByRow:
    """Weights that differ between the branches of an image, as those that look at its estimates do."""

    def start(self) -> Memoryless:
        return Memoryless(lambda x_t, t, labels: torch.linspace(-1, 1, len(x_t))[:, None] * torch.tensor([[1.0, -1.0]]))


def test_branches_of_an_image_run_the_member_drawn_for_both(pipe: Any, loras: dict[str, Path]) -> None:
    composed = compose(pipe, loras, weights="uniform", routing="full")
    by_row = dataclasses.replace(composed.plan, weights=lambda process: ByRow())
    composed.composition = dataclasses.replace(composed.composition, plan=by_row)
    draw(pipe)
    weights = composed.realised.weights
    assert not torch.equal(weights[:, :2], weights[:, 2:])  # each branch has weights of its own
    drawing = dataclasses.replace(by_row, routing=Posterior())
    composed.composition = dataclasses.replace(composed.composition, plan=drawing)
    for seeds in ((1, 2), (3, 4), (5, 6)):
        draw(pipe, seeds=seeds)
        weights = composed.realised.weights
        assert torch.equal(weights[:, :2], weights[:, 2:])
        assert (weights.amax(dim=2) == 1).all()


def test_a_part_is_a_function_of_its_source_and_the_autoencoder(
    loaded: Any, routed: dict[str, Path], tmp_path: Path
) -> None:
    folder = pictures(tmp_path, "a", COUNTS["a"])
    shutil.copy(folder / "0.png", folder / "zzz.png")  # twice the same picture is one picture
    (folder / "3.png").rename(folder / "yyy.png")
    single = tmp_path / "lora.safetensors"
    single.write_bytes(b"")
    fit_router(loaded, folder, single)
    for name in ("router.safetensors", "router.json"):
        assert (tmp_path / f"lora.{name}").read_bytes() == (routed["a"] / name).read_bytes()
    record = json.loads((routed["a"] / "router.json").read_text())
    assert (record["count"], record["latents"]["shape"]) == (40, [4, 8, 8])


@pytest.mark.integration
def test_a_core_of_public_images_serves_all_members_or_none(pipe: Any, routed: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    for name in "ab":
        for path in pictures(tmp_path, name, 20).iterdir():
            path.rename(tmp_path / "core" / f"{name}{path.name}")
        shutil.copytree(routed[name], tmp_path / "members" / name)
    members = {name: tmp_path / "members" / name for name in "ab"}
    for name, place in members.items():
        fitted = fit_router(pipe, pictures(tmp_path / "members" / name, "own", 8), place, core=tmp_path / "core")
        assert fitted.basis.core.mean.abs().max() > 0.5  # not the standard normal
        assert RouterParts.load(name, place).basis.fingerprint() == fitted.basis.fingerprint()
        with pytest.raises(IncompatibleError, match="or with another core; fit all alike"):
            compose(pipe, {"without": routed["b"], "with": place})
    composed = compose(pipe, members)
    draw(pipe)
    assert composed.realised.weights.isfinite().all()


def test_encoding_is_undone_by_decoding_and_on_the_models_scale(loaded: Any) -> None:
    pixels = to_float(keyed_generator("encode").integers(0, 256, (3, 16, 16, 3)).astype("uint8"))
    latents = encode(loaded, pixels)
    torch.testing.assert_close(latents, loaded.vae.config.scaling_factor * loaded.vae.encode(pixels).latent_dist.mode())
    torch.testing.assert_close(decode(loaded, latents), loaded.vae.decode(latents / 3.6).sample)


def test_flux_tokens_are_unpacked_as_flux_packs_them() -> None:
    latents = torch.randn(2, 4, 6, 8)
    packed = diffusers.FluxPipeline._pack_latents(latents, 2, 4, 6, 8)
    assert torch.equal(unpacked(packed, (4, 6, 8), (3, 4)), latents)
    assert unpacked(latents, (4, 6, 8)) is latents
    with pytest.raises(IncompatibleError, match=r"fitted to latents \(4, 6, 8\), and \(4, 8, 6\) are drawn"):
        unpacked(packed, (4, 6, 8), (4, 3))  # as many tokens, elsewhere
    with pytest.raises(IncompatibleError, match=r"fitted to latents \(4, 6, 8\), and \(4, 8, 8\) are drawn"):
        unpacked(torch.randn(2, 4, 8, 8), (4, 6, 8))


def test_the_basis_is_orthonormal_slow_and_the_same_everywhere() -> None:
    basis = cosine_basis((2, 4, 6), 48)
    torch.testing.assert_close(basis.rows @ basis.rows.T, torch.eye(48), atol=1e-5, rtol=0)
    flat = torch.ones(1, 2, 4, 6)
    assert cosine_basis((2, 4, 6), 2).project(flat).square().sum() == pytest.approx(48, rel=1e-4)  # all of it
    assert (basis.rows * 2**20).frac().abs().max() == 0
    assert cosine_basis((4, 8, 8), 256).fingerprint()[:16] == FINGERPRINT


FINGERPRINT = "4ab321b2d4dab89e"


def test_parts_that_cannot_be_used(pipe: Any, loaded: Any, routed: dict[str, Path], tmp_path: Path) -> None:
    plain, other = tmp_path / "plain", tmp_path / "other"
    for folder in (plain, other):
        shutil.copytree(routed["a"], folder)
    (plain / "router.json").unlink()
    refusals: list[tuple[dict[str, Any], dict[str, Any], type[Exception], str]] = [
        ({"plain": plain}, {}, SettingsError, r"'plain' has no router part: .* fit_router\(pipe, images, place\)"),
        ({"base": None}, {}, SettingsError, "'base' has no folder .* routers="),
        ({}, {"routers": {"c": routed["b"]}}, UnknownName, "unknown member 'c'"),
        ({}, {"routers": {"a": routed["b"]}, "weights": "ito"}, SettingsError, "weights 'ito' read none; leave them"),
    ]
    for more, settings, error, words in refusals:
        with pytest.raises(error, match=words):
            compose(pipe, routed | more, **settings)
    record = json.loads((routed["a"] / "router.json").read_text())
    for key, wrong in [
        ("count", None),
        ("count", 0),
        ("digest", None),
        ("latents", {}),
        ("latents", {"shape": [4, "8", 8], "space": None}),
        ("rank", []),
        ("basis", 5),
        ("kinds", []),
        ("kinds", {"gaussian": record["kinds"]["gaussian"]}),
    ]:
        (other / "router.json").write_text(json.dumps(record | {key: wrong}))
        with pytest.raises(CorruptError, match=rf"router\.json: {key} missing or no such thing; fit"):
            compose(pipe, routed | {"other": other})
    fit_router(loaded, pictures(tmp_path, "a", 4), other, rank=8)
    with pytest.raises(IncompatibleError, match=r"with rank 8, that of another .* rank 256, or with another core"):
        compose(pipe, routed | {"other": other})
    data = bytearray((other / "router.safetensors").read_bytes())
    data[-1] ^= 1
    (other / "router.safetensors").write_bytes(data)
    with pytest.raises(CorruptError, match="sha256"):
        compose(pipe, routed | {"other": other})
    pipe.vae = vae()
    compose(pipe, routed).save_pretrained(tmp_path / "saved")
    pipe.unet = pipe.unet.release()
    pipe.vae.post_quant_conv.bias.data += 1
    with pytest.raises(IncompatibleError, match="latent space of another autoencoder"):
        compose(pipe, routed)
    compose(pipe, {"a": routed["a"]}, weights="uniform")  # nothing of the one that was refused is left
    pipe.unet = ComposedModel.from_pretrained(tmp_path / "saved")
    with pytest.raises(IncompatibleError, match="latent space of another autoencoder"):
        pipe.unet.bind(pipe)
    with pytest.raises(SettingsError, match="does not say what size it draws; give size="):
        side_of(types.SimpleNamespace(unet=types.SimpleNamespace(config={})), "unet")
    with pytest.raises(SettingsError, match="no member at"):
        fit_router(loaded, tmp_path / "a", tmp_path / "nowhere")
    with pytest.raises(InputError, match="does not exist"):
        fit_router(loaded, tmp_path / "nothing", other)
    with pytest.raises(SettingsError, match="rank is 'x', expected a whole number"):
        fit_router(loaded, tmp_path / "a", other, rank="x")
    with pytest.raises(SettingsError, match="place is None, expected the folder"):
        fit_router(loaded, tmp_path / "a", None)


def test_what_is_drawn_must_have_the_size_the_parts_were_fitted_for(pipe: Any, routed: dict[str, Path]) -> None:
    compose(pipe, routed)
    with pytest.raises(IncompatibleError, match=r"fitted to latents \(4, 8, 8\), and \(4, 16, 16\) are drawn"):
        draw(pipe, height=32, width=32)


def test_parts_fitted_in_full_precision_serve_half_of_it(pipe: Any, routed: dict[str, Path]) -> None:
    pipe.vae = copy.deepcopy(pipe.vae).to(torch.bfloat16)  # which rounds the weights that the parts were fitted with
    compose(pipe, routed)
    assert draw(pipe).isfinite().all()


def test_a_lora_of_any_name_is_read_beside_its_router_part(pipe: Any, routed: dict[str, Path], tmp_path: Path) -> None:
    for name, place in routed.items():
        shutil.copytree(place, tmp_path / name)
        for file in ("adapter_model.safetensors", "pytorch_lora_weights.safetensors"):
            if (tmp_path / name / file).exists():
                (tmp_path / name / file).rename(tmp_path / name / "pixel-art.safetensors")
    composed = compose(pipe, {name: tmp_path / name for name in routed})
    assert all(member.scales for member in composed.members)


def test_the_size_of_a_pipeline_that_has_an_autoencoder_and_does_not_say_its_scale(loaded: Any) -> None:
    silent = types.SimpleNamespace(unet=loaded.unet, vae=loaded.vae)
    assert side_of(silent, "unet") == side_of(loaded, "unet") == 16


def test_a_draw_that_looks_at_nothing_has_the_prior_of_one_that_looks(
    pipe: Any, loras: dict[str, Path], routed: dict[str, Path]
) -> None:
    def prior(members: dict[str, Any], **asked: Any) -> list[float]:
        composed = compose(pipe, members, **asked)
        assert composed.composition.parts == {} or asked["routing"] == "full"
        pipe.unet = composed.release()
        return composed.plan.prior.tolist()

    sizes = [count / sum(COUNTS.values()) for count in COUNTS.values()]
    assert prior(routed, routing="full") == prior(routed, routing="ancestral") == pytest.approx(sizes)
    elsewhere = {"a": routed["a"], "b": routed["b"]}
    assert prior(dict(loras), routing="ancestral", routers=elsewhere) == pytest.approx(sizes)
    assert prior(dict(loras), routing="ancestral") == [0.5, 0.5]
    assert prior(routed | {"b": loras["b"]}, routing="ancestral") == [0.5, 0.5]
    assert prior(routed, routing="ancestral", weights="uniform") == [0.5, 0.5]
    assert prior(routed, routing="ancestral", prior={"a": 0.9, "b": 0.1}) == [0.9, 0.1]


def test_parts_elsewhere_and_the_prior_by_hand(loaded: Any, routed: dict[str, Path], pipe: Any, tmp_path: Path) -> None:
    members = {"base": None, "b": routed["b"]}
    composed = compose(pipe, members, routers={"base": routed["a"]}, prior={"base": 0.25, "b": 0.75})
    assert composed.plan.prior.tolist() == [0.25, 0.75]
    assert isinstance(composed.composition.parts["base"], RouterParts)
    pipe.unet.save_pretrained(tmp_path / "saved", with_base=False)
    expected, pipe.unet = draw(pipe), composed.release()
    again = load_composition(pipe, tmp_path / "saved")  # their places are forgotten, the parts are in it
    torch.testing.assert_close(draw(pipe), expected)
    torch.testing.assert_close(again.realised.weights, composed.realised.weights)
    pipe.unet, pipe.vae = again.release(), vae()
    pipe.vae.post_quant_conv.bias.data += 1
    with pytest.raises(IncompatibleError, match="latent space of another autoencoder"):
        load_composition(pipe, tmp_path / "saved")
    alone = compose(with_unet(loaded, composed.release()), {"base": None})  # one member needs no weights
    assert alone.composition.parts == {}
