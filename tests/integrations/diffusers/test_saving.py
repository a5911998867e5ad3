"""A composition saved and loaded draws the same pictures: alone, or inside its pipeline."""

from __future__ import annotations

import copy
import json
import re
import shutil
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

import diffusers
import peft

from intarsia.composition import Full
from intarsia.errors import CorruptError, IncompatibleError, SettingsError
from intarsia.integrations.diffusers import ComposedModel, layers, load_composition

from .tiny import compose, draw, unet, with_unet

SHARES = {"a": 0.2, "b": 0.3, "base": 0.5, "whole": 0.0}


def everything(loras: dict[str, Path]) -> dict[str, Any]:
    return {**loras, "base": None, "whole": unet(seed=5)}


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"weights": SHARES, "most_rows": 8}, marks=pytest.mark.integration),
        {"weights": "prior", "prior": {"a": 0.1, "b": 0.2, "base": 0.3, "whole": 0.4}, "routing": "top_k:3"},
        pytest.param({"weights": "uniform", "routing": "ancestral"}, marks=pytest.mark.integration),
    ],
    ids=["shares", "prior", "uniform"],
)
def test_a_saved_composition_is_put_into_another_pipeline(
    asked: dict[str, Any], pipe: Any, loaded: Any, loras: dict[str, Path], tmp_path: Path
) -> None:
    composed = compose(pipe, everything(loras), **asked)
    expected = draw(pipe)
    composed.save_pretrained(tmp_path / "saved", with_base=False)
    assert not (tmp_path / "saved" / "base").exists()
    other = with_unet(loaded, copy.deepcopy(loaded.unet))
    again = load_composition(other, tmp_path / "saved")
    torch.testing.assert_close(draw(other), expected)
    assert (again.plan.routing, again.composition.most_rows) == (composed.plan.routing, composed.composition.most_rows)
    torch.testing.assert_close(again.plan.prior, composed.plan.prior)


def test_a_pipeline_is_saved_and_loaded_with_its_composition(pipe: Any, loras: dict[str, Path], tmp_path: Path) -> None:
    compose(pipe, everything(loras), weights=SHARES)
    expected = draw(pipe)
    pipe.save_pretrained(tmp_path)
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert isinstance(again.unet, ComposedModel)
    torch.testing.assert_close(draw(again), expected)


def test_what_looks_at_the_scheduler_must_be_bound_again(pipe: Any, loras: dict[str, Path], tmp_path: Path) -> None:
    compose(pipe, loras, weights="ito", routing="full").save_pretrained(tmp_path)
    pipe.unet = ComposedModel.from_pretrained(tmp_path)
    with pytest.raises(SettingsError, match=r"call its bind\(pipe\)"):
        draw(pipe)
    pipe.unet.bind(pipe)
    with pytest.raises(SettingsError, match="which guidance bends"):
        draw(pipe)


def test_a_composition_belongs_to_its_model_and_to_its_kind_of_prediction(
    pipe: Any, loaded: Any, loras: dict[str, Path], tmp_path: Path
) -> None:
    compose(pipe, loras).save_pretrained(tmp_path, with_base=False)
    kind, config = type(loaded.scheduler), loaded.scheduler.config
    for changed, says in [
        ({"prediction_type": "v_prediction"}, "predict epsilon, this pipeline's scheduler says v_prediction"),
        ({"beta_end": 0.01}, "was trained with beta_end 0.012"),
        ({"trained_betas": np.linspace(1e-4, 0.02, 1000)}, r"with trained_betas None, .* scheduler has \(a table\);"),
    ]:
        other = with_unet(loaded, copy.deepcopy(loaded.unet))
        other.scheduler = kind.from_config(config, **changed)
        with pytest.raises(IncompatibleError, match=says):
            load_composition(other, tmp_path)
    other.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(config)
    load_composition(other, tmp_path)
    other = with_unet(loaded, unet(seed=9))
    with pytest.raises(IncompatibleError, match=r"of another digest \(.*… here\); load it on the model"):
        load_composition(other, tmp_path)
    other.unet.to(torch.bfloat16)  # rounded, so that its numbers say nothing
    load_composition(other, tmp_path)


def test_a_table_of_betas_is_a_process_of_its_own(
    pipe: Any, loaded: Any, loras: dict[str, Path], tmp_path: Path
) -> None:
    def table(last: float) -> Any:
        return diffusers.DDIMScheduler.from_config(loaded.scheduler.config, trained_betas=np.linspace(1e-4, last, 1000))

    pipe.scheduler = table(0.02)
    compose(pipe, loras).save_pretrained(tmp_path, with_base=False)
    other = with_unet(loaded, copy.deepcopy(loaded.unet))
    with pytest.raises(IncompatibleError, match=r"with trained_betas \(a table\), .* scheduler has None"):
        load_composition(other, tmp_path)
    other.scheduler = table(0.03)
    with pytest.raises(IncompatibleError, match=r"with trained_betas \(a table\), .* scheduler has \(a table\)"):
        load_composition(other, tmp_path)
    other.scheduler = table(0.02)
    load_composition(other, tmp_path)


def test_what_is_offloaded_is_not_compared(pipe: Any, loaded: Any, loras: dict[str, Path], tmp_path: Path) -> None:
    """On disk its numbers are elsewhere."""
    composed = compose(pipe, loras)
    composed.enable_group_offload(
        torch.device("cpu"), offload_type="leaf_level", offload_to_disk_path=str(tmp_path / "disk")
    )
    composed.save_pretrained(tmp_path / "saved", with_base=False)
    assert json.loads((tmp_path / "saved" / "composition.json").read_text())["base"]["digest"] is None
    load_composition(with_unet(loaded, copy.deepcopy(loaded.unet)), tmp_path / "saved")


@pytest.mark.integration
def test_plain_peft_reads_a_saved_member(pipe: Any, loras: dict[str, Path], tmp_path: Path) -> None:
    model = copy.deepcopy(pipe.unet)
    composed = compose(pipe, {"a": loras["a"]})
    composed.save_pretrained(tmp_path, with_base=False)
    theirs = peft.PeftModel.from_pretrained(model, tmp_path / "members" / "00")
    arguments = torch.ones(1, 4, 8, 8), 5, torch.ones(1, 12, 16)
    torch.testing.assert_close(theirs(*arguments)[0], composed(*arguments)[0])


def test_what_cannot_be_loaded_or_saved(pipe: Any, loaded: Any, loras: dict[str, Path], tmp_path: Path) -> None:
    composed = compose(pipe, loras)
    composed.save_pretrained(tmp_path / "good", with_base=False)
    with pytest.raises(SettingsError, match="holds a composition already"):
        composed.save_pretrained(tmp_path / "good")
    assert not (tmp_path / "good" / "base").exists()
    with pytest.raises(CorruptError, match="saved without its base model"):
        ComposedModel.from_pretrained(tmp_path / "good")
    with pytest.raises(CorruptError, match="missing"):
        load_composition(with_unet(loaded, loaded.unet), tmp_path)
    with pytest.raises(SettingsError, match="a composition already"):
        load_composition(pipe, tmp_path / "good")
    with pytest.raises(IncompatibleError, match="of another configuration"):
        load_composition(with_unet(loaded, unet(layers_per_block=2)), tmp_path / "good")

    record = json.loads((tmp_path / "good" / "composition.json").read_text())
    for name, change, error, words in [
        ("newer", {"format": 9}, SettingsError, "newer than 1"),
        ("baseless", {"base": None}, CorruptError, "does not say what it was composed on"),
        ("memberless", {"members": [{"kind": "lora"}]}, CorruptError, "not a composition's record"),
        ("rowless", {"most_rows": "x"}, CorruptError, r"not a composition's record \(most_rows 'x'\)"),
        ("negative", {"most_rows": -3}, CorruptError, r"\(most_rows -3\)"),
        ("shareless", {"shares": None}, CorruptError, r"\(shares None\)"),
        ("scheduled", {"scheduler": None}, CorruptError, r"\(scheduler None\)"),
        (
            "kind",
            {"members": [entry | {"kind": "whatever"} for entry in record["members"]]},
            CorruptError,
            r"\(a member of the kind 'whatever'\)",
        ),
    ]:
        shutil.copytree(tmp_path / "good", tmp_path / name)
        (tmp_path / name / "composition.json").write_text(json.dumps(record | change))
        with pytest.raises(error, match=words):
            load_composition(with_unet(loaded, loaded.unet), tmp_path / name)
    adapter = tmp_path / "good" / "members" / "01" / "adapter_model.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:-1] + b"\xff")
    with pytest.raises(CorruptError, match=r"adapter_model\.safetensors: missing, or not what"):
        load_composition(with_unet(loaded, loaded.unet), tmp_path / "good")

    class Own(Full):
        name = "own"

    composed = compose(with_unet(loaded, composed.release()), loras, routing=Own())
    with pytest.raises(SettingsError, match="routing own is not one of"):
        composed.save_pretrained(tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_an_interrupted_save_leaves_nothing_that_is_read_for_a_part_of_the_next(
    pipe: Any, loaded: Any, loras: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = unet(seed=5)
    composed = compose(pipe, {"whole": whole, "b": loras["b"]})

    def stop(self: Any, place: Path) -> None:
        (place / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(type(whole), "save_pretrained", stop)
        with pytest.raises(KeyboardInterrupt):
            composed.save_pretrained(tmp_path, with_base=False)
    pipe.unet = composed.release()
    composed = compose(pipe, loras)
    expected = draw(pipe)
    composed.save_pretrained(tmp_path, with_base=False)
    other = with_unet(loaded, copy.deepcopy(loaded.unet))
    load_composition(other, tmp_path)
    torch.testing.assert_close(draw(other), expected)
    (tmp_path / "composition.json").unlink()  # as where that was as far as a save came
    with pytest.raises(SettingsError, match=r"members is there already, without a composition's record .* remove it"):
        composed.save_pretrained(tmp_path)
    assert not (tmp_path / "base").exists()


def test_a_saved_members_scales_are_looked_up_and_not_searched_for(
    pipe: Any, loras: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pattern per layer, each tried on each layer, would make loading quadratic."""
    composed = compose(pipe, loras)
    expected = [member.scales for member in composed.members]
    composed.save_pretrained(tmp_path, with_base=False)
    pipe.unet = composed.release()
    # Without compile and match; layers.py's own patterns are compiled already.
    monkeypatch.setattr(layers, "re", types.SimpleNamespace(escape=re.escape, error=re.error))
    assert [member.scales for member in load_composition(pipe, tmp_path).members] == expected
