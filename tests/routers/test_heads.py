from __future__ import annotations

import pytest
import torch
from torch import Tensor

from intarsia.backbone import PLAIN, Backbone, UViT, UViTConfig
from intarsia.diffusion import Cosine, keyed_normal
from intarsia.errors import InputError, SettingsError
from intarsia.routers import HeadSettings, SampleSet, mid_features
from intarsia.routers.heads import draw, initial_params, logits

Draws = tuple[Tensor, list[str]]


def test_features_are_the_middle_of_the_forward(backbone: Backbone) -> None:
    """The rest of the network, run on them, gives the network's output."""
    network, x_t, t = backbone.network, keyed_normal((3, 1, 4, 4), "x_t"), torch.tensor([0.1, 0.5, 1.0])
    tokens = mid_features(backbone, x_t, t)
    _, skips = network.encode(network.embed(x_t, t * backbone.time_scale))
    (out,) = network.out_blocks
    half_done = out(tokens, PLAIN, skips.pop())
    patches = network.decoder_pred(network.norm(half_done))[:, 1:]
    torch.testing.assert_close(network.final_layer(network._unpatchify(patches)), network(x_t, t * 1000))


def test_features_of_a_backbone_with_labels_are_those_without_a_label(backbone: Backbone) -> None:
    config = UViTConfig(image_size=4, patch_size=2, channels=1, dim=32, depth=3, heads=4, num_classes=3)
    labelled = Backbone(UViT(config), Cosine(), labels=("a", "b"))
    x_t, t = keyed_normal((2, 1, 4, 4), "x_t"), torch.tensor([0.1, 0.5])
    null = labelled.network.embed(x_t, t * 1000, torch.tensor([2, 2]))
    assert torch.equal(mid_features(labelled, x_t, t), labelled.network.encode(null)[0])


def test_stacked_heads_equal_the_heads_one_by_one() -> None:
    heads = [initial_params(16, 2, HeadSettings(hidden=8, queries=3, seed=seed)) for seed in range(4)]
    features, t = keyed_normal((5, 7, 16), "features"), torch.rand(5)
    stacked = {name: torch.cat([head[name] for head in heads]) for name in heads[0]}
    alone = torch.cat([logits(head, features, t) for head in heads], dim=1)
    assert alone.shape == (5, 4, 2)
    torch.testing.assert_close(logits(stacked, features, t), alone)


def test_heads_see_the_time() -> None:
    head, features = initial_params(16, 1, HeadSettings()), keyed_normal((1, 7, 16), "features").expand(2, -1, -1)
    early, late = logits(head, features, torch.tensor([0.1, 0.9]))
    assert not torch.allclose(early, late)


def test_a_draw_knows_nothing_of_the_samples_it_does_not_take(picture_draws: list[Draws], backbone: Backbone) -> None:
    latents, names = picture_draws[0]
    samples = SampleSet(latents, names)
    whole = draw(samples, 8, backbone, seed=0, step=3)
    rows = {tuple(x.flatten().tolist()) for x in whole.x_t}
    gone = next(k for k in range(400) if tuple(_alone(samples, k, backbone).flatten().tolist()) in rows)
    kept = [k for k in range(400) if k != gone]
    rest = draw(SampleSet(samples.latents[kept], [samples.ids[k] for k in kept]), 8, backbone, seed=0, step=3)
    assert len(rows & {tuple(x.flatten().tolist()) for x in rest.x_t}) == 7
    assert not torch.equal(whole.x_t, draw(samples, 8, backbone, seed=0, step=4).x_t)
    assert not torch.equal(whole.x_t, draw(samples, 8, backbone, seed=1, step=3).x_t)


def test_every_sample_is_drawn_in_its_turn(picture_draws: list[Draws], backbone: Backbone) -> None:
    samples = SampleSet(picture_draws[0][0][:2], picture_draws[0][1][:2])
    first = SampleSet(samples.latents[:1], samples.ids[:1])
    taken = [
        torch.equal(*(draw(each, 1, backbone, seed=0, step=step).x_t for each in (samples, first)))
        for step in range(40)
    ]
    assert 10 <= sum(taken) <= 30


def _alone(samples: SampleSet, row: int, backbone: Backbone) -> Tensor:
    one = SampleSet(samples.latents[row : row + 1], samples.ids[row : row + 1])
    return draw(one, 8, backbone, seed=0, step=3).x_t


def test_sample_sets_have_one_order(picture_draws: list[Draws]) -> None:
    latents, names = picture_draws[0]
    forth, back = SampleSet(latents, names), SampleSet(latents.flip(0), names[::-1])
    assert forth.ids == back.ids == tuple(sorted(names))
    assert torch.equal(forth.latents, back.latents)
    assert set(forth.labels) == {None}
    with pytest.raises(InputError, match="400 latents, 400 ids and 2 labels"):
        SampleSet(latents, names, ["a", "b"])


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"lr": float("nan")}, {"odds": -1.0}, {"queries": 0}, {"seed": -1}],
    ids=str,
)
def test_senseless_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(SettingsError):
        HeadSettings(**wrong)
