"""Do images show what was asked for? One interface, several judges; every score is in points, 0 to 100.

`AttributeAlignment` needs nothing but labelled real pictures. `QuestionAlignment` asks a model about the image, in the
manner of TIFA (Hu et al. 2023), and `ClipAlignment` compares image and text in CLIP's space; both need weights of their
own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from intarsia.audit.features import FeatureNetwork
from intarsia.audit.linear import best_ridge, fit_linear, logits, scaled
from intarsia.audit.questions import Question, questions_of
from intarsia.digests import canonical_json, digest_of
from intarsia.errors import InputError, UnknownName

RIDGES = (1e-3, 1e-2, 1e-1)
_ROUNDS = 60


class Alignment(Protocol):
    """A judge of images against what they were asked for."""

    @property
    def name(self) -> str:
        """What its figure is called."""
        ...

    @property
    def digest(self) -> str:
        """Of all that its scores depend on besides images and prompts."""
        ...

    def scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Points (N,) of images (N, C, H, W) in [-1, 1], one prompt each.

        Raises:
            InputError: as `check_asked`.
        """
        ...


def check_asked(images: Tensor, prompts: Sequence[str]) -> None:
    """Refuse what no judge could score.

    Raises:
        InputError: images other than (N, C, H, W) in [-1, 1], finite and N at least 1; or not one prompt for each.
    """
    if images.ndim != 4 or not images.is_floating_point() or not len(images):
        found = f"{images.dtype}".removeprefix("torch.")
        raise InputError(f"images are {tuple(images.shape)} {found}, expected (N, C, H, W) of floats in [-1, 1]")
    if not bool(images.isfinite().all()):
        raise InputError("images hold NaN or infinite values; score those that are finite")
    if isinstance(prompts, str) or len(prompts) != len(images) or not all(isinstance(each, str) for each in prompts):
        found = "one text" if isinstance(prompts, str) else f"{len(prompts)} prompts"
        raise InputError(f"{found} for {len(images)} images, expected a list with one text for each")


@dataclass(frozen=True, eq=False)
class AttributeClassifier:
    """Tells an attribute of what a picture shows, such as its category. Made by `fit_attributes`.

    Args:
        values: of the attribute, in the order of the columns of `params` (d + 1, n), the last row of which is the bias.
        centre, scale: (d,) of the features of the training images.
    """

    values: tuple[str, ...]
    centre: Tensor
    scale: Tensor
    params: Tensor

    def predict(self, features: Tensor) -> list[str]:
        """The likeliest value for each row of features (N, d)."""
        found = logits(scaled(features.double(), self.centre, self.scale), self.params).argmax(dim=1)
        return [self.values[place] for place in found.tolist()]


def fit_attributes(features: Tensor, values: Sequence[str]) -> AttributeClassifier:
    """Fit on features (N, d) of real pictures and their values. Hold some out first, to know how often it is right.

    Raises:
        InputError: fewer than two different values, another number of values than of features, or features that are
            not finite.
    """
    if not bool(features.isfinite().all()):
        raise InputError("features of the pictures hold NaN or infinite values; look at the pictures they are of")
    known = sorted(set(values))
    if len(values) != len(features) or len(known) < 2:
        raise InputError(
            f"{len(features)} pictures with {len(values)} values, {len(known)} of them different: give one each, and "
            "at least two kinds"
        )
    centre, scale = features.double().mean(dim=0), features.double().std(dim=0).clamp_min(1e-6)
    x, place = scaled(features.double(), centre, scale), torch.tensor([known.index(value) for value in values])
    ridge = best_ridge(x, place, RIDGES, rounds=_ROUNDS)
    return AttributeClassifier(
        tuple(known), centre, scale, fit_linear(x, place, len(known), ridge=ridge, rounds=_ROUNDS)
    )


@dataclass(frozen=True, eq=False)
class AttributeAlignment:
    """100 where the image passes for one with the attribute of its prompt, else 0; `wanted` says which that is."""

    name: str
    network: FeatureNetwork
    classifier: AttributeClassifier
    wanted: Mapping[str, str]

    @property
    def digest(self) -> str:
        """As `Alignment.digest`."""
        fitted = self.classifier
        told = {"network": self.network.digest, "values": fitted.values, "wanted": dict(self.wanted)}
        numbers = (
            torch.cat([fitted.centre[None], fitted.scale[None]]).numpy().tobytes() + fitted.params.numpy().tobytes()
        )
        return digest_of(canonical_json(told) + numbers)

    def scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """As `Alignment.scores`.

        Raises:
            InputError: as `check_asked`.
            UnknownName: of a prompt the attribute is not known.
        """
        check_asked(images, prompts)
        for prompt in prompts:
            if prompt not in self.wanted:
                raise UnknownName(f"prompt with a {self.name}", prompt, self.wanted)
        found = self.classifier.predict(self.network.features(images))
        return 100 * torch.tensor([a == self.wanted[b] for a, b in zip(found, prompts, strict=True)]).double()


class Answerer(Protocol):
    """Answers questions about an image, such as `load_answerer` makes of a visual question answering model."""

    @property
    def digest(self) -> str:
        """Of all that its answers depend on besides images and questions."""
        ...

    def knows(self, question: Question) -> bool:
        """Whether it can give the expected answer, and another; of every prompt it must know one question."""
        ...

    def answers(self, image: Tensor, questions: Sequence[Question]) -> list[str]:
        """One of the choices of each question, for an image (C, H, W) in [-1, 1]."""
        ...


# Hu et al. 2023 (TIFA): the share of the questions about a prompt that are answered as the prompt says
@dataclass(frozen=True, eq=False)
class QuestionAlignment:
    """Faithfulness by questions that are made of the prompt by templates (`questions_of`)."""

    answerer: Answerer
    name: str = "questions"

    @property
    def digest(self) -> str:
        """As `Alignment.digest`."""
        return self.answerer.digest

    def scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """As `Alignment.scores`; what the answerer was not taught is not asked.

        Raises:
            InputError: as `check_asked`, or of a prompt nothing can be asked.
        """
        check_asked(images, prompts)
        points = []
        for image, prompt in zip(images, prompts, strict=True):
            asked = [question for question in questions_of(prompt) if self.answerer.knows(question)]
            if not asked:
                raise InputError(f"the answerer knows no question about '{prompt}'; score others, or by another judge")
            answers = self.answerer.answers(image, asked)
            right = sum(answer == question.expected for answer, question in zip(answers, asked, strict=True))
            points.append(100 * right / len(asked))
        return torch.tensor(points, dtype=torch.float64)


def error_reduction(points: float, base: float) -> float:
    """Which share of the points that the base lacks is won: (points - base) / (100 - base); the paper's "relative".

    Not a number where the base lacks nothing: no share of nothing is won or lost.
    """
    return math.nan if base >= 100 else (points - base) / (100 - base)
