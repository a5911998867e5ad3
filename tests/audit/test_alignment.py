"""Judges of images against what they were asked for."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.audit import (
    AttributeAlignment,
    Question,
    QuestionAlignment,
    error_reduction,
    fit_attributes,
    load_answerer,
    load_clip,
    questions_of,
)
from intarsia.audit.features import Images, as_drawn
from intarsia.diffusion import keyed_normal
from intarsia.errors import IncompatibleError, InputError, UnknownName


class Means:
    """Features: the mean of every channel."""

    name, digest, image_size = "means", "means", 1

    def features(self, images: Images) -> Tensor:
        return as_drawn(images).mean((2, 3))


def painted(*colours: Sequence[float]) -> Tensor:
    return torch.tensor(colours, dtype=torch.float32)[:, :, None, None].expand(-1, 3, 4, 4).contiguous()


def test_an_attribute_is_told_from_features_of_real_pictures() -> None:
    real = torch.cat([0.2 * keyed_normal((40, 3), kind) + shift for kind, shift in (("warm", 0.6), ("cold", -0.6))])
    classifier = fit_attributes(real, ["warm"] * 40 + ["cold"] * 40)
    judge = AttributeAlignment("warmth", Means(), classifier, {"sun": "warm", "fire": "warm", "snow": "cold"})
    images = painted((0.7, 0.6, 0.5), (-0.7, -0.6, -0.5), (-0.7, -0.6, -0.5))
    assert judge.scores(images, ["sun", "fire", "snow"]).tolist() == [100, 0, 100]
    with pytest.raises(UnknownName, match="unknown prompt with a warmth 'sea'"):
        judge.scores(images[:1], ["sea"])
    with pytest.raises(InputError, match="1 of them different"):
        fit_attributes(real, ["warm"] * 80)


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("red apple", ["is there red apple in the picture?", "what color is the apple?"]),
        (
            "Two dogs and a cat on the grass",
            [
                "is there dogs in the picture?",
                "how many dogs are there?",
                "is there cat in the picture?",
                "is there grass in the picture?",
            ],
        ),
        ("blue", ["is there blue in the picture?", "what color is the picture?"]),
        ("a red and white bus", ["is there red white bus in the picture?"]),
        ("the sea, the sea", ["is there sea in the picture?"]),
        ("with", ["is there with in the picture?"]),
        ("face without mouth", ["is there face in the picture?"]),
        ("a cat without a hat and a dog", ["is there cat in the picture?", "is there dog in the picture?"]),
        ("no smoking", ["is there no smoking in the picture?"]),
        ("seven o'clock", ["is there seven o'clock in the picture?"]),
    ],
)
def test_questions_come_from_the_prompt_by_templates(prompt: str, texts: list[str]) -> None:
    asked = questions_of(prompt)
    assert [question.text for question in asked] == texts
    assert all(question.expected in question.choices for question in asked)


def test_points_are_the_share_of_questions_that_are_answered_as_the_prompt_says() -> None:
    class Optimist:
        digest = "optimist"

        def knows(self, question: Question) -> bool:
            return question.expected != "two"

        def answers(self, image: Tensor, questions: Sequence[Question]) -> list[str]:
            return [question.choices[0] for question in questions]

    found = QuestionAlignment(Optimist()).scores(painted((0, 0, 0), (0, 0, 0)), ["a red apple", "two blue apples"])
    assert found.tolist() == pytest.approx([100, 100 / 2]), "of what it was not taught it is not asked"


@pytest.mark.parametrize(
    ("images", "prompts", "complaint"),
    [
        (torch.zeros(2, 3, 4, 4), ["a"], "1 prompts for 2 images"),
        (torch.zeros(2, 3, 4, 4), "ab", "one text for 2 images"),
        (torch.zeros(2, 3, 4, 4), ["a", 5], "a list with one text for each"),
        (torch.zeros(0, 3, 4, 4), [], r"images are \(0, 3, 4, 4\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), ["a"], "uint8, expected"),
        (torch.full((1, 3, 4, 4), math.nan), ["a"], "NaN"),
        (torch.zeros(1, 3, 4, 4), ["a"], "knows no question about 'a'"),
    ],
)
def test_what_cannot_be_scored_is_said_in_one_line(images: Tensor, prompts: Sequence[str], complaint: str) -> None:
    class Ignorant:
        digest = "ignorant"

        def knows(self, question: Question) -> bool:
            return False

        def answers(self, image: Tensor, questions: Sequence[Question]) -> list[str]:
            raise AssertionError

    with pytest.raises(InputError, match=complaint):
        QuestionAlignment(Ignorant()).scores(images, prompts)


def test_error_left_out_is_the_papers_relative_gain() -> None:
    assert error_reduction(83.81, 81.1) == pytest.approx(0.1434, abs=1e-4)
    assert math.isnan(error_reduction(50, 100)), "of nothing no share is lost"


@pytest.fixture(scope="module")
def models(tiny_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `clip` and `vilt` of tiny random models, with the tokenizer of `tiny_text`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, on import
        from transformers import CLIPConfig, CLIPModel, ViltConfig, ViltForQuestionAnswering
    root = tmp_path_factory.mktemp("models")
    for name in ("clip", "vilt"):
        shutil.copytree(tiny_text, root / name)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        **small,
        "vocab_size": 40,
        "max_position_embeddings": 12,
        "eos_token_id": 3,
        "bos_token_id": 2,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    vision = {**small, "image_size": 8, "patch_size": 4}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)).save_pretrained(root / "clip")
    taught = ["yes", "no", "red", "gray", "2", "3", "4"]
    named = {"id2label": dict(enumerate(taught)), "label2id": {word: k for k, word in enumerate(taught)}}
    vilt = ViltConfig(**small, vocab_size=40, max_position_embeddings=12, image_size=8, patch_size=4, **named)
    ViltForQuestionAnswering(vilt).save_pretrained(root / "vilt")
    return root


def test_the_clip_score_is_the_cosine_of_image_and_prompt(models: Path) -> None:
    judge = load_clip(models / "clip")
    images, prompts = keyed_normal((3, 3, 16, 16), "images").tanh(), ["red", "an apple", "a red apple or two"]
    found = judge.scores(images, prompts)
    model = judge.model
    for row, prompt in enumerate(prompts):
        ids = judge.tokenizer([prompt], truncation=True, return_tensors="pt")
        small = F.interpolate(images[row : row + 1], (8, 8), mode="bicubic", antialias=True).clamp(-1, 1)
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
        with torch.no_grad():
            out = model(**ids, pixel_values=((small + 1) / 2 - mean) / std)
        expected = 100 * F.cosine_similarity(out.image_embeds, out.text_embeds).clamp(min=0)
        torch.testing.assert_close(found[row : row + 1].float(), expected, rtol=1e-4, atol=1e-3)


def test_answers_are_choices_that_the_model_was_taught(models: Path) -> None:
    answerer = load_answerer(models / "vilt")
    image = keyed_normal((3, 16, 16), "image").tanh()
    asked = questions_of("two red apples")
    first, second, third = answerer.answers(image, asked)
    assert first in ("yes", "no")
    assert second in ("red", "grey")
    assert third in ("two", "three", "four"), "VQAv2 writes numbers in digits"
    assert answerer.answers(image, asked[1:2]) == [second], "not a matter of what else is asked"
    known = [answerer.knows(question) for question in questions_of("two grey apples and a green apple")]
    assert known == [True, True, True, True, False]
    points = QuestionAlignment(answerer).scores(image[None], ["a green apple"])
    assert points.item() in (0, 100), "asked whether there is one, and no more"


def test_an_answerer_must_know_yes_and_no(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "vilt", tmp_path / "vilt")
    config = json.loads((tmp_path / "vilt/config.json").read_text())
    config["id2label"]["1"] = "maybe"
    config["label2id"] = {name: int(place) for place, name in config["id2label"].items()}
    (tmp_path / "vilt/config.json").write_text(json.dumps(config))
    with pytest.raises(IncompatibleError, match="was not taught the answers 'yes' and 'no'"):
        load_answerer(tmp_path / "vilt")


def test_judges_of_other_weights_have_other_digests(models: Path) -> None:
    judge, same, other = load_clip(models / "clip"), load_clip(models / "clip"), load_clip(models / "clip")
    with torch.no_grad():
        other.model.logit_scale.add_(1)
    assert judge.digest == same.digest != other.digest
    answerer = load_answerer(models / "vilt")
    assert QuestionAlignment(answerer).digest == answerer.digest != judge.digest


def test_folders_without_such_models_are_named(models: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no CLIPModel with its tokenizer"):
        load_clip(tmp_path / "nothing")
    with pytest.raises(InputError, match="ViltForQuestionAnswering"):
        load_answerer(models / "clip")
