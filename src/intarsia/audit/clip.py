"""CLIP's image side, by whose features of the decoded x0_hat the paper tells sources apart in text-to-image."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.audit.vision_language import clip_pixels, weights_digest
from intarsia.backbone.text import quietly, refused_as
from intarsia.diffusion import GaussianMixture
from intarsia.errors import CorruptError, IncompatibleError, InputError, require
from intarsia.routers import Basis, PrototypeBank, PrototypePart

KIND = "clip"
_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class Clip:
    """CLIP's image side: a transformers model that answers `image_embeds`."""

    model: Any

    @classmethod
    def load(cls, place: str | Path) -> Clip:
        """From a folder or hub id, of the image side or of a whole CLIP.

        Raises:
            InputError: there is none.
            MissingExtra: transformers is not installed.
        """
        transformers = require("transformers", "text")
        with refused_as(f"no CLIP image model at {place}", "give its folder or hub id"):
            whole = transformers.AutoConfig.from_pretrained(str(place))
            config = getattr(whole, "vision_config", whole)
            config.projection_dim = whole.projection_dim  # of a whole CLIP the vision side's own may say something else
            with quietly(transformers):
                model, found = transformers.CLIPVisionModelWithProjection.from_pretrained(
                    str(place), config=config, use_safetensors=True, output_loading_info=True
                )
        # What is not in the file would be drawn at random.
        if found["missing_keys"]:
            raise InputError(
                f"{place} lacks {', '.join(sorted(found['missing_keys'])[:3])}; give one with its projection"
            )
        return cls(model.eval())

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of its weights."""
        return weights_digest(self.model)

    @property
    def basis(self) -> Basis:
        """All directions of its features, unturned."""
        d = self.model.config.projection_dim
        core = GaussianMixture(torch.zeros(1), torch.zeros(1, d), torch.eye(d)[None], torch.ones(1, d))
        return Basis(torch.eye(d), core, torch.zeros(d), torch.zeros(()), (d,))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) in [-1, 1] -> features (N, d) of length 1."""
        prepared = clip_pixels(images, self.model.config.image_size)
        parts = [
            self.model(part.to(self.model.device, self.model.dtype)).image_embeds.float().cpu()
            for part in prepared.split(_AT_ONCE)
        ]
        return F.normalize(torch.cat(parts), dim=1)

    def fit(self, images: Tensor, ids: Sequence[str]) -> PrototypePart:
        """Centroids of one source's images (N, 3, S, S) in [-1, 1]."""
        return PrototypePart.fit(self(images), ids, self.basis)

    def bank(self, parts: Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, Any] | None]]) -> PrototypeBank:
        """The centroids of all members, from (tensors, settings) by name.

        Raises:
            IncompatibleError: a member without centroids, or with those of another CLIP.
            CorruptError: centroids that cannot be read.
        """
        basis, read = self.basis, []
        for name, (tensors, settings) in parts.items():
            if settings is None:
                raise IncompatibleError(f"'{name}' has no CLIP centroids; fit them with fit_router(..., clip=...)")
            if settings.get("model") != self.digest:
                raise IncompatibleError(f"'{name}': its centroids are of another CLIP model; fit them with this one")
            if "fit" not in settings:
                raise CorruptError(f"'{name}': its CLIP centroids cannot be read; fit them again")
            read.append(PrototypePart.from_tensors(tensors, settings, basis))
        return PrototypeBank(read)
