"""The `reference` router: each source against the core set, never against another source (science.md section 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.backbone.backbone import Backbone
from intarsia.data.source import hash_fraction
from intarsia.diffusion import keyed_generator
from intarsia.errors import CorruptError, IncompatibleError, SettingsError
from intarsia.routers.calibration import bin_of, calibrated, fit_bin, identity
from intarsia.routers.heads import (
    PARAM_NAMES,
    HeadSettings,
    Params,
    check_latents,
    draw,
    draw_core,
    feature_dim,
    fit_head,
    logits,
    mid_features,
)
from intarsia.routers.part import SampleSet, one_thread, stored

_SPLIT = 0  # seed of the hash that holds samples out; the same for every source and every fit
_FEWEST = 8  # held-out samples of either side from which a calibration is worth having
_ROUNDS = 32  # of draws for the calibration, each of half a batch per side


@final
@dataclass(frozen=True, eq=False)
class ReferencePart:
    """Logistic regression h_i(x_t, t) of one source against the core, on features of the frozen backbone.

    Args:
        params: one head with one output.
        calibration: (bins, 2) scale and shift of the head's log-ratio, see `calibration`.
        backbone: digest of the backbone whose features it reads.
        trained_with: the settings; their odds are subtracted when the head is used.
    """

    isolated: ClassVar[bool] = True

    params: Params
    calibration: Tensor
    backbone: str
    trained_with: HeadSettings

    @classmethod
    def fit(
        cls,
        latents: Tensor,
        ids: Sequence[str],
        core_latents: Tensor,
        backbone: Backbone,
        *,
        settings: HeadSettings | None = None,
    ) -> ReferencePart:
        """Fit one source against the core, and calibrate it on samples of both that were held out.

        Args:
            latents: (N, *latent_shape) of the source, with N ids, in any order. The same set gives the same bytes.
            core_latents: (M, *latent_shape) of the core, always in the same order.

        Raises:
            InputError: samples that `SampleSet` refuses.
            SettingsError: latents of another space than the backbone's.
        """
        settings = settings or HeadSettings()
        samples = SampleSet(latents, ids)
        check_latents((samples.latents, core_latents), backbone)
        fitted, held = _split(samples, core_latents, settings)

        def loss_of(params: Params, step: int) -> Tensor:
            return reference_loss(*_both_sides(params, fitted, backbone, settings, step)[:2], settings.odds)

        params = fit_head(feature_dim(backbone), 1, settings, loss_of)
        calibration = identity(settings.bins) if held is None else _calibration(params, held, backbone, settings)
        return cls(params, calibration, backbone.digest, settings)

    def tensors(self) -> Params:
        """For a safetensors file; `from_tensors` reads them back."""
        return self.params | {"calibration": self.calibration}

    def settings(self) -> dict[str, Any]:
        """What belongs beside the tensors, JSON-able."""
        return {"kind": "reference", "backbone": self.backbone, "fit": self.trained_with.settings()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> ReferencePart:
        """Read what `tensors` and `settings` gave.

        Raises:
            CorruptError: something is missing.
        """
        *head, calibration = stored(tensors, (*PARAM_NAMES, "calibration"), "the reference part")
        params = dict(zip(PARAM_NAMES, head, strict=True))
        try:
            return cls(params, calibration, settings["backbone"], HeadSettings(**settings["fit"]))
        except (KeyError, TypeError) as error:
            raise CorruptError(
                f"the reference part cannot be read ({error}); restore its files or fit it again"
            ) from error


@final
class ReferenceBank:
    """n reference heads on the features of one backbone.

    Raises:
        SettingsError: no parts.
        IncompatibleError: parts fitted on another backbone, or of different shapes.
    """

    def __init__(self, parts: Sequence[ReferencePart], backbone: Backbone):
        if not parts:
            raise SettingsError("a bank of no reference parts: give at least one")
        for part in parts:
            if part.backbone != backbone.digest:
                raise IncompatibleError(
                    f"a reference part was fitted on the backbone {part.backbone[:16]}…, this is "
                    f"{backbone.digest[:16]}…: fit it again on this one"
                )
        shapes = [str([tuple(tensor.shape) for tensor in part.tensors().values()]) for part in parts]
        if len(set(shapes)) > 1:
            raise IncompatibleError(
                f"reference parts of different head shapes ({', '.join(shapes)}): fit all of them alike"
            )
        self.backbone = backbone
        self._params = {name: torch.cat([part.params[name] for part in parts]) for name in PARAM_NAMES}
        self._calibration = torch.stack([part.calibration for part in parts])
        self._log_odds = torch.tensor([part.trained_with.odds for part in parts]).log()

    # science.md section 3: w = softmax_i(h_i - log o_i + log lambda_i); p^0 cancels
    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """h_i - log o_i, calibrated: an estimate of log p_t^i(x_t) - log p_t^0(x_t), for every source.

        Args:
            x_t: (B, *latent_shape).
            t: (B,).
        Returns:
            (B, n).
        """
        h = logits(self._params, mid_features(self.backbone, x_t, t), t)[..., 0] - self._log_odds
        return calibrated(h, t, self._calibration)


# Logistic regression at odds o: its optimum is h = log o + log p_t^i(x_t) / p_t^0(x_t)
def reference_loss(h_source: Tensor, h_core: Tensor, odds: float) -> Tensor:
    """Mean loss of each side, so that the odds do not depend on how many samples a source has."""
    return (odds * F.softplus(-h_source).mean() + F.softplus(h_core).mean()) / (1 + odds)


@dataclass(frozen=True)
class _Sides:
    """Samples of the source, and latents of the core (M, *latent_shape)."""

    source: SampleSet
    core: Tensor


def _split(samples: SampleSet, core_latents: Tensor, settings: HeadSettings) -> tuple[_Sides, _Sides | None]:
    """What the head is trained on and what it is calibrated on; all and None where too little can be held out."""
    held = torch.tensor([hash_fraction(_SPLIT, id) < settings.holdout for id in samples.ids])
    # The core is public and fixed, so places may decide.
    held_core = torch.from_numpy(keyed_generator("head holdout").random(len(core_latents)) < settings.holdout)
    counts = (held.sum(), (~held).sum(), held_core.sum(), (~held_core).sum())
    if min(int(count) for count in counts) < _FEWEST:
        return _Sides(samples, core_latents), None
    return (
        _Sides(samples.where(~held), core_latents[~held_core]),
        _Sides(samples.where(held), core_latents[held_core]),
    )


def _both_sides(
    params: Params, sides: _Sides, backbone: Backbone, settings: HeadSettings, step: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(h of the source's draws, h of the core's, times of the former, times of the latter), each (half a batch,)."""
    half = max(1, settings.batch // 2)
    source = draw(sides.source, half, backbone, seed=settings.seed, step=step)
    core = draw_core(sides.core, half, backbone, seed=settings.seed, step=step)
    x_t, t = torch.cat([source.x_t, core.x_t]), torch.cat([source.t, core.t])
    h = logits(params, mid_features(backbone, x_t, t), t)[:, 0, 0]
    return h[: len(source.t)], h[len(source.t) :], source.t, core.t


@torch.no_grad()
def _calibration(params: Params, held: _Sides, backbone: Backbone, settings: HeadSettings) -> Tensor:
    """(bins, 2) float32, from as many held-out draws as `_ROUNDS` steps of training take."""
    with one_thread():
        steps = range(settings.steps, settings.steps + _ROUNDS)
        drawn = [_both_sides(params, held, backbone, settings, step) for step in steps]
        h_source, h_core, t_source, t_core = (torch.cat(side) for side in zip(*drawn, strict=True))
        log_odds = math.log(settings.odds)
        rows = identity(settings.bins).double()
        for number in range(settings.bins):
            source = h_source[bin_of(t_source, settings.bins) == number] - log_odds
            core = h_core[bin_of(t_core, settings.bins) == number] - log_odds
            if len(source) and len(core):
                rows[number] = fit_bin(source, core, 1 / len(held.source))
    return rows.float()
