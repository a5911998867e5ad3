"""A Stable Diffusion pipeline as a backbone: what a vault trains on it is isolated, exact, and at home in diffusers."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")

import diffusers

from intarsia.backbone import Backbone, convert_pipeline, load_text_encoder
from intarsia.compartments import DeepPrompts, FullCopy, Lora, Privacy, TrainSettings
from intarsia.compartments.slices import slice_of
from intarsia.composition import CompartmentMember
from intarsia.composition.together import Asked, x0_hats
from intarsia.data import Source
from intarsia.diffusion import keyed_generator
from intarsia.errors import IncompatibleError, InputError, IntarsiaError, SettingsError
from intarsia.integrations.diffusers import fit_router
from intarsia.routers import GaussianSettings
from intarsia.vault import Vault, make_package

from .tiny import compose, draw, stable_diffusion

ROUTER = GaussianSettings(components=(1,), pseudo_counts=(30.0,), rounds=1, class_samples=2)
LORA = Lora(rank=2, targets=("to_q", "to_v", "ff.net.2"))
X_T = torch.from_numpy(keyed_generator("noised").standard_normal((3, 4, 8, 8))).float()
T = torch.tensor([0.2, 0.5, 0.9])


def source(name: str, numbers: Sequence[int], *, captions: str = "a hat") -> Source:
    draws = [keyed_generator("picture", name, k).integers(0, 256, (16, 16, 3), dtype=np.uint8) for k in numbers]
    texts = [f"{captions} {'abcdefgh'[k % 8]}" for k in numbers]
    files = [f"{k}.png" for k in numbers]
    return Source.build(name, owner="Ada", licence="MIT", images=np.stack(draws), file_names=files, texts=texts)


def settings(adapter: Any = LORA, **changes: Any) -> TrainSettings:
    quick = {"steps": 4, "rows": 6, "slices": 2, "lr": 0.01, "precision": "float32", "threads": 1}
    return TrainSettings(adapter=adapter, **quick | changes)


@pytest.fixture(scope="module")
def package(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packages") / "sd.package"
    make_package(out, convert_pipeline(saved), source("core", range(40)), basis_rank=8)
    return out


@pytest.fixture(scope="module")
def trained(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a LoRA and a full copy."""
    root = tmp_path_factory.mktemp("vaults") / "sd.vault"
    vault = Vault.create(root, backbone=package)
    for name, adapter in (("ada", LORA), ("ben", FullCopy())):
        vault.add_source(name, source(name, range(6)))
        vault.train(name, settings(adapter), routers=[ROUTER])
    return root


@pytest.fixture
def vault(trained: Path, tmp_path: Path) -> Vault:
    """A copy, to be changed."""
    shutil.copytree(trained, tmp_path / "copy.vault")
    return Vault.open(tmp_path / "copy.vault")


def place(vault: Vault | Path, name: str) -> Path:
    return (vault.root if isinstance(vault, Vault) else vault) / "compartments" / name


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def predicted(backbone: Backbone, x0_hat: Tensor) -> Tensor:
    alpha, sigma = (c(T)[:, None, None, None] for c in (backbone.schedule.alpha, backbone.schedule.sigma))
    return (X_T - alpha * x0_hat) / sigma


def asked(pipe: Any, model: Any) -> Tensor:
    """What a model of diffusers predicts where `T` is, for one prompt, another and none."""
    prompts = ["a red apple", "blue pears", ""]
    states = pipe.encode_prompt(prompts, "cpu", 1, False)[0]
    with torch.no_grad():
        return model(X_T, (T * 1000).round() - 1, states)[0]


def prompts(backbone: Backbone) -> list[Any]:
    assert backbone.text is not None
    return [backbone.text.ask("a red apple"), backbone.text.ask("blue pears"), None]


def test_the_backbone_is_the_pipeline(pipe: Any, package: Path) -> None:
    backbone = Backbone.load(package / "backbone")
    assert backbone.prediction == "eps"
    context = backbone.context(prompts(backbone))
    found = backbone.network(X_T, T * 1000, context)
    torch.testing.assert_close(found, asked(pipe, pipe.unet), rtol=1e-5, atol=1e-6)
    alphas = pipe.scheduler.alphas_cumprod[(T * 1000).round().long() - 1]
    torch.testing.assert_close(backbone.schedule.alpha(T) ** 2, alphas, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(predicted(backbone, backbone.x0_hat(X_T, T, context)), found, rtol=1e-4, atol=1e-4)
    null = backbone.context([None] * 3)
    assert null is not None
    assert torch.equal(backbone.x0_hat(X_T, T), backbone.x0_hat(X_T, T, null))


def test_its_text_encoder_reads_captions_for_other_backbones_too(saved: Path, pipe: Any) -> None:
    """CLIP's, by the folder of the pipeline; `--encoder` takes it."""
    encoder = load_text_encoder(str(saved))
    ids = pipe.tokenizer("a red apple").input_ids
    assert (encoder.dim, encoder.limit, encoder.tokens("a red apple")) == (16, 12, ids)
    expected = pipe.text_encoder(torch.tensor([ids])).last_hidden_state[0].detach()
    torch.testing.assert_close(encoder.states("a red apple"), expected)


def test_tokenizers_of_older_pipelines_are_read_too(tmp_path: Path, loaded: Any) -> None:
    """Two tables and a padding of its own, as Stable Diffusion 2 has."""
    folder = stable_diffusion(tmp_path)
    words = folder / "tokenizer"
    shutil.rmtree(words)
    words.mkdir()
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(tmp_path / "words" / name, words)
    ends = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "a",
    }
    (words / "special_tokens_map.json").write_text(json.dumps(ends))
    (words / "tokenizer_config.json").write_text(
        json.dumps({"model_max_length": 12, "tokenizer_class": "CLIPTokenizer"})
    )
    backbone = convert_pipeline(folder)
    backbone.save(tmp_path / "saved")
    again = Backbone.load(tmp_path / "saved")
    assert (again.digest, again.text.digest) == (backbone.digest, backbone.text.digest)
    assert again.text.tokenizer("b", padding="max_length", max_length=4)["input_ids"] == [0, 29, 1, 2]
    padded = torch.tensor([[0, 29, 1, *[2] * 9]])
    torch.testing.assert_close(again.text.ask("b").states, loaded.text_encoder(padded)[0][0].detach())


def test_the_network_in_bfloat16_says_the_same_and_the_other_stays(package: Path) -> None:
    backbone = Backbone.load(package / "backbone")
    full = backbone.x0_hat(X_T, T)
    half = backbone.x0_hat(X_T, T, precision="bfloat16")
    assert 0 < (half - full).abs().max() < 0.1 * full.abs().max()
    assert torch.equal(backbone.x0_hat(X_T, T), full)


@pytest.mark.parametrize("adapter", [LORA, FullCopy()], ids=["lora", "full"])
def test_forgetting_a_sample_is_never_having_seen_it(adapter: Any, vault: Vault, package: Path, tmp_path: Path) -> None:
    name = "ada" if adapter is LORA else "ben"
    whole = files(place(vault, name))
    kept = source(name, range(6))
    gone = next(id for id in kept.manifest.ids if slice_of(id, 2) == 1)  # so that a checkpoint is gone on from
    vault.forget(name, [gone])
    never = Vault.create(tmp_path / "never.vault", backbone=package)
    never.add_source(name, kept.select(lambda sample: sample.id != gone))
    never.train(name, settings(adapter), routers=[ROUTER])
    assert files(place(vault, name)) == files(place(never, name))
    assert files(place(vault, name))["adapter_model.safetensors"] != whole["adapter_model.safetensors"]
    assert vault.verify().ok


def test_a_compartment_is_the_same_trained_beside_others_and_not_without_its_captions(
    trained: Path, package: Path, tmp_path: Path
) -> None:
    vault = Vault.create(tmp_path / "other.vault", backbone=package)
    vault.add_source("ada", source("ada", range(6)))
    vault.add_source("cyd", source("ada", range(6, 12), captions="a plum"))
    vault.train(["cyd", "ada"], settings(), routers=[ROUTER])
    assert files(place(vault, "ada")) == files(place(trained, "ada"))
    silent = Vault.create(tmp_path / "silent.vault", backbone=package)
    silent.add_source("ada", source("ada", range(6), captions="a plum"))
    silent.train("ada", settings(), routers=[ROUTER])
    key = "adapter_model.safetensors"
    assert files(place(silent, "ada"))[key] != files(place(trained, "ada"))[key]


def test_a_lora_is_at_home_in_peft_and_in_a_composition(pipe: Any, trained: Path) -> None:
    from peft import PeftModel

    vault = Vault.open(trained)
    member = CompartmentMember(vault.backbone, vault.compartment("ada"), precision="float32")
    expected = predicted(vault.backbone, member.x0_hat(X_T, T, prompts(vault.backbone)))
    assert (expected - asked(pipe, pipe.unet)).abs().max() > 1e-3  # it learned something
    peft = PeftModel.from_pretrained(copy.deepcopy(pipe.unet), place(trained, "ada"))
    torch.testing.assert_close(asked(pipe, peft), expected, rtol=1e-4, atol=1e-4)
    drawn = draw_with(pipe, peft.base_model.model)
    compose(pipe, {"ada": place(trained, "ada")})
    torch.testing.assert_close(draw(pipe), drawn, rtol=1e-5, atol=1e-5 * drawn.abs().max().item())


def test_loras_in_one_forward_answer_as_in_forwards_of_their_own(trained: Path) -> None:
    vault = Vault.open(trained)
    ada = vault.compartment("ada")
    other = replace(ada, name="cyd", params={name: 2 * p for name, p in ada.params.items()})
    members = [CompartmentMember(vault.backbone, each, precision="float32") for each in (ada, other)]
    asked = [Asked(member, X_T, T, prompts(vault.backbone)) for member in members]
    assert [one.tokens for one in asked] == [3 * 64] * 2
    found = x0_hats(asked)
    assert (found[0] - found[1]).abs().max() > 1e-3
    for together, one in zip(found, asked, strict=True):
        torch.testing.assert_close(together, one.member.x0_hat(X_T, T, one.labels), rtol=1e-4, atol=1e-4)


def draw_with(pipe: Any, model: Any) -> Tensor:
    own, pipe.unet = pipe.unet, model
    drawn = draw(pipe)
    pipe.unet = own
    return drawn


def test_a_full_copy_is_a_model_of_diffusers(pipe: Any, trained: Path) -> None:
    vault = Vault.open(trained)
    member = CompartmentMember(vault.backbone, vault.compartment("ben"), precision="float32")
    expected = predicted(vault.backbone, member.x0_hat(X_T, T, prompts(vault.backbone)))
    states = pipe.encode_prompt(["a red apple", "blue pears", ""], "cpu", 1, False)[0]
    composed = compose(pipe, {"ada": place(trained, "ada"), "ben": place(trained, "ben")}, weights={"ada": 0, "ben": 1})
    with torch.no_grad():
        found = composed(X_T, (T * 1000).round() - 1, states)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_vault_draws_from_prompts(vault: Vault) -> None:
    model = vault.compose(["ada", "ben"], weights="gaussian", precision="float32")
    result = model.sample(2, prompt=["a red apple", "blue pears"], guidance_scale=2.0, steps=2, batch_invariant=True)
    assert result.images.shape == (2, 3, 16, 16)
    alone = model.sample(2, prompt="blue pears", guidance_scale=2.0, steps=2, batch_invariant=True)
    assert torch.equal(alone.images[1], result.images[1])
    assert not torch.equal(alone.images[0], result.images[0])
    with pytest.raises(InputError, match="has 14 tokens, of which 12 would be read"):
        model.sample(1, prompt="abcdefghijkl")
    with pytest.raises(SettingsError, match="a text encoder of its own, not with minilm"):
        model.draw(1, model_settings(), prompt="a", text_encoder="minilm")


def model_settings() -> Any:
    from intarsia.composition import SampleSettings

    return SampleSettings(steps=1)


def test_what_is_left_open_is_as_the_network_has_it(package: Path, tmp_path: Path) -> None:
    vault = Vault.create(tmp_path / "v.vault", backbone=package)
    vault.add_source("ada", source("ada", range(3)))
    settings = TrainSettings(adapter=Lora(rank=1), steps=1, rows=1, threads=1, precision="bfloat16")
    vault.train("ada", settings, routers=())
    learned = vault.compartment("ada")
    assert learned.adapter == Lora(rank=1, targets=("to_q", "to_k", "to_v", "to_out.0"))
    assert learned.training["settings"]["lr"] == 1e-4
    assert {"diffusers", "transformers"} <= set(learned.environment)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"adapter": DeepPrompts(tokens=2)}, "the adapter 'prompts' is made for a U-ViT, and this backbone's network"),
        ({"adapter": Lora(targets=("attn.qkv",))}, "LoRA target 'attn.qkv': .* expected some of to_q"),
        ({"routers": ["reference"]}, "a router on the backbone's features is made for a U-ViT, .* take gaussian"),
        (
            {"slices": 1, "privacy": Privacy(epsilon=3.0)},
            "private training is for backbones without a text encoder",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_begun(
    changes: dict[str, Any], says: str, vault: Vault
) -> None:
    vault.add_source("cyd", source("cyd", range(3)))
    changes = {"routers": [ROUTER], **changes}
    routers = changes.pop("routers")
    with pytest.raises(SettingsError, match=says):
        vault.train("cyd", settings(**changes), routers=routers)
    assert not list((vault.root / "training").iterdir())


def test_compartments_of_another_base_are_refused_and_nothing_is_put_among_theirs(
    pipe: Any, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="is a compartment of a vault, to which nothing is added"):
        fit_router(pipe, tmp_path, place(trained, "ada"))
    with torch.no_grad():
        next(iter(pipe.unet.parameters())).add_(1)
    with pytest.raises(IncompatibleError, match="'ada' was trained on another model"):
        compose(pipe, {"ada": place(trained, "ada")})


@pytest.mark.parametrize(
    ("scheduler", "changed", "says"),
    [
        (
            "DDPM",
            {"prediction_type": "v_prediction"},
            "'ada' was made for models that predict epsilon, .* v",
        ),
        ("DDIM", {"beta_end": 0.01}, "'ada' was trained with another forward process"),
        ("DDIM", {"beta_schedule": "squaredcos_cap_v2"}, "'ada' was trained with another forward process"),
        ("UniPCMultistep", {"use_flow_sigmas": True}, "'ada' was trained with another forward process"),
        ("UniPCMultistep", {"use_karras_sigmas": True}, None),
        ("DPMSolverMultistep", {}, None),
    ],
)
def test_the_scheduler_is_one_of_the_process_that_a_compartment_was_trained_for(
    pipe: Any, trained: Path, scheduler: str, changed: dict[str, Any], says: str | None
) -> None:
    kind = getattr(diffusers, f"{scheduler}Scheduler")
    pipe.scheduler = kind.from_config(pipe.scheduler.config, **changed)
    members = {"ada": place(trained, "ada"), "none": None}
    if says is None:
        compose(pipe, members, weights="uniform")
        return
    with pytest.raises(IncompatibleError, match=says):
        compose(pipe, members, weights="uniform")
    assert type(pipe.unet).__name__ == "UNet2DConditionModel"


def _drop(part: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / part)


def _as_v2(folder: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace('"scaled_linear"', '"squaredcos_cap_v2"'))


def _inpainting(folder: Path) -> None:
    path = folder / "unet" / "config.json"
    path.write_text(path.read_text().replace('"in_channels": 4', '"in_channels": 9'))


def _says(file: str, **changed: Any) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return harm


SCHEDULER = "scheduler/scheduler_config.json"


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_says("model_index.json", unet=5), "its unet is a 5, expected a UNet2DConditionModel"),
        (_says("model_index.json", unet={"a": 1}), "its unet is a {'a': 1}, expected"),
        (_says("model_index.json", unet=None), "its unet is a None, expected"),
        (_says(SCHEDULER, prediction_type=[]), r"prediction_type is \[\], expected one of"),
        (_says(SCHEDULER, beta_schedule={}), "beta_schedule is {}, expected one of"),
        (_says(SCHEDULER, beta_start="x"), "betas from 'x' to 0.012: give two floats"),
        (_says(SCHEDULER, beta_end=None), "betas from 0.00085 to None: give two floats"),
        (_says(SCHEDULER, num_train_timesteps=float("nan")), "scheduler_config.json: .*(nan|NaN)"),
        (_says(SCHEDULER, num_train_timesteps=1000.5), "steps is 1000.5: give a whole number"),
        (_says(SCHEDULER, trained_betas=[0.1, 0.2]), "its trained_betas makes another forward process"),
        (_drop("text_encoder"), "its text encoder or tokenizer cannot be read"),
        (_drop("unet"), "config.json"),
        (_as_v2, "beta_schedule is 'squaredcos_cap_v2', expected one of linear, scaled_linear"),
        (_inpainting, "sees 9 channels and predicts 4"),
    ],
)
def test_what_is_no_pipeline_of_ours_is_refused(harm: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    folder = stable_diffusion(tmp_path)
    harm(folder)
    with pytest.raises(IntarsiaError, match=says):
        convert_pipeline(folder)
