"""The `joint` router: the paper's classifier over all sources, which is not isolated (science.md section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.backbone.backbone import Backbone
from intarsia.errors import SettingsError, UnknownName
from intarsia.routers.heads import (
    HeadSettings,
    Params,
    check_latents,
    draw,
    feature_dim,
    fit_head,
    logits,
    mid_features,
)
from intarsia.routers.part import SampleSet


@final
@dataclass(frozen=True, eq=False)
class JointMember:
    """One of the sources that a joint classifier is fitted on."""

    name: str
    samples: SampleSet


@final
@dataclass(frozen=True, eq=False)
class JointClassifier:
    """One classifier over all sources. Every one of them is in its parameters, so it is never stored.

    Args:
        params: one head with an output per source.
        names: of the sources, in the order of the outputs.
        backbone: whose features it reads.
    """

    isolated: ClassVar[bool] = False

    params: Params
    names: tuple[str, ...]
    backbone: Backbone

    @classmethod
    def fit(
        cls, members: Sequence[JointMember], backbone: Backbone, *, settings: HeadSettings | None = None
    ) -> JointClassifier:
        """Fit it on all sources together, with as many images of each.

        Raises:
            SettingsError: fewer than two sources, two of one name, or latents of another space than the backbone's.
        """
        settings = settings or HeadSettings()
        names = tuple(member.name for member in members)
        if len(set(names)) < max(2, len(names)):
            raise SettingsError(f"a joint classifier of {list(names)}: give at least two sources, each once")
        check_latents([member.samples.latents for member in members], backbone)
        each = max(1, settings.batch // len(members))

        def loss_of(params: Params, step: int) -> Tensor:
            batches = [draw(member.samples, each, backbone, seed=settings.seed, step=step) for member in members]
            x_t, t = torch.cat([batch.x_t for batch in batches]), torch.cat([batch.t for batch in batches])
            scores = logits(params, mid_features(backbone, x_t, t), t)[:, 0]
            per_source = scores.split([len(batch.t) for batch in batches])
            losses = [-F.log_softmax(rows, 1)[:, place].mean() for place, rows in enumerate(per_source)]
            return torch.stack(losses).mean()

        return cls(fit_head(feature_dim(backbone), len(members), settings, loss_of), names, backbone)

    # With as many images of each source in the loss, logit_i = log p_t^i(x_t) + a number that all sources share
    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor, sources: Sequence[str]) -> Tensor:
        """log p_t^i(x_t), up to a term that all share, of the named sources in this order: (B, n).

        Args:
            x_t: (B, *latent_shape).
            t: (B,).

        Raises:
            UnknownName: a source that the classifier was not fitted on.
        """
        places = {name: place for place, name in enumerate(self.names)}
        for name in sources:
            if name not in places:
                raise UnknownName("source of the joint classifier", name, places)
        scores = logits(self.params, mid_features(self.backbone, x_t, t), t)
        return scores[:, 0, [places[name] for name in sources]]
