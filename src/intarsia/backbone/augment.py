"""Small random changes of core images, so that hours of pre-training do not see the same few thousand pictures only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.diffusion.noise import keyed_generator


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Ranges of the random affine map; `share` of the images are left as they are apart from the mirror."""

    rotate: float = 10.0  # degrees
    scale: float = 0.1
    shift: float = 0.06  # of the image's side
    mirror: bool = False
    share: float = 0.4

    def __call__(self, images: Tensor, *key: int | str) -> Tensor:
        """Change images (B, C, H, W); the outcome depends on `key` only. Borders are continued."""
        draw = torch.from_numpy(keyed_generator("augment", *key).random((6, len(images)))).float()
        on = (draw[0] >= self.share).float()
        angle = on * (2 * draw[1] - 1) * math.radians(self.rotate)
        zoom = 1 + on * (2 * draw[2] - 1) * self.scale
        flip = torch.where(draw[3] < 0.5, -1.0, 1.0) if self.mirror else torch.ones(len(images))
        dx, dy = (on * (2 * d - 1) * 2 * self.shift for d in draw[4:])
        rows = [zoom * angle.cos() * flip, -zoom * angle.sin(), dx, zoom * angle.sin() * flip, zoom * angle.cos(), dy]
        grid = F.affine_grid(torch.stack(rows, dim=1).unflatten(1, (2, 3)), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
