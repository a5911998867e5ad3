from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from intarsia.diffusion import Cosine, GaussianMixture, exact_weights, keyed_generator, keyed_normal
from intarsia.errors import CorruptError, IncompatibleError, InputError, SettingsError, UnknownName
from intarsia.files import tensors_to_bytes
from intarsia.routers import (
    Basis,
    GaussianBank,
    GaussianPart,
    GaussianSettings,
    LabelShares,
    label_log_shares,
    selection,
)
from intarsia.routers.expectation import fit_moments
from intarsia.routers.selection import Group, split

SHAPE = (1, 2, 3)
SCHEDULE = Cosine()
Draws = tuple[Tensor, list[str]]
CLASSES = ["a", "b"] * 150


@pytest.fixture(scope="module")
def parts(draws: list[Draws], basis: Basis) -> list[GaussianPart]:
    """The first two with classes "a" and "b", the third without labels."""
    labels = (CLASSES, CLASSES, None)
    return [GaussianPart.fit(*each, label, basis) for each, label in zip(draws, labels, strict=True)]


def levels(count: int, *times: float) -> tuple[Tensor, Tensor]:
    t = torch.tensor(times or [0.3]).double().repeat(count)[:count]
    return SCHEDULE.alpha(t), SCHEDULE.sigma(t)


def bytes_of(part: GaussianPart) -> bytes:
    return tensors_to_bytes(part.tensors()) + json.dumps(part.settings(), sort_keys=True).encode()


def test_recovers_a_known_mixture(truths: list[GaussianMixture], basis: Basis) -> None:
    truth = truths[0]
    latents = truth.sample(4000, keyed_generator("many")).reshape(-1, *SHAPE)
    settings = GaussianSettings(components=(1, 2), pseudo_counts=(0.1,), ridge=1e-6)
    part = GaussianPart.fit(latents, [f"{n:04d}" for n in range(4000)], None, basis, settings=settings)
    assert part.choice.components == 2
    order = part.mixture.log_pi.argsort()
    found = part.mixture.mean[order].double() @ basis.rows.double()
    torch.testing.assert_close(part.mixture.log_pi[order].exp().double(), truth.log_pi.exp(), atol=0.03, rtol=0)
    torch.testing.assert_close(found, truth.mean, atol=0.1, rtol=0)
    for k, row in enumerate(order):
        u = basis.rows.double().T @ part.mixture.eigenvectors[row].double()
        covariance = u @ torch.diag(part.mixture.eigenvalues[row].double()) @ u.T
        expected = truth.eigenvectors[k] @ torch.diag(truth.eigenvalues[k]) @ truth.eigenvectors[k].T
        torch.testing.assert_close(covariance, expected, atol=0.12, rtol=0)


@pytest.mark.parametrize("t", [0.05, 0.4, 0.8, 1.0])
def test_density_equals_explicit_convolution(parts: list[GaussianPart], basis: Basis, t: float) -> None:
    """torch.distributions, in the pixels' own axes, with the noise added to the covariances."""
    alpha, sigma = levels(5, t)
    x_t = keyed_normal((5, *SHAPE), "x_t", dtype=torch.float64)
    for part in parts:
        mixture, rows = part.mixture.to(torch.float64), basis.rows.double()
        u = rows.T @ mixture.eigenvectors
        covariance = alpha[0] ** 2 * u @ torch.diag_embed(mixture.eigenvalues) @ u.mT
        covariance = (covariance + covariance.mT) / 2 + sigma[0] ** 2 * torch.eye(6).double()
        components = MultivariateNormal(alpha[0] * mixture.mean @ rows, covariance)
        p_t = MixtureSameFamily(Categorical(logits=mixture.log_pi), components)
        found = part.log_density(x_t, alpha, sigma)
        torch.testing.assert_close(found, p_t.log_prob(x_t.flatten(1)), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("times", [(0.3,), (0.1, 0.5, 0.9)], ids=["one level", "several levels"])
@pytest.mark.parametrize("labels", [None, ["a", None, "b", "a", None, "b", "b"]], ids=["no labels", "labels"])
def test_bank_equals_the_loop_over_parts(
    parts: list[GaussianPart], times: Sequence[float], labels: list[str | None] | None
) -> None:
    x_t, (alpha, sigma) = keyed_normal((7, *SHAPE), "x_t", dtype=torch.float64), levels(7, *times)
    found = GaussianBank(parts).log_density(x_t, alpha, sigma, labels)
    for row in range(7):
        one, label = slice(row, row + 1), labels[row] if labels else None
        expected = [part.log_density(x_t[one], alpha[one], sigma[one], label) for part in parts]
        torch.testing.assert_close(found[row], torch.cat(expected))


def test_float32_is_close_to_float64(parts: list[GaussianPart]) -> None:
    bank, x_t, (alpha, sigma) = GaussianBank(parts), keyed_normal((7, *SHAPE), "x_t"), levels(7, 0.02, 0.5)
    single, double = (bank.log_density(x, alpha, sigma) for x in (x_t, x_t.double()))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, atol=1e-2, rtol=1e-4)


def test_weights_approach_the_exact_ones(truths: list[GaussianMixture], basis: Basis) -> None:
    t = torch.rand(600, generator=torch.Generator().manual_seed(0)).double()
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    x0 = torch.cat([truth.sample(200, keyed_generator("test", key)) for key, truth in enumerate(truths)])
    x_t = alpha[:, None] * x0 + sigma[:, None] * keyed_normal((600, 6), "noise", dtype=torch.float64)
    prior = torch.full((3,), 1 / 3).double()
    exact = exact_weights(truths, prior, x_t, alpha, sigma)

    def error(n: int) -> float:
        fitted = [
            GaussianPart.fit(truth.sample(n, keyed_generator(n, key)).reshape(-1, *SHAPE), ids(n), None, basis)
            for key, truth in enumerate(truths)
        ]
        weights = GaussianBank(fitted).log_density(x_t.reshape(-1, *SHAPE), alpha, sigma).softmax(1)
        return (weights - exact).abs().mean().item()

    few, many, most = error(30), error(300), error(3000)
    assert most < many < few
    assert most < 0.01


def ids(n: int) -> list[str]:
    return [f"{number:05d}" for number in range(n)]


# Isolation


def test_the_order_of_samples_is_irrelevant(draws: list[Draws], basis: Basis) -> None:
    latents, names = draws[0]
    order = torch.randperm(300).tolist()
    shuffled = GaussianPart.fit(latents[order], [names[k] for k in order], [CLASSES[k] for k in order], basis)
    assert bytes_of(shuffled) == bytes_of(GaussianPart.fit(latents, names, CLASSES, basis))


def test_another_source_changes_nothing(draws: list[Draws], basis: Basis) -> None:
    alone = bytes_of(GaussianPart.fit(*draws[0], None, basis))
    GaussianBank([GaussianPart.fit(*each, None, basis) for each in draws[1:]])
    assert bytes_of(GaussianPart.fit(*draws[0], None, basis)) == alone


def test_a_removed_sample_was_never_there(draws: list[Draws], basis: Basis) -> None:
    """The others keep their verdict of the hold-out, their noise and their place; and the sample did matter."""
    latents, names = draws[0]
    keep = [row for row in range(300) if row != 17]
    without = GaussianPart.fit(latents[keep], [names[k] for k in keep], None, basis)
    stranger = torch.cat([latents[keep][:100], latents[17:18] + 5, latents[keep][100:]])
    again = [row for row in range(300) if row != 100]
    assert bytes_of(GaussianPart.fit(stranger[again], [names[k] for k in keep], None, basis)) == bytes_of(without)
    assert bytes_of(GaussianPart.fit(latents, names, None, basis)) != bytes_of(without)


def test_a_sample_that_leaves_moves_no_other_between_fitted_and_held_out(draws: list[Draws]) -> None:
    latents, names = draws[0]
    group = Group(latents.flatten(1).double(), sorted(names))
    parts = [set(part.ids) for part in split(group, 0.2)]
    for gone in (0, 150):
        rest = split(group.where([row != gone for row in range(300)]), 0.2)
        assert [set(part.ids) for part in rest] == [part - {group.ids[gone]} for part in parts]
    assert 0.1 < len(parts[1]) / 300 < 0.3


def test_fitted_on_one_thread(draws: list[Draws], basis: Basis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the caller's setting: how a sum is split decides its last bits."""
    seen = []
    monkeypatch.setattr(selection, "fit_moments", lambda *a: seen.append(torch.get_num_threads()) or fit_moments(*a))
    torch.set_num_threads(2)
    GaussianPart.fit(*draws[0], None, basis)
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2


# Labels


def test_classes_with_enough_samples_have_mixtures_of_their_own(draws: list[Draws], basis: Basis) -> None:
    latents, names = draws[0]
    apart = latents.clone()
    apart[1::2] += 4
    part = GaussianPart.fit(apart, names, CLASSES, basis)
    alpha, sigma = levels(2, 0.3)
    x_t = torch.stack([apart[0::2].mean(0), apart[1::2].mean(0)]).double() * alpha[:, None, None, None]
    a, b = (part.log_density(x_t, alpha, sigma, label) for label in "ab")
    assert part.by_class
    assert a[0] > b[0] + 5
    assert b[1] > a[1] + 5
    torch.testing.assert_close(torch.logaddexp(a, b), part.log_density(x_t, alpha, sigma))


@pytest.mark.parametrize(
    ("labels", "settings"),
    [
        (["a"] * 281 + ["b"] * 19, GaussianSettings()),
        (["a"] * 281 + [None] * 19, GaussianSettings()),
        (CLASSES, GaussianSettings(most_classes=1)),
    ],
    ids=["a small class", "a few without label", "too many classes"],
)
def test_else_one_mixture_serves_all_classes(
    draws: list[Draws], basis: Basis, labels: list[str | None], settings: GaussianSettings
) -> None:
    """p(x | y, i) := p(x | i), and the share of the label remains."""
    part = GaussianPart.fit(*draws[0], labels, basis, settings=settings)
    x_t, (alpha, sigma) = keyed_normal((4, *SHAPE), "x_t", dtype=torch.float64), levels(4)
    assert not part.by_class
    ratio = part.log_density(x_t, alpha, sigma, "a") - part.log_density(x_t, alpha, sigma)
    share = math.log(labels.count("a") / 300)
    torch.testing.assert_close(ratio, torch.full((4,), share).double(), atol=1e-5, rtol=0)


def test_samples_without_label_may_have_a_mixture_of_their_own(draws: list[Draws], basis: Basis) -> None:
    part = GaussianPart.fit(*draws[0], [None if row % 3 else "a" for row in range(300)], basis)
    x_t, (alpha, sigma) = keyed_normal((4, *SHAPE), "x_t", dtype=torch.float64), levels(4, 1.0)
    assert part.by_class
    ratio = part.log_density(x_t, alpha, sigma, "a") - part.log_density(x_t, alpha, sigma)
    torch.testing.assert_close(ratio, torch.full((4,), math.log(1 / 3)).double(), atol=1e-5, rtol=0)


def test_a_source_that_never_had_a_label_has_no_weight(parts: list[GaussianPart]) -> None:
    bank, x_t, (alpha, sigma) = GaussianBank(parts), keyed_normal((2, *SHAPE), "x_t"), levels(2)
    log_density = bank.log_density(x_t, alpha, sigma, ["a", None])
    assert log_density[0, 2] == -torch.inf
    assert log_density[1].isfinite().all()
    assert log_density.softmax(1)[0, 2] == 0
    assert bank.x0_hat(x_t, alpha, sigma, ["a", None]).isfinite().all()


def test_a_label_that_nobody_had_is_refused(parts: list[GaussianPart]) -> None:
    bank, x_t = GaussianBank(parts), keyed_normal((1, *SHAPE), "x_t")
    for ask in (bank.log_density, bank.x0_hat):
        with pytest.raises(UnknownName, match="unknown label 'c'"):
            ask(x_t, *levels(1), ["c"])


def test_label_shares() -> None:
    shares = [LabelShares.of(["a", "a", "b", None]), LabelShares.of(["b"])]
    found = label_log_shares(shares, ["a", "b", None]).exp()
    assert found.tolist() == [[0.5, 0.0], [0.25, 1.0], [1.0, 1.0]]
    with pytest.raises(UnknownName, match="known: a, b"):
        label_log_shares(shares, ["z"])
    with pytest.raises(CorruptError, match="no labelling"):
        LabelShares({"a": 3}, 2)


# The analytic start


@pytest.mark.parametrize("label", [None, "b"])
def test_x0_hat_equals_monte_carlo(parts: list[GaussianPart], basis: Basis, label: str | None) -> None:
    """Self-normalised importance sampling from the source's own mixture: E[x0 | x_t] needs no formula."""
    bank, x_t, (alpha, sigma) = GaussianBank(parts), 0.6 * keyed_normal((4, *SHAPE), "x_t").double(), levels(4, 0.7)
    found = bank.x0_hat(x_t, alpha, sigma, [label] * 4)
    for i, part in enumerate(parts):
        mixture = part.given(label if label in part.shares.counts else None).to(torch.float64)
        x0 = mixture.sample(200_000, keyed_generator("monte carlo", i)) @ basis.rows.double()
        log_p = -torch.cdist(x_t.flatten(1), alpha[0] * x0).square() / (2 * sigma[0] ** 2)
        torch.testing.assert_close(found[:, i].flatten(1), log_p.softmax(1) @ x0, atol=0.03, rtol=0)


def test_x0_hat_of_a_batch_of_mixed_labels_and_levels_is_that_of_each_alone(parts: list[GaussianPart]) -> None:
    bank, x_t, (alpha, sigma) = GaussianBank(parts), keyed_normal((5, *SHAPE), "x_t").double(), levels(5, 0.2, 0.6)
    labels = ["a", None, "b", "a", None]
    found = bank.x0_hat(x_t, alpha, sigma, labels)
    assert found.shape == (5, 3, *SHAPE)
    for row in range(5):
        one = slice(row, row + 1)
        torch.testing.assert_close(found[one], bank.x0_hat(x_t[one], alpha[one], sigma[one], labels[one]))
    needed = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=torch.bool)
    some = bank.x0_hat(x_t, alpha, sigma, labels, needed=needed)
    torch.testing.assert_close(some, found * needed[..., None, None, None])


def test_in_a_small_basis_only_its_directions_tell_sources_apart(draws: list[Draws], core: Tensor) -> None:
    small = Basis.fit(core, 2)
    bank = GaussianBank([GaussianPart.fit(*each, None, small) for each in draws])
    x_t, (alpha, sigma) = keyed_normal((4, *SHAPE), "x_t").double(), levels(4)
    outside = keyed_normal((4, 6), "outside").double()
    rows = small.rows.double()
    moved = x_t + (outside - outside @ rows.T @ rows).reshape(x_t.shape)
    torch.testing.assert_close(
        bank.log_density(moved, alpha, sigma), bank.log_density(x_t, alpha, sigma), atol=1e-5, rtol=0
    )
    spread = bank.x0_hat(x_t, alpha, sigma).flatten(2)
    torch.testing.assert_close(
        spread - spread @ rows.T @ rows, (spread - spread @ rows.T @ rows)[:, :1].expand_as(spread)
    )


# Storing


def test_stored_and_read_back(parts: list[GaussianPart], basis: Basis) -> None:
    for part in parts:
        again = GaussianPart.from_tensors(part.tensors(), json.loads(json.dumps(part.settings())), basis)
        assert bytes_of(again) == bytes_of(part)


def test_parts_of_another_basis_are_refused(parts: list[GaussianPart], draws: list[Draws], core: Tensor) -> None:
    other = Basis.fit(core[:200])
    with pytest.raises(IncompatibleError, match="basis"):
        GaussianPart.from_tensors(parts[0].tensors(), parts[0].settings(), other)
    with pytest.raises(IncompatibleError, match="different bases"):
        GaussianBank([parts[0], GaussianPart.fit(*draws[1], None, other)])
    with pytest.raises(SettingsError, match="at least one"):
        GaussianBank([])


@pytest.mark.parametrize(
    "damage",
    [
        lambda tensors, settings: tensors.pop("mean"),
        lambda tensors, settings: tensors.update(component_class=tensors["component_class"] + 9),
        lambda tensors, settings: tensors.update(mean=tensors["mean"] * torch.nan),
        lambda tensors, settings: settings.pop("samples"),
        lambda tensors, settings: settings["labels"].pop(),
        lambda tensors, settings: settings["fit"].update(colour="red"),
    ],
    ids=["no mean", "classes", "not finite", "no count", "too few labels", "unknown setting"],
)
def test_damage_is_noticed(parts: list[GaussianPart], basis: Basis, damage: Callable[..., object]) -> None:
    tensors, settings = parts[0].tensors(), parts[0].settings()
    damage(tensors, settings)
    with pytest.raises(CorruptError):
        GaussianPart.from_tensors(tensors, settings, basis)


# Small and strange sources


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_a_few_samples_are_enough(draws: list[Draws], basis: Basis, count: int) -> None:
    latents, names = draws[0]
    part = GaussianPart.fit(latents[:count], names[:count], None, basis)
    x_t, (alpha, sigma) = latents[:4].double(), levels(4, 0.0, 0.5, 1.0)
    assert part.log_density(x_t, alpha, sigma).isfinite().all()


def test_copies_of_one_picture_are_one_component(draws: list[Draws], basis: Basis) -> None:
    latents, names = draws[0]
    part = GaussianPart.fit(latents[:1].expand(50, *SHAPE), names[:50], None, basis)
    assert len(part.component_class) == 1


def test_what_cannot_be_fitted_is_refused(draws: list[Draws], basis: Basis) -> None:
    latents, names = draws[0]
    for bad, message in (
        ((latents[:0], []), "at least one"),
        ((latents, names[:-1]), "as many"),
        ((latents, [*names[:-1], names[0]]), "distinct ids"),
        ((latents / 0, names), "not finite"),
        ((latents.reshape(-1, 1, 3, 2), names), r"expected \(1, 2, 3\)"),
    ):
        with pytest.raises(InputError, match=message):
            GaussianPart.fit(*bad, None, basis)
    with pytest.raises(InputError, match="as many"):
        GaussianPart.fit(latents, names, ["a"], basis)


@pytest.mark.parametrize(
    "wrong",
    [
        {"components": ()},
        {"components": (2, 1)},
        {"components": (0,)},
        {"pseudo_counts": (0.0,)},
        {"ridge": 0.0},
        {"noise_levels": (1.0,)},
        {"holdout": 1.0},
        {"rounds": 0},
    ],
    ids=str,
)
def test_senseless_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        GaussianSettings(**wrong)
