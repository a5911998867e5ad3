"""A composed Stable Diffusion pipeline is the plain pipeline in every respect but one: whose network answers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")

import diffusers

from intarsia.errors import SettingsError

from .tiny import Average, compose, draw, lora_tensors, unet, with_unet

SHARES = {"a": 0.3, "b": 0.7}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "DDPMScheduler": {},
    "DDIMScheduler": {},
    "EulerDiscreteScheduler": {},
    "EulerAncestralDiscreteScheduler": {},
    "DPMSolverMultistepScheduler": {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True},
    "HeunDiscreteScheduler": {},
    "PNDMScheduler": {"skip_prk_steps": True},
    "UniPCMultistepScheduler": {},
}
QUICK = ("DDPMScheduler", "EulerDiscreteScheduler")
# Theirs: numpy's warning about torch tensors, and diffusers' about defaults of old configurations.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """To 1e-5 of the size of what is drawn."""
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def average(pipe: Any, with_lora: dict[str, Any], weights: Sequence[float] = (0.3, 0.7)) -> Any:
    """The same pipeline with the hand-made average of both LoRA's UNets."""
    return with_unet(pipe, Average([with_lora["a"], with_lora["b"]], weights))


def swap(pipe: Any, name: str) -> None:
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **SCHEDULERS[name])


def test_one_member_is_the_plain_pipeline_with_that_lora(
    pipe: Any, loras: dict[str, Path], with_lora: dict[str, Any]
) -> None:
    expected, untouched = draw(with_unet(pipe, with_lora["a"])), draw(pipe)
    compose(pipe, {"a": loras["a"]})
    close(draw(pipe), expected)
    assert (expected - untouched).abs().max() > 0.01  # the LoRA says something


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.integration) for name in SCHEDULERS],
)
def test_two_members_are_the_hand_made_average_under_any_scheduler(
    name: str, pipe: Any, loras: dict[str, Path], with_lora: dict[str, Any]
) -> None:
    by_hand = average(pipe, with_lora)
    composed = compose(pipe, loras, weights=SHARES)
    swap(pipe, name)
    swap(by_hand, name)
    found = draw(pipe)
    close(found, draw(by_hand))
    assert composed.realised.report()["branches"] == 2


@pytest.mark.parametrize("most_rows", [8, pytest.param(64, marks=pytest.mark.integration)])
def test_members_in_one_batched_call_answer_as_in_calls_of_their_own(
    most_rows: int, pipe: Any, loaded: Any, loras: dict[str, Path]
) -> None:
    compose(pipe, {**loras, "base": None}, weights={"a": 0.3, "b": 0.5, "base": 0.2}, most_rows=most_rows)
    apart = with_unet(loaded, copy.deepcopy(loaded.unet))
    compose(apart, {**loras, "base": None}, weights={"a": 0.3, "b": 0.5, "base": 0.2}, most_rows=0)
    close(draw(pipe), draw(apart))


def test_whole_models_and_the_users_scale(
    pipe: Any, loras: dict[str, Path], with_lora: dict[str, Any], tmp_path: Path
) -> None:
    other = unet(seed=5)
    other.save_pretrained(tmp_path / "whole")
    compose(pipe, {"a": loras["a"], "whole": tmp_path / "whole"}, routing="full")
    scaled = {"cross_attention_kwargs": {"scale": 0.5}}
    by_hand = with_unet(pipe, Average([with_lora["a"], other], [0.5, 0.5]))
    close(draw(pipe, **scaled), draw(by_hand, **scaled))


def test_a_pipelines_folder_is_a_member_by_its_unet(pipe: Any, saved: Path) -> None:
    expected = draw(pipe)
    compose(pipe, {"itself": saved, "module": unet()})
    close(draw(pipe), expected)


def test_image_to_image_and_callbacks(pipe: Any, loras: dict[str, Path], with_lora: dict[str, Any]) -> None:
    by_hand = average(pipe, with_lora)
    compose(pipe, loras, weights=SHARES)
    start = torch.linspace(0, 1, 3 * 16 * 16).reshape(1, 3, 16, 16).repeat(2, 1, 1, 1)
    drawn, seen = [], []

    def halve(pipe: Any, step: int, timestep: int, found: dict[str, Any]) -> dict[str, Any]:
        seen.append(step)
        return {"latents": found["latents"] / 2}

    for each in (pipe, by_hand):
        images = diffusers.StableDiffusionImg2ImgPipeline(**each.components, requires_safety_checker=False)
        images.set_progress_bar_config(disable=True)
        drawn.append(draw(images, image=start, strength=0.6, steps=5, callback_on_step_end=halve))
    close(*drawn)
    assert seen == [0, 1, 2] * 2


def unguided_after(step: int) -> Any:
    """A callback that ends guidance after a step, as diffusers' own documentation does."""

    def end(pipe: Any, at: int, timestep: int, found: dict[str, Any]) -> dict[str, Any]:
        if at == step:
            pipe._guidance_scale = 0.0
            found["prompt_embeds"] = found["prompt_embeds"].chunk(2)[-1]
        return found

    return {"callback_on_step_end": end, "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}


def test_guidance_that_ends_on_the_way_is_still_the_same_run(
    pipe: Any, loras: dict[str, Path], with_lora: dict[str, Any]
) -> None:
    by_hand = average(pipe, with_lora)
    composed = compose(pipe, loras, weights=SHARES)
    close(draw(pipe, **unguided_after(1)), draw(by_hand, **unguided_after(1)))
    realised = composed.realised
    assert [len(each) for each in realised.trace] == [4, 4, 2, 2]
    assert realised.weights.shape == (4, 4, 2)
    assert realised.images == (0, 1, 0, 1)
    assert realised.calls.sum() == 2 * (4 + 4 + 2 + 2)
    pipe.unet = composed.release()
    composed = compose(pipe, loras, routing="ancestral")
    draw(pipe, **unguided_after(1))
    lots = composed.realised.weights
    assert torch.equal(lots, lots[:1].expand_as(lots)), "the member that was drawn for an image stays with it"


def test_a_branch_may_be_shown_fewer_rows_than_the_others(pipe: Any, loras: dict[str, Path]) -> None:
    """As SD3's guidance by skipped layers does: the conditional rows alone, once more."""
    composed = compose(pipe, loras, routing="posterior")
    pipe.scheduler.set_timesteps(3)
    x, prompts = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.ones(4, 12, 16)
    for t in pipe.scheduler.timesteps:
        composed(torch.cat([x, x]), t, prompts)
        composed(x, t, prompts[:2])
        x = x / 2
    trace = composed.realised.trace
    assert [len(each) for each in trace] == [4, 2] * 3
    assert all(torch.equal(both[2:], again) for both, again in zip(trace[::2], trace[1::2], strict=True))


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["ControlNet", "Inpaint"])
def test_pipelines_that_show_the_model_more(
    kind: str, pipe: Any, loras: dict[str, Path], with_lora: dict[str, Any]
) -> None:
    """A control network's residuals are split by rows like all the rest; painting over keeps the known part."""
    by_hand = average(pipe, with_lora)
    control = diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(4, 8)).eval()
    for parameter in control.parameters():  # theirs start as zeros
        torch.nn.init.normal_(parameter, std=0.05)
    compose(pipe, loras, weights=SHARES, most_rows=8)
    picture, mask = torch.rand(2, 3, 16, 16), torch.zeros(2, 1, 16, 16)
    mask[..., 8:] = 1
    more = {"controlnet": control} if kind == "ControlNet" else {}
    shown = {"image": picture} | ({} if more else {"mask_image": mask, "strength": 1.0})
    drawn = []
    for each in (pipe, by_hand):
        other = getattr(diffusers, f"StableDiffusion{kind}Pipeline")(
            **each.components, **more, requires_safety_checker=False
        )
        other.set_progress_bar_config(disable=True)
        drawn.append(draw(other, height=16, width=16, **shown))
    close(*drawn)


@pytest.mark.integration
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_follows_full(pipe: Any, loras: dict[str, Path], dtype: torch.dtype) -> None:
    compose(pipe, loras, weights=SHARES)
    full = draw(pipe)
    half = with_unet(pipe, copy.deepcopy(pipe.unet).to(dtype))
    half.unet.bind(half)
    half.text_encoder, half.vae = (copy.deepcopy(part).to(dtype) for part in (pipe.text_encoder, pipe.vae))
    drawn = draw(half)
    assert drawn.dtype == dtype
    assert (drawn.float() - full).abs().max() < 0.05 * full.abs().max()


def test_attention_slicing_reaches_every_model(pipe: Any, loras: dict[str, Path]) -> None:
    compose(pipe, {"a": loras["a"], "whole": unet(seed=5)})
    expected = draw(pipe)
    pipe.enable_attention_slicing()
    for model in (pipe.unet.base, pipe.unet.members[1].model):
        assert {type(one).__name__ for one in model.attn_processors.values()} == {"SlicedAttnProcessor"}
    close(draw(pipe), expected)


def test_an_image_is_its_seeds_whatever_the_batch(pipe: Any, loras: dict[str, Path]) -> None:
    composed = compose(pipe, loras, routing="ancestral")
    both = draw(pipe)
    lots = composed.realised.weights[0]
    assert composed.realised.images == (0, 1, 0, 1)
    assert torch.equal(lots[:2], lots[2:])  # the null branch runs the member drawn for the conditional one
    assert (composed.realised.calls == 4).all()  # one member per step
    close(draw(pipe, seeds=[7]), both[:1])
    draw(pipe, seeds=range(2, 6))
    draw(pipe, seeds=range(2, 6), steps=1)
    assert 0 < composed.realised.shares[0] < 1  # and other seeds have other lots


def test_the_shared_model_is_never_written_to(pipe: Any, loras: dict[str, Path]) -> None:
    expected, before = draw(pipe), copy.deepcopy(pipe.unet.state_dict())
    composed = compose(pipe, loras)
    draw(pipe)
    assert all(torch.equal(tensor, before[name]) for name, tensor in composed.base.state_dict().items())
    arguments = torch.ones(1, 4, 8, 8), 5, torch.ones(1, 12, 16)
    pipe.unet = composed.base
    assert torch.equal(draw(pipe), expected)  # outside a composed call the hooks are silent
    assert not torch.equal(composed(*arguments)[0], composed.base(*arguments)[0])
    assert composed.release() is composed.base
    with pytest.raises(SettingsError, match="was released"):
        composed(*arguments)
    assert not any(module._forward_hooks for module in composed.base.modules())


def test_a_member_follows_the_image_to_its_device(pipe: Any, loras: dict[str, Path]) -> None:
    """As where the shared model is offloaded layer by layer."""
    composed, layer = compose(pipe, {"a": loras["a"]}), "mid_block.resnets.0.conv1"
    module = composed.base.get_submodule(layer)
    delta = composed.members[0].delta(layer, module, torch.ones(1, 16, 4, 4, device="meta"))
    assert (delta.device.type, delta.shape) == ("meta", (1, 16, 4, 4))


def test_a_copy_has_its_own_members(pipe: Any, loras: dict[str, Path]) -> None:
    composed = compose(pipe, {"a": loras["a"]})
    other = copy.deepcopy(composed)
    arguments = torch.ones(1, 4, 8, 8), 5, torch.ones(1, 12, 16)
    torch.testing.assert_close(other(*arguments)[0], composed(*arguments)[0])
    for buffer in other.members.buffers():
        buffer.zero_()
    torch.testing.assert_close(other(*arguments)[0], other.base(*arguments)[0])
    assert not torch.equal(other(*arguments)[0], composed(*arguments)[0])


def test_compositions_of_one_base_do_not_mix(pipe: Any, loras: dict[str, Path], with_lora: dict[str, Any]) -> None:
    other = with_unet(pipe, pipe.unet)
    for each, name in ((pipe, "a"), (other, "b")):
        compose(each, {name: loras[name]})
    for each, name in ((pipe, "a"), (other, "b")):
        close(draw(each), draw(with_unet(pipe, with_lora[name])))


def test_the_pipeline_sees_the_shared_model(pipe: Any, loras: dict[str, Path]) -> None:
    config = pipe.unet.config
    composed = compose(pipe, loras)
    assert composed.config is config
    assert (composed.dtype, composed.device.type) == (torch.float32, "cpu")
    assert composed.to(torch.float64).members[0].low_rank("mid_block.resnets.0.conv1").down.dtype == torch.float64
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = composed.nothing
    with pytest.raises(SettingsError, match="a composition does without it"):
        pipe.fuse_qkv_projections()
    before = {name for name, _ in composed.named_modules()}
    more = {f"unet.{name}": tensor for name, tensor in lora_tensors(composed.base, seed=3).items()}
    with pytest.raises(SettingsError, match="name a LoRA as a member"):
        pipe.load_lora_weights(more)
    assert {name for name, _ in composed.named_modules()} == before
    pipe.unload_lora_weights()  # of which there are none


def test_what_was_realised_is_that_of_the_last_call(pipe: Any, loras: dict[str, Path]) -> None:
    composed = compose(pipe, loras, weights=SHARES)
    with pytest.raises(SettingsError, match="nothing was drawn"):
        _ = composed.realised
    for steps in (2, 2, 3):  # as many steps, and as late, as the call before: still a call of its own
        draw(pipe, steps=steps, seeds=[1], scale=1.0)
        assert composed.realised.weights.shape == (steps, 1, 2)
        assert composed.realised.calls.tolist() == [2 * steps]
    report = composed.realised.report()
    assert report["branches"] == report["images"] == 1
    assert report["sources"]["b"] == {"prior": pytest.approx(0.7), "share": pytest.approx(0.7)}


@pytest.mark.integration
def test_v_prediction(pipe: Any, loras: dict[str, Path], with_lora: dict[str, Any]) -> None:
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction")
    by_hand = average(pipe, with_lora)
    compose(pipe, loras, weights=SHARES)
    close(draw(pipe), draw(by_hand))
