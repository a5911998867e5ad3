"""Training: isolated, deterministic to the byte, resumable, sliced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from intarsia.backbone import Backbone
from intarsia.compartments import TrainData, Trainee, TrainSettings, train
from intarsia.compartments.adapters import DeepPrompts, FullCopy, Kind, Lora, Parallel
from intarsia.compartments.draws import draw_noise, draw_rows, sample_keys
from intarsia.compartments.slices import Extension, slice_of
from intarsia.errors import CorruptError, SettingsError
from intarsia.files import tensors_to_bytes

from .helpers import KINDS, TEXT, quick, tiny_backbone, toy_data


def trained(backbone: Backbone, data: TrainData, settings: TrainSettings, folder: Path | None = None) -> bytes:
    trainee = Trainee(backbone, data, settings, folder)
    for _ in train([trainee]):
        pass
    return tensors_to_bytes(trainee.params | {f"average.{name}": p for name, p in trainee.average.items()})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_partners_change_no_byte(kind: Kind) -> None:
    backbone, settings = tiny_backbone(labels=("a", "c")), quick(kind)
    alone = trained(backbone, toy_data("first"), settings)
    partners = [Trainee(backbone, toy_data("second", 30), replace(settings, adapter=Lora(rank=4), rows=7))]
    mine = Trainee(backbone, toy_data("first"), settings)
    for _ in train([*partners, mine]):
        pass
    assert tensors_to_bytes(mine.params | {f"average.{name}": p for name, p in mine.average.items()}) == alone


@pytest.mark.parametrize(
    "kind", [Lora(rank=2), DeepPrompts(tokens=2, per_class=True), TEXT, FullCopy()], ids=lambda kind: kind.name
)
@pytest.mark.parametrize("stop", [1, 3, 4])
def test_resumed_equals_uninterrupted(kind: Kind, stop: int, tmp_path: Path) -> None:
    backbone, data, settings = tiny_backbone(), toy_data("first"), quick(kind, slices=2)
    whole = trained(backbone, data, settings)
    interrupted = Trainee(backbone, data, settings, tmp_path)
    for step in train([interrupted], save_every=2):
        if step.step == stop:
            break
    resumed = Trainee(backbone, data, settings, tmp_path)
    assert resumed.restore() == (stop >= 2)
    assert resumed.done == stop - stop % 2
    for _ in train([resumed]):
        pass
    assert tensors_to_bytes(resumed.params | {f"average.{name}": p for name, p in resumed.average.items()}) == whole


@pytest.mark.parametrize("kind", [Lora(rank=2), FullCopy()], ids=lambda kind: kind.name)
def test_rows_in_blocks_give_the_same_step(kind: Kind) -> None:
    backbone, data = tiny_backbone(), toy_data("first")
    whole, parts = (Trainee(backbone, data, quick(kind, rows=7, steps=2, at_once=n)) for n in (None, 3))
    there, here = (trainee._gradients(*trainee._pools[0]) for trainee in (whole, parts))
    assert here[1] == pytest.approx(there[1], rel=1e-5)
    for name, gradient in there[0].items():
        torch.testing.assert_close(here[0][name], gradient, rtol=1e-4, atol=1e-6)
    assert any(gradient.abs().max() > 1e-4 for gradient in there[0].values())
    assert "at_once" not in whole.settings.settings()
    assert parts.settings.settings()["at_once"] == 3


def test_training_leaves_the_backbone_byte_identical() -> None:
    backbone = tiny_backbone()
    before = tensors_to_bytes(backbone.network.state_dict())
    for kind in KINDS:
        trained(backbone, toy_data("first"), quick(kind))
    assert tensors_to_bytes(backbone.network.state_dict()) == before


def test_the_order_of_the_samples_does_not_matter() -> None:
    backbone, data, settings = tiny_backbone(), toy_data("first"), quick(Lora(rank=2))
    order = [5, 0, 7, 11, 2, 1, 3, 10, 9, 8, 4, 6]
    shuffled = TrainData("first", data.latents[order], [data.ids[k] for k in order], [data.labels[k] for k in order])
    assert trained(backbone, shuffled, settings) == trained(backbone, data, settings)


def test_slices_open_one_after_the_other(tmp_path: Path) -> None:
    """A sample of the last slice leaves no trace in the checkpoints before it: retraining may start from there."""
    backbone, data, settings = tiny_backbone(), toy_data("first", 16), quick(Lora(rank=2), slices=3, rows=8)
    late = [k for k, sample in enumerate(data.ids) if slice_of(sample, 3) == 2]
    assert 0 < len(late) < len(data.ids)
    kept = [k for k in range(len(data.ids)) if k != late[0]]
    without = TrainData("first", data.latents[kept], [data.ids[k] for k in kept], [data.labels[k] for k in kept])
    trained(backbone, data, settings, tmp_path / "with")
    trained(backbone, without, settings, tmp_path / "without")
    same = [
        (tmp_path / "with" / f"slice-{r}.safetensors").read_bytes()
        == (tmp_path / "without" / f"slice-{r}.safetensors").read_bytes()
        for r in (1, 2, 3)
    ]
    assert same == [True, True, False]

    again = Trainee(backbone, without, settings, tmp_path / "with")
    assert again.restore("slice-2")
    for _ in train([again]):
        pass
    assert (tmp_path / "with" / "state.safetensors").read_bytes() == (
        tmp_path / "without" / "state.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    "kind", [Lora(rank=4), DeepPrompts(tokens=4), Parallel(width=8), TEXT, FullCopy()], ids=lambda kind: kind.name
)
def test_training_learns(kind: Kind) -> None:
    backbone, data = tiny_backbone(), toy_data("first", 4)
    trainee = Trainee(backbone, data, quick(kind, steps=80, rows=16, lr=0.01))
    losses = [step.loss for step in train([trainee]) if step.loss is not None]
    assert sum(losses[-20:]) / 20 < 0.75 * sum(losses[:4]) / 4


def test_a_dropped_caption_is_the_null_caption() -> None:
    """What trains the null branch sees no caption, of whatever image."""
    backbone, data = tiny_backbone(labels=("a", "c")), toy_data("first", 40)
    unsaid = replace(data, captions=[None] * 40)
    settings = quick(TEXT, label_dropout=0.999999, rows=16)
    assert trained(backbone, data, settings) == trained(backbone, unsaid, settings)
    assert trained(backbone, data, replace(settings, label_dropout=0.0)) != trained(backbone, unsaid, settings)
    relabelled = replace(data, labels=[None] * 40)
    assert trained(backbone, relabelled, settings) == trained(backbone, data, settings), "it reads no labels"


def test_bfloat16_trains_float32_masters() -> None:
    trainee = Trainee(tiny_backbone(), toy_data("first"), quick(Lora(rank=2), precision="bfloat16"))
    start = {name: p.clone() for name, p in trainee.params.items()}
    for _ in train([trainee]):
        pass
    assert all(p.dtype == torch.float32 for p in trainee.params.values())
    assert any(not torch.equal(p, start[name]) for name, p in trainee.params.items())


def test_global_switches_are_restored() -> None:
    torch.set_num_threads(2)
    for _ in train([Trainee(tiny_backbone(), toy_data("first"), quick(Lora(rank=2)))]):
        assert torch.get_num_threads() == 2
        assert not torch.are_deterministic_algorithms_enabled()


def test_draws_are_keyed_by_sample_and_step() -> None:
    ids = toy_data("first", 40).ids
    keys = sample_keys(ids, seed=3)
    rows = draw_rows(keys, 7, 16)
    assert len(set(rows.tolist())) == 16
    gone = rows[0]
    others = [k for k in range(40) if k != gone]
    without = [others[k] for k in draw_rows(sample_keys([ids[k] for k in others], seed=3), 7, 16)]
    assert set(rows[1:].tolist()) <= set(without), "a sample that leaves must not move the others"
    assert set(draw_rows(keys, 8, 16).tolist()) != set(rows.tolist())
    for step in range(20):
        counts = torch.bincount(torch.from_numpy(draw_rows(keys[:5], step, 13)), minlength=5)
        assert sorted(counts.tolist()) == [2, 2, 3, 3, 3], "nobody has a third turn before all have had two"

    here, there = draw_noise(ids[:3], 3, 7, (1, 4, 4)), draw_noise(ids[2:5], 3, 7, (1, 4, 4))
    assert torch.equal(here.eps[2], there.eps[0])
    assert here.t[2] == there.t[0]
    twice = draw_noise([ids[0], ids[0]], 3, 7, (1, 4, 4))
    assert not torch.equal(twice.eps[0], twice.eps[1])


def test_every_sample_is_drawn_equally_often() -> None:
    keys = sample_keys(toy_data("first", 20).ids, seed=0)
    seen = torch.zeros(20)
    for step in range(400):
        seen[torch.from_numpy(draw_rows(keys, step, 5))] += 1
    assert 70 < seen.min() <= seen.max() < 130  # 100 expected, deviation 8.7


def test_a_checkpoint_of_another_compartment_is_refused(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    trained(backbone, toy_data("first"), quick(Lora(rank=2)), tmp_path)
    with pytest.raises(CorruptError, match="not a checkpoint of this compartment"):
        Trainee(backbone, toy_data("first"), quick(DeepPrompts(tokens=2)), tmp_path).restore()


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    backbone, settings = tiny_backbone(), quick(Lora(rank=2))
    trained(backbone, toy_data("first"), settings, tmp_path)
    state = tmp_path / "state.safetensors"
    data = state.read_bytes()
    state.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CorruptError, match=r"state\.safetensors: .* remove it to begin again"):
        Trainee(backbone, toy_data("first"), settings, tmp_path).restore()


def test_training_stops_when_the_loss_is_not_finite_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    settings = quick(Lora(rank=2), steps=12, lr=1e25, warmup=0)
    trainee, steps = Trainee(tiny_backbone(), toy_data("first"), settings, tmp_path), []
    with pytest.raises(SettingsError, match=r"'first' broke down at step \d+ of 12, .* the learning rate 1e\+25"):
        steps.extend(train([trainee], save_every=1))
    assert 0 < len(steps) < 12
    again = Trainee(trainee.backbone, trainee.data, settings, tmp_path)
    assert again.restore()
    assert again.done == len(steps)
    assert all(p.isfinite().all() for p in again.params.values())
    with pytest.raises(SettingsError, match=r"with a loss of (nan|inf)"):  # also where nothing is saved in between
        list(train([Trainee(trainee.backbone, trainee.data, settings)]))


def test_parameters_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    """The last step may spoil them without a loss that tells."""
    trainee = Trainee(tiny_backbone(), toy_data("first"), quick(Lora(rank=2)), tmp_path)
    next(iter(trainee.params.values())).view(-1)[0] = torch.nan
    with pytest.raises(SettingsError, match=r"broke down .* parameters that are not finite"):
        trainee.save()
    assert list(tmp_path.iterdir()) == []


def test_bad_settings_are_named() -> None:
    with pytest.raises(SettingsError, match="7 steps cannot be split evenly over 2 slices"):
        quick(Lora(), steps=7, slices=2)
    backbone = tiny_backbone()
    mixed = [Trainee(backbone, toy_data(f"number {k}"), quick(Lora(), threads=k)) for k in (1, 2)]
    with pytest.raises(SettingsError, match="one number of threads"):
        next(train(mixed))
    with pytest.raises(SettingsError, match="number 1, number 1; name each source once"):
        next(train([mixed[0], mixed[0]]))
    with pytest.raises(SettingsError, match="save_every is 0"):
        next(train(mixed[:1], save_every=0))


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("steps", (0, 1.5, True)),
        ("rows", (0, 10**6)),
        ("at_once", (0, 1.5)),
        ("slices", (0,)),
        ("lr", (0.0, -1.0, float("nan"), float("inf"), "fast")),
        ("warmup", (-1,)),
        ("cooldown", (0.0, 1.5, float("nan"))),
        ("ema", (1.0, -0.1, float("nan"))),
        ("label_dropout", (1.0, float("nan"))),
        ("threads", (0, 2.0)),
        ("precision", ("float16",)),
        ("seed", (-1, 2**63, 0.5)),
    ],
)
def test_every_setting_is_checked(field: str, values: tuple[object, ...]) -> None:
    for value in values:
        with pytest.raises(SettingsError, match=rf"^{field} (is|')"):
            quick(Lora(), **{field: value})


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Lora, {"rank": 0}),
        (Lora, {"rank": 10**6}),
        (Lora, {"scale": float("nan")}),
        (DeepPrompts, {"tokens": 0}),
        (DeepPrompts, {"tokens": 10**6}),
        (Parallel, {"width": 0}),
    ],
    ids=str,
)
def test_every_setting_of_an_adapter_is_checked(kind: Callable[..., Kind], wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=rf"^{next(iter(wrong))} is"):
        kind(**wrong)


def test_a_layer_is_adapted_once() -> None:
    for targets in ((), ("attn.qkv", "attn.qkv")):
        with pytest.raises(SettingsError, match="name at least one, each once"):
            Lora(targets=targets)


def test_an_extension_warms_up_and_cools_down_anew() -> None:
    settings = quick(Lora(rank=2), steps=4, slices=2, warmup=2, lr=1.0)
    trainee = Trainee(tiny_backbone(), toy_data("first"), settings, extensions=[Extension(1, 2)])
    rates = []
    for _ in train([trainee]):
        rates.append(trainee._optimiser.param_groups[0]["lr"])
    assert len(rates) == 8
    assert rates[4:] == rates[:4]
