"""`intarsia principal`: who may draw from a vault besides its owner."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from intarsia.cli.output import Output, Table
from intarsia.cli.parameters import REFUSABLE, PrincipalName, VaultPath, moment, split
from intarsia.errors import VaultError

if TYPE_CHECKING:
    from intarsia.vault import Principal

T = TypeVar("T")
N = TypeVar("N")
K = TypeVar("K")
KeyId = Annotated[
    str, typer.Argument(help="Id of a key: the second part of it, as `principal list` shows it.", metavar="KEY")
]
HELP = "Principals: who may draw from a vault besides its owner, with which keys and under which rules."


@dataclass(frozen=True)
class RuleOptions:
    """What a principal admits."""

    licence: Annotated[
        list[str] | None, typer.Option(help="Admit only sources under this SPDX expression; may be repeated.")
    ] = None
    owner: Annotated[list[str] | None, typer.Option(help="Admit only sources of this owner; may be repeated.")] = None
    refuse: Annotated[
        list[str] | None,
        typer.Option(help=f"Admit no source whose licence brings this: {REFUSABLE}; with commas between."),
    ] = None


@dataclass(frozen=True)
class RuleRemoval:
    """Rules that a principal is to have no more."""

    any_licence: Annotated[bool, typer.Option("--any-licence", help="Admit sources under whatever licence.")] = False
    any_owner: Annotated[bool, typer.Option("--any-owner", help="Admit sources of whatever owner.")] = False
    refuse_nothing: Annotated[
        bool, typer.Option("--refuse-nothing", help="Admit sources whatever their licences bring.")
    ] = False


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
    rules: RuleOptions,
    output: Output,
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
            licences=rules.licence or None,
            owners=rules.owner or None,
            refuse=split("--refuse", rules.refuse) or (),
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
    rows = [
        (each["name"], ", ".join(map(_key_text, each["keys"])), _rules(p), ", ".join(map(_grant_text, each["grants"])))
        for each, p in zip(documents, found, strict=True)
    ]
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


def change(vault: VaultPath, name: PrincipalName, rules: RuleOptions, removal: RuleRemoval, output: Output) -> None:
    """Change the rules of a principal. Its keys and grants stay, and so does each rule that is not named.

    What the new rules do not admit is drawn no more: a run under way for it ends without images.

    Example: intarsia principal change emoji.vault studio --refuse non-commercial --any-owner
    """
    from intarsia.vault import KEEP, Vault

    licences = _in_place("--licence", rules.licence, None, KEEP, removed=removal.any_licence)
    owners = _in_place("--owner", rules.owner, None, KEEP, removed=removal.any_owner)
    refuse = _in_place("--refuse", split("--refuse", rules.refuse), (), KEEP, removed=removal.refuse_nothing)
    if licences is owners is refuse is KEEP:
        raise typer.BadParameter("nothing is to change; name at least one rule, as in --refuse share-alike")
    changed = Vault.open(vault).change_rules(name, licences=licences, owners=owners, refuse=refuse)
    said = f"The rules of '{name}': {_rules(changed) or 'none, it may draw from all that was granted'}."
    output.answer({"vault": str(vault), **_document(changed)}, said)


def renew(
    vault: VaultPath,
    name: PrincipalName,
    key: KeyId,
    output: Output,
    until: Annotated[
        str | None,
        typer.Option(help="When it ends: a day, which counts to its end, or a time; in UTC.", show_default=False),
    ] = None,
    no_end: Annotated[bool, typer.Option("--no-end", help="Let it have no end.")] = False,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it is for from now on, as for `principal key`; with commas between."),
    ] = None,
) -> None:
    """Change when a key ends, or what it is for. Whoever has it keeps it; what is not named stays.

    Example: intarsia principal renew emoji.vault studio 3f2a91c07be4 --until 2031-12-31
    """
    from intarsia.vault import KEEP, Vault

    if until is not None and no_end:
        raise typer.BadParameter("it cannot go with --until; leave one of them out", param_hint="--no-end")
    scopes = split("--scope", scope)
    if until is None and not no_end and scopes is None:
        raise typer.BadParameter("nothing is to change; give --until, --no-end or --scope", param_hint="--until")
    ends = moment(until) if until is not None else None if no_end else KEEP
    changed = Vault.open(vault).change_key(name, key, until=ends, scopes=KEEP if scopes is None else scopes)
    record = {field: value for field, value in changed.record().items() if field != "sha256"}
    said = f"The key {key} of '{name}' is for {', '.join(changed.scopes)}, and ends {record['until'] or 'never'}."
    output.answer({"vault": str(vault), "principal": name, "key": record}, said)


def withdraw(vault: VaultPath, name: PrincipalName, key: KeyId, output: Output) -> None:
    """Withdraw one key of a principal, for good. Its other keys and its grants stay.

    Example: intarsia principal withdraw emoji.vault studio 3f2a91c07be4
    """
    from intarsia.vault import Vault

    Vault.open(vault).remove_key(name, key)
    document = {"vault": str(vault), "principal": name, "key": key, "removed": True}
    output.answer(document, f"Withdrew the key {key} of '{name}'.")


def remove(vault: VaultPath, name: PrincipalName, output: Output) -> None:
    """Remove a principal with all its keys and grants. Runs under way for it end without images.

    Example: intarsia principal remove emoji.vault studio
    """
    from intarsia.vault import Vault

    Vault.open(vault).remove_principal(name)
    output.answer({"vault": str(vault), "principal": name, "removed": True}, f"Removed the principal '{name}'.")


def _in_place(option: str, given: T | None, nothing: N, keep: K, *, removed: bool) -> T | N | K:
    """What comes in the place of a rule: what was given, `nothing` if it is removed, and else it stays.

    Raises:
        typer.BadParameter: both were asked for.
    """
    if given and removed:
        raise typer.BadParameter("it is given and taken away at once; leave one of them out", param_hint=option)
    return given or (nothing if removed else keep)


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


def _key_text(key: dict[str, Any]) -> str:
    from intarsia.vault import USUAL_SCOPES

    terms = [] if key["scopes"] == list(USUAL_SCOPES) else [", ".join(key["scopes"])]
    terms += [f"until {key['until']}"] if key["until"] else []
    return f"{key['id']} ({'; '.join(terms)})" if terms else str(key["id"])


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
