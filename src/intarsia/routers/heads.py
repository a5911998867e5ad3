"""Small classifiers on the features of the frozen backbone: what the `reference` and `joint` routers are made of.

A head pools the tokens of the backbone's middle block by attention with learned queries, adds the time, and ends in a
small perceptron. Heads are dicts of tensors with a leading axis of heads, so that many are evaluated in one go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.backbone.backbone import Backbone
from intarsia.backbone.uvit import as_uvit, timestep_embedding
from intarsia.checks import check_number, check_seed, check_whole
from intarsia.diffusion import keyed_generator, keyed_normal
from intarsia.errors import SettingsError
from intarsia.routers.part import SampleSet, one_thread

Params = dict[str, Tensor]
PARAM_NAMES = ("query", "hidden.weight", "hidden.bias", "out.weight", "out.bias")
_TIME_NUMBERS = 32
_NEED = "a router on the backbone's features", "take gaussian or prototype instead of reference or joint"


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """How a head is trained. Neither steps nor learning rate depend on the number of samples.

    Args:
        steps: of Adam, the learning rate falling linearly to 0.
        batch: images per step, the same number from each side (source and core, or each source).
        lr: the first learning rate.
        hidden: width of the perceptron.
        queries: learned queries that pool the tokens.
        odds: o, the weight of the source's samples over the core's in the loss of a reference head.
        holdout: share of the samples, chosen by a hash of their ids, on which a reference head is calibrated; 0 for
            none. A head with fewer than eight such samples, of its source or of the core, is trained on all instead.
        bins: of time, each with a calibration of its own.
        seed: of parameters, times and noise.

    Raises:
        SettingsError: a value that makes no sense.
    """

    steps: int = 400
    batch: int = 128
    lr: float = 3e-3
    hidden: int = 64
    queries: int = 4
    odds: float = 1.0
    holdout: float = 0.2
    bins: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "hidden", "queries", "bins"):
            check_whole(name, getattr(self, name))
        for name in ("lr", "odds"):
            check_number(name, getattr(self, name), above=0)
        check_number("holdout", self.holdout, least=0, below=1)
        check_seed(self.seed)

    def settings(self) -> dict[str, Any]:
        """JSON-able; the constructor takes them back."""
        return asdict(self)


# science.md section 3, `reference`: one pass of the frozen backbone's first half, unadapted and without label
@torch.no_grad()
def mid_features(backbone: Backbone, x_t: Tensor, t: Tensor, *, precision: str = "float32") -> Tensor:
    """Tokens after the backbone's middle block, for x_t (B, *latent_shape) at times t (B,): (B, L, D) float32."""
    network = as_uvit(backbone.network_in(precision), *_NEED)
    context = torch.full((len(x_t),), len(backbone.labels), device=x_t.device) if backbone.labels else None
    tokens = network.embed(x_t.to(network.pos_embed.dtype), t * backbone.time_scale, context)
    return network.encode(tokens)[0].float()


def feature_dim(backbone: Backbone) -> int:
    """Width D of the tokens that `mid_features` gives.

    Raises:
        SettingsError: the network has none.
    """
    return as_uvit(backbone.network, *_NEED).config.dim


def initial_params(dim: int, outputs: int, settings: HeadSettings) -> Params:
    """One head for tokens of `dim` numbers: every tensor has a leading axis of length 1."""
    pooled = settings.queries * dim + _TIME_NUMBERS
    shapes = {
        "query": (settings.queries, dim),
        "hidden.weight": (settings.hidden, pooled),
        "out.weight": (outputs, settings.hidden),
    }
    params = {
        name: keyed_normal((1, *shape), "head", settings.seed, name) / shape[-1] ** 0.5
        for name, shape in shapes.items()
    }
    params["out.weight"] = params["out.weight"] * 0.1
    return params | {"hidden.bias": torch.zeros(1, settings.hidden), "out.bias": torch.zeros(1, outputs)}


def logits(params: Params, features: Tensor, t: Tensor) -> Tensor:
    """What n heads of m outputs say of features (B, L, D) at times t (B,): (B, n, m)."""
    # Over the whole image: token by token, how strong a patch is beside the others would be lost.
    tokens = F.layer_norm(features, features.shape[-2:])
    attention = torch.einsum("bld,nqd->bnql", tokens, params["query"]).softmax(-1)
    pooled = torch.einsum("bnql,bld->bnqd", attention, tokens).flatten(2)
    time = timestep_embedding(t * 1000, _TIME_NUMBERS)[:, None].expand(-1, pooled.shape[1], -1)
    hidden = torch.einsum("bni,nhi->bnh", torch.cat([pooled, time], dim=-1), params["hidden.weight"])
    hidden = F.gelu(hidden + params["hidden.bias"])
    return torch.einsum("bnh,nmh->bnm", hidden, params["out.weight"]) + params["out.bias"]


def fit_head(dim: int, outputs: int, settings: HeadSettings, loss_of: Callable[[Params, int], Tensor]) -> Params:
    """One trained head; `loss_of` gets the parameters and the number of the step, from 0.

    All on one thread, so that the same data gives the same bytes wherever it is fitted.
    """
    params = initial_params(dim, outputs, settings)
    tensors = [params[name].requires_grad_() for name in PARAM_NAMES]
    optimiser = torch.optim.Adam(tensors, lr=settings.lr, betas=(0.9, 0.99))
    with one_thread(), torch.enable_grad():
        for step in range(settings.steps):
            optimiser.param_groups[0]["lr"] = settings.lr * (1 - step / settings.steps)
            loss = loss_of(params, step)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return {name: tensor.detach() for name, tensor in params.items()}


@dataclass(frozen=True)
class Batch:
    """Noised latents x_t (B, *latent_shape) and their times t (B,)."""

    x_t: Tensor
    t: Tensor


def draw(samples: SampleSet, count: int, backbone: Backbone, *, seed: int, step: int) -> Batch:
    """`count` samples of a source (or all), noised at uniform times: those with the smallest hash of (seed, step, id).

    A sample's hash, time and noise know nothing of the others, so without one of them the rest is drawn as before.
    """
    rows = sorted(range(len(samples)), key=lambda row: _hash(seed, samples.ids[row], step))[:count]
    times = [keyed_generator("head time", seed, samples.ids[row], step).random() for row in rows]
    shape = backbone.latent_shape
    eps = torch.stack([keyed_normal(shape, "head noise", seed, samples.ids[row], step) for row in rows])
    t = torch.tensor(times, dtype=torch.float32)
    return Batch(backbone.schedule.diffuse(samples.latents[rows].float(), t, eps), t)


def draw_core(core_latents: Tensor, count: int, backbone: Backbone, *, seed: int, step: int) -> Batch:
    """`count` samples of the core, noised at uniform times. It is public and fixed, so places may be drawn."""
    generator = keyed_generator("head core", seed, step)
    rows = torch.from_numpy(generator.integers(len(core_latents), size=count))
    t = torch.from_numpy(generator.random(count)).float()
    eps = keyed_normal((count, *backbone.latent_shape), "head core noise", seed, step)
    return Batch(backbone.schedule.diffuse(core_latents[rows].float(), t, eps), t)


def check_latents(latents: Sequence[Tensor], backbone: Backbone) -> None:
    """Refuse latents of another space than the backbone's.

    Raises:
        SettingsError: there are some.
    """
    for each in latents:
        if not len(each) or tuple(each.shape[1:]) != backbone.latent_shape:
            raise SettingsError(
                f"latents are {tuple(each.shape)}, this backbone works on {backbone.latent_shape}: encode them with it"
            )


def _hash(seed: int, id: str, step: int) -> bytes:
    return hashlib.blake2b(f"{seed}\n{step}\n{id}".encode(), digest_size=16).digest()
