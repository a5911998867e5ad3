"""The `reference` router: each source against the core set, never against another source (science.md section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.backbone.backbone import Backbone
from intarsia.errors import CorruptError, IncompatibleError, SettingsError
from intarsia.routers.heads import (
    PARAM_NAMES,
    HeadSettings,
    Params,
    check_latents,
    draw,
    draw_core,
    fit_head,
    logits,
    mid_features,
)
from intarsia.routers.part import SampleSet, stored


@final
@dataclass(frozen=True, eq=False)
class ReferencePart:
    """Logistic regression h_i(x_t, t) of one source against the core, on features of the frozen backbone.

    Args:
        params: one head with one output.
        backbone: digest of the backbone whose features it reads.
        trained_with: the settings; their odds are subtracted when the head is used.
    """

    isolated: ClassVar[bool] = True

    params: Params
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
        """Fit one source against the core.

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
        half = max(1, settings.batch // 2)

        def loss_of(params: Params, step: int) -> Tensor:
            source = draw(samples, half, backbone, seed=settings.seed, step=step)
            core = draw_core(core_latents, half, backbone, seed=settings.seed, step=step)
            x_t, t = torch.cat([source.x_t, core.x_t]), torch.cat([source.t, core.t])
            h = logits(params, mid_features(backbone, x_t, t), t)[:, 0, 0]
            return reference_loss(h[: len(source.t)], h[len(source.t) :], settings.odds)

        return cls(fit_head(backbone.network.config.dim, 1, settings, loss_of), backbone.digest, settings)

    def tensors(self) -> Params:
        """For a safetensors file; `from_tensors` reads them back."""
        return dict(self.params)

    def settings(self) -> dict[str, Any]:
        """What belongs beside the tensors, JSON-able."""
        return {"kind": "reference", "backbone": self.backbone, "fit": self.trained_with.settings()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> ReferencePart:
        """Read what `tensors` and `settings` gave.

        Raises:
            CorruptError: something is missing.
        """
        params = dict(zip(PARAM_NAMES, stored(tensors, PARAM_NAMES, "the reference part"), strict=True))
        try:
            return cls(params, settings["backbone"], HeadSettings(**settings["fit"]))
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
        shapes = [str([tuple(part.params[name].shape) for name in PARAM_NAMES]) for part in parts]
        if len(set(shapes)) > 1:
            raise IncompatibleError(
                f"reference parts of different head shapes ({', '.join(shapes)}): fit all of them alike"
            )
        self.backbone = backbone
        self._params = {name: torch.cat([part.params[name] for part in parts]) for name in PARAM_NAMES}
        self._log_odds = torch.tensor([part.trained_with.odds for part in parts]).log()

    # science.md section 3: w = softmax_i(h_i - log o_i + log lambda_i); p^0 cancels
    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """h_i - log o_i, an estimate of log p_t^i(x_t) - log p_t^0(x_t), for every source.

        Args:
            x_t: (B, *latent_shape).
            t: (B,).
        Returns:
            (B, n).
        """
        return logits(self._params, mid_features(self.backbone, x_t, t), t)[..., 0] - self._log_odds


# Logistic regression at odds o: its optimum is h = log o + log p_t^i(x_t) / p_t^0(x_t)
def reference_loss(h_source: Tensor, h_core: Tensor, odds: float) -> Tensor:
    """Mean loss of each side, so that the odds do not depend on how many samples a source has."""
    return (odds * F.softplus(-h_source).mean() + F.softplus(h_core).mean()) / (1 + odds)
