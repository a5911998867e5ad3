"""The protected operator: images from the geometric mean of the sources, so that none of them alone explains one.

The target is p proportional to prod_i q_i^beta_i with sum beta_i = 1 (CP-Delta of Vyas et al. 2023): what is likely
under one source and not under the others is rare. Averaging the sources' scores does not draw from it: for t > 0 the
mean of two scores is not the score of the diffused geometric mean. Here every image is drawn as a set of particles that
follow the mean of the scores, carry the weight that the mean leaves out, and are resampled by it (Feynman-Kac
correctors, Skreta et al. 2025, arXiv 2503.02819).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from intarsia.composition.composite import CompositeDenoiser
from intarsia.composition.member import Conditions, labels_of, prompts_of
from intarsia.composition.operator import PROTECTED, Operator, Protection
from intarsia.composition.result import Result, SampleSettings
from intarsia.composition.routing import drawn
from intarsia.composition.sampling import OnProgress, check_asked
from intarsia.composition.together import Asked, x0_hats
from intarsia.diffusion import Transition, ddim_transition, keyed_generator, time_grid
from intarsia.diffusion.grid import checked_times
from intarsia.errors import SettingsError, UnknownName

USUAL_PARTICLES = 16


@torch.no_grad()
def protect(
    model: CompositeDenoiser,
    count: int,
    settings: SampleSettings | None = None,
    operator: Operator | None = None,
    *,
    decode: Callable[[Tensor], Tensor],
    labels: Conditions | None = None,
    first: int = 0,
    on_progress: OnProgress | None = None,
) -> Result:
    """Draw `count` images from the geometric mean of a composition's members; its weights and routing are not used.

    Image k depends on (seed, k) alone, up to rounding, or exactly if asked to (`batch_invariant`).

    Args:
        settings: those of `ddpm`, without guidance or analytic start; `batch` counts particles, of which
            those of one image always go together.
        operator: `protected`; None is that with its usual settings.
        decode: latents (B, *latent_shape) to images (B, C, H, W).
        labels: one label or None per image.

    Raises:
        SettingsError: fewer than two members, exponents that are none, a sampler or guidance that the target does not
            allow, labels of another length or that a member cannot be asked for, or no images.
        UnknownName: a label that nobody knows.
        ForbiddenError: the members may not be used, or not any more.
    """
    check_asked(count, labels)
    settings, operator = settings or SampleSettings(), operator or Operator(name=PROTECTED)
    if not operator.protects or operator.cp_k is not None:
        found = f"operator '{operator.name}'" if not operator.protects else f"cp_k {operator.cp_k:g}"
        raise SettingsError(f"this draws by the protected operator, without a limit, found {found}; use sample_as")
    with model.drawing(count):
        indices = range(first, first + count)
        return draw_protected(model, indices, settings, operator, decode=decode, labels=labels, on_progress=on_progress)


@torch.no_grad()
def draw_protected(
    model: CompositeDenoiser,
    indices: Sequence[int],
    settings: SampleSettings,
    operator: Operator,
    *,
    decode: Callable[[Tensor], Tensor],
    labels: Conditions | None,
    on_progress: OnProgress | None,
) -> Result:
    """The images of these numbers; whoever calls sees to it that they may be drawn (`CompositeDenoiser.drawing`).

    Raises:
        As `protect`.
    """
    beta, particles = operator.beta(model.names), operator.particles or USUAL_PARTICLES
    check_settings(settings)
    asked: Conditions = [None] * len(indices) if labels is None else labels
    plain, texts = labels_of(asked), prompts_of(asked)
    check_labels(model, asked)
    size = 1 if settings.batch_invariant else max(1, settings.batch // particles)
    batches = [range(k, min(k + size, len(indices))) for k in range(0, len(indices), size)]
    flocks: list[Flock] = []
    for number, batch in enumerate(batches):
        numbers, wanted = [indices[k] for k in batch], [asked[k] for k in batch]
        flock = Flock(model, beta, settings, numbers, wanted, particles, operator.resample_below)
        for step in flock.steps():
            if on_progress is not None:
                on_progress(number * settings.steps + step, len(batches) * settings.steps)
        flocks.append(flock)
    chosen = [flock.chosen() for flock in flocks]
    n, calls = len(model.names), settings.steps * particles * len(model.names)
    return Result(
        images=torch.cat([decode(latents) for latents in chosen]),
        latents=torch.cat(chosen),
        weights=beta.float().expand(settings.steps, len(indices), n).clone(),
        times=time_grid(model.schedule, settings.steps, settings.spacing)[:-1].float(),
        calls=torch.full((len(indices),), calls),
        router_passes=0.0,
        names=model.names,
        prior=beta,
        labels=plain,
        settings=settings,
        prompts=texts,
        protection=Protection(
            particles=particles,
            beta=beta,
            ess=torch.cat([torch.stack(flock.ess) for flock in flocks], dim=1),
            log_z=torch.cat([flock.log_z for flock in flocks]),
            labels=tuple(text or label for text, label in zip(texts, plain, strict=True)),
        ),
    )


def check_settings(settings: SampleSettings) -> None:
    """Refuse what the weights of the particles are not derived for.

    Raises:
        SettingsError: another sampler than `ddpm`, guidance, or an analytic start.
    """
    for name, found, expected in (
        ("sampler", settings.sampler, "ddpm"),
        ("guidance_scale", settings.guidance_scale, 1),
        ("analytic_start", settings.analytic_start, None),
    ):
        if found != expected:
            raise SettingsError(f"protected images are drawn with {name} {expected}, found {found}; leave it out")


def check_labels(model: CompositeDenoiser, labels: Conditions) -> None:
    """Refuse a label that a member would ignore: its images would then be protected from another model than is asked.

    Raises:
        UnknownName: nobody knows it.
        SettingsError: a member cannot be asked for it.
    """
    known = model.labels | model.vocabulary
    for label in dict.fromkeys(label for label in labels if label is not None):
        if isinstance(label, str) and label not in known:
            raise UnknownName("label", label, known)
        if deaf := [member.name for member in model.members if not member.conditions(label)]:
            what = f"label '{label}'" if isinstance(label, str) else f"prompt '{label.text}'"
            raise SettingsError(
                f"{what}: {', '.join(deaf)} cannot be asked for it, and in protecting every source takes "
                "part; leave it out, or compose sources that can"
            )


# The kernels N(mu_i, std^2 I) of one DDPM step multiply to prod_i N(mu_i, std^2)^beta_i = N(sum beta_i mu_i, std^2) G
# with G = exp(-sum beta_i |mu_i - mu|^2 / (2 std^2)); mu_i - mu = b (x0_hat_i - x0_hat). As steps become small this is
# d log W = -(g^2 / 2) (sum beta_i |s_i|^2 - |sum beta_i s_i|^2) dt of science.md section 6.
def correction(move: Transition, beta: Tensor, estimates: Tensor, mean: Tensor) -> Tensor:
    """log G at x_t, from the members' x0_hat (B, n, ...) and their mean (B, ...): (B,) float64, never positive."""
    apart = (estimates - mean[:, None]).double().flatten(2).square().sum(dim=2)
    return -((move.b / move.std) ** 2) / 2 * (apart @ beta)


@dataclass
class Flock:
    """The particles `x` of a few images, (B P, ...), and their log-weights since they were last resampled, (B, P)."""

    model: CompositeDenoiser
    beta: Tensor
    settings: SampleSettings
    indices: Sequence[int]
    labels: Conditions
    particles: int
    resample_below: float = 0.7
    ess: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        images, particles = len(self.indices), self.particles
        self.x = self._noise("initial")
        self._rows = [label for label in self.labels for _ in range(particles)]
        self.log_w = torch.zeros(images, particles, dtype=torch.float64)
        self.log_z = torch.zeros(images, dtype=torch.float64)

    def steps(self) -> Iterator[int]:
        """Take all steps of the sampler; yields how many are done."""
        times = time_grid(self.model.schedule, self.settings.steps, self.settings.spacing)
        for step, (t, s) in enumerate(checked_times(times)):
            if self.model.guard is not None:
                self.model.guard.check()
            self._step(step, ddim_transition(self.model.schedule, t, s, eta=1.0))
            yield step + 1
        self.log_z += self.log_w.logsumexp(dim=1) - math.log(self.particles)

    def chosen(self) -> Tensor:
        """One particle of each image, drawn by its weight: (B, ...)."""
        uniform = torch.tensor([self._generator("choose", index).random() for index in self.indices])
        places = drawn(self.log_w.softmax(dim=1), uniform).argmax(dim=1)
        return self.x.unflatten(0, self.log_w.shape)[torch.arange(len(places)), places]

    def _step(self, step: int, move: Transition) -> None:
        at = torch.full((len(self.x),), move.t, dtype=self.x.dtype)
        asked = [Asked(member, self.x, at, self._rows) for member in self.model.members]
        estimates = torch.stack(x0_hats(asked), dim=1)
        mean = torch.einsum("n,bn...->b...", self.beta.to(estimates), estimates)
        ahead = move.mean(self.x, mean)
        if move.std > 0:  # the last step keeps the mean: nothing is left to weigh
            self.log_w += correction(move, self.beta, estimates, mean).view_as(self.log_w)
        ahead = self._resampled(step, ahead)
        self.x = ahead + move.std * self._noise("step", step) if move.std > 0 else ahead

    def _resampled(self, step: int, x: Tensor) -> Tensor:
        """The particles (B P, ...) after those of images whose weights are too uneven were drawn anew by weight."""
        weights = self.log_w.softmax(dim=1)
        share = 1 / weights.square().sum(dim=1) / self.particles
        self.ess.append(share)
        x = x.unflatten(0, weights.shape).clone()
        for row in (share < self.resample_below).nonzero()[:, 0].tolist():
            x[row] = x[row, self._places(weights[row], self._generator("resample", self.indices[row], step).random())]
            self.log_z[row] += self.log_w[row].logsumexp(0) - math.log(self.particles)
            self.log_w[row] = 0
        return x.flatten(0, 1)

    # Kitagawa 1996 (systematic resampling)
    def _places(self, weights: Tensor, uniform: float) -> Tensor:
        """Who goes on, (P,): each as often as its weight says, but for less than one."""
        count = len(weights)
        at = (torch.arange(count, dtype=torch.float64) + uniform) / count
        return torch.searchsorted(weights.cumsum(0), at).clamp(max=count - 1)

    def _noise(self, purpose: str, step: int = 0) -> Tensor:
        """(B P, ...), each image's by its own index."""
        shape = (self.particles, *self.model.latent_shape)
        normal = [self._generator(purpose, index, step).standard_normal(shape) for index in self.indices]
        return torch.from_numpy(np.concatenate(normal)).float()

    def _generator(self, purpose: str, index: int, step: int = 0) -> np.random.Generator:
        return keyed_generator("protected", purpose, self.settings.seed, index, step)
