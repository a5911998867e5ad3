"""Models that members cannot stand beside, and pipelines that read their rows as one batch: refused, not drawn."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch

pytest.importorskip("diffusers")

import diffusers
from diffusers.hooks import apply_first_block_cache
from diffusers.pipelines.deprecated.stable_diffusion_sag.pipeline_stable_diffusion_sag import CrossAttnStoreProcessor
from diffusers.pipelines.deprecated.text_to_video_synthesis.pipeline_text_to_video_zero import (
    CrossFrameAttnProcessor2_0,
)

from intarsia.errors import SettingsError
from intarsia.integrations.diffusers.plain import check_plain

from .tiny import compose, draw, unet, with_unet

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def flux() -> Any:
    sizes = {"num_layers": 2, "num_single_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8}
    return diffusers.FluxTransformer2DModel(
        in_channels=16, joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(2, 2, 4), **sizes
    )


@pytest.mark.parametrize("how", ["wrapped", "in place", "block by block"])
def test_what_is_compiled_already_would_not_hear_its_members(how: str, pipe: Any, loras: dict[str, Path]) -> None:
    if how == "wrapped":
        pipe.unet = torch.compile(pipe.unet, backend="eager")
    elif how == "in place":
        pipe.unet.compile(backend="eager")
    else:
        pipe.unet.compile_repeated_blocks(backend="eager")
    with pytest.raises(SettingsError, match=r"unet is compiled, .* do not hear the members; load it again"):
        compose(pipe, loras)


def test_a_pipeline_that_shows_a_photograph_first_is_refused(pipe: Any, loras: dict[str, Path]) -> None:
    seeing = unet(in_channels=8)
    marigold = diffusers.MarigoldDepthPipeline(seeing, pipe.vae, pipe.scheduler, pipe.text_encoder, pipe.tokenizer)
    with pytest.raises(SettingsError, match="MarigoldDepthPipeline shows its model the photograph before"):
        compose(marigold, loras)
    assert marigold.unet is seeing


def test_fused_projections_are_refused_until_they_are_apart_again(pipe: Any, loras: dict[str, Path]) -> None:
    pipe.fuse_qkv_projections()
    with pytest.raises(SettingsError, match=r"unheard; call pipe\.unet\.unfuse_qkv_projections\(\) first"):
        compose(pipe, loras)
    untouched = draw(pipe)
    pipe.unfuse_qkv_projections()  # which leaves the flag and the fused layers behind
    compose(pipe, loras)
    assert (draw(pipe) - untouched).abs().max() > 0.01
    model = flux()
    model.fuse_qkv_projections()
    with pytest.raises(SettingsError, match="fused projections"):
        check_plain(model, "transformer")
    model.unfuse_qkv_projections()
    check_plain(model, "transformer")


def test_a_cache_is_refused_however_it_was_enabled(pipe: Any) -> None:
    enabled, hooked, settings = flux(), flux(), diffusers.FirstBlockCacheConfig(threshold=0.1)
    enabled.enable_cache(settings)
    apply_first_block_cache(hooked, settings)
    for model in (enabled, hooked):
        with pytest.raises(SettingsError, match=r"cannot tell members apart.*call its disable_cache\(\) first"):
            check_plain(model, "transformer")
    enabled.disable_cache()
    check_plain(enabled, "transformer")
    cached = unet(seed=5)
    cached.is_cache_enabled = True
    with pytest.raises(SettingsError, match="'whole' has a cache"):
        compose(pipe, {"whole": cached})


def stores(pipe: Any) -> None:
    attention = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1
    attention.processor = CrossAttnStoreProcessor()


def crosses_frames(pipe: Any) -> None:
    pipe.unet.set_attn_processor(CrossFrameAttnProcessor2_0(batch_size=2))


@pytest.mark.parametrize("change", [stores, crosses_frames])
def test_attention_across_rows_is_refused_before_composing_and_after(
    change: Callable[[Any], None], pipe: Any, loaded: Any, loras: dict[str, Path]
) -> None:
    words = "relates the rows of a batch to each other"
    other = with_unet(loaded, copy.deepcopy(loaded.unet))
    change(other)
    with pytest.raises(SettingsError, match=words):
        compose(other, loras)
    compose(pipe, {"a": loras["a"], "whole": unet(seed=5)})
    expected = draw(pipe)
    change(pipe)
    with pytest.raises(SettingsError, match=words):
        draw(pipe)
    torch.testing.assert_close(draw(pipe), expected)  # the pipeline's own processors are back


def test_perturbed_attention_is_refused_in_its_own_pipeline(pipe: Any, loras: dict[str, Path]) -> None:
    compose(pipe, {"a": loras["a"], "whole": unet(seed=5)})
    expected = draw(pipe)
    perturbing = diffusers.StableDiffusionPAGPipeline(**pipe.components, requires_safety_checker=False)
    perturbing.set_progress_bar_config(disable=True)
    with pytest.raises(SettingsError, match="PAGCFGIdentitySelfAttnProcessor2_0 relates the rows"):
        draw(perturbing, pag_scale=3.0)
    torch.testing.assert_close(draw(perturbing, pag_scale=0.0), expected)
    pipe.unet.set_attn_processor(pipe.unet.attn_processors)  # as such pipelines do; a dict reaches every model
    torch.testing.assert_close(draw(pipe), expected)


def test_offloading_comes_after_composing(pipe: Any, loras: dict[str, Path]) -> None:
    accelerate.cpu_offload_with_hook(pipe.unet, "cpu")
    with pytest.raises(SettingsError, match=r"compose first, then enable offloading"):
        compose(pipe, loras)
    pipe.remove_all_hooks()
    composed = compose(pipe, loras)
    expected = draw(pipe)
    for module in (composed.base, composed):  # a pipeline takes away the hooks that it finds
        accelerate.cpu_offload_with_hook(module, "cpu")
        assert hasattr(composed, "_hf_hook") == (module is composed)
        torch.testing.assert_close(draw(pipe), expected)
        accelerate.hooks.remove_hook_from_module(module)


def test_group_offloading_may_come_first(pipe: Any, loras: dict[str, Path], with_lora: dict[str, Any]) -> None:
    expected = draw(with_unet(pipe, with_lora["a"]))
    pipe.unet.enable_group_offload(torch.device("cpu"), num_blocks_per_group=1)
    assert hasattr(pipe.unet, "_diffusers_hook")
    composed = compose(pipe, {"a": loras["a"]})
    assert not hasattr(composed, "_diffusers_hook")
    torch.testing.assert_close(draw(pipe), expected, rtol=1e-4, atol=1e-4)


def test_pipelines_made_of_a_composed_one_share_its_module(pipe: Any, loras: dict[str, Path]) -> None:
    composed = compose(pipe, loras)
    with pytest.raises(ValueError, match="were passed"):  # theirs: they take known classes only
        diffusers.StableDiffusionImg2ImgPipeline.from_pipe(pipe)
    named = diffusers.StableDiffusionImg2ImgPipeline.from_pipe(pipe, unet=pipe.unet)
    auto = diffusers.AutoPipelineForImage2Image.from_pipe(pipe)
    start, drawn = torch.full((2, 3, 16, 16), 0.5), []
    for other in (named, auto):
        other.set_progress_bar_config(disable=True)
        assert other.unet is composed
        other.unet.bind(other)
        drawn.append(draw(other, image=start, strength=0.5))
    torch.testing.assert_close(*drawn)
