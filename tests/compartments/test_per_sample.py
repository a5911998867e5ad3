"""Gradients of single samples, against one backward for each."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from intarsia.backbone.backbone import label_rows
from intarsia.backbone.uvit import Adaptation
from intarsia.compartments.adapters import DeepPrompts, FullCopy, Kind, Lora, Parallel, TextPrompts
from intarsia.compartments.per_sample import SampleGradients, sample_gradients
from intarsia.compartments.pieces import Adapted
from intarsia.diffusion import keyed_normal
from intarsia.errors import SettingsError

from .helpers import AMONG, TEXT, random_params, tiny_backbone, toy_caption

KINDS = [
    Lora(rank=2, scale=0.7),
    Lora(rank=1, targets=("mlp.fc1", "skip_linear")),
    Parallel(width=3),
    DeepPrompts(tokens=3),
    DeepPrompts(tokens=2, per_class=True),
    TEXT,
    AMONG,
]
CLASSES, LABELS = ("a", "b"), ["b", "a", None, "b"]
CAPTIONS = [toy_caption("oak", 2), None, toy_caption("a longer one", 6), toy_caption("elm", 1)]
SAMPLES, DRAWS = 4, 3


def title(kind: Kind) -> str:
    return "-".join(str(each) for each in (kind.name, *(getattr(kind, name, "") for name in ("per_class", "gated"))))


@pytest.mark.parametrize("kind", KINDS, ids=title)
def test_gradients_are_those_of_batches_of_one_sample(kind: Kind) -> None:
    network = tiny_backbone().network.double()
    params = {name: p.double() for name, p in random_params(kind, network, classes=2).items()}
    x, wanted = (keyed_normal((SAMPLES * DRAWS, 1, 4, 4), name, dtype=torch.float64) for name in ("x", "wanted"))
    timesteps = torch.linspace(20, 900, SAMPLES * DRAWS)
    rows = label_rows(CLASSES, LABELS)
    assert rows is not None

    def losses_of(chosen: slice, adaptation: Adaptation) -> Tensor:
        predicted = network(x[chosen], timesteps[chosen], adaptation=adaptation)
        return (predicted - wanted[chosen]).square().flatten(1).mean(dim=1)

    found = sample_gradients(
        kind, network, params, lambda a: losses_of(slice(None), a), samples=SAMPLES, sets=rows, captions=CAPTIONS
    )
    whole = torch.zeros(SAMPLES, dtype=torch.float64)
    total = {name: torch.zeros_like(p) for name, p in params.items()}
    for sample in range(SAMPLES):
        own = {name: p.clone().requires_grad_() for name, p in params.items()}
        pieces = kind.pieces(network, own).of_rows(rows[sample].repeat(DRAWS))
        if isinstance(kind, TextPrompts):
            pieces = kind.captioned(network, own, pieces, [CAPTIONS[sample]] * DRAWS)
        chosen = slice(sample * DRAWS, (sample + 1) * DRAWS)
        loss = losses_of(chosen, Adapted([(pieces, DRAWS)])).mean()
        gradients = torch.autograd.grad(loss, list(own.values()), allow_unused=True, materialize_grads=True)
        norm = math.sqrt(sum(g.square().sum().item() for g in gradients))
        whole[sample] = norm
        for name, g in zip(own, gradients, strict=True):
            total[name] += g * min(1, 0.05 / norm)
    torch.testing.assert_close(found.norms(), whole, rtol=1e-6, atol=0)
    assert bool((whole > 0.05).any()), "otherwise nothing is clipped"
    for name, expected in total.items():
        torch.testing.assert_close(found.clipped_sum(0.05)[name], expected, rtol=1e-6, atol=1e-9)


def test_no_sample_moves_the_sum_by_more_than_the_clip() -> None:
    gradients = {"a": keyed_normal((6, 3, 2), "a") * 9, "b": keyed_normal((6, 4), "b")}
    gradients["a"][5] = 0
    gradients["b"][5] = 0
    for each in gradients.values():
        each[4] *= 1e-3  # small ones stay small
    found = SampleGradients(gradients, {name: g.shape[1:] for name, g in gradients.items()})
    whole = found.clipped_sum(0.5)
    for left_out in range(6):
        kept = [k for k in range(6) if k != left_out]
        others = SampleGradients({n: g[kept] for n, g in gradients.items()}, found.shapes).clipped_sum(0.5)
        moved = math.sqrt(sum((whole[n] - others[n]).square().sum().item() for n in whole))
        assert moved == pytest.approx(min(0.5, found.norms()[left_out].item()), abs=1e-5)


def test_a_gradient_that_is_not_finite_counts_as_none() -> None:
    gradients = {"a": keyed_normal((3, 2), "a"), "b": keyed_normal((3, 4), "b")}
    shapes = {name: g.shape[1:] for name, g in gradients.items()}
    kept = SampleGradients({name: g[1:] for name, g in gradients.items()}, shapes).clipped_sum(0.5)
    for broken in (math.nan, math.inf):
        gradients["a"][0, 1] = broken
        found = SampleGradients(gradients, shapes).clipped_sum(0.5)
        assert all(torch.equal(found[name], kept[name]) for name in kept)


def test_what_has_no_gradient_of_its_own_is_refused() -> None:
    network = tiny_backbone().network
    with pytest.raises(SettingsError, match="not of full copies"):
        sample_gradients(FullCopy(), network, {}, lambda _: torch.zeros(1), samples=1)
    prompts = DeepPrompts(tokens=1, per_class=True)
    with pytest.raises(SettingsError, match="class of each sample"):
        sample_gradients(
            prompts, network, random_params(prompts, network, classes=2), lambda _: torch.zeros(1), samples=1
        )
