"""CP-k: images that no single source explains much better than the composition does (Vyas et al. 2023).

An image x that was drawn from p is handed out only if log p(x) / q_i(x) <= k for every member q_i; otherwise another is
drawn. What passes has at most exp(k) / nu times the density that a model without source j, any other member, gives it,
where nu is the share of the images of p that pass. Densities are those of latents with noise of the first level of
`FLOW`, along the probability flow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from intarsia.composition import Access, CompositeDenoiser, Operator, Result, SampleSettings
from intarsia.composition.member import Conditions, labels_of, shares_of
from intarsia.composition.protected import check_labels, draw_protected
from intarsia.composition.sampling import Drive, OnProgress, OnStep, check_asked, draw_mixture, one_by_one
from intarsia.credit.density import FlowSettings
from intarsia.credit.members import log_densities
from intarsia.diffusion import keyed_generator
from intarsia.errors import SettingsError
from intarsia.routers import label_log_shares

FLOW = FlowSettings(steps=20, probes=2)
"""How densities are had: 20 steps of four points with two probes each, 400 network calls per image and member."""

CALLS = FLOW.steps * 4 * (1 + 2 * (FLOW.probes or 0))
_BLOCK = 256  # images at once
_MOST_SEEDS = 2**63


@dataclass(frozen=True)
class Drawing:
    """Draws images of given numbers by an operator, in any round of candidates; nobody's guard is entered.

    `decode` takes latents (B, *latent_shape) to images (B, C, H, W). Who is told of progress, and who drives mixtures,
    is as for `sample`.
    """

    model: CompositeDenoiser
    settings: SampleSettings
    operator: Operator
    decode: Callable[[Tensor], Tensor]
    on_progress: OnProgress | None = None
    on_step: OnStep | None = None
    drive: Drive = one_by_one

    def __call__(self, indices: Sequence[int], labels: Conditions | None, *, attempt: int = 0) -> Result:
        """The images; those of attempt 0 are the ones of the settings' own seed."""
        settings = self.settings
        if attempt:
            seed = int(keyed_generator("cp-k", settings.seed, attempt).integers(_MOST_SEEDS))
            settings = replace(settings, seed=seed)
        if self.operator.protects:
            return draw_protected(
                self.model,
                indices,
                settings,
                self.operator,
                decode=self.decode,
                labels=labels,
                on_progress=self.on_progress,
            )
        return draw_mixture(
            self.model,
            indices,
            settings,
            decode=self.decode,
            labels=labels,
            on_progress=self.on_progress,
            on_step=self.on_step,
            drive=self.drive,
        )


def sample_as(drawing: Drawing, count: int, *, labels: Conditions | None = None, first: int = 0) -> Result:
    """Draw `count` images by an operator, under its limit if it has one; image k depends on (seed, k) alone.

    Candidates of the first round are the images that there would be without a limit.

    Raises:
        SettingsError: as `sample` and `protect`; a limit under guidance; or an image has no candidate within the limit.
        UnknownName: as they do.
        ForbiddenError: the members may not be used, or not any more.
    """
    check_asked(count, labels)
    if drawing.operator.cp_k is not None and drawing.settings.guidance_scale != 1:
        raise SettingsError(
            f"guidance_scale {drawing.settings.guidance_scale} draws from no density that is known, and cp_k limits "
            "one; leave one of them out"
        )
    indices = range(first, first + count)
    with drawing.model.drawing(count):
        if drawing.operator.cp_k is None:
            return drawing(indices, labels)
        return _within(drawing, indices, labels, drawing.operator.cp_k)


def log_ratios(model: CompositeDenoiser, latents: Tensor, labels: Conditions | None, operator: Operator) -> Tensor:
    """log p(x) / q_i(x) of images, as latents (N, ...), under every member: (N, n) float64, in nats.

    p is what the operator draws from: sum_j lambda_j p(y | j) q_j / sum_j lambda_j p(y | j), or prod_j q_j^beta_j; the
    latter is not divided by its Z here, so that an image does not depend on others through an estimate of it.

    Raises:
        SettingsError: a label that a member cannot be asked for.
        UnknownName: a label that nobody knows.
    """
    asked: Conditions = [None] * len(latents) if labels is None else labels
    check_labels(model, asked)
    log_q = torch.cat(
        [
            log_densities(model.members, model.schedule, latents[rows], [asked[k] for k in rows.tolist()], FLOW)[0]
            for rows in torch.arange(len(latents)).split(_BLOCK)
        ]
    )
    if operator.protects:
        return (log_q @ operator.beta(model.names))[:, None] - log_q
    telling = [label if label in model.labels else None for label in labels_of(asked)]
    log_share = model.prior.double().log() + label_log_shares(shares_of(model.members), telling)
    if model.told is not None:
        log_share = log_share + model.told(asked)
    log_share = log_share.log_softmax(dim=1)
    return (log_q + log_share).logsumexp(dim=1, keepdim=True) - log_q


def _within(draw: Drawing, indices: Sequence[int], labels: Conditions | None, k: float) -> Result:
    """For each number the first candidate within the limit."""
    model, operator = draw.model, draw.operator
    result = draw(indices, labels)
    ratios = log_ratios(model, result.latents, labels, operator)
    least, calls = ratios.max(dim=1).values, result.calls + CALLS * len(model.members)
    tried = torch.ones(len(indices), dtype=torch.int64)
    for attempt in range(1, operator.most_tries):
        rows = (ratios.max(dim=1).values > k).nonzero()[:, 0].tolist()
        if not rows:
            break
        some = None if labels is None else [labels[row] for row in rows]
        other = draw([indices[row] for row in rows], some, attempt=attempt)
        ratios[rows] = log_ratios(model, other.latents, some, operator)
        least[rows] = least[rows].minimum(ratios[rows].max(dim=1).values)
        tried[rows] += 1
        calls[rows] += other.calls + CALLS * len(model.members)
        for ours, theirs in ((result.images, other.images), (result.latents, other.latents)):
            ours[rows] = theirs
        result.weights[:, rows] = other.weights
    missed = (ratios.max(dim=1).values > k).nonzero()[:, 0].tolist()
    if missed:
        raise SettingsError(
            f"{len(missed)} of {len(indices)} images have no candidate within cp_k {k:g} in {operator.most_tries} "
            f"tries (image {indices[missed[0]]}: {least[missed[0]]:.1f} nats at best); raise cp_k or the number of "
            "tries"
        )
    log_z = 0.0 if result.protection is None else result.protection.least_log_z
    return replace(result, calls=calls, access=Access(k, tried, ratios, result.asked, log_z))
