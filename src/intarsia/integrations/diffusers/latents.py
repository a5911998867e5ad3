"""The latent space of a pipeline: images into it, and a basis in it that depends on no data at all."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from intarsia.audit.vision_language import weights_digest
from intarsia.checks import check_whole
from intarsia.diffusion import GaussianMixture
from intarsia.errors import IncompatibleError, SettingsError
from intarsia.routers import Basis

# Cosines differ in their last bit from machine to machine; rounded they, and the fingerprint, do not.
_GRID = 2.0**20
_ENCODED_AT_ONCE = 8


def side_of(pipe: Any, component: str) -> int:
    """The side of the images that a pipeline draws if nothing else is said.

    Raises:
        SettingsError: neither the model nor the pipeline says.
    """
    size = getattr(pipe, component).config.get("sample_size") or getattr(pipe, "default_sample_size", None)
    if size is None:
        raise SettingsError(f"{type(pipe).__name__} does not say what size it draws; give size=")
    height = size[0] if isinstance(size, list | tuple) else size
    return int(height) * _scale_of(pipe)


def _scale_of(pipe: Any) -> int:
    """Pixels per latent; not every pipeline with an autoencoder says."""
    vae = autoencoder_of(pipe)
    usual = 1 if vae is None else 2 ** (len(vae.config.block_out_channels) - 1)
    return int(getattr(pipe, "vae_scale_factor", usual))


def autoencoder_of(pipe: Any) -> Any:
    """The autoencoder that makes a pipeline's latents; None where it draws pixels.

    Raises:
        IncompatibleError: one whose latents are not scaled as everywhere else.
    """
    if getattr(pipe, "movq", None) is not None:
        raise IncompatibleError(
            f"the autoencoder of a {type(pipe).__name__}, movq, is not read here; use weights that need no router "
            "part: 'uniform', 'prior', 'ito' or shares"
        )
    vae = getattr(pipe, "vae", None)
    return getattr(pipe, "vqvae", None) if vae is None else vae


@torch.no_grad()
def encode(pipe: Any, images: Tensor) -> Tensor:
    """Images (N, 3, S, S) in [-1, 1] -> latents (N, C, H, W) float32 on the scale of the denoiser, without sampling.

    A pipeline without an autoencoder draws pixels, which are their own latents.
    """
    vae = autoencoder_of(pipe)
    if vae is None:
        return images.float()
    with _ready(pipe, vae) as place:
        parts = [_latents(vae.encode(part.to(**place))).float().cpu() for part in images.split(_ENCODED_AT_ONCE)]
    shift, factor = _scaling(vae.config)
    return (torch.cat(parts) - shift) * factor


@torch.no_grad()
def decode(pipe: Any, latents: Tensor) -> Tensor:
    """The inverse of `encode`, up to the autoencoder: images (N, 3, S, S), about in [-1, 1]."""
    vae = autoencoder_of(pipe)
    if vae is None:
        return latents
    shift, factor = _scaling(vae.config)
    with _ready(pipe, vae) as place:
        return vae.decode((latents / factor + shift).to(**place), return_dict=False)[0].float().cpu()


def _latents(encoded: Any) -> Tensor:
    """What an encoder answers with: a density, whose mode is taken, or (VQ, the tiny autoencoder) latents."""
    return encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents


def _scaling(config: Any) -> tuple[Tensor, Tensor]:
    """Latents as the denoiser sees them are (z - shift) * factor, each a scalar or (1, C, 1, 1)."""
    mean, std = (config.get(f"latents_{name}") for name in ("mean", "std"))
    factor = torch.tensor(float(config.scaling_factor))
    if mean is None or std is None:
        return torch.tensor(float(config.get("shift_factor") or 0.0)), factor
    return torch.tensor(mean).view(1, -1, 1, 1), factor / torch.tensor(std).view(1, -1, 1, 1)


@contextlib.contextmanager
def _ready(pipe: Any, vae: Any) -> Iterator[dict[str, Any]]:
    """The device and precision of what an autoencoder is given, in a precision in which it does not overflow."""
    # Where an offloaded model rests is not where it runs.
    device = pipe._execution_device if hasattr(vae, "_hf_hook") else vae.device
    # bfloat16 reaches as far as float32; float16 does not, and there and back no weight changes.
    upcast = vae.dtype == torch.float16 and vae.config.get("force_upcast", False)
    if not upcast:
        yield {"device": device, "dtype": vae.dtype}
        return
    vae.float()
    try:
        yield {"device": device, "dtype": torch.float32}
    finally:
        vae.half()


def space_of(pipe: Any) -> str | None:
    """sha256 of the autoencoder that makes the latents; of nothing where pixels are drawn.

    None where its weights are rounded: those of one autoencoder would differ from precision to precision.
    """
    vae = autoencoder_of(pipe)
    if vae is not None and any(weight.dtype.itemsize < 4 for weight in vae.parameters()):
        return None
    return weights_digest(vae)


def unpacked(x: Tensor, shape: Sequence[int], grid: tuple[int, int] | None = None) -> Tensor:
    """Latents (B, *shape) from what a denoiser sees: themselves, or Flux's tokens of 2 x 2 latents, `grid` of them.

    Raises:
        IncompatibleError: they are of another size.
    """
    found = tuple(x.shape[1:])
    if grid is not None and len(x[0]) == grid[0] * grid[1]:
        x = x.reshape(-1, *grid, x.shape[-1] // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        found = tuple(x.shape[1:])
    if found != tuple(shape):
        raise IncompatibleError(
            f"the router parts were fitted to latents {tuple(shape)}, and {found} are drawn; draw at the "
            "size they were fitted for, or fit them again with fit_router(size=...)"
        )
    return x


@functools.lru_cache(maxsize=4)
def cosine_basis(shape: tuple[int, int, int], rank: int) -> Basis:
    """The `rank` slowest cosines of latents (C, H, W), channels side by side: what a picture is at a glance.

    No data fixes it, so the parts of people who never met compare. The core in it is the standard normal, towards
    which autoencoders' latents are scaled.

    Raises:
        SettingsError: a rank beyond the numbers of a latent.
    """
    channels, height, width = shape
    check_whole("rank", rank, most=channels * height * width)
    waves = itertools.product(range(height), range(width), range(channels))
    order = sorted(((u / height) ** 2 + (v / width) ** 2, u, v, c) for u, v, c in waves)
    rows = torch.zeros(rank, channels, height, width, dtype=torch.float64)
    down, across = _cosines(height), _cosines(width)
    for row, (_, u, v, c) in enumerate(order[:rank]):
        rows[row, c] = down[u][:, None] * across[v][None]
    flat = ((rows.flatten(1) * _GRID).round() / _GRID).float()
    core = GaussianMixture(torch.zeros(1), torch.zeros(1, rank), torch.eye(rank)[None], torch.ones(1, rank))
    residual = torch.tensor(float(rank < flat.shape[1]))
    return Basis(flat, core, torch.zeros(flat.shape[1]), residual, shape)


# DCT-II, orthonormal
def _cosines(n: int) -> Tensor:
    """(n, n) float64: row k is the cosine of k half waves."""
    k, x = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None]
    waves = torch.cos(math.pi / n * (x + 0.5) * k) * math.sqrt(2 / n)
    waves[0] /= math.sqrt(2)
    return waves
