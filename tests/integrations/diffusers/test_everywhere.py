"""What is asked of a composition as of one model reaches all its models; and a composition that is copied or sent."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

import diffusers

from intarsia.errors import InputError, SettingsError

from .test_parts import routed  # noqa: F401 - a fixture
from .tiny import compose, draw, plain, unet, with_unet

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs

CPU = torch.device("cpu")


@pytest.mark.parametrize("disk", [False, True], ids=["memory", "disk"])
def test_group_offloading_reaches_every_model_block_by_block(
    disk: bool, pipe: Any, loras: dict[str, Path], tmp_path: Path
) -> None:
    composed = compose(pipe, {**loras, "whole": unet(seed=5)}, weights="uniform", routing="full")
    expected = draw(pipe)
    place = {"offload_to_disk_path": str(tmp_path)} if disk else {}
    shared = ["vae", "text_encoder"]  # with other tests
    pipe.enable_group_offload(
        CPU, CPU, offload_type="block_level", num_blocks_per_group=1, exclude_modules=shared, **place
    )
    torch.testing.assert_close(draw(pipe), expected)
    for model in composed.models:
        assert [hasattr(block, "_diffusers_hook") for block in model.down_blocks] == [True, True]
    if disk:
        written = {name: {path.name for path in (tmp_path / name).iterdir()} for name in ("0", "1")}
        assert written["0"] == written["1"] != set()


def test_layerwise_casting_leaves_in_every_model_what_diffusers_leaves(pipe: Any, loras: dict[str, Path]) -> None:
    alone = copy.deepcopy(pipe.unet)
    alone.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    composed = compose(pipe, {**loras, "whole": unet(seed=5)}, weights="uniform")
    composed.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    expected = {name: weight.dtype for name, weight in alone.named_parameters()}
    assert {*expected.values()} == {torch.float8_e4m3fn, torch.float32}
    for model in composed.models:
        assert {name: weight.dtype for name, weight in model.named_parameters()} == expected
    assert {low_rank.dtype for member in composed.members[:2] for low_rank in member.buffers()} == {torch.float32}
    assert bool(draw(pipe).isfinite().all())


def test_nothing_that_members_change_is_compiled(pipe: Any, loras: dict[str, Path]) -> None:
    """torch's guards leave hooks out, so that a block with a member's changes would run the code of one without."""
    whole = unet(seed=5)
    composed, expected = compose(pipe, {**loras, "whole": whole}, routing="full"), draw(pipe, steps=2)
    for compiling in (composed.compile, composed.compile_repeated_blocks):
        with pytest.raises(SettingsError, match="compiled layers do not tell members apart"):
            compiling(backend="eager")
    pipe.unet = torch.compile(composed, backend="eager")
    assert torch.equal(draw(pipe, steps=2), expected)
    composed.base.compile_repeated_blocks(backend="eager")
    with pytest.raises(SettingsError, match="members share is compiled"):
        draw(pipe)


@pytest.mark.integration
def test_whole_members_may_be_compiled(pipe: Any, loras: dict[str, Path]) -> None:
    whole, graphs = unet(seed=5), []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compose(pipe, {**loras, "whole": whole}, routing="full")
    expected = draw(pipe, steps=2)
    whole.compile_repeated_blocks(backend=backend)
    torch.testing.assert_close(draw(pipe, steps=2), expected, rtol=1e-4, atol=1e-4)
    assert graphs


def test_a_model_of_two_names_is_asked_once(pipe: Any) -> None:
    whole = unet(seed=5)
    composed = compose(pipe, {"own": pipe.unet, "one": whole, "two": whole}, weights="uniform")
    assert [id(model) for model in composed.models] == [id(composed.base), id(whole)]
    composed.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)  # which diffusers refuses to do twice
    assert bool(draw(pipe).isfinite().all())


def test_attention_processors_are_named_after_whose_they_are(pipe: Any) -> None:
    whole = unet(seed=5)
    composed = compose(pipe, {"base": None, "whole": whole}, weights="uniform")
    own = list(composed.base.attn_processors)
    assert list(composed.attn_processors) == [*own, *(f"{name} of whole" for name in own)]
    kinds = diffusers.models.attention_processor
    changed = {name: kinds.AttnProcessor() for name in own} | {f"{own[0]} of whole": kinds.AttnProcessor2_0()}
    composed.set_attn_processor(changed)
    assert {type(one) for one in composed.base.attn_processors.values()} == {kinds.AttnProcessor}
    assert [type(one).__name__ for one in whole.attn_processors.values()] == ["AttnProcessor2_0"] + [
        "AttnProcessor"
    ] * (len(own) - 1)
    composed.set_attn_processor(kinds.AttnProcessor2_0())
    assert {type(one) for model in composed.models for one in model.attn_processors.values()} == {
        kinds.AttnProcessor2_0
    }


@pytest.mark.filterwarnings("ignore::FutureWarning")  # theirs
def test_ip_adapters_are_scaled_and_unloaded_in_every_model(pipe: Any) -> None:
    models = [pipe.unet, unet(seed=5)]
    plainly = with_unet(pipe, copy.deepcopy(models[0]))
    compose(plainly, {"base": None, "whole": copy.deepcopy(models[1])}, weights="uniform", routing="full")
    never = draw(plainly, seeds=(1,))
    for model in models:
        model._load_ip_adapter_weights([ip_adapter(model)])
    compose(pipe, {"base": None, "whole": models[1]}, weights="uniform", routing="full")
    image = {"ip_adapter_image_embeds": [torch.ones(2, 1, 8)], "seeds": (1,)}
    drawn = draw(pipe, **image)
    pipe.set_ip_adapter_scale(0.5)
    assert [scales(model) for model in models] == [{0.5}, {0.5}]
    assert (draw(pipe, **image) - drawn).abs().max() > 1e-4
    pipe.unload_ip_adapter()
    torch.testing.assert_close(draw(pipe, seeds=(1,)), never)


def scales(model: Any) -> set[float]:
    return {one.scale[0] for one in model.attn_processors.values() if hasattr(one, "scale")}


def ip_adapter(model: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    found = {}
    names = [name for name in model.attn_processors if name.endswith("attn2.processor")]
    for number, name in enumerate(names):
        attention = model.get_submodule(name.removesuffix(".processor"))
        for side, layer in (("k", attention.to_k), ("v", attention.to_v)):
            found[f"{2 * number + 1}.to_{side}_ip.weight"] = torch.randn(layer.out_features, 16, generator=generator)
    projection = {"proj.weight": (64, 8), "proj.bias": (64,), "norm.weight": (16,), "norm.bias": (16,)}
    image = {name: torch.randn(shape, generator=generator) for name, shape in projection.items()}
    return {"image_proj": image, "ip_adapter": found}


def test_a_composition_is_not_trained(pipe: Any, loras: dict[str, Path]) -> None:
    with pytest.raises(SettingsError, match="a composition draws, and is not trained"):
        compose(pipe, loras).enable_gradient_checkpointing()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pipe: pickle.loads(pickle.dumps(pipe))], ids=["copy", "sent"])
@pytest.mark.parametrize("weights", ["gaussian", "prototype"])
def test_a_copy_follows_a_scheduler_of_its_own_once_it_is_bound(
    weights: str,
    copied: Callable[[Any], Any],
    pipe: Any,
    routed: dict[str, Path],  # noqa: F811 - the fixture
) -> None:
    compose(pipe, routed, weights=weights)
    expected = draw(pipe)
    other = copied(pipe)
    other.set_progress_bar_config(disable=True)
    with pytest.raises(SettingsError, match=rf"{weights} weights follow.*call its bind\(pipe\)"):
        draw(other)
    other.unet.bind(other)
    torch.testing.assert_close(draw(other), expected)
    assert other.unet.realised is not pipe.unet.realised


@pytest.mark.parametrize("routing", ["ancestral", "posterior"])
def test_draws_of_a_loaded_pipeline_wait_until_it_is_bound(
    routing: str, pipe: Any, loras: dict[str, Path], tmp_path: Path
) -> None:
    compose(pipe, loras, weights="uniform", routing=routing)
    pipe.save_pretrained(tmp_path / "saved")
    other = plain(tmp_path / "saved")
    with pytest.raises(SettingsError, match=rf"routing '{routing}' follows a pipeline's scheduler.*bind"):
        draw(other)
    other.unet.bind(other)
    for seeds in ((1, 2), (3, 4)):
        torch.testing.assert_close(draw(other, seeds=seeds), draw(pipe, seeds=seeds))


def test_a_composition_has_no_variant(pipe: Any, loras: dict[str, Path], tmp_path: Path) -> None:
    composed = compose(pipe, loras)
    with pytest.raises(SettingsError, match=r"has no variant 'fp16'.*leave it out"):
        composed.save_pretrained(tmp_path / "saved", variant="fp16")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"weights": None}, "weights are None, expected one of clip"),
        ({"weights": 0.5}, "weights are 0.5, expected one of clip"),
        ({"weights": {}}, "weights for nobody: expected one share for each of a, b"),
        ({"weights": {"a": True, "b": False}}, "weights of 'a' is True"),
        ({"prior": [0.5, 0.5]}, r"prior is \[0.5, 0.5\], expected a share for each of a, b"),
        ({"routing": None}, "routing is None, expected one of full"),
        ({"routers": "folder"}, "routers are 'folder', expected {name: folder}"),
        ({"members": ["a"]}, "members are a list, expected {name: path, hub id or module}"),
        ({"members": {"a": 5}}, "'a' is a int, expected a path"),
    ],
)
def test_what_is_no_word_of_composing_is_refused_in_a_line(
    asked: dict[str, Any], expected: str, pipe: Any, loras: dict[str, Path]
) -> None:
    base = pipe.unet
    with pytest.raises((SettingsError, InputError), match=expected) as refused:
        compose(pipe, **{"members": loras} | asked)
    assert "\n" not in str(refused.value)
    assert pipe.unet is base


def test_shares_may_be_numbers_of_numpy_or_torch(pipe: Any, loras: dict[str, Path], loaded: Any) -> None:
    first = compose(pipe, loras, weights={"a": np.float32(0.25), "b": torch.tensor(0.75)})
    second = compose(with_unet(loaded, copy.deepcopy(loaded.unet)), loras, weights={"a": 0.25, "b": 0.75})
    assert torch.equal(first.plan.prior, second.plan.prior)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # theirs
def test_masks_belong_to_ip_adapters_and_not_to_rows(pipe: Any) -> None:
    """Two masks as one tensor, and two rows."""
    pipe.unet._load_ip_adapter_weights([ip_adapter(pipe.unet)] * 2)
    masks = torch.ones(2, 1, 16, 16)
    masks[0, ..., :8] = masks[1, ..., 8:] = 0
    shown = {"ip_adapter_image_embeds": [torch.ones(2, 1, 8), 2 * torch.ones(2, 1, 8)], "seeds": (1,)}

    def drawn(masks: torch.Tensor) -> torch.Tensor:
        return draw(pipe, **shown, cross_attention_kwargs={"ip_adapter_masks": masks})

    plain, swapped = drawn(masks), drawn(masks.flip(0))
    compose(pipe, {"once": None, "twice": None}, routing="full")  # in one call of four rows
    torch.testing.assert_close(drawn(masks), plain)
    torch.testing.assert_close(drawn(masks.flip(0)), swapped)
    assert (plain - swapped).abs().max() > 1e-3
