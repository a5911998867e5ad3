"""`intarsia principal`: who may draw from a vault besides its owner."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intarsia.cli.output import Output, Table
from intarsia.cli.parameters import REFUSABLE, PrincipalName, VaultPath, moment, split
from intarsia.errors import VaultError

if TYPE_CHECKING:
    from intarsia.vault import Principal

HELP = "Principals: who may draw from a vault besides its owner, with which keys and under which rules."


@dataclass(frozen=True)
class KeyOptions:
    """How long a new key lives and where it goes."""

    until: Annotated[
        str | None,
        typer.Option(help="When the key ends: a day, which counts to its end, or a time; in UTC.", show_default=False),
    ] = None
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="What the key is for in a service: read, sample, credit, erase, admin; with commas between. Without "
            "it read, sample and credit.",
            show_default=False,
        ),
    ] = None
    key_file: Annotated[
        Path | None,
        typer.Option(help="New file for the key, which only you can read; without it the key is printed, once."),
    ] = None

    def scopes(self) -> tuple[str, ...]:
        """Those that were named, or the usual ones."""
        from intarsia.vault import USUAL_SCOPES

        return split("--scope", self.scope) or USUAL_SCOPES


def add(
    vault: VaultPath,
    name: PrincipalName,
    key: KeyOptions,
    output: Output,
    licence: Annotated[
        list[str] | None, typer.Option(help="Admit only sources under this SPDX expression; may be repeated.")
    ] = None,
    owner: Annotated[list[str] | None, typer.Option(help="Admit only sources of this owner; may be repeated.")] = None,
    refuse: Annotated[
        list[str] | None,
        typer.Option(help=f"Admit no source whose licence brings this: {REFUSABLE}; with commas between."),
    ] = None,
) -> None:
    """Add somebody who may draw from what is granted to them. Shows their API key, for the only time.

    A principal may use nothing until `intarsia grant` says so, and what is granted only as far as these rules admit it.

    Example: intarsia principal add emoji.vault studio --refuse share-alike,non-commercial
    """
    from intarsia.vault import Vault

    opened = Vault.open(vault)
    with _new_key_file(key.key_file) as write:
        text = opened.add_principal(
            name,
            licences=licence or None,
            owners=owner or None,
            refuse=split("--refuse", refuse) or (),
            until=moment(key.until),
            scopes=key.scopes(),
        )
        write(text)
    _answer_key(output, vault, name, text, key.key_file)


def list_principals(vault: VaultPath, output: Output) -> None:
    """List the principals of a vault: their keys (never in clear), rules and grants.

    Example: intarsia principal list emoji.vault
    """
    from intarsia.vault import Vault

    found = Vault.open(vault).principals()
    documents = [_document(principal) for principal in found]
    rows = [(p.name, len(p.keys), _rules(p), ", ".join(_grant_text(d) for d in _document(p)["grants"])) for p in found]
    output.answer({"vault": str(vault), "principals": documents}, Table(("principal", "keys", "rules", "grants"), rows))


def key(
    vault: VaultPath,
    name: PrincipalName,
    options: KeyOptions,
    output: Output,
    replace: Annotated[
        bool, typer.Option("--replace", help="Withdraw all keys that the principal has, at once.")
    ] = False,
) -> None:
    """Make another API key for a principal. It is shown once; the vault keeps a digest of it.

    Example: intarsia principal key emoji.vault studio --replace --until 2030-12-31
    """
    from intarsia.vault import Vault

    opened = Vault.open(vault)
    with _new_key_file(options.key_file) as write:
        text = opened.new_key(name, until=moment(options.until), scopes=options.scopes(), replace=replace)
        write(text)
    _answer_key(output, vault, name, text, options.key_file)


def remove(vault: VaultPath, name: PrincipalName, output: Output) -> None:
    """Remove a principal with all its keys and grants. Runs under way for it end without images.

    Example: intarsia principal remove emoji.vault studio
    """
    from intarsia.vault import Vault

    Vault.open(vault).remove_principal(name)
    output.answer({"vault": str(vault), "principal": name, "removed": True}, f"Removed the principal '{name}'.")


@contextlib.contextmanager
def _new_key_file(path: Path | None) -> Iterator[Any]:
    """What writes the key, into a file that is made first: a key that cannot be kept must not be made."""
    if path is None:
        yield lambda text: None
        return
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise VaultError(f"{path} exists already; choose another file for the key, or remove it") from None
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            yield lambda text: file.write(text + "\n")
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _answer_key(output: Output, vault: str, name: str, text: str, file: Path | None) -> None:
    place = {"key": text} if file is None else {"key_file": str(file)}
    said = f"Key of '{name}', shown this once: {text}" if file is None else f"The key of '{name}' is in {file}."
    output.answer({"vault": str(vault), "principal": name} | place, said)


def _document(principal: Principal) -> dict[str, Any]:
    record = principal.record()
    keys = [{key: value for key, value in each.items() if key != "sha256"} for each in record["keys"]]
    return record | {"keys": keys}


def _grant_text(grant: dict[str, Any]) -> str:
    terms = [f"until {grant['until']}"] if grant["until"] else []
    terms += [grant["quota"]] if grant["quota"] else []
    return f"{grant['source']} ({', '.join(terms)})" if terms else grant["source"]


def _rules(principal: Principal) -> str:
    rules = principal.rules
    said = [f"no {obligation}" for obligation in rules.refuse]
    said += [] if rules.licences is None else [f"under {' or '.join(rules.licences)}"]
    said += [] if rules.owners is None else [f"of {' or '.join(rules.owners)}"]
    return "; ".join(said)
