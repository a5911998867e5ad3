"""What stands beside a member's file, and what a member was made for: read where it is meant, else refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("diffusers")

import diffusers

from intarsia.errors import IncompatibleError, InputError
from intarsia.integrations.diffusers.layers import check_method
from intarsia.integrations.diffusers.reading import Reader

from .conftest import load_peft
from .test_kinds import sd3
from .test_reading import ALPHA, RANK, kohya
from .tiny import compose, unet

SOMEBODY_ELSES = {"peft_type": "LORA", "r": RANK, "lora_alpha": 60}


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "PiSSA"])
def test_adapters_on_a_residual_base_are_refused(start: str) -> None:
    with pytest.raises(
        IncompatibleError, match=f"started by {start.lower()}, .*path_initial_model_for_weight_conversion"
    ):
        check_method("a", {"x": torch.ones(1)}, {"init_lora_weights": start})


@pytest.mark.parametrize("start", [True, False, "gaussian", "eva", "orthogonal"])
def test_adapters_beside_the_whole_base_are_not(start: bool | str) -> None:
    check_method("a", {"x": torch.ones(1)}, {"init_lora_weights": start})


def test_a_configuration_says_nothing_to_files_that_are_not_pefts(
    pipe: Any, loras: dict[str, Path], tmp_path: Path
) -> None:
    tensors = load_peft(loras["a"])
    (tmp_path / "adapter_config.json").write_text(json.dumps(SOMEBODY_ELSES))
    header = {"lora_adapter_metadata": json.dumps({"unet.r": RANK, "unet.lora_alpha": 6.0})}
    prefixed = {f"base_model.model.{key}": tensor for key, tensor in tensors.items()}
    files: dict[str, tuple[dict[str, torch.Tensor], dict[str, str] | None, float]] = {
        "kohya": (kohya(tensors), None, ALPHA / RANK),
        "kohya without alpha": ({k: t for k, t in kohya(tensors).items() if not k.endswith("alpha")}, None, 1.0),
        "diffusers": ({f"unet.{key}": tensor for key, tensor in tensors.items()}, None, 1.0),
        "header": (prefixed, header, 6.0 / RANK),
        "peft": (prefixed, None, 60 / RANK),
        "adapter_model": (tensors, None, 60 / RANK),
    }
    for name, (content, metadata, _) in files.items():
        save_file(content, tmp_path / f"{name}.safetensors", metadata=metadata)
    composed = compose(pipe, {name: tmp_path / f"{name}.safetensors" for name in files})
    found = {member.name: set(member.scales.values()) for member in composed.members}
    assert found == {name: {scale} for name, (_, _, scale) in files.items()}


@pytest.mark.parametrize("change", [{"dtype": torch.bfloat16}, {"device": "meta"}])
def test_a_module_of_another_precision_or_place_is_refused(change: dict[str, Any], pipe: Any) -> None:
    other = copy.deepcopy(pipe.unet).to(**change)
    with pytest.raises(
        IncompatibleError, match=r"'a' is in \w+ on \w+, this pipeline's unet in float32 on cpu; call \.to"
    ):
        compose(pipe, {"a": other})


def test_half_precision_variants_are_read_where_nothing_else_is(pipe: Any, tmp_path: Path) -> None:
    other = unet(seed=5)
    other.half().save_pretrained(tmp_path / "half", variant="fp16")
    other.save_pretrained(tmp_path / "sharded", variant="fp16", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.fp16-*.safetensors"))) > 1
    composed = compose(pipe, {name: tmp_path / name for name in ("half", "sharded")})
    for member in composed.members:
        torch.testing.assert_close(member.model.state_dict(), other.float().state_dict())
    (tmp_path / "half" / "diffusion_pytorch_model.fp16.safetensors").rename(tmp_path / "half" / "other.bin")
    pipe.unet = composed.release()
    with pytest.raises(
        InputError, match=r"there is no .*model\.safetensors, nor its fp16 variant, found other\.bin; save"
    ):
        compose(pipe, {"half": tmp_path / "half"})


def test_pipelines_of_flow_matching_know_each_other_where_the_scheduler_was_made_by_hand(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pipe, _ = sd3()
    pipe.transformer.save_pretrained(tmp_path / "transformer")
    pipe.scheduler.save_pretrained(tmp_path / "scheduler")
    (tmp_path / "model_index.json").write_text("{}")
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()  # whose settings do not name its class
    assert Reader(pipe, pipe.transformer, "transformer").read("a", tmp_path).name == "a"
    pipe.scheduler = diffusers.DDIMScheduler()
    with pytest.raises(IncompatibleError, match="trained for flow matching"):
        Reader(pipe, pipe.transformer, "transformer").read("a", tmp_path)
