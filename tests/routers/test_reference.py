from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from intarsia.backbone import Backbone
from intarsia.data.source import hash_fraction
from intarsia.diffusion import GaussianMixture, exact_weights, keyed_generator, keyed_normal
from intarsia.errors import CorruptError, IncompatibleError, SettingsError
from intarsia.files import tensors_to_bytes
from intarsia.routers import HeadSettings, ReferenceBank, ReferencePart, reference
from intarsia.routers.calibration import identity
from intarsia.routers.heads import logits

Draws = tuple[Tensor, list[str]]
QUICK = HeadSettings(steps=4, batch=16, hidden=8)


@pytest.fixture(scope="module")
def parts(picture_draws: list[Draws], picture_core: Tensor, backbone: Backbone) -> list[ReferencePart]:
    settings = HeadSettings(steps=200, batch=64, lr=1e-2, hidden=32)
    return [ReferencePart.fit(*each, picture_core, backbone, settings=settings) for each in picture_draws]


def noisy(pictures: list[GaussianMixture], backbone: Backbone, t: float, n: int = 200) -> tuple[Tensor, Tensor]:
    """x_t from each source in turn, and its times."""
    x0 = torch.cat([source.sample(n, keyed_generator("test", k)) for k, source in enumerate(pictures)])
    times = torch.full((len(x0),), t)
    alpha, sigma = backbone.schedule.alpha(times)[:, None], backbone.schedule.sigma(times)[:, None]
    return (alpha * x0 + sigma * keyed_normal(x0.shape, "noise")).float().reshape(-1, 1, 4, 4), times


def test_tells_its_source_from_the_core(
    parts: list[ReferencePart], pictures: list[GaussianMixture], picture_core: Tensor, backbone: Backbone
) -> None:
    x_t, t = noisy(pictures[:1], backbone, 0.1)
    bank = ReferenceBank(parts[:1], backbone)
    h_source, h_core = bank(x_t, t), bank(picture_core[:200], t)
    assert (h_source > 0).float().mean() > 0.9
    assert (h_core < 0).float().mean() > 0.9


@pytest.mark.parametrize("t", [0.2, 0.5, 0.8])
def test_heads_that_never_met_approach_the_exact_posterior(
    parts: list[ReferencePart], pictures: list[GaussianMixture], backbone: Backbone, t: float
) -> None:
    x_t, times = noisy(pictures, backbone, t)
    weights = ReferenceBank(parts, backbone)(x_t, times).softmax(1)
    flat, prior = x_t.flatten(1).double(), torch.full((3,), 1 / 3).double()
    exact = exact_weights(pictures, prior, flat, backbone.schedule.alpha(times), backbone.schedule.sigma(times))
    uniform = (exact - 1 / 3).abs().mean()
    assert (weights - exact).abs().mean() < 0.3 * uniform


def test_odds_are_taken_out_again(picture_draws: list[Draws], picture_core: Tensor, backbone: Backbone) -> None:
    """At other odds the head itself shifts by their logarithm, the log-ratio does not."""
    latents, names = picture_draws[0]
    settings = [HeadSettings(steps=100, batch=64, lr=1e-2, odds=odds) for odds in (1.0, 8.0)]
    even, odd = (ReferencePart.fit(latents, names, picture_core, backbone, settings=each) for each in settings)
    t = torch.full((200,), 0.7)
    x_t = keyed_normal((200, 1, 4, 4), "x_t")
    ratios = [ReferenceBank([part], backbone)(x_t, t).mean().item() for part in (even, odd)]
    raw = ratios[1] + torch.tensor(8.0).log().item()
    assert abs(ratios[1] - ratios[0]) < 0.5 < 1.5 < raw - ratios[0]


def test_the_bank_equals_each_part_alone(parts: list[ReferencePart], backbone: Backbone) -> None:
    x_t, t = keyed_normal((6, 1, 4, 4), "x_t"), torch.rand(6)
    alone = torch.cat([ReferenceBank([part], backbone)(x_t, t) for part in parts], dim=1)
    torch.testing.assert_close(ReferenceBank(parts, backbone)(x_t, t), alone)


def test_calibration_helps_where_the_head_is_too_sure(
    parts: list[ReferencePart], pictures: list[GaussianMixture], backbone: Backbone
) -> None:
    """Near pure noise, where there is next to nothing to tell."""
    x_t, times = noisy(pictures, backbone, 0.95)
    raw = [replace(part, calibration=identity(8)) for part in parts]
    flat, prior = x_t.flatten(1).double(), torch.full((3,), 1 / 3).double()
    exact = exact_weights(pictures, prior, flat, backbone.schedule.alpha(times), backbone.schedule.sigma(times))
    ours, without = (
        (ReferenceBank(each, backbone)(x_t, times).softmax(1) - exact).abs().mean() for each in (parts, raw)
    )
    assert ours < 0.8 * without


def test_what_calibrates_does_not_train(picture_draws: list[Draws], picture_core: Tensor, backbone: Backbone) -> None:
    """Other held-out pictures change the calibration and not the head, other trained ones change both."""
    latents, names = picture_draws[0][0][:80], picture_draws[0][1][:80]
    held = torch.tensor([hash_fraction(0, name) < 0.2 for name in names])
    assert 8 <= int(held.sum()) < 40

    def fit(changed: Tensor) -> ReferencePart:
        return ReferencePart.fit(
            torch.where(changed[:, None, None, None], -latents, latents), names, picture_core, backbone, settings=QUICK
        )

    plain, other_held, other_trained = (fit(which) for which in (torch.zeros(80).bool(), held, ~held))
    assert all(torch.equal(plain.params[name], other_held.params[name]) for name in plain.params)
    assert not torch.equal(plain.calibration, other_held.calibration)
    assert not torch.equal(plain.params["query"], other_trained.params["query"])


def test_a_handful_of_samples_is_not_calibrated(
    picture_draws: list[Draws], picture_core: Tensor, backbone: Backbone
) -> None:
    few = ReferencePart.fit(picture_draws[0][0][:9], picture_draws[0][1][:9], picture_core, backbone, settings=QUICK)
    assert torch.equal(few.calibration, identity(8))


def bytes_of(draws: Draws, core: Tensor, backbone: Backbone) -> bytes:
    return tensors_to_bytes(ReferencePart.fit(*draws, core, backbone, settings=QUICK).tensors())


def test_order_and_strangers_are_irrelevant(
    picture_draws: list[Draws], picture_core: Tensor, backbone: Backbone
) -> None:
    latents, names = picture_draws[0]
    once = bytes_of((latents, names), picture_core, backbone)
    order = torch.randperm(400).tolist()
    torch.manual_seed(7)
    bytes_of(picture_draws[1], picture_core, backbone)
    assert bytes_of((latents[order], [names[k] for k in order]), picture_core, backbone) == once


def test_trained_on_one_thread(
    picture_draws: list[Draws], picture_core: Tensor, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(reference, "logits", lambda *a: seen.append(torch.get_num_threads()) or logits(*a))
    torch.set_num_threads(2)
    part = ReferencePart.fit(*picture_draws[0], picture_core, backbone, settings=QUICK)
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2
    assert not any(x.requires_grad for x in part.tensors().values())


def test_a_removed_sample_was_never_there(picture_draws: list[Draws], picture_core: Tensor, backbone: Backbone) -> None:
    """With as few samples as a batch takes, every one of them matters."""
    latents, names = picture_draws[0][0][:8], picture_draws[0][1][:8]
    without = bytes_of((latents[1:], names[1:]), picture_core, backbone)
    assert bytes_of((latents.clone()[1:], list(names)[1:]), picture_core, backbone) == without
    assert bytes_of((latents, names), picture_core, backbone) != without


def test_the_backbone_stays_as_it_was(picture_draws: list[Draws], picture_core: Tensor, backbone: Backbone) -> None:
    before = tensors_to_bytes(backbone.network.state_dict())
    bytes_of(picture_draws[0], picture_core, backbone)
    assert tensors_to_bytes(backbone.network.state_dict()) == before
    assert not any(p.requires_grad for p in backbone.network.parameters())


def test_stored_and_read_back(parts: list[ReferencePart]) -> None:
    part = parts[0]
    again = ReferencePart.from_tensors(part.tensors(), json.loads(json.dumps(part.settings())))
    assert again.settings() == part.settings()
    assert tensors_to_bytes(again.tensors()) == tensors_to_bytes(part.tensors())
    with pytest.raises(CorruptError, match="lacks query"):
        ReferencePart.from_tensors({}, part.settings())
    with pytest.raises(CorruptError, match="cannot be read"):
        ReferencePart.from_tensors(part.tensors(), {})


def test_parts_that_do_not_fit_are_refused(
    parts: list[ReferencePart], picture_draws: list[Draws], picture_core: Tensor, backbone: Backbone
) -> None:
    with pytest.raises(IncompatibleError, match=r"fitted on the backbone .* fit it again on this one"):
        ReferenceBank(parts, replace(backbone, prediction="eps"))
    small = ReferencePart.fit(*picture_draws[0], picture_core, backbone, settings=QUICK)
    with pytest.raises(IncompatibleError, match="different head shapes"):
        ReferenceBank([parts[0], small], backbone)
    with pytest.raises(SettingsError, match="at least one"):
        ReferenceBank([], backbone)
    with pytest.raises(SettingsError, match=r"works on \(1, 4, 4\)"):
        ReferencePart.fit(*picture_draws[0], picture_core[:, :, :2], backbone)
