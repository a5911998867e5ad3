"""SPDX licence expressions: check them, and tell which are share-alike.

The grammar and the list of identifiers come from `packaging.licenses`, the implementation that Python's own package
metadata uses; only the meaning (what an expression demands of a mixed work) is ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from intarsia.errors import InputError

# Licences that oblige whoever passes on a derived work to use the same terms, as patterns over SPDX identifiers.
# Weak copyleft (per file or per library) is listed too: "everything except share-alike" must not need a lawyer.
SHARE_ALIKE = (
    "AGPL-*",
    "APSL-*",
    "CC-BY-NC-SA-*",
    "CC-BY-SA-*",
    "CC-SA-*",
    "CDDL-*",
    "CDLA-Sharing-*",
    "CECILL-1.*",
    "CECILL-2.*",
    "CECILL-C",
    "CERN-OHL-S-*",
    "CERN-OHL-W-*",
    "CPAL-*",
    "CPL-*",
    "EPL-*",
    "EUPL-*",
    "GFDL-*",
    "GPL-*",
    "IPL-*",
    "LAL-*",
    "LGPL-*",
    "LiLiQ-R-*",
    "LiLiQ-Rplus-*",
    "MPL-*",
    "MS-RL",
    "NPOSL-*",
    "O-UDA-*",
    "ODbL-*",
    "OSL-*",
    "QPL-*",
    "RPL-*",
    "RPSL-*",
    "SISSL*",
    "SPL-*",
    "SSPL-*",
    "Sleepycat",
    "TAPR-OHL-*",
    "TPL-*",
    "copyleft-next-*",
)
# `LicenseRef-…` names whose terms are known all the same.
FREE_REFERENCES = ("LicenseRef-*public-domain*", "LicenseRef-BaKoMa")

_TOKEN = re.compile(r"[()]|[^\s()]+")


def check_licence(expression: str) -> str:
    """The canonical spelling of an SPDX licence expression (`mit or cc-by-4.0` -> `MIT OR CC-BY-4.0`).

    Raises:
        InputError: the grammar is wrong or an identifier is not on the SPDX list; terms that are not on the list
            are written `LicenseRef-<name>`.
    """
    try:
        return str(canonicalize_license_expression(expression))
    except InvalidLicenseExpression as error:
        reason = str(error) if expression.strip() else "it is empty"
        raise InputError(
            f"'{expression}' is not an SPDX licence expression ({reason}); expected for example 'CC-BY-4.0', "
            "'MIT OR Apache-2.0', or 'LicenseRef-<name>' for terms of your own"
        ) from None


def share_alike(expression: str) -> bool:
    """Whether every way of accepting the licence obliges derived works to keep it.

    `OR` is a choice, so one free alternative is enough; `AND` binds to all its parts; an exception after `WITH` does
    not lift the obligation. A `LicenseRef-…` cannot be read and therefore counts as share-alike, unless it names the
    public domain.

    Raises:
        InputError: as `check_licence`.
    """
    tokens = _TOKEN.findall(check_licence(expression))
    return _any_of(tokens)


def _any_of(tokens: list[str]) -> bool:
    """`a OR b`, lowest precedence: share-alike only if all alternatives are. Consumes `tokens`."""
    return _chain(tokens, "OR", _all_of, all)


def _all_of(tokens: list[str]) -> bool:
    """`a AND b`: share-alike if any part is."""
    return _chain(tokens, "AND", _term, any)


def _chain(
    tokens: list[str], operator: str, part: Callable[[list[str]], bool], join: Callable[[list[bool]], bool]
) -> bool:
    parts = [part(tokens)]
    while tokens and tokens[0] == operator:
        tokens.pop(0)
        parts.append(part(tokens))
    return join(parts)


def _term(tokens: list[str]) -> bool:
    token = tokens.pop(0)
    if token == "(":
        inside = _any_of(tokens)
        tokens.pop(0)
        return inside
    if tokens and tokens[0] == "WITH":
        del tokens[:2]
    return _demands_share_alike(token)


def _demands_share_alike(identifier: str) -> bool:
    if identifier.startswith("LicenseRef-"):
        return not any(fnmatchcase(identifier, pattern) for pattern in FREE_REFERENCES)
    return any(fnmatchcase(identifier, pattern) for pattern in SHARE_ALIKE)
