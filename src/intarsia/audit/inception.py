"""The Inception network of the FID, from a file that the user has.

It is the network of December 2015 that Heusel et al. 2017 took, with the reference resizing, so its distances may be
called FID. The file is not ours to ship: `pt_inception-2015-12-05-6726825d.pth`, as pytorch-fid and torch-fidelity
publish it. Names of modules are those in the file. Another file of the same layout, given with its digest, makes a
network with a name of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.audit.features import Images, as_saved
from intarsia.backbone import read_official
from intarsia.errors import IncompatibleError

FID_WEIGHTS = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_SIZE = 299
_BATCH = 32

Pool = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Shape:
    """Of a convolution: kernel and padding, down and across, and stride."""

    kernel: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    stride: int = 1


_ONE, _THREE, _FIVE = _Shape((1, 1)), _Shape((3, 3), (1, 1)), _Shape((5, 5), (2, 2))
_BARE, _HALVING = _Shape((3, 3)), _Shape((3, 3), stride=2)
_WIDE_3, _HIGH_3 = _Shape((1, 3), (0, 1)), _Shape((3, 1), (1, 0))
_WIDE_7, _HIGH_7 = _Shape((1, 7), (0, 3)), _Shape((7, 1), (3, 0))

Step = tuple[str, int, _Shape]
"""A convolution: its name, its width, its shape."""


@dataclass(frozen=True)
class _Branch:
    """A chain of convolutions, after a pooling if there is one; `ends` all see the end of the chain."""

    chain: Sequence[Step] = ()
    ends: Sequence[Step] = ()
    pool: Pool | None = None


@dataclass(frozen=True, eq=False)
class Inception:
    """The feature network. Made by `load_inception`."""

    module: InceptionModule
    name: str
    digest: str
    image_size: int = _SIZE

    @torch.no_grad()
    def features(self, images: Images) -> Tensor:
        """float32 (N, 2048): means of the last layer over the picture.

        Images are taken as saved in 8 bits, grey ones as three equal channels, and resized to 299 x 299 as TensorFlow 1
        did.

        Raises:
            InputError: images of another shape, or values that are not finite.
        """
        pixels = torch.tensor(as_saved(images)).movedim(-1, 1)
        return torch.cat([self.module(_prepared(part)) for part in pixels.split(_BATCH)])


def load_inception(path: str | Path, *, digest: str = FID_WEIGHTS) -> Inception:
    """The network with the weights in a file.

    Args:
        path: `.pth` or `.safetensors`.
        digest: sha256 of the file; needed for another file than the FID's.

    Raises:
        CorruptError: the file is another one.
        IncompatibleError: it does not hold these layers.
        InputError: there is no such file.
    """
    tensors = read_official(Path(path), digest=digest)
    with torch.device("meta"):
        module = InceptionModule()
    try:
        # Two files are in use, with and without the classifier, which gives no features.
        module.load_state_dict({name: t for name, t in tensors.items() if not name.startswith("fc.")}, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise IncompatibleError(f"{path} does not hold the Inception network of the FID ({reason} …)") from error
    name = "inception" if digest == FID_WEIGHTS else f"inception-{digest[:8]}"
    return Inception(module.eval().requires_grad_(False), name, digest)


# Szegedy et al. 2016, table 1.
class InceptionModule(nn.Module):
    """(B, 3, 299, 299), prepared, to features (B, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, _HALVING)
        self.Conv2d_2a_3x3 = _Conv(32, 32, _BARE)
        self.Conv2d_2b_3x3 = _Conv(32, 64, _THREE)
        self.Conv2d_3b_1x1 = _Conv(64, 80, _ONE)
        self.Conv2d_4a_3x3 = _Conv(80, 192, _BARE)
        self.Mixed_5b = _Mixed(192, _square(32))
        self.Mixed_5c = _Mixed(256, _square(64))
        self.Mixed_5d = _Mixed(288, _square(64))
        self.Mixed_6a = _Mixed(288, _FIRST_REDUCTION)
        self.Mixed_6b = _Mixed(768, _factorised(128))
        self.Mixed_6c = _Mixed(768, _factorised(160))
        self.Mixed_6d = _Mixed(768, _factorised(160))
        self.Mixed_6e = _Mixed(768, _factorised(192))
        self.Mixed_7a = _Mixed(768, _SECOND_REDUCTION)
        self.Mixed_7b = _Mixed(1280, _spread(_mean_pool))
        self.Mixed_7c = _Mixed(2048, _spread(_max_pool))

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_halving_pool(x)))
        x = _halving_pool(x)
        for block in self.children():
            x = block(x) if isinstance(block, _Mixed) else x
        return x.mean((2, 3))


class _Conv(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, width: int, out: int, shape: _Shape):
        super().__init__()
        self.conv = nn.Conv2d(width, out, shape.kernel, stride=shape.stride, padding=shape.padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Branches side by side."""

    def __init__(self, width: int, branches: Sequence[_Branch]):
        super().__init__()
        self.branches = branches
        for branch in branches:
            into = width
            for name, out, shape in branch.chain:
                self.add_module(name, _Conv(into, out, shape))
                into = out
            for name, out, shape in branch.ends:
                self.add_module(name, _Conv(into, out, shape))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([y for branch in self.branches for y in self._follow(branch, x)], 1)

    def _follow(self, branch: _Branch, x: Tensor) -> list[Tensor]:
        x = branch.pool(x) if branch.pool else x
        for name, _, _ in branch.chain:
            x = self.get_submodule(name)(x)
        return [self.get_submodule(name)(x) for name, _, _ in branch.ends] or [x]


def _mean_pool(x: Tensor) -> Tensor:
    # TensorFlow's mean does not count the padding; torch's does unless told.
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _max_pool(x: Tensor) -> Tensor:
    # The FID's network has this in its very last block, where the published architecture has a mean.
    return F.max_pool2d(x, 3, stride=1, padding=1)


def _halving_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2)


# Szegedy et al. 2016, figure 5.
def _square(pooled: int) -> tuple[_Branch, ...]:
    return (
        _Branch([("branch1x1", 64, _ONE)]),
        _Branch([("branch5x5_1", 48, _ONE), ("branch5x5_2", 64, _FIVE)]),
        _Branch([("branch3x3dbl_1", 64, _ONE), ("branch3x3dbl_2", 96, _THREE), ("branch3x3dbl_3", 96, _THREE)]),
        _Branch([("branch_pool", pooled, _ONE)], pool=_mean_pool),
    )


# Figure 6.
def _factorised(width: int) -> tuple[_Branch, ...]:
    shapes = (_ONE, _HIGH_7, _WIDE_7, _HIGH_7, _WIDE_7)
    widths = (width, width, width, width, 192)
    twice = [(f"branch7x7dbl_{k}", *step) for k, step in enumerate(zip(widths, shapes, strict=True), start=1)]
    return (
        _Branch([("branch1x1", 192, _ONE)]),
        _Branch([("branch7x7_1", width, _ONE), ("branch7x7_2", width, _WIDE_7), ("branch7x7_3", 192, _HIGH_7)]),
        _Branch(twice),
        _Branch([("branch_pool", 192, _ONE)], pool=_mean_pool),
    )


# Figure 7.
def _spread(pool: Pool) -> tuple[_Branch, ...]:
    return (
        _Branch([("branch1x1", 320, _ONE)]),
        _Branch(
            [("branch3x3_1", 384, _ONE)],
            ends=[("branch3x3_2a", 384, _WIDE_3), ("branch3x3_2b", 384, _HIGH_3)],
        ),
        _Branch(
            [("branch3x3dbl_1", 448, _ONE), ("branch3x3dbl_2", 384, _THREE)],
            ends=[("branch3x3dbl_3a", 384, _WIDE_3), ("branch3x3dbl_3b", 384, _HIGH_3)],
        ),
        _Branch([("branch_pool", 192, _ONE)], pool=pool),
    )


# Figure 10.
_FIRST_REDUCTION = (
    _Branch([("branch3x3", 384, _HALVING)]),
    _Branch([("branch3x3dbl_1", 64, _ONE), ("branch3x3dbl_2", 96, _THREE), ("branch3x3dbl_3", 96, _HALVING)]),
    _Branch(pool=_halving_pool),
)
_SECOND_REDUCTION = (
    _Branch([("branch3x3_1", 192, _ONE), ("branch3x3_2", 320, _HALVING)]),
    _Branch(
        [
            ("branch7x7x3_1", 192, _ONE),
            ("branch7x7x3_2", 192, _WIDE_7),
            ("branch7x7x3_3", 192, _HIGH_7),
            ("branch7x7x3_4", 192, _HALVING),
        ]
    ),
    _Branch(pool=_halving_pool),
)


def _prepared(pixels: Tensor) -> Tensor:
    """uint8 (B, C, H, W) to what the network was trained on."""
    x = pixels.float().expand(-1, 3, -1, -1)
    for dim in (3, 2):
        x = _stretched(x, dim)
    return (x - 128) / 128


# tf.image.resize_bilinear of TensorFlow 1: pixel k of the result lies at k * side / 299 of the original, without the
# half-pixel offset of later conventions, and nothing is smoothed when an image shrinks.
def _stretched(x: Tensor, dim: int) -> Tensor:
    side = x.shape[dim]
    place = torch.arange(_SIZE, dtype=torch.float32) * (side / _SIZE)
    low = place.long().clamp_max(side - 1)
    high = (low + 1).clamp_max(side - 1)
    shape = [1, 1, 1, 1]
    shape[dim] = _SIZE
    return torch.lerp(x.index_select(dim, low), x.index_select(dim, high), (place - low).view(shape))
