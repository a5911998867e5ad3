"""`intarsia convert`: a backbone from a published checkpoint, or from a pipeline of Stable Diffusion."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intarsia.cli.core import CORE_HELP, KEEP_HELP, CoreOptions
from intarsia.cli.output import Output
from intarsia.errors import SettingsError, counted

if TYPE_CHECKING:
    from intarsia.backbone import Backbone

_NETWORK = "Checkpoint"


@dataclass(frozen=True)
class CheckpointOptions:
    """How the checkpoint is read."""

    autoencoder: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the autoencoder of a network on latents, as diffusers saves it (AutoencoderKL); a "
            "pipeline's folder will do.",
            rich_help_panel=_NETWORK,
        ),
    ] = None
    digest: Annotated[
        str | None,
        typer.Option(help="sha256 of CHECKPOINT. A .pth file is read only with it.", rich_help_panel=_NETWORK),
    ] = None
    heads: Annotated[
        int | None,
        typer.Option(help="Attention heads, where the width is not an official one.", rich_help_panel=_NETWORK),
    ] = None
    process: Annotated[
        str | None,
        typer.Option(
            help="Forward process of its training: continuous or discrete; without it that of the official "
            "checkpoints of this width.",
            rich_help_panel=_NETWORK,
        ),
    ] = None

    def backbone(self, checkpoint: Path) -> Backbone:
        """What is made of a checkpoint's file, or of a pipeline's folder.

        Raises:
            SettingsError: an option that says how a file is read, and a folder.
            As `convert_official` and `convert_pipeline`.
        """
        from intarsia.backbone import convert_official, convert_pipeline

        if checkpoint.is_dir():
            if given := [name for name, value in vars(self).items() if value is not None]:
                raise SettingsError(
                    f"{checkpoint} is a folder, and a pipeline says itself what it is made of; leave --{given[0]} out"
                )
            return convert_pipeline(checkpoint)
        return convert_official(
            checkpoint, digest=self.digest, autoencoder=self.autoencoder, heads=self.heads, process=self.process
        )


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="Checkpoint of the official U-ViT repository, .pth or .safetensors, without text; or the folder of a "
            "Stable Diffusion pipeline as diffusers saves it.",
            metavar="CHECKPOINT",
            show_default=False,
        ),
    ],
    cores: Annotated[list[str], typer.Argument(help=CORE_HELP, metavar="CORE", show_default=False)],
    reading: CheckpointOptions,
    core: CoreOptions,
    output: Output,
    out: Annotated[
        Path, typer.Option(help="Package folder to make, for `intarsia init --backbone`.", show_default=False)
    ],
    basis_rank: Annotated[
        int | None,
        typer.Option(help="Directions in which the Gaussian routers see; without it 256, or all if there are fewer."),
    ] = None,
    keep_samples: Annotated[int, typer.Option(help=KEEP_HELP)] = 2048,
) -> None:
    """Make a package of an official U-ViT checkpoint with the autoencoder of its latents, or of a diffusers pipeline.

    Of Stable Diffusion 1 and 2 the package holds UNet, text encoder and autoencoder: compartments of such a vault are
    LoRA or full copies, trained on images with captions, and can be used in diffusers as well.

    The core is a public set of images such as the checkpoint was trained on, a thousand or more: the routers' basis
    is fitted to it, and sources that overlap with it are found. What the checkpoint has seen can never be forgotten.

    Example: intarsia convert imagenet256_uvit_large.pth imagenet/val --autoencoder sd-vae --digest SHA256 --crop
    --owner ImageNet --licence LicenseRef-ImageNet --out imagenet.package
    """
    from intarsia.experiments.pretraining import check_free
    from intarsia.vault import make_package
    from intarsia.vault.package import usual_rank

    check_free(out)
    with output.progress() as bars:
        bars.phase("read the checkpoint")
        made = reading.backbone(checkpoint)
        bars.phase("read the core set")
        images = core.read(cores, made.image_shape)
        rank = usual_rank(made) if basis_rank is None else basis_rank

        def on_encoded(done: int, total: int) -> None:
            bars.show("encode the core set", done, total)

        make_package(out, made, images, basis_rank=rank, keep_samples=keep_samples, on_encoded=on_encoded)
    channels, height, width = made.image_shape
    document = {
        "package": str(out),
        "backbone": made.digest,
        "image_shape": [channels, height, width],
        "latent_shape": list(made.latent_shape),
        "core": {"name": images.name, "licence": images.licence, "count": len(images)},
    }
    line = f"{out}: '{checkpoint.name}' for images of {height}x{width}, on {counted(len(images), 'core image')}"
    output.answer(document, line, f"Next: intarsia init VAULT --backbone {shlex.quote(str(out))}")
