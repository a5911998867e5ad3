"""SPDX expressions: what is accepted, and which oblige to share alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intarsia.data import OBLIGATIONS, check_licence, obliges, share_alike
from intarsia.errors import InputError, UnknownName


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("mit", "MIT"),
        ("cc-by-sa-4.0 or MIT", "CC-BY-SA-4.0 OR MIT"),
        ("(mit AND Apache-2.0) or GPL-3.0-only", "(MIT AND Apache-2.0) OR GPL-3.0-only"),
        ("GPL-2.0-only with Classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("LicenseRef-our-terms", "LicenseRef-our-terms"),
    ],
)
def test_canonical_spelling(written, canonical):
    assert check_licence(written) == canonical
    assert check_licence(canonical) == canonical


@pytest.mark.parametrize("written", ["", "  ", "CC-BY-4", "MIT AND", "(MIT", "MIT MIT", "free", "MIT WITH MIT", "MIT;"])
def test_anything_else_is_refused_with_an_example(written):
    with pytest.raises(InputError, match=r"expected for example 'CC-BY-4\.0'"):
        check_licence(written)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", False),
        ("Apache-2.0", False),
        ("CC-BY-4.0", False),
        ("CC0-1.0", False),
        ("CC-BY-SA-4.0", True),
        ("CC-BY-NC-SA-4.0", True),
        ("CC-BY-NC-4.0", False),
        ("ODbL-1.0", True),
        ("GPL-3.0-or-later", True),
        ("GPL-2.0+", True),
        ("LGPL-2.1-only", True),
        ("AGPL-3.0-only", True),
        ("MPL-2.0", True),
        ("CC-BY-SA-4.0 OR MIT", False),
        ("CC-BY-SA-4.0 OR GPL-3.0-only", True),
        ("CC-BY-SA-4.0 AND MIT", True),
        ("MIT AND (CC-BY-SA-4.0 OR Apache-2.0)", False),
        ("(MIT OR Apache-2.0) AND (GPL-2.0-only WITH Classpath-exception-2.0)", True),
        ("Apache-2.0 WITH LLVM-exception AND GPL-3.0-only", True),
        ("MIT OR GPL-3.0-only AND Apache-2.0", False),
        ("GPL-3.0-only OR MIT AND CC-BY-SA-4.0", True),
        ("Linux-man-pages-copyleft-var", True),
        ("Parity-7.0.0", True),
        ("LicenseRef-our-terms", True),
        ("LicenseRef-not-public-domain-at-all", True),
        ("Apache-2.0 AND LicenseRef-public-domain", False),
        ("Bitstream-Vera AND OFL-1.1 AND LicenseRef-BaKoMa", False),
    ],
)
def test_share_alike(expression, expected):
    assert share_alike(expression) is expected


LEAVES = st.sampled_from(["MIT", "CC-BY-SA-4.0", "GPL-3.0-only", "CC-BY-4.0"])
TREES = st.recursive(LEAVES, lambda inner: st.tuples(inner, st.sampled_from(["AND", "OR"]), inner), max_leaves=8)


@given(TREES)
def test_share_alike_follows_the_tree(tree):
    def text(node: object) -> str:
        return node if isinstance(node, str) else f"({text(node[0])} {node[1]} {text(node[2])})"

    def truth(node: object) -> bool:
        if isinstance(node, str):
            return node in ("CC-BY-SA-4.0", "GPL-3.0-only")
        parts = truth(node[0]), truth(node[2])
        return all(parts) if node[1] == "OR" else any(parts)

    assert share_alike(text(tree)) is truth(tree)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", {"attribution"}),
        ("CC0-1.0", set()),
        ("CC-PDM-1.0 OR MIT", set()),
        ("CC-BY-4.0", {"attribution"}),
        ("CC-BY-NC-4.0", {"attribution", "non-commercial"}),
        ("CC-BY-NC-SA-4.0", {"attribution", "non-commercial", "share-alike"}),
        ("CC-BY-NC-ND-4.0", {"attribution", "non-commercial", "no-derivatives"}),
        ("CC-BY-ND-4.0 AND CC0-1.0", {"attribution", "no-derivatives"}),
        ("PolyForm-Noncommercial-1.0.0 OR CC0-1.0", set()),
        ("LicenseRef-our-terms", {*OBLIGATIONS}),
        ("LicenseRef-public-domain", set()),
        ("LicenseRef-all-rights-reserved-until-public-domain", {*OBLIGATIONS}),
    ],
)
def test_obligations(expression, expected):
    assert {each for each in OBLIGATIONS if obliges(expression, [each])} == expected


def test_a_choice_among_refused_terms_is_none():
    """Each alternative is free of one of the obligations, and none is free of both."""
    licence = "CC-BY-SA-4.0 OR CC-BY-NC-4.0"
    assert not obliges(licence, ["share-alike"])
    assert not obliges(licence, ["non-commercial"])
    assert obliges(licence, ["share-alike", "non-commercial"])


def test_an_unknown_obligation_is_refused():
    with pytest.raises(UnknownName, match="did you mean 'share-alike'"):
        obliges("MIT", ["sharealike"])
