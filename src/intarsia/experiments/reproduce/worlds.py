"""The worlds of the tables: digits that come along or of other hands, emoji of owners, a folder of anybody's images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from intarsia.audit import (
    Digits,
    DigitSettings,
    FeatureNetwork,
    fit_digit_network,
    load_efficientnet_lite0,
    load_inception,
    make_rejects,
    split_digits,
)
from intarsia.compartments.training import deterministic
from intarsia.data import ReadOptions, Sample, Source, by_id, by_stem, read_source
from intarsia.data.collections.digits import digits
from intarsia.data.collections.emoji import EMOJI_SOURCES, load_attributes, load_emoji
from intarsia.data.collections.letters import letters
from intarsia.data.collections.mnist import by_digit, mnist
from intarsia.errors import IncompatibleError, InputError
from intarsia.experiments.recipes import EMOJI_CORE, merged
from intarsia.experiments.reproduce.world import Owner, World
from intarsia.vault.package import check_package, find_package

DIGITS_BACKBONE, EMOJI_BACKBONE = "uvit-tiny-8", "uvit-tiny-32"
HELD_OUT_CONCEPTS = 0.1
HELD_OUT_IMAGES = 0.2


def digits_world(backbone: str | Path | None = None) -> World:
    """Handwritten digits of 8 px on the backbone that saw letters; features of a network that reads digits."""
    split = split_digits(digits())
    return World(
        name="digits",
        package=backbone or DIGITS_BACKBONE,
        images=merged("all", split.train),
        reference=merged("reference", split.reference),
        network=_reader(split.judge),
    )


def mnist_world(count: int, backbone: str | Path | None = None) -> World:
    """The same with `count` pictures of MNIST's digits in the place of those that come along, for larger sources.

    The digits of a fifth are held out, with all pictures that were made of them. The network that gives features reads
    digits of the hands that come along, as in `digits_world`.

    Raises:
        MissingExtra, CorruptError, SettingsError: as `mnist` does.
        InputError: too few to hold some out.
    """
    images, reference = _held_out(mnist(count), "mnist", by_digit)
    network = _reader(split_digits(digits()).judge)
    return World(name="mnist", package=backbone or DIGITS_BACKBONE, images=images, reference=reference, network=network)


def _reader(real: Sequence[Source]) -> FeatureNetwork:
    mine = Digits.of(real)
    rejects = make_rejects(mine, letters(6000, size=8, seed=1000).pixels(), count=20_000, seed=1)
    with deterministic(1):
        return fit_digit_network(mine, rejects, DigitSettings())


def _held_out(source: Source, place: str, group: Callable[[Sample], str] = by_id) -> tuple[Source, Source]:
    images, reference = source.split(HELD_OUT_IMAGES, group=group)
    if min(len(images), len(reference)) < 2:
        raise InputError(f"{place} holds {len(source)} images, too few to hold some out; give at least some dozens")
    return images, reference


def emoji_world(folder: Path, backbone: str | Path | None = None, inception: Path | None = None) -> World:
    """Emoji of every owner in the folder whose drawings the core does not hold, each concept drawn by its caption.

    They are read at the size of the backbone's images.

    A tenth of the concepts is held out of all owners' images; those that the backbone knows by caption are drawn and
    compared.

    Raises:
        InputError: fewer than two such owners, an owner's table is unreadable, or a drawing has no caption.
        IncompatibleError: the backbone knows none of the held-out concepts.
    """
    package = backbone or EMOJI_BACKBONE
    public = check_package(find_package(package))
    size, known = public.image_shape[1], frozenset(public.labels)
    names = [name for name in EMOJI_SOURCES if name not in EMOJI_CORE and (folder / f"{name}_{size}.parquet").is_file()]
    if len(names) < 2:
        found = ", ".join(names) or "none"
        raise InputError(
            f"{folder} holds emoji of {size} px of: {found}; expected two owners: make it with intarsia data emoji "
            f"--size {size}"
        )
    owners = []
    for source in load_emoji(folder, names, size, label="caption"):
        nameless = sum(sample.label is None for sample in source.manifest)
        if nameless:
            raise InputError(f"{folder}: {nameless} emoji of {source.name} have no caption; give each one")
        kept, held = source.split(HELD_OUT_CONCEPTS, group=by_stem)
        owners.append(Owner(kept, held.select(lambda sample: sample.label in known)))
    if not any(len(owner.held) for owner in owners):
        raise IncompatibleError(f"the backbone {package} knows no caption of the held-out emoji; give one that does")
    world = among("emoji", owners, package, features_of(inception))
    return replace(world, attributes=load_attributes(folder, names, size))


def among(name: str, owners: Sequence[Owner], package: str | Path, network: FeatureNetwork) -> World:
    """The world of these owners alone, where images are drawn for captions."""
    return World(
        name=name,
        package=package,
        images=merged("all", [owner.kept for owner in owners]),
        reference=merged("reference", [owner.held for owner in owners]),
        network=network,
        owners=tuple(owners),
        captioned=True,
    )


def folder_world(
    folder: Path, backbone: str | Path, inception: Path | None = None, *, captioned: bool = False
) -> World:
    """Images in one sub-folder per class, as CUB-200, Cars and Pets come, cut to squares of the backbone's size.

    Every fifth image, by a hash of its pixels, is held out to be compared with. `captioned`: images are drawn for the
    classes of those, and not for none.

    Raises:
        IngestError: images that cannot be read; all are listed.
        InputError: an image lies in no class, or nothing could be held out.
    """
    channels, size, _ = check_package(find_package(backbone)).image_shape
    source = read_source(
        folder,
        name="all",
        owner="unknown",
        licence="LicenseRef-unknown",
        size=size,
        channels=channels,
        options=ReadOptions(resize="crop"),
    )
    loose = [sample.file_name for sample in source.manifest if sample.label is None]
    if loose:
        raise InputError(f"{folder}: {loose[0]} is in no class ({len(loose)} such); put each class in its sub-folder")
    images, reference = _held_out(source, str(folder))
    return World(
        name=folder.name,
        package=backbone,
        images=images,
        reference=reference,
        network=features_of(inception),
        captioned=captioned,
    )


def features_of(inception: Path | None) -> FeatureNetwork:
    """The FID's own network from a file, if there is one."""
    return load_efficientnet_lite0() if inception is None else load_inception(inception)
