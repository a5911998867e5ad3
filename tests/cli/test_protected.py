"""`intarsia sample --operator protected` and `--cp-k`: what they say, what they record, what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from intarsia.files import read_json
from intarsia.vault import Vault


def test_protected_images_say_what_holds_and_what_it_cost(vault: Path, tmp_path: Path, run, done):
    out = tmp_path / "drawn"
    answer = done(
        "sample", vault, "--operator", "protected", "--particles", 3, "-n", 2, "--steps", 4, "--prior", "oak=3,elm=1",
        "--out", out,
    )  # fmt: skip
    assert set(answer["protection"]["k"]) == {"oak", "elm"}
    assert answer["protection"]["particles"] == 3
    assert 0 < answer["protection"]["effective_share"]["least"] <= 1
    assert answer["calls_per_image"] == 4 * 3 * 2
    assert answer["sources"]["oak"]["prior"] == 0.75
    k = answer["protection"]["k"]
    assert k["elm"] == pytest.approx(3 * k["oak"])
    assert answer["weights"] is None
    assert read_json(out / "report.json")["operator"]["name"] == "protected"
    (*_, (_, composed, _), (_, entry, names)) = Vault.open(vault).history()
    assert composed.about["operator"]["particles"] == 3
    assert not {"protection", "access"} & set(entry.about)
    assert "oak" not in str(entry.about)
    assert set(names) == {"oak", "elm"}
    told = read_json(out / "receipt.json")["sources"]
    assert {each["source"]: each["values"]["k"] for each in told} == k
    assert [each["values"]["protection"]["particles"] for each in told] == [3, 3]
    text = run("sample", vault, "--operator", "protected", "-n", 2, "--steps", 4, "--out", tmp_path / "more").out
    assert "exponent\tk, nats" in text
    assert "16 particles per image" in text


@pytest.mark.integration
def test_a_limit_says_what_it_let_pass(vault: Path, tmp_path: Path, run, done):
    answer = done("sample", vault, "--cp-k", 1000, "-n", 2, "--steps", 4, "--out", tmp_path / "drawn")
    assert answer["access"]["candidates"] == 2
    assert answer["access"]["bound"] == 1000
    assert answer["access"]["largest_ratio"] <= 1000
    assert answer["protection"] is None
    refused = run("sample", vault, "--cp-k", 0, "--tries", 1, "-n", 2, "--steps", 4, "--out", tmp_path / "none")
    assert refused.code == 1
    assert "raise cp_k or the number of tries" in refused.err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--operator", "average"], "unknown operator 'average'"),
        (["--particles", "4"], "the mixture has no particles"),
        (["--operator", "protected", "--weights", "prior"], "uses no weights, found 'prior'"),
        (["--operator", "protected", "--routing", "full"], "uses no routing, found 'full'"),
        (["--operator", "protected", "--sources", "oak"], "'oak' alone protects nothing"),
        (["--operator", "protected", "--sampler", "ddim"], "sampler ddpm, found ddim"),
        (["--operator", "protected", "--prior", "oak=1"], "the prior leaves out elm"),
        (["--cp-k", "3", "--weights", "uniform"], "weights 'uniform' with routing 'threshold' make none"),
        (["--cp-k", "3", "--precision", "bfloat16"], "found precision 'bfloat16'"),
        (["--cp-k", "3", "--guidance-scale", "2"], "guidance_scale 2.0 draws from no density"),
        (["--tries", "3"], "there is no cp_k to try for"),
        (["--cp-k", "-3"], "cp_k is -3.0, expected a finite number, at least 0"),
    ],
)
def test_what_would_be_ignored_is_refused(vault: Path, tmp_path: Path, run, words: list[str], said: str):
    answer = run("sample", vault, *words, "-n", 1, "--steps", 2, "--out", tmp_path / "drawn")
    assert answer.code == 1
    assert said in answer.err
    assert not (tmp_path / "drawn").exists()
