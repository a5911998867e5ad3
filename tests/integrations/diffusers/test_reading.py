"""Members under every name they are kept by, and one clear line for what cannot be a member."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("diffusers")

import diffusers

from intarsia.errors import CorruptError, IncompatibleError, InputError, IntarsiaError, SettingsError, UnknownName

from .conftest import load_peft
from .tiny import compose, draw, unet, with_unet

Tensors = dict[str, torch.Tensor]
ALPHA, RANK = 4.0, 2  # of LoRA "a"


def older(tensors: Tensors) -> Tensors:
    """The names of diffusers before peft."""
    sides = {"lora_A": "lora.down", "lora_B": "lora.up"}
    return {"unet." + key.replace(side, sides[side]): t for key, t in tensors.items() for side in sides if side in key}


def kohya(tensors: Tensors) -> Tensors:
    named = {}
    for key, tensor in tensors.items():
        layer, _, side = key.removesuffix(".weight").rpartition(".")
        flat = "lora_unet_" + layer.replace(".", "_")
        named[f"{flat}.{'lora_down' if side == 'lora_A' else 'lora_up'}.weight"] = tensor
        named[f"{flat}.alpha"] = torch.tensor(ALPHA)
    return named


def doubled(tensors: Tensors) -> Tensors:
    """With the scale, 2, in the weights, for formats that say nothing of it."""
    return {key: tensor * (ALPHA / RANK if "lora_B" in key else 1.0) for key, tensor in tensors.items()}


FORMATS: dict[str, Callable[[Tensors], Tensors]] = {
    "diffusers": lambda tensors: {f"unet.{key}": tensor for key, tensor in doubled(tensors).items()},
    "older diffusers": lambda tensors: older(doubled(tensors)),
    "bare": doubled,
    "kohya": kohya,
}


def test_a_hub_id_is_fetched_without_what_could_run_code(
    pipe: Any, loras: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.utils import filter_repo_objects

    files = ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "checkpoint-9/x.safetensors"]
    fetched: list[str] = []

    def fetch(name: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        assert name == "ada/drawings"
        fetched[:] = filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        return str(loras["a"])

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    compose(pipe, {"a": "ada/drawings"})
    drawn = draw(pipe)
    assert fetched == files[:2]
    pipe.unet = pipe.unet.release()
    compose(pipe, {"a": loras["a"]})
    assert torch.equal(draw(pipe), drawn)


@pytest.mark.parametrize("name", FORMATS)
def test_every_way_of_naming_is_read(name: str, pipe: Any, loras: dict[str, Path], tmp_path: Path) -> None:
    save_file(FORMATS[name](load_peft(loras["a"])), tmp_path / "lora.safetensors")
    composed = compose(pipe, {"file": tmp_path / "lora.safetensors", "folder": tmp_path, "a": loras["a"]})
    reference = composed.members[2]
    for member in composed.members[:2]:
        assert set(member.scales) == set(reference.scales)
        for layer in reference.scales:
            mine, its = member.low_rank(layer), reference.low_rank(layer)
            torch.testing.assert_close(mine.scale * mine.up, its.scale * its.up)
            torch.testing.assert_close(mine.down, its.down)


def test_linear_layers_and_convolutions_of_one_pixel_are_one_map(
    pipe: Any, loras: dict[str, Path], tmp_path: Path
) -> None:
    modules = dict(pipe.unet.named_modules())
    pixels = {n: m for n, m in modules.items() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (1, 1)}
    layer, conv = next(iter(pixels.items()))
    tensors = {key: t for key, t in doubled(load_peft(loras["a"])).items() if t.ndim == 2}
    tensors |= {
        f"{layer}.lora_A.weight": torch.ones(2, conv.in_channels, 1, 1),
        f"{layer}.lora_B.weight": torch.ones(conv.out_channels, 2, 1, 1),
    }
    turned = {key: t.flatten(1) if t.ndim == 4 else t[..., None, None] for key, t in tensors.items()}
    save_file(tensors, tmp_path / "own.safetensors")
    save_file(turned, tmp_path / "turned.safetensors")
    own, turned_member = compose(pipe, {name: tmp_path / f"{name}.safetensors" for name in ("own", "turned")}).members
    assert own.scales.keys() == turned_member.scales.keys() >= {layer}
    for name in own.scales:
        torch.testing.assert_close(vars(turned_member.low_rank(name)), vars(own.low_rank(name)))


def test_kohyas_block_names_of_sdxl_go_through_diffusers_own_conversion(loaded: Any, tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    model = unet(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
    )
    pipe = StableDiffusionXLPipeline(loaded.vae, *[None] * 4, model, loaded.scheduler)
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    flat = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    down, up = torch.ones(2, 8), torch.ones(8, 2)
    named = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(1.0)}
    save_file({f"{flat}.{key}": tensor for key, tensor in named.items()}, tmp_path / "sgm.safetensors")
    member = compose(pipe, {"a": tmp_path / "sgm.safetensors"}).members[0]
    assert member.scales == {layer: 0.5}


def test_alpha_patterns_and_rslora(pipe: Any, loras: dict[str, Path], tmp_path: Path) -> None:
    save_file(load_peft(loras["a"]), tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": True, "alpha_pattern": {"attn1.to_q": 6}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    scales = compose(pipe, {"a": tmp_path}).members[0].scales
    for layer, scale in scales.items():
        assert scale == pytest.approx((6 if layer.endswith("attn1.to_q") else 4) / 2**0.5)


def test_a_text_encoders_part_is_dropped_only_if_asked(pipe: Any, loras: dict[str, Path], tmp_path: Path) -> None:
    both = kohya(load_peft(loras["a"])) | {
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(2, 2)
    }
    save_file(both, tmp_path / "both.safetensors")
    with pytest.raises(IncompatibleError, match=r"text encoder \(1 tensor\).*drop_text_encoder=True"):
        compose(pipe, {"a": tmp_path / "both.safetensors"})
    composed = compose(pipe, {"a": tmp_path / "both.safetensors"}, drop_text_encoder=True)
    assert set(composed.members[0].scales) == {key.rpartition(".lora_")[0] for key in load_peft(loras["a"])}


def broken(folder: Path, tensors: Tensors, saved: Path) -> dict[str, tuple[Any, type[IntarsiaError], str]]:
    """Sources that must be refused: (source, error, words of its line)."""

    def file(name: str, content: Tensors, metadata: dict[str, str] | None = None) -> Path:
        save_file(content, folder / f"{name}.safetensors", metadata=metadata)
        return folder / f"{name}.safetensors"

    def peft(name: str, content: Tensors, **config: Any) -> Path:
        (folder / name).mkdir()
        save_file(content, folder / name / "adapter_model.safetensors")
        (folder / name / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 1} | config))
        return folder / name

    first = next(iter(tensors))
    layer = first.rpartition(".lora_")[0]
    (folder / "some.bin").write_bytes(b"\x80")
    (folder / "cut.safetensors").write_bytes(file("whole", tensors).read_bytes()[:-40])
    (folder / "none").mkdir()
    (folder / "two").mkdir()
    for name in ("x", "y"):
        save_file(tensors, folder / "two" / f"{name}.safetensors")
    unet(seed=1, layers_per_block=2).save_pretrained(folder / "deeper")
    part = unet(seed=1)
    part.save_pretrained(folder / "part")
    weights = {name: tensor for name, tensor in part.state_dict().items() if name != "conv_out.weight"}
    save_file(weights, folder / "part" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    (folder / "v" / "scheduler").mkdir(parents=True)
    for name in ("model_index.json", "scheduler/scheduler_config.json"):
        content = json.loads((saved / name).read_text())
        (folder / "v" / name).write_text(json.dumps(content | {"prediction_type": "v_prediction"}))
    (folder / "flow" / "scheduler").mkdir(parents=True)
    (folder / "flow" / "model_index.json").write_text("{}")
    flow = json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000})
    (folder / "flow" / "scheduler" / "scheduler_config.json").write_text(flow)
    (folder / "other").mkdir()
    (folder / "other" / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    wide = {key: torch.cat([t, t], dim=1) if "lora_A" in key else t for key, t in tensors.items()}
    odd = tensors | {f"{layer}.lora_A.weight": torch.ones(3, tensors[f"{layer}.lora_A.weight"].shape[1])}
    return {
        "no such path": (folder / "nowhere", InputError, "no file or folder .*nowhere"),
        "no path": ("", InputError, "no file or folder ''"),
        "unknown hub id, offline": (
            "nobody/nothing",
            InputError,
            "no folder nobody/nothing here, and the hub",
        ),
        "pickled": (folder / "some.bin", InputError, "can run code when it is read; only safetensors"),
        "empty folder": (folder / "none", InputError, "expected one safetensors file .* found none"),
        "two files": (
            folder / "two",
            InputError,
            "expected one .* found x.safetensors, y.safetensors",
        ),
        "cut short": (folder / "cut.safetensors", CorruptError, "not a whole safetensors file"),
        "DoRA": (
            file("dora", tensors | {f"{layer}.lora_magnitude_vector": torch.ones(2)}),
            IncompatibleError,
            "is a DoRA",
        ),
        "LoKr": (file("lokr", {"lora_unet_x.lokr_w1": torch.ones(2)}), IncompatibleError, "is a LoKr"),
        "IA3": (peft("ia3", tensors, peft_type="IA3"), IncompatibleError, "peft's IA3, expected LORA"),
        "alpha in words": (peft("a", tensors, lora_alpha="x"), InputError, "alpha of layer .*could not convert"),
        "infinite alpha": (peft("i", tensors, lora_alpha=1e999), InputError, "alpha of layer .* .found inf"),
        "alpha by a broken pattern": (peft("p", tensors, alpha_pattern={"(": 1}), InputError, "unterminated"),
        "a header that is no object": (
            file("list", tensors, {"lora_adapter_metadata": "[1]"}),
            CorruptError,
            "lora_adapter_metadata is no JSON object",
        ),
        "no rank": (file("r0", tensors | {first: tensors[first][:0]}), InputError, r"a half of shape \(0, "),
        "no numbers": (file("nan", tensors | {first: tensors[first] / 0}), InputError, "holds what are no numbers"),
        "biases": (peft("bias", tensors, bias="all"), IncompatibleError, "replaces modules or biases"),
        "no LoRA": (file("other", {"weight": torch.ones(2)}), InputError, "weight belongs to no LoRA"),
        "half": (file("half", {first: tensors[first]}), InputError, "has only its (up|down) half"),
        "another width": (file("wide", wide), IncompatibleError, "not made for this UNet2DConditionModel: .* more"),
        "ranks that differ": (file("odd", odd), IncompatibleError, "has rank 3 going down and 2 coming up"),
        "another model": (
            file("deep", {key.replace("down_blocks", "blocks"): t for key, t in tensors.items()}),
            IncompatibleError,
            "layer blocks.* which is not there",
        ),
        "kohya of another model": (
            file("far", {"lora_unet_elsewhere.lora_down.weight": torch.ones(2, 2)}),
            IncompatibleError,
            "kohya's names, which fit no layers",
        ),
        "another prediction": (
            file("vpred", tensors, {"modelspec.prediction_type": "v"}),
            IncompatibleError,
            "made for models that predict v, this pipeline's scheduler says epsilon",
        ),
        "a pipeline of another prediction": (folder / "v", IncompatibleError, "predict v_prediction"),
        "a pipeline of another process": (folder / "flow", IncompatibleError, "for flow matching, .* diffusion"),
        "another kind of pipeline": (folder / "other", IncompatibleError, "holds a FluxPipeline without a unet"),
        "a whole model in part": (folder / "part", CorruptError, "lacks conv_out.weight; restore it"),
        "a deeper whole model": (folder / "deeper", IncompatibleError, "has layers_per_block 2, .* unet 1"),
        "a module of another class": (torch.nn.Linear(1, 1), IncompatibleError, "is a Linear, .* UNet2DConditionModel"),
    }


def test_what_cannot_be_a_member_is_refused_in_one_line(
    pipe: Any, loras: dict[str, Path], saved: Path, tmp_path: Path
) -> None:
    model = pipe.unet
    for what, (source, error, words) in broken(tmp_path, load_peft(loras["a"]), saved).items():
        with pytest.raises(error, match=f"(?s)'?bad'?.*{words}|{words}") as caught:
            compose(pipe, {"good": loras["a"], "bad": source})
        assert "\n" not in str(caught.value), what
        assert pipe.unet is model, what
        assert not any(module._forward_hooks for module in model.modules()), what


def test_a_composition_is_no_member(loaded: Any, loras: dict[str, Path], tmp_path: Path) -> None:
    composing, pipe = (with_unet(loaded, copy.deepcopy(loaded.unet)) for _ in range(2))
    composed = compose(composing, loras)
    composing.save_pretrained(tmp_path / "pipeline")
    composed.save_pretrained(tmp_path / "bare", with_base=False)
    for place in ("pipeline", "bare"):
        with pytest.raises(InputError, match=f"'a': .*{place}.* is a composition itself; name its members"):
            compose(pipe, {"a": tmp_path / place})


@pytest.mark.parametrize(
    ("ours", "left_out"),
    [
        ({"prediction_type": "v_prediction"}, "prediction_type"),
        ({"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, "rescale_betas_zero_snr"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_an_older_scheduler_leaves_to_its_class_counts(
    ours: dict[str, Any], left_out: str, pipe: Any, loras: dict[str, Path], saved: Path, tmp_path: Path
) -> None:
    """As the configurations of Stable Diffusion 1 do, which were written before there was anything to choose."""
    folder = Path(shutil.copytree(saved, tmp_path / "older"))
    path = folder / "scheduler" / "scheduler_config.json"
    compose(pipe, {"a": loras["a"], "older": folder})
    pipe.unet = pipe.unet.release()
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, **ours)
    config = json.loads(path.read_text())
    config.pop(left_out)
    path.write_text(json.dumps(config))
    with pytest.raises(IncompatibleError, match=r"epsilon, .* v_prediction|rescale_betas_zero_snr False, .* True"):
        compose(pipe, {"a": loras["a"], "older": folder})


def test_trainers_say_epsilon_of_whatever_is_no_v_prediction(pipe: Any, loras: dict[str, Path], tmp_path: Path) -> None:
    """Where models predict a flow, "epsilon" says nothing, however the scheduler says that they do."""
    tensors = load_peft(loras["a"])
    files = {name: tmp_path / f"{name}.safetensors" for name in ("epsilon", "v", "rectified_flow")}
    for name, file in files.items():
        save_file(tensors, file, {"modelspec.prediction_type": name})
    usual = pipe.scheduler.config
    for flow in (
        diffusers.FlowMatchEulerDiscreteScheduler(),
        diffusers.UniPCMultistepScheduler.from_config(usual, use_flow_sigmas=True, prediction_type="flow_prediction"),
    ):
        pipe.scheduler = flow
        compose(pipe, {"a": files["epsilon"], "b": files["rectified_flow"]}, weights="uniform")
        pipe.unet = pipe.unet.release()
        with pytest.raises(IncompatibleError, match="models that predict v, this pipeline's scheduler says flow match"):
            compose(pipe, {"a": files["v"]}, weights="uniform")


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"weights": "gausian"}, UnknownName, "unknown kind of weights 'gausian'"),
        ({"weights": {"a": 0.5, "b": 0.7}}, SettingsError, "weights sum to 1.2, expected 1"),
        ({"weights": {"a": 1.0}}, SettingsError, "weights for a: expected one share for each of a, b"),
        ({"weights": {"a": -0.5, "b": 1.5}}, SettingsError, "weights of 'a' is -0.5"),
        ({"weights": {"a": 0.5, "b": 0.5}, "prior": {"a": 0.5, "b": 0.5}}, SettingsError, "prior says nothing"),
        ({"prior": {"a": 1.0, "b": 0.0}}, SettingsError, "prior of 'b' is 0.0"),
        ({"routing": "fastest"}, UnknownName, "unknown routing"),
        ({"weights": "ito"}, SettingsError, "routing 'threshold' leaves some out; use routing='full'"),
        ({"most_rows": -1}, SettingsError, "most_rows is -1"),
    ],
)
def test_settings_that_make_no_sense(
    settings: dict[str, Any], error: type[Exception], words: str, pipe: Any, loras: dict[str, Path]
) -> None:
    with pytest.raises(error, match=words):
        compose(pipe, loras, **settings)


def test_pipelines_that_cannot_be_composed(pipe: Any, loras: dict[str, Path], with_lora: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="at least one member"):
        compose(pipe, {})
    with pytest.raises(SettingsError, match="a member is named ''"):
        compose(pipe, {"": loras["a"]})
    with pytest.raises(SettingsError, match="expected a diffusers pipeline, found a UNet2DConditionModel"):
        compose(pipe.unet, loras)
    with pytest.raises(SettingsError, match="has LoRA loaded into it"):
        compose(with_unet(pipe, with_lora["a"]), loras)
    other = with_unet(pipe, pipe.unet)
    other.unet = torch.nn.Linear(1, 1)
    with pytest.raises(UnknownName, match="class of models to compose 'Linear'"):
        compose(other, loras)
    compose(pipe, loras)
    with pytest.raises(SettingsError, match="a composition already"):
        compose(pipe, loras)


def test_no_adapter_is_the_pipelines_own_model(pipe: Any) -> None:
    expected = draw(pipe)
    compose(pipe, {"base": None, "again": copy.deepcopy(pipe.unet)}, weights={"base": 0.5, "again": 0.5})
    torch.testing.assert_close(draw(pipe), expected)
