"""How images are to be drawn, and what was drawn, with all that says what was realised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from intarsia.checks import check_number, check_seed, check_whole
from intarsia.composition.analytic import Switch
from intarsia.composition.operator import Access, Protection, bounds_of
from intarsia.data import encode_png, to_uint8
from intarsia.diffusion import SAMPLERS, SPACINGS
from intarsia.errors import UnknownName
from intarsia.files import write_atomic

MOST_STEPS = 1 << 20  # the grid of times is laid out before the first step
MOST_GUIDANCE = 100  # far beyond, nothing that is drawn is finite


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """How images are drawn.

    `eta` is the share of fresh noise of `ddim`, from 0 (none) to 1 (that of `ddpm`); other samplers take none.
    `batch_invariant` draws each by itself, so that its bytes do not depend on its neighbours. `analytic_start`, in nats
    per image, lets closed forms take the noisy steps as far as that divergence allows (`find_switch`); None does not.
    """

    seed: int = 0
    steps: int = 50
    sampler: str = "ddpm"
    spacing: str = "uniform"
    eta: float = 0.0
    guidance_scale: float = 1.0
    batch: int = 64
    batch_invariant: bool = False
    analytic_start: float | None = None

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UnknownName("sampler", self.sampler, SAMPLERS)
        if self.spacing not in SPACINGS:
            raise UnknownName("time spacing", self.spacing, SPACINGS)
        check_seed(self.seed)
        check_whole("steps", self.steps, most=MOST_STEPS)
        check_whole("batch", self.batch)
        check_number("guidance_scale", self.guidance_scale, least=-MOST_GUIDANCE, most=MOST_GUIDANCE)
        check_number("eta", self.eta, least=0, most=1)
        if self.analytic_start is not None:
            check_number("analytic_start", self.analytic_start, above=0)
        SAMPLERS[self.sampler].check_eta(self.eta)


@dataclass(frozen=True)
class Result:
    """What was drawn, and what it took.

    `images` (N, C, H, W) in [-1, 1]; `latents` (N, *latent_shape); `weights` (steps, N, n), the realised weights of
    the conditional branch (at a guidance of 0, of the null one) at `times` (steps,); `calls` (N,), network calls
    per image; `router_passes`, backbone passes per image that the weights cost besides; `names` and `prior` (n,) in
    the order of the sources; `switch`, where the networks took over if a closed form began; `protection`, of images
    drawn by the protected operator, whose `weights`, `prior` and shares are its exponents; `access`, of images that
    CP-k let pass; `receipt`, the vault's, if it was drawn from one that keeps a ledger; `prompts`, what was asked
    for in words, where that is so; `weighing` and `routing`, the names of what made the weights;
    `by_prompt`, whether what a prompt says about the sources counted in them.
    """

    images: Tensor
    latents: Tensor
    weights: Tensor
    times: Tensor
    calls: Tensor
    router_passes: float
    names: tuple[str, ...]
    prior: Tensor
    labels: tuple[str | None, ...]
    settings: SampleSettings
    switch: Switch | None = None
    protection: Protection | None = None
    access: Access | None = None
    receipt: Mapping[str, Any] | None = None
    prompts: tuple[str | None, ...] = ()
    weighing: str = ""
    routing: str = ""
    by_prompt: bool = False

    @property
    def asked(self) -> tuple[str | None, ...]:
        """The label or the prompt of each image."""
        return tuple(prompt or label for prompt, label in zip(self.prompts or self.labels, self.labels, strict=True))

    @property
    def shares(self) -> Tensor:
        """Realised shares (n,): the mean over images of the weights at the last step, to be read beside `prior`."""
        return self.weights[-1].double().mean(dim=0)

    def report(self) -> dict[str, Any]:
        """Counts, shares and calls, JSON-able."""
        sources = zip(self.names, self.prior.tolist(), self.shares.tolist(), strict=True)
        return {
            "images": len(self.images),
            "names": list(self.names),
            "sources": {name: {"prior": prior, "share": share} for name, prior, share in sources},
            "calls_per_image": self.calls.double().mean().item(),
            "router_passes_per_image": self.router_passes,
            "analytic_start": self.switch and asdict(self.switch),
            "protection": self.protection and {**self.protection.report(), "k": self.bounds},
            "access": self.access and self.access.report(),
        }

    @property
    def bounds(self) -> Mapping[str, float]:
        """By source, the k of near access-freeness in nats; empty unless drawn by the protected operator."""
        return bounds_of(self.protection, self.names)

    def save(self, folder: Path) -> list[Path]:
        """Write one PNG per image, numbered from 0, with its prompt in the file if it had one; returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{k:05d}.png" for k in range(len(self.images))]
        prompts = self.prompts or (None,) * len(paths)
        for path, image, prompt in zip(paths, to_uint8(self.images), prompts, strict=True):
            write_atomic(path, encode_png(image, {} if prompt is None else {"Description": prompt}))
        return paths
