"""The `joint` router: the paper's classifier over all sources, which is not isolated (science.md section 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.backbone.backbone import Backbone
from intarsia.errors import CorruptError, IncompatibleError, SettingsError, UnknownName
from intarsia.routers.heads import (
    PARAM_NAMES,
    HeadSettings,
    HeadStep,
    Params,
    check_latents,
    draw,
    initial_params,
    logits,
    mid_features,
    train,
)
from intarsia.routers.part import SampleSet, stored


@final
@dataclass(frozen=True, eq=False)
class JointMember:
    """One of the sources that a joint classifier is fitted on: its name, its manifest root and its samples."""

    name: str
    root: str
    samples: SampleSet


@final
@dataclass(frozen=True, eq=False)
class JointClassifier:
    """One classifier over all sources. Every one of them is in its parameters: forgetting any of them invalidates it.

    Args:
        params: one head with an output per source.
        members: (name, manifest root) of the sources, in the order of the outputs.
        backbone: digest of the backbone whose features it reads.
        trained_with: the settings.
    """

    isolated: ClassVar[bool] = False

    params: Params
    members: tuple[tuple[str, str], ...]
    backbone: str
    trained_with: HeadSettings

    @classmethod
    def training(
        cls, members: Sequence[JointMember], backbone: Backbone, *, settings: HeadSettings | None = None
    ) -> tuple[JointClassifier, Iterator[HeadStep]]:
        """A classifier, and the steps that train it; it is ready when they are all taken.

        Raises:
            SettingsError: fewer than two sources, two of one name, or latents of another space than the backbone's.
        """
        settings = settings or HeadSettings()
        names = [member.name for member in members]
        if len(set(names)) < max(2, len(names)):
            raise SettingsError(f"a joint classifier of {names}: give at least two sources, each once")
        check_latents([member.samples.latents for member in members], backbone)
        params = initial_params(backbone.network.config.dim, len(members), settings)
        identities = tuple((member.name, member.root) for member in members)
        return cls(params, identities, backbone.digest, settings), _steps(params, members, backbone, settings)

    @classmethod
    def fit(
        cls, members: Sequence[JointMember], backbone: Backbone, *, settings: HeadSettings | None = None
    ) -> JointClassifier:
        """`training`, with all its steps taken."""
        classifier, steps = cls.training(members, backbone, settings=settings)
        for _ in steps:
            pass
        return classifier

    def check(self, roots: Mapping[str, str]) -> None:
        """Refuse to be used when one of the sources it was fitted on is not what it was.

        Args:
            roots: the manifest root of every source there is, by name.

        Raises:
            IncompatibleError: a source is gone or has changed; names all of them.
        """
        problems = [
            f"'{name}' is gone" if name not in roots else f"'{name}' was {root[:12]}… and is {roots[name][:12]}…"
            for name, root in self.members
            if roots.get(name) != root
        ]
        if problems:
            raise IncompatibleError(
                f"the joint classifier was fitted on sources that have changed ({'; '.join(problems)}): fit it again, "
                "or use weights that are isolated"
            )

    # With as many images of each source in the loss, logit_i = log p_t^i(x_t) + a number that all sources share
    @torch.no_grad()
    def __call__(self, features: Tensor, t: Tensor, sources: Sequence[str]) -> Tensor:
        """log p_t^i(x_t), up to a term that all share, of the named sources in this order: (B, n).

        Args:
            features: (B, L, D), `mid_features` of x_t.
            t: (B,).

        Raises:
            UnknownName: a source that the classifier was not fitted on.
        """
        places = {name: place for place, (name, _) in enumerate(self.members)}
        for name in sources:
            if name not in places:
                raise UnknownName("source of the joint classifier", name, places)
        return logits(self.params, features, t)[:, 0, [places[name] for name in sources]]

    def tensors(self) -> Params:
        """For a safetensors file; `from_tensors` reads them back."""
        return dict(self.params)

    def settings(self) -> dict[str, Any]:
        """What belongs beside the tensors, JSON-able."""
        return {
            "kind": "joint",
            "backbone": self.backbone,
            "members": [list(member) for member in self.members],
            "fit": self.trained_with.settings(),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> JointClassifier:
        """Read what `tensors` and `settings` gave.

        Raises:
            CorruptError: something is missing.
        """
        params = dict(zip(PARAM_NAMES, stored(tensors, PARAM_NAMES, "the joint classifier"), strict=True))
        try:
            members = tuple((name, root) for name, root in settings["members"])
            return cls(params, members, settings["backbone"], HeadSettings(**settings["fit"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptError(f"the joint classifier cannot be read ({error}); fit it again") from error


def _steps(
    params: Params, members: Sequence[JointMember], backbone: Backbone, settings: HeadSettings
) -> Iterator[HeadStep]:
    each = max(1, settings.batch // len(members))

    def loss_of(params: Params, step: int) -> Tensor:
        batches = [draw(member.samples, each, backbone, seed=settings.seed, step=step) for member in members]
        t = torch.cat([batch.t for batch in batches])
        scores = logits(params, mid_features(backbone, torch.cat([batch.x_t for batch in batches]), t), t)[:, 0]
        per_source = scores.split([len(batch.t) for batch in batches])
        return torch.stack([-F.log_softmax(rows, 1)[:, place].mean() for place, rows in enumerate(per_source)]).mean()

    return train(params, settings, loss_of)
