"""A pack: what an owner hands over in place of images. One file, signed.

A safetensors file whose tensors are the bytes of files (uint8): those of the compartment, without its checkpoints,
under their names, and `note`, a signed note (`intarsia.ledger.note`) that states who holds the images, under which
terms, how many there are, and the digest of every file. Nothing of it is read before the note's signature and that
digest are checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from intarsia.compartments import Compartment
from intarsia.compartments.compartment import ADAPTER_FILE, PEFT_FILE, RECORD_FILE, ROUTER_FILE
from intarsia.digests import canonical_json, digest_of
from intarsia.errors import CorruptError, SettingsError
from intarsia.files import load_tensors, save_tensors, tensors_to_bytes
from intarsia.ledger.note import VerifierKey, open_note
from intarsia.vault.bound import BOUNDED
from intarsia.vault.records import SourceInfo
from intarsia.vault.training import SLICES

KIND = "intarsia-pack/2"  # the first line of the note: what is signed for one purpose is of no use for another
NOTE = "note"
_FILES = (ADAPTER_FILE, PEFT_FILE, ROUTER_FILE, RECORD_FILE)
_TERMS = ("name", "owner", "licence", "attribution", "count", "labels", "manifest_root")


@dataclass(frozen=True)
class Pack:
    """A source without its images, and the files of its compartment.

    `number` is how many entries the owner's ledger had before it was packed: a pack of fewer is an earlier one.
    """

    info: SourceInfo
    image_shape: tuple[int, ...]
    number: int
    files: Mapping[str, bytes]

    @property
    def text(self) -> str:
        """What is signed."""
        terms = {name: getattr(self.info, name) for name in _TERMS} | {"image_shape": list(self.image_shape)}
        digests = {name: digest_of(data) for name, data in self.files.items()}
        return f"{KIND}\n{canonical_json({'source': terms, 'number': self.number, 'files': digests}).decode()}\n"

    def write(self, path: Path, note: str) -> str:
        """Write the file; returns its sha256.

        Raises:
            VaultError: the disk is full, or the place cannot be written.
        """
        stored = {**self.files, NOTE: note.encode()}
        return save_tensors(
            path, {name: torch.frombuffer(bytearray(data), dtype=torch.uint8) for name, data in stored.items()}
        )

    def unpack(self, folder: Path) -> Compartment:
        """Write the compartment into an empty folder, and read it.

        Raises:
            CorruptError: the files are not those of one whole compartment.
        """
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return Compartment.load(folder)


def pack_files(compartment: Compartment) -> dict[str, bytes]:
    """The files of a compartment as an owner hands them over: without checkpoints, which only its owner needs.

    Raises:
        SettingsError: it learned from other sources too, which are not the owner's to hand over; or it has the router
            part `caption`, by which guesses of captions can be confirmed, or one that has no bound; nobody could import
            those.
    """
    if others := sorted(set(compartment.sources) - {compartment.name}):
        raise SettingsError(
            f"'{compartment.name}' learned from {', '.join(others)} too, and what others own is not handed over; train "
            "it without them"
        )
    if unbounded := sorted(set(compartment.router_settings) - {*BOUNDED, "caption"}):
        raise SettingsError(
            f"'{compartment.name}' has the router part '{unbounded[0]}', whose claims nobody could check, so that no "
            f"vault takes it in; train it again with no others than {', '.join(BOUNDED)} to hand it over"
        )
    if "caption" in compartment.router_settings:
        raise SettingsError(
            f"'{compartment.name}' has the router part 'caption', which tells its captions to whoever guesses them; "
            "train it again without that part to hand it over"
        )
    kept = {key: value for key, value in compartment.training.items() if key != SLICES}
    return replace(compartment, training=kept, manifest_root=handed_root(compartment)).files()


def handed_root(compartment: Compartment) -> str:
    """The manifest root under which a compartment is handed over.

    That of its samples would let whoever holds nearly all of them test a guess about the rest. So a private compartment
    goes under a digest of what it learned.
    """
    if compartment.privacy is None:
        return compartment.manifest_root
    learned = (compartment.params, compartment.router)
    return digest_of(b"".join(digest_of(tensors_to_bytes(each)).encode() for each in learned))


def read_pack(path: Path, key: VerifierKey) -> Pack:
    """Read a pack that is signed by a key.

    Raises:
        CorruptError: it is no pack, was changed, or is not signed by this key.
        VaultError: it cannot be read.
    """
    stored = load_tensors(path)
    if any(tensor.dtype != torch.uint8 or tensor.ndim != 1 for tensor in stored.values()) or NOTE not in stored:
        raise CorruptError(f"{path}: not a pack; expected one that `intarsia pack` wrote")
    files = {name: tensor.numpy().tobytes() for name, tensor in stored.items()}
    try:
        text = open_note(files.pop(NOTE).decode(), key)
        pack = _stated(text, files)
    except (UnicodeDecodeError, CorruptError) as error:
        raise CorruptError(f"{path}: {error}") from error
    if pack.text != text:
        raise CorruptError(f"{path}: its files are not those that '{key.name}' signed; ask for the pack again")
    return pack


def _stated(text: str, files: Mapping[str, bytes]) -> Pack:
    """The pack that a signed text describes, if these are its files."""
    kind, _, rest = text.partition("\n")
    if kind != KIND:
        raise CorruptError(f"what was signed is '{kind[:40]}', not '{KIND}'")
    try:
        record: dict[str, Any] = json.loads(rest)
        terms = record["source"]
        info = SourceInfo(**{name: terms[name] for name in _TERMS} | {"labels": tuple(terms["labels"])})
        shape = tuple(int(side) for side in terms["image_shape"])
        number, stated = record["number"], set(record["files"])
        if not isinstance(number, int) or number < 0:
            raise ValueError(f"its number is {number!r}")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CorruptError(f"what was signed cannot be read ({error})") from error
    if set(files) != stated or not set(files).issubset(_FILES):
        raise CorruptError(f"it holds {', '.join(sorted(files)) or 'nothing'}, and states {', '.join(sorted(stated))}")
    return Pack(info, shape, number, files)
