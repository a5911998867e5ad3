"""The `prototype` router: the paper's k-nearest-neighbour classifier, with centroids each source finds for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, final

import torch
from torch import Tensor

from intarsia.backbone.backbone import Backbone
from intarsia.data.source import hash_fraction
from intarsia.errors import CorruptError, IncompatibleError, SettingsError
from intarsia.files import canonical_json, digest_of
from intarsia.routers.basis import Basis
from intarsia.routers.expectation import farthest_first
from intarsia.routers.heads import mid_features
from intarsia.routers.part import SampleSet, one_thread, stored

_SPLIT = 0  # seed of the hashes that choose the first centroid and hold samples out; the same for every source
_TINY = 1e-12


class FeatureMap(Protocol):
    """A public map from clean latents to the space in which distances are taken; the same for all sources."""

    def __call__(self, x0: Tensor) -> Tensor:
        """x0 (B, *latent_shape) to features (B, F), float32."""
        ...

    def fingerprint(self) -> str:
        """Equal exactly when the maps are."""
        ...


@final
@dataclass(frozen=True, eq=False)
class BasisFeatures:
    """The coordinates of the core's basis: distances between pictures themselves."""

    basis: Basis

    def __call__(self, x0: Tensor) -> Tensor:
        return self.basis.project(x0.float())

    def fingerprint(self) -> str:
        return digest_of(canonical_json({"features": "basis", "of": self.basis.fingerprint()}))


@final
@dataclass(frozen=True, eq=False)
class BackboneFeatures:
    """The backbone's mid-block tokens, averaged, at a time `t` with so little noise that none is added."""

    backbone: Backbone
    t: float = 0.05

    def __call__(self, x0: Tensor) -> Tensor:
        t = torch.full((len(x0),), self.t)
        return torch.cat(
            [mid_features(self.backbone, *block).mean(1) for block in zip(x0.split(256), t.split(256), strict=True)]
        )

    def fingerprint(self) -> str:
        return digest_of(canonical_json({"features": "backbone", "of": self.backbone.digest, "t": self.t}))


@dataclass(frozen=True, kw_only=True)
class PrototypeSettings:
    """How prototypes are found.

    Args:
        prototypes: centroids per source; a source with fewer distinct samples has as many as these.
        rounds: of Lloyd's algorithm.
        holdout: share of the samples, chosen by a hash of their ids, that measures the radius.

    Raises:
        SettingsError: a value that makes no sense.
    """

    prototypes: int = 32
    rounds: int = 20
    holdout: float = 0.2

    def __post_init__(self) -> None:
        if self.prototypes < 1 or self.rounds < 1 or not 0 <= self.holdout < 1:
            raise SettingsError(f"{self}: prototypes and rounds must be at least 1, holdout a share in [0, 1)")

    def settings(self) -> dict[str, Any]:
        """JSON-able; the constructor takes them back."""
        return asdict(self)


@final
@dataclass(frozen=True, eq=False)
class PrototypePart:
    """Centroids of one source's features. They are means of its data and are forgotten with it.

    Args:
        centroids: (k, F) float32.
        radius: scalar, mean squared distance of held-out samples of the source to the nearest centroid of the others.
        features: fingerprint of the map that made the features.
        fitted_with: the settings.
    """

    isolated: ClassVar[bool] = True

    centroids: Tensor
    radius: Tensor
    features: str
    fitted_with: PrototypeSettings

    @classmethod
    def fit(
        cls, latents: Tensor, ids: Sequence[str], features: FeatureMap, *, settings: PrototypeSettings | None = None
    ) -> PrototypePart:
        """k-means of one source, latents (N, *latent_shape) with N ids in any order. The same set gives the same bytes.

        Raises:
            InputError: samples that `SampleSet` refuses.
        """
        settings = settings or PrototypeSettings()
        samples = SampleSet(latents, ids)
        with one_thread():
            f = features(samples.latents).double()
            centroids = k_means(f, samples.ids, settings)
            radius = _radius(f, samples.ids, settings)
        return cls(centroids.float(), radius.float(), features.fingerprint(), settings)

    def tensors(self) -> dict[str, Tensor]:
        """For a safetensors file; `from_tensors` reads them back."""
        return {"centroids": self.centroids, "radius": self.radius}

    def settings(self) -> dict[str, Any]:
        """What belongs beside the tensors, JSON-able."""
        return {"kind": "prototype", "features": self.features, "fit": self.fitted_with.settings()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> PrototypePart:
        """Read what `tensors` and `settings` gave.

        Raises:
            CorruptError: something is missing.
        """
        centroids, radius = stored(tensors, ("centroids", "radius"), "the prototype part")
        try:
            return cls(centroids, radius, settings["features"], PrototypeSettings(**settings["fit"]))
        except (KeyError, TypeError) as error:
            raise CorruptError(
                f"the prototype part cannot be read ({error}); restore its files or fit it again"
            ) from error


@final
class PrototypeBank:
    """The prototypes of n sources. All distances are divided by one radius, the mean of the members' own.

    Raises:
        SettingsError: no parts.
        IncompatibleError: parts of different feature maps.
    """

    def __init__(self, parts: Sequence[PrototypePart]):
        if not parts:
            raise SettingsError("a bank of no prototype parts: give at least one")
        if len({part.features for part in parts}) > 1:
            shown = ", ".join(f"{part.features[:16]}…" for part in parts)
            raise IncompatibleError(f"prototype parts of different feature maps ({shown}): fit all of them in one")
        self._centroids = torch.cat([part.centroids for part in parts])
        self._sizes = [len(part.centroids) for part in parts]
        self._radius = torch.stack([part.radius for part in parts]).mean()

    # science.md section 3: softmax of minus distance of x0_hat features
    def __call__(self, features: Tensor) -> Tensor:
        """Minus the squared distance to each source's nearest prototype, in radii: (B, n).

        Args:
            features: (B, F), the feature map's, of x0_hat.
        """
        distances = torch.cdist(features, self._centroids).square() / self._radius
        return torch.stack([-source.amin(1) for source in distances.split(self._sizes, dim=1)], dim=1)


# Lloyd's algorithm
def k_means(f: Tensor, ids: Sequence[str], settings: PrototypeSettings) -> Tensor:
    """Centroids (k, F) of features (N, F), float64; starts far apart, from the sample with the smallest hash."""
    first = min(range(len(ids)), key=lambda row: hash_fraction(_SPLIT, "start " + ids[row]))
    centroids = f[farthest_first(f, settings.prototypes, first)]
    for _ in range(settings.rounds):
        nearest = torch.nn.functional.one_hot(_distances(f, centroids).argmin(1), len(centroids)).to(f.dtype)
        sizes = nearest.sum(0)[:, None]
        centroids = torch.where(sizes > 0, nearest.T @ f / sizes.clamp(min=1), centroids)
    return centroids


def _radius(f: Tensor, ids: Sequence[str], settings: PrototypeSettings) -> Tensor:
    """Held-out mean squared distance; that of all samples to their mean where nothing can be held out."""
    held = torch.tensor([hash_fraction(_SPLIT, id) < settings.holdout for id in ids])
    if held.all() or not held.any():
        return _distances(f, f.mean(0, keepdim=True)).square().mean().clamp(min=_TINY)
    kept = [id for id, out in zip(ids, held.tolist(), strict=True) if not out]
    return _distances(f[held], k_means(f[~held], kept, settings)).amin(1).square().mean().clamp(min=_TINY)


def _distances(f: Tensor, centroids: Tensor) -> Tensor:
    return torch.cdist(f, centroids, compute_mode="donot_use_mm_for_euclid_dist")
