"""`intarsia ledger`: what was done with a vault, and proofs of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intarsia.cli.output import Output, Table
from intarsia.cli.parameters import VaultPath
from intarsia.errors import CorruptError

if TYPE_CHECKING:
    from intarsia.ledger import VerifierKey

HELP = "What was done with a vault: an append-only log with signed checkpoints, which can be checked without the vault."
_GONE = "(forgotten)"
_WHOLE, _SHOWN = 64, 12  # digits of a digest, and those that people are shown

Since = Annotated[
    Path | None,
    typer.Option(help="File with a checkpoint of an earlier day, from which the log must go on.", show_default=False),
]


def show(
    vault: VaultPath,
    output: Output,
    last: Annotated[int, typer.Option(help="How many entries, from the end; 0 shows all.")] = 20,
    event: Annotated[str | None, typer.Option(help="Only entries of this kind, such as forget.")] = None,
    source: Annotated[str | None, typer.Option(help="Only entries that concern this source.")] = None,
) -> None:
    """List what was done with a vault, and to which sources; the names of those that were forgotten are not known.

    Example: intarsia ledger show emoji.vault --event forget
    """
    from intarsia.checks import check_whole
    from intarsia.vault import Vault

    check_whole("--last", last, least=0)
    opened = Vault.open(vault)
    found = [
        (number, entry, names)
        for number, entry, names in opened.history()
        if (event is None or entry.kind == event) and (source is None or source in names)
    ][-last if last else 0 :]
    rows = [
        (number, entry.time, entry.kind, ", ".join(name or _GONE for name in names)) for number, entry, names in found
    ]
    document = {
        "vault": str(vault),
        "key": str(opened.ledger.key),
        "entries": [{"index": number, "names": names, **entry.record} for number, entry, names in found],
    }
    output.answer(document, Table(("entry", "time (UTC)", "event", "sources"), rows))


def checkpoint(vault: VaultPath, output: Output) -> None:
    """Print the signed checkpoint: what it covers cannot be rewritten unnoticed by whoever keeps a copy of it.

    Example: intarsia ledger checkpoint emoji.vault
    """
    from intarsia.vault import Vault

    ledger = Vault.open(vault).ledger
    note = ledger.checkpoint()
    output.answer({"vault": str(vault), "key": str(ledger.key), "checkpoint": note}, *note.splitlines())


def export(
    vault: VaultPath,
    output: Output,
    out: Annotated[Path, typer.Option(help="Folder to make for the bundle.", show_default=False)],
) -> None:
    """Write all entries, the checkpoint and the public key into a folder, for `intarsia ledger verify`.

    Example: intarsia ledger export emoji.vault --out emoji-ledger
    """
    from intarsia.ledger.bundle import read_bundle, write_bundle
    from intarsia.vault import Vault
    from intarsia.vault.folders import new_folder

    ledger = Vault.open(vault).ledger
    with new_folder(out) as folder:
        write_bundle(ledger, folder)
        findings = read_bundle(folder).check(key=ledger.key)
    head = findings.head
    document = {"vault": str(vault), "out": str(out), "size": head.size, "root": head.root.hex()}
    output.answer(document, f"{_counted(head.size)} in {out}")


def prove(
    vault: VaultPath,
    output: Output,
    index: Annotated[
        int | None, typer.Argument(help="Number of an entry, as `ledger show` gives it.", show_default=False)
    ] = None,
    since: Since = None,
    out: Annotated[Path | None, typer.Option(help="File for the proof, which is printed otherwise.")] = None,
) -> None:
    """Prove that an entry stands in the ledger, or with --since that the ledger only grew.

    The first is printed in the format of c2sp.org/tlog-proof and written as a receipt, the second is in that of
    c2sp.org/tlog-witness. `intarsia ledger verify` checks what is written.

    Example: intarsia ledger prove emoji.vault 7 --out entry-7.json
    """
    from intarsia.files import write_atomic, write_json
    from intarsia.vault import Vault

    if (index is None) == (since is None):
        raise typer.BadParameter("give the number of an entry, or --since with an earlier checkpoint")
    ledger = Vault.open(vault).ledger
    if index is not None:
        receipt = ledger.prove(index)
        document, text = receipt.document(), receipt.proof.text()
        if out is not None:
            write_json(out, document)
    else:
        assert since is not None  # one of the two is given
        text = ledger.growth(_text(since)).text()
        document = {"vault": str(vault), "key": str(ledger.key), "proof": text}
        if out is not None:
            write_atomic(out, text.encode())
    output.answer(document, *([f"written to {out}"] if out else text.splitlines()))


def verify(
    what: Annotated[
        Path,
        typer.Argument(
            help="A bundle (a folder), a receipt, a proof of growth, or a vault.", metavar="WHAT", show_default=False
        ),
    ],
    output: Output,
    key: Annotated[
        str | None,
        typer.Option(help="The vault's key, as you know it: name+id+base64, or a file that holds it."),
    ] = None,
    since: Since = None,
) -> None:
    """Check a ledger or a receipt without the vault, and say what that proves; any change makes
    the exit code 1.

    Example: intarsia ledger verify emoji-ledger --since checkpoint-of-january
    """
    from intarsia.ledger import check_offline

    found = check_offline(what, key=_key(key), earlier=None if since is None else _text(since))
    head = found.head
    document = {
        "what": str(what),
        "kind": found.kind,
        "ok": True,
        "log": head.origin,
        "size": head.size,
        "root": head.root.hex(),
        "says": dict(found.says),
        "proves": list(found.proves),
    }
    says = _told(found.says)
    line = f"{what}: a {found.kind} of {head.origin}, signed for {_counted(head.size)}"
    output.answer(document, line, *says, *found.proves)


def _told(says: Mapping[str, Any]) -> list[str]:
    """What stands there, for people; --json has all of it."""
    entries = says.get("entries", [says] if "event" in says else [])
    if entries:
        return [text for each in entries for text in _entry(each)]
    return [f"  {name}: {_listed(value) if isinstance(value, Mapping) else value}" for name, value in says.items()]


def _entry(entry: Mapping[str, Any]) -> list[str]:
    head = f"  entry {entry['entry']}, {entry['time']}: {entry['event']}"
    return [head, *(f"    {source}: {_listed(values)}" for source, values in entry["sources"].items())]


def _listed(values: Mapping[str, Any]) -> str:
    """Names and values; of digests the beginning."""
    shown = {k: v[:_SHOWN] if isinstance(v, str) and len(v) == _WHOLE else v for k, v in values.items()}
    return ", ".join(f"{k} {'none' if v is None else v}" for k, v in shown.items())


def _counted(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _key(given: str | None) -> VerifierKey | None:
    from intarsia.ledger import VerifierKey

    if given is None:
        return None
    return VerifierKey.parse(given if "+" in given else _text(Path(given)).strip())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CorruptError(f"{path}: not text ({error}); expected what `intarsia ledger` wrote") from error
