from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from intarsia.backbone import UViT, UViTConfig, as_backbone, drop_label, infer_config, load_official, read_official
from intarsia.backbone.official import PROCESSES, WIDTHS
from intarsia.diffusion import keyed_normal
from intarsia.digests import digest_of
from intarsia.errors import CorruptError, IncompatibleError, InputError, SettingsError, UnknownName
from intarsia.files import save_tensors

TIMES = torch.tensor([0.0, 371.0, 999.0])
BASE = UViTConfig(image_size=8, patch_size=2, channels=3, dim=24, depth=5, heads=3)
VARIANTS = {
    "unconditional": ({}, {}),
    "labels": ({"classes": 11}, {"num_classes": 11}),
    "text": ({"text": (77, 20)}, {"context_tokens": 77, "context_dim": 20}),
    "time mlp": ({"time_mlp": True}, {"mlp_time_embed": True}),
    "no conv": ({"conv": False, "classes": 11}, {"final_conv": False, "num_classes": 11}),
    "qkv bias": ({"bias": True}, {"qkv_bias": True}),
    "latents": ({"channels": 4, "size": 16, "patch": 4}, {"channels": 4, "image_size": 16, "patch_size": 4}),
    "odd mlp": ({"hidden": 49}, {"mlp_ratio": 49 / 24}),
    "deep": ({"half": 11}, {"depth": 23}),
    "all": (
        {"text": (77, 20), "time_mlp": True, "conv": False, "bias": True},
        {"context_tokens": 77, "context_dim": 20, "mlp_time_embed": True, "final_conv": False, "qkv_bias": True},
    ),
}


def context_of(config: UViTConfig) -> Tensor | None:
    if config.num_classes:
        return torch.tensor([0, 3, config.num_classes - 1])
    return keyed_normal((3, config.context_tokens, config.context_dim), "text") if config.context_tokens else None


@pytest.mark.parametrize("variant", VARIANTS)
def test_infers_the_config_and_gives_the_reference_output(variant: str, reference: SimpleNamespace) -> None:
    made, expected = VARIANTS[variant]
    state = reference.state(**made)
    network = load_official(state, heads=3)
    config = network.config
    assert config == UViTConfig(**(BASE.settings() | expected))
    assert not network.training
    x, context = keyed_normal((3, config.channels, config.image_size, config.image_size), "x"), context_of(config)
    torch.testing.assert_close(
        network(x, TIMES, context), reference.run(state, x, TIMES, context, heads=3), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("dim", WIDTHS)
def test_official_widths_need_no_heads(dim: int) -> None:
    shapes = {
        "patch_embed.proj.weight": (dim, 3, 2, 2),
        "mid_block.mlp.fc1.weight": (8, dim),
        "pos_embed": (1, 17, dim),
    }
    state = {name: torch.empty(shape) for name, shape in shapes.items()}
    assert infer_config(state).heads == {512: 8, 768: 12, 1024: 16, 1152: 16}[dim]
    assert infer_config(state, heads=4).heads == 4


@pytest.mark.parametrize("hidden", range(9, 60))
def test_any_width_of_the_feed_forward_is_inferred(hidden: int, reference: SimpleNamespace) -> None:
    # 15 / 11 * 11 is just under 15 in floating point.
    state = reference.state(dim=11, hidden=hidden, half=0)
    assert load_official(state, heads=1).mid_block.mlp.fc1.out_features == hidden


def test_another_number_of_text_tokens(reference: SimpleNamespace) -> None:
    state = reference.state(text=(5, 20))
    with pytest.raises(SettingsError, match=r"expected a square.*context_tokens"):
        load_official(state, heads=3)
    assert load_official(state, heads=3, context_tokens=5).config.image_size == 8


def test_unknown_width_needs_heads(reference: SimpleNamespace) -> None:
    with pytest.raises(SettingsError, match=r"width 24 is not an official one \(512, 768, 1024, 1152\); pass heads="):
        load_official(reference.state())


def test_heads_must_divide_the_width(reference: SimpleNamespace) -> None:
    with pytest.raises(SettingsError, match="dim 24 is not a multiple of heads 5"):
        load_official(reference.state(), heads=5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype, reference: SimpleNamespace) -> None:
    state = {name: tensor.to(dtype) for name, tensor in reference.state().items()}
    network = load_official(state, heads=3)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert torch.equal(network.norm.weight, state["norm.weight"].float())


def test_the_network_owns_its_tensors(reference: SimpleNamespace) -> None:
    state = reference.state()
    network = load_official(state, heads=3)
    before = network.pos_embed.clone()
    state["pos_embed"].zero_()
    assert torch.equal(network.pos_embed, before)


def test_loading_draws_no_random_numbers(reference: SimpleNamespace) -> None:
    before = torch.get_rng_state()
    drop_label(load_official(reference.state(classes=3), heads=3))
    assert torch.equal(torch.get_rng_state(), before)


def test_ordered_state_dicts_and_parameters_load(reference: SimpleNamespace) -> None:
    network = load_official(reference.state(), heads=3).requires_grad_(True)
    again = load_official(OrderedDict(network.named_parameters()), heads=3)
    assert not any(p.requires_grad for p in again.parameters())


@pytest.mark.parametrize(
    ("remove", "add", "complaint"),
    [
        ("norm.bias", {}, r"missing: norm\.bias;"),
        ("out_blocks.1.skip_linear.weight", {}, r"missing: out_blocks\.1\.skip_linear\.weight;"),
        ("final_layer.bias", {}, r"missing: final_layer\.bias;"),
        ("", {"head.weight": (3,)}, r"unexpected: head\.weight;"),
        ("", {"time_embed.0.bias": (96,)}, r"unexpected: time_embed\.0\.bias;"),
        ("norm.bias", {"norm.offset": (24,)}, r"missing: norm\.bias; unexpected: norm\.offset;"),
        ("norm.bias", {"norm.bias": (25,)}, r"of another shape: norm\.bias \(25,\), not \(24,\);"),
        ("patch_embed.proj.weight", {}, r"no tensor 'patch_embed\.proj\.weight' among"),
        ("pos_embed", {"pos_embed": (17, 24)}, r"'pos_embed' has shape \(17, 24\), expected 3 dimensions"),
    ],
)
def test_foreign_tensors_are_listed(remove: str, add: dict, complaint: str, reference: SimpleNamespace) -> None:
    state = reference.state()
    state.pop(remove, None)
    state |= {name: torch.zeros(shape) for name, shape in add.items()}
    with pytest.raises(IncompatibleError, match=complaint) as caught:
        load_official(state, heads=3)
    assert "\n" not in str(caught.value)


def test_a_long_list_is_cut(reference: SimpleNamespace) -> None:
    state = {name: tensor for name, tensor in reference.state().items() if not name.startswith("out_blocks")}
    with pytest.raises(IncompatibleError, match=r"missing: out_blocks\.0\.attn.* and 18 more"):
        load_official(state, heads=3)


@pytest.mark.parametrize(
    ("state", "complaint"),
    [
        ({}, "among 0"),
        ({"model": {"pos_embed": torch.zeros(1)}}, "'model' holds a dictionary.*pass the state dict inside"),
        ({"step": 3}, "'step' is of type int"),
        ({"step": torch.tensor(3)}, r"'step' is of type torch\.int64"),
    ],
)
def test_what_is_no_state_dict_is_refused(state: dict, complaint: str) -> None:
    with pytest.raises(IncompatibleError, match=complaint):
        load_official(state)


# The paper (arXiv 2308.01937, figure 3): the pre-trained class tokens are discarded.
def test_dropping_the_label_gives_the_network_without_it(reference: SimpleNamespace) -> None:
    state = reference.state(classes=5, time_mlp=True)
    bare = {name: tensor for name, tensor in state.items() if name != "label_emb.weight"}
    bare["pos_embed"] = state["pos_embed"][:, 1:]
    labelled = load_official(state, heads=3)
    network = drop_label(labelled)
    assert network.config == UViTConfig(**(labelled.config.settings() | {"num_classes": 0}))
    x = keyed_normal((3, 3, 8, 8), "x")
    expected = reference.run(bare, x, TIMES, heads=3)
    torch.testing.assert_close(network(x, TIMES), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(network(x, TIMES), load_official(bare, heads=3)(x, TIMES))


def test_dropping_the_label_leaves_the_original_alone(reference: SimpleNamespace) -> None:
    labelled = load_official(reference.state(classes=5), heads=3)
    network = drop_label(labelled)
    network.norm.weight.zero_()
    network.pos_embed.zero_()
    assert torch.equal(labelled.norm.weight, reference.state(classes=5)["norm.weight"])
    assert torch.equal(labelled.pos_embed, reference.state(classes=5)["pos_embed"])


def test_only_a_label_can_be_dropped(reference: SimpleNamespace) -> None:
    with pytest.raises(SettingsError, match="no label token"):
        drop_label(load_official(reference.state(text=(77, 4)), heads=3))


# log alpha_bar(t) = -(0.1 t + 19.9 t^2 / 2)
def test_continuous_process_is_the_vp_sde() -> None:
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)[1:]
    expected = -(0.1 * t + 19.9 * t**2 / 2)
    process = PROCESSES["continuous"]
    torch.testing.assert_close(2 * process.schedule.alpha(t).log(), expected, rtol=1e-4, atol=0)
    assert process.time_scale == 999


def test_discrete_process_is_stable_diffusions() -> None:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    process = PROCESSES["discrete"]
    t = torch.arange(1, 1001, dtype=torch.float64) / process.time_scale
    torch.testing.assert_close(process.schedule.alpha(t) ** 2, (1 - betas).cumprod(0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("classes", [0, 5])
def test_backbone_of_an_official_network(classes: int, reference: SimpleNamespace) -> None:
    network = load_official(reference.state(classes=classes), heads=3)
    backbone = as_backbone(network, process="continuous", record={"checkpoint": "toy"})
    assert backbone.labels == ()
    assert backbone.network.config.num_classes == 0
    assert backbone.record == {"checkpoint": "toy"}
    plain = drop_label(network) if classes else network
    x_t, t = keyed_normal((2, 3, 8, 8), "x"), torch.tensor([0.25, 0.5])
    alpha_bar = (-(0.1 * t + 19.9 * t**2 / 2)).exp()[:, None, None, None]
    expected = (x_t - (1 - alpha_bar).sqrt() * plain(x_t, 999 * t)) / alpha_bar.sqrt()
    torch.testing.assert_close(backbone.x0_hat(x_t, t), expected, rtol=2e-3, atol=2e-4)
    before = network.norm.weight.clone()
    backbone.network.norm.weight.zero_()
    assert torch.equal(network.norm.weight, before)


@pytest.mark.parametrize(("dim", "process"), [(1024, "continuous"), (1152, "discrete")])
def test_backbone_takes_the_process_of_its_width(dim: int, process: str, reference: SimpleNamespace) -> None:
    backbone = as_backbone(load_official(reference.state(dim=dim, hidden=8, half=0)))
    assert backbone.prediction == "eps"
    assert (backbone.schedule, backbone.time_scale) == (PROCESSES[process].schedule, PROCESSES[process].time_scale)


def test_backbone_of_another_width_needs_a_process(reference: SimpleNamespace) -> None:
    network = load_official(reference.state(), heads=3)
    with pytest.raises(SettingsError, match=r"process cannot be seen in the shapes.*pass process="):
        as_backbone(network)
    with pytest.raises(UnknownName, match="did you mean 'discrete'"):
        as_backbone(network, process="discreet")


def test_no_backbone_of_a_text_network(reference: SimpleNamespace) -> None:
    with pytest.raises(IncompatibleError, match=r"takes text states \(77, 20\)"):
        as_backbone(load_official(reference.state(text=(77, 20)), heads=3), process="discrete")


def test_reads_safetensors(tmp_path: Path, reference: SimpleNamespace) -> None:
    path, state = tmp_path / "nnet.safetensors", reference.state()
    digest = save_tensors(path, state)
    for found in (read_official(path), read_official(path, digest=digest)):
        torch.testing.assert_close(found, state, rtol=0, atol=0)
    with pytest.raises(CorruptError, match="sha256"):
        read_official(path, digest="0" * 64)


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_a_pickle_only_with_its_digest(zipped: bool, tmp_path: Path, reference: SimpleNamespace) -> None:
    path, state = tmp_path / "nnet_ema.pth", reference.state()
    torch.save(OrderedDict(state), path, _use_new_zipfile_serialization=zipped)
    digest = digest_of(path.read_bytes())
    with pytest.raises(SettingsError, match=digest):
        read_official(path)
    with pytest.raises(CorruptError, match="expected 0000"):
        read_official(path, digest="0" * 64)
    found = read_official(path, digest=digest)
    torch.testing.assert_close(found, state, rtol=0, atol=0)
    assert isinstance(load_official(found, heads=3), UViT)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (Path.touch, (Path("exploded"),))


FOREIGN = {
    "noise": bytes(range(256)) * 8,
    "bomb": pickle.dumps(Bomb(), protocol=2),
    "bomb of today": pickle.dumps(Bomb()),
    "list": pickle.dumps([], protocol=2),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_nothing_in_a_pickle_is_executed(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nnet.pth").write_bytes(content)
    with pytest.raises(CorruptError, match=r"nnet\.pth: not a whole file of tensors") as caught:
        read_official(Path("nnet.pth"), digest=digest_of(content))
    assert "\n" not in str(caught.value)
    assert not Path("exploded").exists()


def test_a_pickle_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "nnet.pth"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(CorruptError, match="holds a list, expected a state dict"):
        read_official(path, digest=digest_of(path.read_bytes()))


@pytest.mark.parametrize("zipped", [True, False])
def test_every_cut_of_a_pickle_is_noticed(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "nnet.pth"
    torch.save({"norm.weight": torch.ones(3)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptError, match="not a whole file of tensors"):
            read_official(path, digest=digest_of(whole[:length]))


@pytest.mark.parametrize(
    ("name", "complaint"), [("nnet.bin", "found a '.bin' file"), ("nnet.pth", "no such file"), ("nnet", "no such file")]
)
def test_other_files_are_refused(name: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=complaint):
        read_official(tmp_path / name)
