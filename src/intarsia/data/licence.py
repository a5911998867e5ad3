"""SPDX licence expressions: check them, and tell what they oblige whoever passes on a derived work to.

The grammar and the list of identifiers come from `packaging.licenses`, the implementation that Python's own package
metadata uses; only the meaning (what an expression demands of a mixed work) is ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from functools import partial
from types import MappingProxyType

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from intarsia.errors import InputError, UnknownName

# Licences that oblige whoever passes on a derived work to use the same terms, as patterns over SPDX identifiers.
# Weak copyleft (per file or per library) is listed too: "everything except share-alike" must not need a lawyer.
SHARE_ALIKE = (
    "AGPL-*",
    "APL-1.0",
    "APSL-*",
    "Arphic-1999",
    "CAL-1.0*",
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
    "CUA-OPL-*",
    "D-FSL-*",
    "EPL-*",
    "EUPL-*",
    "ErlPL-*",
    "Frameworx-*",
    "GFDL-*",
    "GPL-*",
    "IPL-*",
    "LAL-*",
    "LGPL-*",
    "LGPLLR",
    "LPL-1.*",
    "LiLiQ-R-*",
    "LiLiQ-Rplus-*",
    "Linux-man-pages-copyleft*",
    "MPL-*",
    "MS-RL",
    "Motosoto",
    "NASA-1.3",
    "NGPL",
    "NPL-*",
    "NPOSL-*",
    "Nokia",
    "O-UDA-*",
    "OCLC-*",
    "ODbL-*",
    "OPL-1.0",
    "OSET-PL-*",
    "OSL-*",
    "Parity-*",
    "QPL-*",
    "RPL-*",
    "RPSL-*",
    "SISSL*",
    "SMAIL-GPL",
    "SPL-*",
    "SSPL-*",
    "SimPL-*",
    "Sleepycat",
    "SugarCRM-*",
    "TAPR-OHL-*",
    "TGPPL-*",
    "TPL-*",
    "Watcom-*",
    "YPL-*",
    "copyleft-next-*",
)
# Licences under which a business may not use the work, or not every business, or not yet.
NON_COMMERCIAL = (
    "Aladdin",
    "BUSL-*",
    "CC-BY-NC-*",
    "Elastic-2.0",
    "FSL-*",
    "NCGL-UK-*",
    "PPL",
    "PolyForm-Noncommercial-*",
    "PolyForm-Small-Business-*",
)
NO_DERIVATIVES = ("CC-BY-NC-ND-*", "CC-BY-ND-*")
# Licences that ask for no notice of any kind; every other one asks for some.
UNCONDITIONAL = (
    "0BSD",
    "ANTLR-PD*",
    "CC-PDDC",
    "CC-PDM-*",
    "CC0-*",
    "LicenseRef-public-domain",
    "MIT-0",
    "NCBI-PD",
    "NIST-PD",
    "NTIA-PD",
    "PDDL-*",
    "SAX-PD*",
    "Unlicense*",
    "WTFPL",
    "blessing",
)
# `LicenseRef-…` names whose terms are known all the same: they demand nothing of derived works but a notice.
FREE_REFERENCES = ("LicenseRef-public-domain", "LicenseRef-BaKoMa")

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

    Raises:
        InputError: as `check_licence`.
    """
    return obliges(expression, ("share-alike",))


def obliges(expression: str, obligations: Collection[str]) -> bool:
    """Whether every way of accepting the licence brings at least one of these obligations.

    `OR` is a choice, so one alternative that is free of all of them is enough; `AND` binds to all its parts; an
    exception after `WITH` lifts nothing. A `LicenseRef-…` cannot be read and therefore obliges to everything, unless it
    is `LicenseRef-public-domain`.

    Raises:
        InputError: as `check_licence`.
        UnknownName: no such obligation; see `OBLIGATIONS`.
    """
    for obligation in obligations:
        if obligation not in OBLIGATIONS:
            raise UnknownName("obligation", obligation, OBLIGATIONS)
    tokens = _TOKEN.findall(check_licence(expression))
    return _any_of(tokens, lambda identifier: any(OBLIGATIONS[each](identifier) for each in obligations))


def _demands(patterns: Collection[str], identifier: str) -> bool:
    if identifier.startswith("LicenseRef-"):
        return not _is_among(FREE_REFERENCES, identifier)
    return _is_among(patterns, identifier)


def _is_among(patterns: Collection[str], identifier: str) -> bool:
    return any(fnmatchcase(identifier, pattern) for pattern in patterns)


OBLIGATIONS: Mapping[str, Callable[[str], bool]] = MappingProxyType(
    {
        "share-alike": partial(_demands, SHARE_ALIKE),
        "non-commercial": partial(_demands, NON_COMMERCIAL),
        "no-derivatives": partial(_demands, NO_DERIVATIVES),
        "attribution": lambda identifier: not _is_among(UNCONDITIONAL, identifier),
    }
)
"""What a licence may oblige to, by name: whether an SPDX identifier does."""


def _any_of(tokens: list[str], binds: Callable[[str], bool]) -> bool:
    """`a OR b`, lowest precedence: binding only if all alternatives are. Consumes `tokens`."""
    return _chain(tokens, "OR", partial(_all_of, binds=binds), all)


def _all_of(tokens: list[str], binds: Callable[[str], bool]) -> bool:
    """`a AND b`: binding if any part is."""
    return _chain(tokens, "AND", partial(_term, binds=binds), any)


def _chain(
    tokens: list[str], operator: str, part: Callable[[list[str]], bool], join: Callable[[list[bool]], bool]
) -> bool:
    parts = [part(tokens)]
    while tokens and tokens[0] == operator:
        tokens.pop(0)
        parts.append(part(tokens))
    return join(parts)


def _term(tokens: list[str], binds: Callable[[str], bool]) -> bool:
    token = tokens.pop(0)
    if token == "(":
        inside = _any_of(tokens, binds)
        tokens.pop(0)
        return inside
    if tokens and tokens[0] == "WITH":
        del tokens[:2]
    return binds(token)
