"""Objects in a bucket, or in a folder that several machines mount: written once, under names that never come again.

A bucket may keep older versions of what is deleted. Here what is deleted goes in all its versions, or it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from intarsia.errors import SettingsError, VaultError, require
from intarsia.files import write_atomic

S3, FILE = "s3", "file"
_URL = re.compile(r"([a-z][a-z0-9+.-]*):(/+)(.+)")
_AT_ONCE = 8
T = TypeVar("T")
R = TypeVar("R")


def url_of(place: str | Path) -> str | None:
    """The URL that a place is, also if it was taken for a path, which loses a slash; None for a folder.

    Raises:
        SettingsError: it is one of another kind than `s3://bucket/name` or `file:///folder/name`.
    """
    found = _URL.fullmatch(str(place))
    if found is None:
        return None
    kind, slashes, rest = found.group(1), found.group(2), found.group(3).strip("/")
    if kind == FILE:
        return f"file:///{rest}"
    if kind == S3 and "/" in rest:
        return f"s3://{rest}"
    if kind != S3 and len(slashes) == 1 and kind not in fsspec.available_protocols():
        return None  # a folder with a colon in its name
    raise SettingsError(f"no vault can be kept at '{kind}://{rest}'; expected a folder, or s3://bucket/name.vault")


@dataclass(frozen=True)
class _Version:
    """One version of an object in S3; it `counts` if it is what a reader gets."""

    name: str
    version: str
    size: int
    counts: bool


class Bucket:
    """The objects below one URL.

    Raises:
        SettingsError: the URL is none that is known here.
        MissingExtra: it is S3's, and its client is not installed.
    """

    def __init__(self, url: str):
        known = url_of(url)
        if known is None:
            raise SettingsError(f"no objects can be kept at '{url}'; expected s3://bucket/name or file:///folder/name")
        self.url, (kind, _, self._prefix) = known, known.partition("://")
        self._failures: tuple[type[Exception], ...] = (OSError, ValueError)
        self._is_s3 = kind == S3
        if self._is_s3:
            require("s3fs", "s3")
            self._failures += (require("botocore.exceptions", "s3").BotoCoreError,)
        self._files: Any = fsspec.filesystem(kind, use_listings_cache=False)

    def read(self, name: str) -> bytes | None:
        """An object; None if there is none of this name.

        Raises:
            VaultError: the bucket cannot be reached or read.
        """
        try:
            return bytes(self._files.cat_file(f"{self._prefix}/{name}"))
        except FileNotFoundError:
            return None
        except self._failures as error:
            raise self._failed("read", error) from error

    def write(self, objects: Mapping[str, bytes]) -> None:
        """Put objects; each is whole or not there.

        Raises:
            VaultError: the bucket cannot be reached or written.
        """
        _each(self._write, objects.items())

    def _write(self, item: tuple[str, bytes]) -> None:
        path = f"{self._prefix}/{item[0]}"
        try:
            if self._is_s3:
                self._files.pipe_file(path, item[1])
                return
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except self._failures as error:
            raise self._failed("written", error) from error
        write_atomic(Path(path), item[1])

    def sizes(self) -> dict[str, int]:
        """The bytes of every object, by name.

        Raises:
            VaultError: the bucket cannot be reached or read.
        """
        if self._is_s3:
            return {each.name: each.size for each in self._versions("") if each.counts}
        folder = Path(self._prefix)
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}

    def all_names(self) -> set[str]:
        """The names of all objects, also of those that are deleted and of which older versions are kept.

        Raises:
            VaultError: the bucket cannot be reached, or its versions cannot be listed.
        """
        return {each.name for each in self._versions("")} if self._is_s3 else set(self.sizes())

    def remove(self, names: Iterable[str]) -> None:
        """Delete objects in all their versions; what is gone already is no error.

        Raises:
            VaultError: the bucket cannot be reached, or does not let something go.
        """
        _each(self._remove, names)

    def _remove(self, name: str) -> None:
        try:
            if not self._is_s3:
                Path(f"{self._prefix}/{name}").unlink(missing_ok=True)
                return
            for each in self._versions(name):
                if each.name == name:
                    where = {"Key": self._key(name), "VersionId": each.version, **self._bucket}
                    self._files.call_s3("delete_object", **where)
        except self._failures as error:
            raise self._failed("rid of what is to go", error) from error

    @property
    def _bucket(self) -> dict[str, str]:
        return {"Bucket": self._prefix.split("/")[0]}

    def _key(self, name: str) -> str:
        return f"{self._prefix.partition('/')[2]}/{name}"

    def _versions(self, name: str) -> Iterator[_Version]:
        """Every version of the objects whose names begin so, and the marks that deleting leaves."""
        start: dict[str, str] = {}
        while True:
            try:
                page = self._files.call_s3("list_object_versions", Prefix=self._key(name), **start, **self._bucket)
            except FileNotFoundError:  # no such bucket
                return
            except self._failures as error:
                raise self._failed("asked for its objects and their older versions", error) from error
            for each in [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]:
                found = each["Key"].removeprefix(self._key("")), each.get("VersionId") or "null"
                yield _Version(*found, int(each.get("Size", 0)), counts="Size" in each and bool(each["IsLatest"]))
            if not page.get("IsTruncated"):
                return
            start = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}

    def _failed(self, what: str, error: Exception) -> VaultError:
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        return VaultError(
            f"{self.url}: cannot be {what} ({reason}); see that the server is up, and to the rights there"
        )


def _each(do: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Do it to all, several at once; the first error ends it."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(do, items))
