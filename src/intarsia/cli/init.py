"""`intarsia init`: make a vault."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from intarsia.cli.output import Output
from intarsia.cli.parameters import vault_place


def init(
    vault: Annotated[
        str,
        typer.Argument(
            help="Folder to make; or s3://bucket/name.vault, for a vault that several machines share.",
            metavar="VAULT",
            show_default=False,
            parser=vault_place,
        ),
    ],
    output: Output,
    backbone: Annotated[
        str,
        typer.Option(
            help="Backbone package: the name of one that comes with intarsia (`intarsia doctor` lists them), or a "
            "folder made by `intarsia pretrain`.",
            show_default=False,
        ),
    ],
    index: Annotated[
        str | None,
        typer.Option(
            help="Database of the index, as postgresql+psycopg://user@host/database (password: PGPASSWORD, or a file "
            "named by PGPASSFILE) or sqlite:////folder/file.db; without it the index is a file in "
            "the vault. One in a bucket needs it."
        ),
    ] = None,
) -> None:
    """Make a vault: a folder that holds a public backbone, and later sources and their compartments.

    Example: intarsia init digits.vault --backbone uvit-tiny-8
    """
    from intarsia.vault import Vault

    made = Vault.create(vault, backbone=backbone, url=index)
    core = made.core.record
    channels, height, width = made.image_shape
    document = {
        "vault": vault,
        "image_shape": [channels, height, width],
        "backbone": made.backbone.digest,
        "core": {"name": core["name"], "licence": core["licence"], "count": core["count"]},
    }
    line = f"{vault}: made for images of {height}x{width} with {channels} channels, on the core '{core['name']}'"
    output.answer(document, line, f"Next: intarsia source add {shlex.quote(vault)} NAME DATA")
