"""How the backbones of the examples are made: `intarsia pretrain --recipe NAME --out FOLDER`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch

from intarsia.backbone import Augmentation, PretrainSettings
from intarsia.checks import check_whole
from intarsia.data import Source
from intarsia.data.collections.emoji import load_emoji
from intarsia.data.collections.letters import letters
from intarsia.data.collections.mnist import mnist
from intarsia.errors import SettingsError

EMOJI_CORE = ("noto", "noto_v1", "emojione", "fxemoji")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A backbone from nothing: its core set, preset and training; `labelled` lets it learn the core's labels.

    `core` takes the folder of prepared data, None where the core is drawn on the spot.
    """

    preset: str
    core: Callable[[Path | None], Source]
    network: PretrainSettings
    autoencoder: PretrainSettings | None = None
    labelled: bool = False
    basis_rank: int | None = None
    keep_samples: int = 1024

    def __post_init__(self) -> None:
        check_whole("keep_samples", self.keep_samples, least=0)
        if self.basis_rank is not None:
            check_whole("basis_rank", self.basis_rank)


def _letters(folder: Path | None) -> Source:
    return letters(20_000, size=8, seed=0)


def _characters(folder: Path | None) -> Source:
    return merged("characters", [letters(20_000, size=8, seed=0), mnist(20_000, size=8, seed=0)])


def _emoji(folder: Path | None, size: int = 32) -> Source:
    if folder is None:
        raise SettingsError("this recipe's core set is emoji: run 'intarsia data emoji', then pass its folder")
    return merged("emoji-core", load_emoji(folder, EMOJI_CORE, size, label="caption"))


def merged(name: str, sources: Sequence[Source]) -> Source:
    """One public set of several; the licences of all hold, and all are named."""
    seen: dict[str, tuple[int, int]] = {}
    for which, source in enumerate(sources):
        for row, sample in enumerate(source.manifest):
            seen.setdefault(sample.id, (which, row))
    chosen = [(sources[which], row) for which, row in seen.values()]
    samples = [(source.name, source.manifest.samples[row]) for source, row in chosen]
    return Source.build(
        name,
        owner=", ".join(dict.fromkeys(source.owner for source in sources)),
        licence=" AND ".join(dict.fromkeys(_bracketed(source.licence) for source in sources)),
        attribution="; ".join(dict.fromkeys(source.attribution for source in sources)),
        images=torch.stack([torch.from_numpy(source.images[row].copy()) for source, row in chosen]).numpy(),
        file_names=[f"{origin}/{sample.file_name}" for origin, sample in samples],
        texts=[sample.text for _, sample in samples],
        labels=[sample.label for _, sample in samples],
    )


def _bracketed(licence: str) -> str:
    return f"({licence})" if " OR " in licence else licence


_TINY_8 = PretrainSettings(steps=6000, batch=256, lr=3e-3, optimiser="muon", ema=0.999)

_TINY_32 = Recipe(
    preset="uvit-tiny-32",
    core=_emoji,
    labelled=True,
    autoencoder=PretrainSettings(
        steps=2500, batch=64, lr=2e-3, warmup=100, ema=0.998, augmentation=Augmentation(mirror=True)
    ),
    network=PretrainSettings(
        steps=8_500,
        lr=3e-3,
        optimiser="muon",
        warmup=100,
        label_dropout=0.15,
        variants=8,
        augmentation=Augmentation(rotate=6.0, scale=0.06, shift=0.04, share=0.5),
    ),
    basis_rank=128,
    keep_samples=256,
)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "uvit-tiny-8": Recipe(preset="uvit-tiny-8", core=_letters, network=_TINY_8, keep_samples=2048),
        # Knows the domain of the digits, as the ImageNet of the paper knows birds and cars. It does not ship.
        "uvit-tiny-8-mnist": Recipe(preset="uvit-tiny-8", core=_characters, network=_TINY_8, keep_samples=2048),
        "uvit-tiny-32": _TINY_32,
        # The same budget on pictures of twice the side. Nobody has run it, and it does not ship.
        "uvit-tiny-64": replace(_TINY_32, preset="uvit-tiny-64", core=partial(_emoji, size=64)),
    }
)
