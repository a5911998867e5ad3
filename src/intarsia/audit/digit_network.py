"""A small network that reads digits and refuses what is none: the judge of legibility, and the features of FD-digitnet.

It is trained on real digits that no compartment sees, against rejects (`digit_images`). Its logits judge; the layer
before them gives features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.audit.digit_images import Digits, Rejects
from intarsia.audit.features import Images, as_drawn
from intarsia.diffusion import keyed_generator, keyed_normal
from intarsia.digests import digest_of
from intarsia.errors import InputError, SettingsError
from intarsia.files import tensors_to_bytes

NETWORK = "digitnet"
_BATCH = 1024
_SMALLEST_MAP = 8  # larger images are halved until their side is at most this
_SURE = 1.645  # standard normal quantile: one-sided 95 %


@dataclass(frozen=True, kw_only=True)
class DigitSettings:
    """How the network is built and trained.

    Args:
        width: channels of the first layer; later ones have twice as many.
        features: numbers of the layer that gives features.
        steps: of AdamW, the learning rate falling to 0 along a cosine.
        batch: images per step, half digits, half rejects.
        lr: the first learning rate.
        decay: weight decay.
        dropout: of the features.
        noise: standard deviation of the strongest noise put on training images.
        seed: of parameters, order, warps and noise.

    Raises:
        SettingsError: a value that makes no sense.
    """

    width: int = 24
    features: int = 64
    steps: int = 1000
    batch: int = 128
    lr: float = 3e-3
    decay: float = 0.01
    dropout: float = 0.3
    noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "features", "steps"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.batch < 2 or not self.lr > 0 or min(self.decay, self.noise) < 0 or not 0 <= self.dropout < 1:
            raise SettingsError(
                f"batch {self.batch}, lr {self.lr}, decay {self.decay}, noise {self.noise}, dropout {self.dropout}: "
                "expected at least 2, above 0, at least 0, at least 0, in [0, 1)"
            )


@dataclass(frozen=True, eq=False)
class Judgement:
    """What the network says of N images.

    Args:
        labels: (N,) the likeliest class, a place in the network's `classes`, whether or not the image was accepted.
        accepted: (N,) bool: a digit is likelier than a reject, and its probability reaches the threshold.
        probability: (N,) of the likeliest class.
    """

    labels: Tensor
    accepted: Tensor
    probability: Tensor

    @property
    def share(self) -> float:
        """Share of the images that were accepted."""
        return self.accepted.double().mean().item()


@dataclass(frozen=True, eq=False)
class DigitNetwork:
    """A trained judge. Made by `fit_digit_network`; `calibrated` sets the threshold.

    Args:
        module: maps (N, 1, S, S) to logits of the classes and, last, of a reject.
        classes: names of the classes.
        image_size: S.
        threshold: smallest probability that is accepted.
    """

    module: DigitModule
    classes: tuple[str, ...]
    image_size: int
    threshold: float = 0.5

    @property
    def name(self) -> str:
        return NETWORK

    @cached_property
    def digest(self) -> str:
        """sha256 of the parameters: judges trained on other digits are other networks."""
        return digest_of(tensors_to_bytes(self.module.state_dict()))

    @torch.no_grad()
    def features(self, images: Images) -> Tensor:
        """float32 (N, d) of images (N, 1, S, S) in [-1, 1], or of uint8 (N, S, S, 1).

        Raises:
            InputError: images of another shape.
        """
        return torch.cat([self.module.embed(part) for part in self._checked(as_drawn(images)).split(_BATCH)])

    @torch.no_grad()
    def judge(self, images: Tensor) -> Judgement:
        """Read images (N, 1, S, S) in [-1, 1].

        Raises:
            InputError: images of another shape.
        """
        chances = torch.cat([self.module(part).softmax(1) for part in self._checked(images).split(_BATCH)])
        probability, labels = chances[:, :-1].max(1)
        accepted = (probability > chances[:, -1]) & (probability >= self.threshold)
        return Judgement(labels, accepted, probability)

    def calibrated(self, rejects: Rejects, *, accept: float = 0.05) -> DigitNetwork:
        """The same network with the lowest threshold that accepts at most the share `accept` of such rejects.

        Not the share that was counted but its upper 95 % bound is held below, so that other rejects of the same kinds
        keep to it too. They must be held out: other letters, and blends of digits that the network was not trained on.

        Raises:
            InputError: too few rejects to bound the share.
            SettingsError: `accept` is not in (0, 1).
        """
        if not 0 < accept < 1:
            raise SettingsError(f"accept is {accept}: it is a share between 0 and 1")
        judgement = replace(self, threshold=0.0).judge(rejects.images)
        chances = torch.where(judgement.accepted, judgement.probability, 0).sort(descending=True).values
        count = len(chances)
        most = max((hits for hits in range(count) if upper_bound(hits, count) <= accept), default=None)
        if most is None:
            raise InputError(f"{count} rejects cannot show that at most {accept:.1%} are accepted: give more")
        return replace(self, threshold=torch.nextafter(chances[most], torch.tensor(math.inf)).item())

    def _checked(self, images: Tensor) -> Tensor:
        side = self.image_size
        if images.ndim != 4 or images.shape[1:] != (1, side, side):
            raise InputError(f"images are {tuple(images.shape)}: this network reads (N, 1, {side}, {side}) in [-1, 1]")
        return images.float()


def fit_digit_network(digits: Digits, rejects: Rejects, settings: DigitSettings | None = None) -> DigitNetwork:
    """Train a judge on real digits and rejects; about a quarter of a minute on one core at 8 px.

    Give many more rejects than digits: 20,000, made of 450 digits, refuse blends better than 6,000 do.

    Raises:
        InputError: rejects of another size, or none.
    """
    settings = settings or DigitSettings()
    if not len(rejects) or rejects.images.shape[1:] != digits.images.shape[1:]:
        raise InputError(
            f"{len(rejects)} rejects of {tuple(rejects.images.shape[1:])} for digits of "
            f"{tuple(digits.images.shape[1:])}: give some, of the same size"
        )
    size = digits.images.shape[-1]
    module = DigitModule(size, len(digits.classes), settings)
    optimiser = torch.optim.AdamW(module.parameters(), lr=settings.lr, weight_decay=settings.decay)
    half = settings.batch // 2
    goal = torch.full((half,), len(digits.classes))
    for step in range(settings.steps):
        draw = keyed_generator("digit network", settings.seed, step)
        real, none = (torch.from_numpy(draw.integers(0, len(side), half)) for side in (digits, rejects))
        images = _varied(torch.cat([digits.images[real], rejects.images[none]]), settings, step)
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * (1 + math.cos(math.pi * step / settings.steps)) / 2
        keep = torch.from_numpy(draw.random((2 * half, settings.features)) >= settings.dropout) / (1 - settings.dropout)
        loss = F.cross_entropy(module.head(module.embed(images) * keep.float()), torch.cat([digits.labels[real], goal]))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return DigitNetwork(module.eval().requires_grad_(False), digits.classes, size)


class DigitModule(nn.Module):
    """Convolutions, one hidden layer that gives features, and logits of the classes and of a reject."""

    def __init__(self, size: int, classes: int, settings: DigitSettings):
        super().__init__()
        side, channels, layers = size, 1, []
        while side > _SMALLEST_MAP:
            layers += [nn.Conv2d(channels, settings.width, 3, padding=1), nn.GELU(), nn.AvgPool2d(2)]
            side, channels = side // 2, settings.width
        layers += [nn.Conv2d(channels, settings.width, 3, padding=1), nn.GELU()]
        layers += [nn.Conv2d(settings.width, 2 * settings.width, 3, padding=1), nn.GELU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(2 * settings.width, 2 * settings.width, 3, padding=1), nn.GELU(), nn.Flatten()]
        self.body = nn.Sequential(*layers)
        self.hidden = nn.Linear(2 * settings.width * (side // 2) ** 2, settings.features)
        self.head = nn.Linear(settings.features, classes + 1)
        self._initialise(settings.seed)

    def embed(self, images: Tensor) -> Tensor:
        """Features (N, d), each row of mean 0 and variance 1: a few loud images would rule a covariance."""
        return F.layer_norm(self.hidden(self.body(images)), (self.hidden.out_features,))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.embed(images))

    @torch.no_grad()
    def _initialise(self, seed: int) -> None:
        for name, param in self.named_parameters():
            fan_in = param[0].numel()
            normal = keyed_normal(param.shape, "digit network", seed, name)
            param.copy_(normal * math.sqrt(2 / fan_in) if param.ndim > 1 else torch.zeros_like(param))


def _varied(images: Tensor, settings: DigitSettings, step: int) -> Tensor:
    """Turn, stretch, shift and bend two thirds of the images a little, and put some noise on all of them."""
    count, _, side, _ = images.shape
    draw = keyed_generator("digit network", "vary", settings.seed, step)
    turn, shear, wide, high, dx, dy = torch.from_numpy(draw.uniform(-1, 1, (6, count))).float()
    on = torch.from_numpy(draw.random(count) < 2 / 3).float()
    turn, shear = on * turn * 0.15, on * shear * 0.15
    matrix = torch.stack(
        [1 + on * wide * 0.1, shear - turn, on * dx / side, shear + turn, 1 + on * high * 0.1, on * dy / side], 1
    ).unflatten(1, (2, 3))
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    bend = torch.from_numpy(draw.standard_normal((count, 2, 4, 4))).float() * on[:, None, None, None] * 0.5 / side
    grid = grid + F.interpolate(bend, size=(side, side), mode="bilinear", align_corners=True).movedim(1, -1)
    # Outside of the picture there is no ink, which is -1.
    moved = F.grid_sample(images + 1, grid, padding_mode="zeros", align_corners=False) - 1
    strength = torch.from_numpy(draw.uniform(0, settings.noise, (count, 1, 1, 1))).float()
    return moved + strength * torch.from_numpy(draw.standard_normal(tuple(images.shape))).float()


# Wilson 1927: the score interval of a binomial share.
def upper_bound(hits: int, count: int) -> float:
    """The one-sided upper 95 % bound of a share of which `hits` out of `count` were seen."""
    share, z = hits / count, _SURE
    centre = share + z**2 / (2 * count)
    return (centre + z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))) / (1 + z**2 / count)
