"""Who may draw: principals with their keys and grants, each a sealed record.

principals/<name>/principal.json    digests of keys, rules on licences and owners, grants by source
principals/<name>/used.json         images drawn in the current period, by source; only where a grant has a quota
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from intarsia.checks import check_whole
from intarsia.data import check_name
from intarsia.digests import digest_of
from intarsia.errors import CorruptError, IntarsiaError, SettingsError, UnknownName
from intarsia.vault.clock import check_moment, from_text, to_text
from intarsia.vault.records import read_record, write_record
from intarsia.vault.selecting import Rules

PRINCIPAL_FILE = "principal.json"
PERIODS: Mapping[str, str] = MappingProxyType({"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"})
"""The periods of quotas, each with the form that names one of them; all begin and end in UTC."""
SCOPES: Mapping[str, str] = MappingProxyType(
    {
        "read": "see the sources that may be used, receipts and the ledger",
        "sample": "draw images",
        "credit": "ask how much of an image is owed to whom",
        "erase": "work off the requests of owners, and forget sources and samples of any of them",
        "admin": "see everything, and say who may draw from what",
    }
)
"""What a key may be for. On the command line a key says who it is, whatever its scopes; the service asks for them."""
USUAL_SCOPES = ("read", "sample", "credit")
_PREFIX = "int"


class Keep(Enum):
    """In the place of a value that is not to be changed."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP


@dataclass(frozen=True)
class Quota:
    """At most so many images in each hour, day or month of the calendar, in UTC.

    Raises:
        SettingsError: no whole number, at least 1.
        UnknownName: no such period.
    """

    images: int
    period: str = "day"

    def __post_init__(self) -> None:
        check_whole("quota", self.images)
        if self.period not in PERIODS:
            raise UnknownName("period of a quota", str(self.period), PERIODS)

    @classmethod
    def parse(cls, text: str) -> Quota:
        """Read `100/day`.

        Raises:
            SettingsError: it is something else.
        """
        images, slash, period = text.partition("/")
        if not slash or not images.strip().isdecimal():
            raise SettingsError(
                f"quota is {text!r}, expected images per period, such as 100/day; known: hour, day, month"
            )
        return cls(int(images), period.strip())

    def window(self, now: datetime) -> str:
        """The name of the period that `now` lies in."""
        return now.strftime(PERIODS[self.period])

    def __str__(self) -> str:
        return f"{self.images}/{self.period}"


@dataclass(frozen=True)
class Grant:
    """A principal may draw from a source until a moment, and so many images per period.

    Raises:
        SettingsError: `until` says no time zone.
    """

    source: str
    until: datetime | None = None
    quota: Quota | None = None

    def __post_init__(self) -> None:
        if self.until is not None:
            object.__setattr__(self, "until", check_moment("until", self.until))

    def terms(self) -> dict[str, Any]:
        """All but the source, JSON-able."""
        return {"until": to_text(self.until), "quota": None if self.quota is None else str(self.quota)}


@dataclass(frozen=True)
class Key:
    """An API key as it is stored: its id, which is no secret, and the sha256 of all of it.

    Raises:
        SettingsError: `until` says no time zone, or it is for nothing.
        UnknownName: no such scope.
    """

    id: str
    digest: str = field(repr=False)
    until: datetime | None = None
    scopes: tuple[str, ...] = USUAL_SCOPES

    def __post_init__(self) -> None:
        if self.until is not None:
            object.__setattr__(self, "until", check_moment("until", self.until))
        for scope in self.scopes:
            if scope not in SCOPES:
                raise UnknownName("scope", str(scope), SCOPES)
        if not self.scopes:
            raise SettingsError(f"the key is for nothing; give it one or more scopes of {', '.join(SCOPES)}")
        object.__setattr__(self, "scopes", tuple(scope for scope in SCOPES if scope in self.scopes))

    @classmethod
    def make(cls, until: datetime | None = None, scopes: Iterable[str] = USUAL_SCOPES) -> tuple[str, Key]:
        """A new key in clear, `int_<id>_<secret>` with 256 random bits, and what is stored of it."""
        id = secrets.token_hex(6)
        text = f"{_PREFIX}_{id}_{secrets.token_urlsafe(32)}"
        return text, cls(id, digest_of(text.encode()), until, tuple(scopes))

    def record(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        return {"id": self.id, "sha256": self.digest, "until": to_text(self.until), "scopes": list(self.scopes)}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Key:
        """Read what `record` gives; KeyError, TypeError or ValueError if it is none. Early keys say no scopes."""
        scopes = tuple(record.get("scopes", USUAL_SCOPES))
        return cls(record["id"], record["sha256"], from_text(record["until"]), scopes)

    def opens_with(self, text: str) -> bool:
        """Whether this is the key in clear; takes the same time wherever the first difference is."""
        return hmac.compare_digest(self.digest, digest_of(text.encode()))


@dataclass(frozen=True)
class Principal:
    """Someone who may draw from sources of a vault: from those that were granted, and that the rules admit.

    Raises:
        InputError: the name is no lower-case slug.
    """

    name: str
    keys: tuple[Key, ...] = ()
    grants: Mapping[str, Grant] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)

    def __post_init__(self) -> None:
        check_name(self.name, "principal")

    def with_keys(self, keys: Iterable[Key]) -> Principal:
        """With these keys and no others."""
        return replace(self, keys=tuple(keys))

    def with_rules(self, rules: Rules) -> Principal:
        """With these rules in place of those it has."""
        return replace(self, rules=rules)

    def key(self, id: str) -> Key:
        """One of its keys, by its id.

        Raises:
            UnknownName: there is none.
        """
        for key in self.keys:
            if key.id == id:
                return key
        raise UnknownName(f"key of '{self.name}'", id, [key.id for key in self.keys])

    def granted(self, grants: Iterable[Grant]) -> Principal:
        """With these grants, each in place of one for the same source."""
        return replace(self, grants=dict(sorted({**self.grants, **{grant.source: grant for grant in grants}}.items())))

    def without(self, sources: Iterable[str]) -> Principal:
        """With no grant for these sources."""
        gone = set(sources)
        return replace(self, grants={name: grant for name, grant in self.grants.items() if name not in gone})

    def record(self) -> dict[str, Any]:
        """All of it, JSON-able; of keys there are digests only."""
        return {
            "name": self.name,
            "keys": [key.record() for key in self.keys],
            "grants": [{"source": grant.source, **grant.terms()} for grant in self.grants.values()],
            "licences": self.rules.licences if self.rules.licences is None else list(self.rules.licences),
            "owners": self.rules.owners if self.rules.owners is None else list(self.rules.owners),
            "refuse": list(self.rules.refuse),
        }


def write_principal(folder: Path, principal: Principal) -> None:
    """Write the record into a folder."""
    write_record(folder / PRINCIPAL_FILE, principal.record())


def read_principal(folder: Path) -> Principal:
    """Read what `write_principal` wrote.

    Raises:
        CorruptError: it is missing, damaged, or of another name than its folder.
    """
    path = folder / PRINCIPAL_FILE
    record = read_record(path)
    try:
        grants = [
            Grant(each["source"], from_text(each["until"]), each["quota"] and Quota.parse(each["quota"]))
            for each in record["grants"]
        ]
        principal = Principal(
            name=record["name"],
            keys=tuple(Key.of(each) for each in record["keys"]),
            grants={grant.source: grant for grant in grants},
            rules=Rules(record["licences"], record["owners"], record["refuse"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError, IntarsiaError) as error:
        raise CorruptError(
            f"{path}: not a principal's record ({error}); remove the principal and add it again"
        ) from error
    if principal.name != folder.name:
        raise CorruptError(f"{path}: is of the principal '{principal.name}'; rename the folder or remove it")
    return principal
