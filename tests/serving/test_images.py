"""Drawing over HTTP: the pictures are the vault's own, from what the key may use and from nothing else."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from intarsia.backbone import caption_reader, load_text_encoder
from intarsia.compartments import text_prompts
from intarsia.composition import SampleSettings
from intarsia.data import to_uint8
from intarsia.ledger import Receipt
from intarsia.vault import Composition, Vault

from ..vault.helpers import ROUTER, quick, toy_source
from .conftest import Client

IMAGES = "/v1/images/generations"


def pixels(field: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(field))))


def events(text: str) -> list[tuple[str, Any]]:
    """The events of a stream, with their documents."""
    blocks = [block.split("\n") for block in text.removesuffix("data: [DONE]\n\n").strip().split("\n\n")]
    assert text.endswith("data: [DONE]\n\n")
    return [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in blocks]


def test_images_are_those_that_the_vault_draws_itself(client: Client, vault: Vault) -> None:
    answer = client().post(IMAGES, json={"n": 2, "seed": 7, "num_inference_steps": 4}).json()
    alone = vault.compose(precision="float32").sample(2, seed=7, steps=4, batch_invariant=True)
    assert [pixels(each["b64_json"]).tolist() for each in answer["data"]] == to_uint8(alone.images)[..., 0].tolist()
    told = answer["intarsia"]
    assert told["sources"] == ["elm", "oak"]
    assert told["calls"] == alone.calls.tolist()
    assert np.allclose(told["weights"]["values"], alone.weights.transpose(0, 1).tolist())
    assert np.allclose(told["weights"]["steps"], [1, 0.75, 0.5, 0.25])
    assert sum(told["shares"].values()) == pytest.approx(1)
    assert (answer["size"], told["settings"]["seed"]) == ("4x4", 7)


def test_a_soup_is_asked_as_its_backbone_is_and_credited_to_all(
    client: Client, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, request = client(), {"seed": 7, "weights": "soup", "prompt": "red apple"}
    refused = owner.post(IMAGES, json=request)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_value")
    assert "label 'red apple'" in refused.json()["error"]["message"], "there is no text here"
    soup = vault.compose(weights="soup", precision="float32")
    assert not soup.reads
    with monkeypatch.context() as patch:
        patch.setattr(soup.backbone, "text", object())
        assert soup.reads
    asked: list[str] = []

    def prompts(self: Composition, texts: list[str], *, text_encoder: str | None = None) -> list[None]:
        asked.extend(texts)
        return [None] * len(texts)

    with monkeypatch.context() as patch:
        patch.setattr(Composition, "reads", True)
        patch.setattr(Composition, "prompts", prompts)
        answer = owner.post(IMAGES, json=request)
    assert answer.status_code == 200, answer.text
    drawn = answer.json()["intarsia"]
    assert asked == ["red apple"] * 2, "before and while it is drawn"
    assert (drawn["settings"]["prompt"], drawn["settings"]["label"]) == ("red apple", None)
    credit = owner.post("/v1/credit", json={"receipt": drawn["receipt"], "repeats": 1})
    assert [each["source"] for each in credit.json()["shares"]] == ["elm", "oak"]


def test_a_source_that_goes_while_all_are_joined_is_left_out(
    client: Client, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.grant("elm", "acme")
    acme, other, compose = client("acme"), Vault.open(vault.root), Vault.compose

    def late(self: Vault, *arguments: Any, **settings: Any) -> Composition:
        monkeypatch.setattr(Vault, "compose", compose)
        other.forget("elm")
        return compose(self, *arguments, **settings)

    monkeypatch.setattr(Vault, "compose", late)
    assert acme.post(IMAGES, json={}).json()["intarsia"]["sources"] == ["oak"]


def test_a_prompt_is_what_is_drawn(client: Client, vault: Vault, tiny_text: Path) -> None:
    adapter = text_prompts(load_text_encoder(str(tiny_text)), tokens=2, width=2, length=10)
    vault.add_source("ash", toy_source("ash"))
    vault.train("ash", quick(adapter=adapter), routers=[ROUTER])
    request = {"n": 2, "seed": 7, "num_inference_steps": 3, "sources": ["ash"], "prompt": "an ash"}
    answer = client().post(IMAGES, json={**request, "guidance_scale": 2}).json()
    settings = SampleSettings(seed=7, steps=3, guidance_scale=2.0, batch_invariant=True)
    alone = vault.compose("ash", precision="float32").draw(2, settings, prompt="an ash")
    assert [pixels(each["b64_json"]).tolist() for each in answer["data"]] == to_uint8(alone.images)[..., 0].tolist()
    assert answer["intarsia"]["settings"]["prompt"] == "an ash"
    other = client().post(IMAGES, json={**request, "guidance_scale": 2, "prompt": "snow"}).json()
    assert [each["b64_json"] for each in other["data"]] != [each["b64_json"] for each in answer["data"]]
    long = client().post(IMAGES, json={**request, "prompt": "far too long a prompt"})
    assert (long.status_code, "would be read by 'ash'" in long.json()["error"]["message"]) == (400, True)
    reading = {each["name"]: each["text"] for each in client().get("/v1/sources").json()["data"]}
    assert (reading["ash"], reading["oak"]) == (True, False)
    for prompt in ("an ash", "label-oak-0"):  # which is a label of oak's
        mixed = client().post(IMAGES, json={**request, "sources": ["ash", "oak"], "prompt": prompt})
        assert mixed.status_code == 400
        assert "oak cannot be asked in words (sources that can: ash)" in mixed.json()["error"]["message"]


def test_of_an_encoder_that_is_lost_the_log_tells_and_not_the_client(
    client: Client, vault: Vault, tiny_text: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there = Path(shutil.copytree(tiny_text, tmp_path / "there"))
    adapter = text_prompts(load_text_encoder(str(there)), tokens=2, width=2, length=12)
    vault.add_source("ash", toy_source("ash"))
    vault.train("ash", quick(adapter=adapter), routers=[ROUTER])
    there.rename(tmp_path / "away")
    caption_reader.cache_clear()
    answer = client().post(IMAGES, json={"sources": ["ash"], "prompt": "an ash"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_encoder")
    assert str(there) not in answer.text
    assert str(there) in caplog.text


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_a_file_says_how_it_was_made_and_carries_its_receipt(client: Client, form: str) -> None:
    request = {"output_format": form, "response_format": "url", "seed": 1}
    (field,) = client("acme").post(IMAGES, json=request).json()["data"]
    start, _, data = field["url"].partition(",")
    assert start == f"data:image/{form};base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    said = json.loads(image.text["intarsia"] if form == "png" else image.getexif()[0x010E])
    assert (said["sources"], said["settings"]["seed"]) == (["oak"], 1)
    Receipt.of(said["receipt"]).check()
    assert "elm" not in json.dumps(said)


def test_previews_come_before_the_images(client: Client) -> None:
    request = {"n": 2, "seed": 3, "num_inference_steps": 5, "stream": True, "partial_images": 2}
    got = events(client().post(IMAGES, json=request).text)
    kinds = [kind for kind, _ in got]
    assert kinds == ["image_generation.partial_image"] * 4 + ["image_generation.completed"] * 2
    assert sorted((each["index"], each["step"]) for _, each in got[:4]) == [(0, 2), (0, 3), (1, 2), (1, 3)]
    assert all(each["type"] == kind for kind, each in got)
    assert sum(got[0][1]["weights"].values()) == pytest.approx(1)
    plain = client().post(IMAGES, json={"n": 2, "seed": 3, "num_inference_steps": 5}).json()
    assert [pixels(each["b64_json"]).tolist() for _, each in got[4:]] == [
        pixels(each["b64_json"]).tolist() for each in plain["data"]
    ]


def test_the_composition_follows_from_the_key_and_never_from_the_prompt(client: Client) -> None:
    acme = client("acme")
    assert acme.post(IMAGES, json={}).json()["intarsia"]["sources"] == ["oak"]
    assert acme.post(IMAGES, json={"prompt": "label-oak-0"}).status_code == 400, "this backbone takes no labels"
    for prompt in ("elm", "sources=elm", '", "sources": ["elm"]', "label-elm-0", "../compartments/elm"):
        answer = acme.post(IMAGES, json={"prompt": prompt})
        assert answer.status_code == 400, prompt
        assert "label-elm-1" not in answer.text
    refused = acme.post(IMAGES, json={"sources": ["oak", "elm"]})
    assert refused.status_code == 403
    strange = acme.post(IMAGES, json={"sources": ["fir"]}).json()["error"]["message"]
    assert strange == refused.json()["error"]["message"].replace("elm", "fir"), "whether it exists is not told"


def test_what_was_revoked_is_drawn_from_no_more(client: Client, vault: Vault) -> None:
    acme = client("acme")
    assert acme.post(IMAGES, json={}).status_code == 200
    vault.revoke("oak", "acme")
    assert acme.post(IMAGES, json={}).json()["error"]["code"] == "forbidden"


def test_a_quota_counts_images_and_not_refusals(client: Client, vault: Vault) -> None:
    vault.grant("oak", "acme", quota="3/month")
    acme = client("acme")
    assert acme.post(IMAGES, json={"n": 2}).status_code == 200
    assert acme.post(IMAGES, json={"n": 2}).status_code == 403
    (quota,) = acme.get("/v1/me").json()["quotas"]
    assert quota == {"source": "oak", "used": 2, "limit": 3, "per": "month"}


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "no images": ({"n": 0}, 422, "n"),
    "too many images": ({"n": 17}, 400, "n is 17, expected a whole number, from 1 to 16"),
    "too many steps": ({"num_inference_steps": 251}, 400, "from 1 to 250"),
    "another size": ({"size": "1024x1024"}, 400, "this vault draws images of 4x4"),
    "another model": ({"model": "dall-e-3"}, 404, "no model 'dall-e-3' here"),
    "a misspelt option": ({"guidance": 2}, 422, "guidance"),
    "a number as text": ({"n": "2"}, 422, "n"),
    "weights that are fitted": ({"weights": "joint"}, 400, "unknown weights 'joint'"),
    "a routing that is none": ({"routing": "top_k:none"}, 400, "'none' is not a whole number"),
    "guidance without a label": ({"guidance_scale": 2.0}, 400, "needs a label"),
    "an unknown sampler": ({"sampler": "euler"}, 400, "unknown sampler 'euler'"),
    "a seed out of range": ({"seed": -1}, 422, "seed"),
    "no sources": ({"sources": []}, 422, "sources"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused_in_one_line(client: Client, case: str) -> None:
    request, status, words = REFUSED[case]
    answer = client().post(IMAGES, json=request)
    error = answer.json()["error"]
    assert answer.status_code == status
    assert words in error["message"]
    assert "\n" not in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
