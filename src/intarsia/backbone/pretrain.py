"""Pre-training on the core set: first the autoencoder, if the backbone has one, then the network on its latents.

Both are generators that yield one step at a time; logging and progress bars are the caller's business. Both can be
stopped anywhere and go on from their checkpoint: every random number is keyed by (seed, step), so nothing but
parameters, averages and optimiser state needs keeping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.backbone.augment import Augmentation
from intarsia.backbone.autoencoder import Autoencoder
from intarsia.backbone.backbone import Backbone
from intarsia.backbone.optimizer import (
    OPTIMISERS,
    build_optimisers,
    optimiser_tensors,
    restore_optimisers,
    set_lr,
    trapezoid,
)
from intarsia.backbone.precision import PRECISIONS, MasterParams, resolve_precision
from intarsia.backbone.uvit import UViT
from intarsia.checks import check_number, check_seed, check_whole
from intarsia.diffusion import Schedule, expand, keyed_generator, keyed_normal, target
from intarsia.errors import SettingsError, UnknownName
from intarsia.files import load_sealed, read_json, save_sealed, write_json

MOST_ROWS = 2**16  # images in one step; more is a slip of the keyboard


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """How a network or an autoencoder is pre-trained; saved beside every checkpoint."""

    steps: int
    batch: int = 128
    lr: float = 1e-3
    optimiser: str = "adamw"
    weight_decay: float = 0.01
    warmup: int = 200
    cooldown: float = 0.3
    ema: float = 0.9995
    clip: float = 1.0
    label_dropout: float = 0.1
    variants: int = 1
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("steps", self.steps)
        for name in ("batch", "variants"):
            check_whole(name, getattr(self, name), most=MOST_ROWS)
        check_whole("warmup", self.warmup, least=0)
        check_seed(self.seed)
        check_number("cooldown", self.cooldown, above=0, most=1)
        for name in ("ema", "label_dropout"):
            check_number(name, getattr(self, name), least=0, below=1)
        for name in ("lr", "clip"):
            check_number(name, getattr(self, name), above=0)
        check_number("weight_decay", self.weight_decay, least=0)
        if self.optimiser not in OPTIMISERS:
            raise UnknownName("optimiser", self.optimiser, OPTIMISERS)
        resolve_precision(self.precision)

    def settings(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class TrainStep:
    """One finished step: its number (from 1), how many there will be, loss and learning rate."""

    step: int
    steps: int
    loss: float
    lr: float


class _Run:
    """What pre-training any module needs between steps: masters, averages, optimisers, checkpoints."""

    def __init__(self, module: nn.Module, settings: PretrainSettings, checkpoint: Path | None, save_every: int):
        check_whole("save_every", save_every)
        self.module, self.settings, self.checkpoint, self.save_every = module, settings, checkpoint, save_every
        module.train().requires_grad_(True)
        precision = resolve_precision(settings.precision)
        self.params = MasterParams(module, precision)
        self.dtype = PRECISIONS[precision]
        self.optimisers = build_optimisers(
            settings.optimiser, module, lr=settings.lr, weight_decay=settings.weight_decay
        )
        self.average = {name: p.detach().clone() for name, p in module.named_parameters()}
        self.done = self._restore()

    def step(self, loss_of: Callable[[nn.Module, int], Tensor]) -> TrainStep:
        settings, number = self.settings, self.done
        lr = settings.lr * trapezoid(number, settings.steps, warmup=settings.warmup, cooldown=settings.cooldown)
        set_lr(self.optimisers, lr)
        loss = loss_of(self.params.working, number)
        if not bool(loss.isfinite()):
            raise SettingsError(
                f"the loss of step {number + 1} is {loss.item()}; the learning rate {settings.lr:g} may be too high: "
                "begin afresh with a lower one"
            )
        loss.backward()
        self.params.pull(settings.clip)
        for optimiser in self.optimisers:
            optimiser.step()
        self.params.push()
        decay = min(settings.ema, (1 + number) / (10 + number))
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self.module.parameters()], 1 - decay)
        self.done += 1
        if self.checkpoint is not None and (self.done % self.save_every == 0 or self.done == settings.steps):
            self._save()
        return TrainStep(self.done, settings.steps, loss.item(), lr)

    def finish(self) -> None:
        """Put the averages into the module."""
        with torch.no_grad():
            for name, p in self.module.named_parameters():
                p.copy_(self.average[name])
        self.module.eval().requires_grad_(False)

    def _save(self) -> None:
        assert self.checkpoint is not None
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {f"params.{name}": p for name, p in self.module.named_parameters()}
        tensors |= {f"average.{name}": p for name, p in self.average.items()}
        tensors |= optimiser_tensors(self.optimisers) | {"done": torch.tensor(self.done)}
        write_json(self.checkpoint.with_suffix(".json"), self.settings.settings())
        save_sealed(self.checkpoint, tensors)

    def _restore(self) -> int:
        if self.checkpoint is None or not self.checkpoint.exists():
            self.params.push()
            return 0
        stored, wanted = read_json(self.checkpoint.with_suffix(".json")), self.settings.settings()
        differing = [key for key in wanted if stored.get(key) != wanted[key] and key != "steps"]
        if differing:
            found = ", ".join(f"{key} {stored.get(key)!r} there, {wanted[key]!r} here" for key in differing)
            raise SettingsError(f"{self.checkpoint} was made with other settings ({found}); remove it to start afresh")
        tensors = load_sealed(self.checkpoint)
        done = int(tensors["done"])
        if done > self.settings.steps:
            raise SettingsError(
                f"{self.checkpoint} holds {done} steps, {self.settings.steps} are asked for; ask for at least {done}, "
                "or remove it to start afresh"
            )
        shapes = {f"params.{name}": p.shape for name, p in self.module.named_parameters()}
        if {name: t.shape for name, t in tensors.items() if name.startswith("params.")} != shapes:
            raise SettingsError(f"{self.checkpoint} is of another network; remove it to start afresh")
        with torch.no_grad():
            for name, p in self.module.named_parameters():
                p.copy_(tensors[f"params.{name}"])
                self.average[name].copy_(tensors[f"average.{name}"])
        restore_optimisers(self.optimisers, tensors)
        self.params.push()
        return done


def pretrain_autoencoder(
    autoencoder: Autoencoder,
    images: Tensor,
    settings: PretrainSettings,
    *,
    checkpoint: Path | None = None,
    save_every: int = 500,
) -> Iterator[TrainStep]:
    """Train on core images (N, C, H, W) in [-1, 1] and normalise the latents at the end.

    The loss is absolute plus squared error of the values, and absolute error of the differences of neighbours (which
    keeps outlines crisp); a tenth of a latent's deviation is added as noise before decoding, so that the decoder
    forgives what the network leaves.
    """
    run = _Run(autoencoder, settings, checkpoint, save_every)

    def loss_of(module: nn.Module, step: int) -> Tensor:
        assert isinstance(module, Autoencoder)
        rows = keyed_generator("autoencoder", settings.seed, step).integers(len(images), size=settings.batch)
        x = settings.augmentation(images[torch.from_numpy(rows)], "autoencoder", settings.seed, step)
        latents = module.encoder(x.to(run.dtype)).float()
        noise = keyed_normal(latents.shape, "autoencoder", settings.seed, step)
        blurred = latents + 0.1 * latents.detach().std((0, 2, 3), keepdim=True) * noise
        wrong = module.decoder(blurred.to(run.dtype)).float() - x
        edges = [wrong.diff(dim=dim) for dim in (2, 3)]
        return wrong.abs().mean() + 2 * wrong.square().mean() + 0.5 * sum(e.abs().mean() for e in edges)

    while run.done < settings.steps:
        yield run.step(loss_of)
    run.finish()
    autoencoder.normalise(images[:: max(1, len(images) // 2048)])


def pretrain(
    backbone: Backbone,
    images: Tensor,
    labels: Tensor | None,
    settings: PretrainSettings,
    *,
    checkpoint: Path | None = None,
    save_every: int = 500,
) -> Iterator[TrainStep]:
    """Train the network on core images (N, *image_shape).

    When the generator ends the backbone is trained and frozen again.

    Args:
        labels: (N,) rows of the label table, for a backbone with labels; replaced by null with `label_dropout`.
    """
    if (labels is None) == bool(backbone.labels):
        raise SettingsError("labels are needed for a backbone with labels, and only there")
    latents = _variants(backbone, images, settings)
    run = _Run(backbone.network, settings, checkpoint, save_every)

    def loss_of(module: nn.Module, step: int) -> Tensor:
        assert isinstance(module, UViT)
        draw = keyed_generator("pretrain", settings.seed, step)
        rows = torch.from_numpy(draw.integers(len(latents), size=settings.batch))
        t = torch.from_numpy((draw.permutation(settings.batch) + draw.random(settings.batch)) / settings.batch).float()
        context = None
        if labels is not None:
            null = torch.from_numpy(draw.random(settings.batch) < settings.label_dropout)
            context = torch.where(null, len(backbone.labels), labels[rows % len(labels)])
        eps = keyed_normal((settings.batch, *backbone.latent_shape), "pretrain", settings.seed, step)
        x_t, wanted = noised(latents[rows], t, eps, backbone.schedule, backbone.prediction)
        predicted = module(x_t.to(run.dtype), t * backbone.time_scale, context).float()
        return (predicted - wanted).square().mean()

    while run.done < settings.steps:
        yield run.step(loss_of)
    run.finish()
    backbone.changed()


# x_t = alpha x0 + sigma eps, and what the network should say of it (science.md section 1)
def noised(x0: Tensor, t: Tensor, eps: Tensor, schedule: Schedule, prediction: str) -> tuple[Tensor, Tensor]:
    """x_t and the training target for x0, eps (B, ...) at times t (B,)."""
    alpha, sigma = expand(schedule.alpha(t), x0), expand(schedule.sigma(t), x0)
    return schedule.diffuse(x0, t, eps), target(prediction, x0, eps, alpha, sigma)


def _variants(backbone: Backbone, images: Tensor, settings: PretrainSettings) -> Tensor:
    """Latents of `settings.variants` random variants of each image, image 0 to N - 1 in turn for each: (V * N, ...)."""
    if settings.variants == 1:
        return backbone.encode(images)
    changed = (settings.augmentation(images, "pretrain", settings.seed, v) for v in range(settings.variants))
    return torch.cat([backbone.encode(variant) for variant in changed])
