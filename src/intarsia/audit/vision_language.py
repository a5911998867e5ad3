"""Judges that have seen text and pictures together, from folders of transformers models: CLIP, and ViLT's answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.audit.alignment import check_asked
from intarsia.audit.questions import IS_THERE, SPELLINGS, Question
from intarsia.backbone.text import quietly, refused_as
from intarsia.errors import IncompatibleError, InputError, require

# Of OpenAI's and OpenCLIP's models alike.
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CLIP_SCORE = "CLIP score"
_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class ClipAlignment:
    """100 times the cosine of image and prompt in CLIP's space, and 0 where it is negative. Made by `load_clip`."""

    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    name: str = CLIP_SCORE

    @cached_property
    def digest(self) -> str:
        """As `Alignment.digest`."""
        return weights_digest(self.model)

    # Hessel et al. 2021 (CLIPScore), without its factor of 2.5
    @torch.no_grad()
    def scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """As `Alignment.scores`; a prompt is cut where CLIP's reading ends."""
        check_asked(images, prompts)
        points = []
        for rows in torch.arange(len(images)).split(_AT_ONCE):
            pixels = clip_pixels(images[rows], self.model.config.vision_config.image_size)
            words = self.tokenizer(
                [prompts[row] for row in rows.tolist()], padding=True, truncation=True, return_tensors="pt"
            )
            found = self.model(
                input_ids=words["input_ids"], attention_mask=words["attention_mask"], pixel_values=pixels
            )
            points.append(F.cosine_similarity(found.image_embeds, found.text_embeds))
        return 100 * torch.cat(points).clamp(min=0).double()


@dataclass(frozen=True, eq=False)
class ViltAnswerer:
    """Answers by ViLT's classifier of answers, of which only the choices count. Made by `load_answerer`."""

    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)

    @cached_property
    def digest(self) -> str:
        """As `Answerer.digest`."""
        return weights_digest(self.model)

    def knows(self, question: Question) -> bool:
        """As `Answerer.knows`: the model was taught the right answer and another."""
        taught = self._taught(question)
        return question.expected in taught and len(taught) > 1

    @torch.no_grad()
    def answers(self, image: Tensor, questions: Sequence[Question]) -> list[str]:
        """As `Answerer.answers`."""
        side = self.model.config.image_size
        shown = F.interpolate(
            image[None].expand(-1, 3, -1, -1).clamp(-1, 1), (side, side), mode="bicubic", antialias=True
        )
        words = self.tokenizer(
            [question.text for question in questions], padding=True, truncation=True, return_tensors="pt"
        )
        found = self.model(
            input_ids=words["input_ids"],
            attention_mask=words["attention_mask"],
            pixel_values=shown.clamp(-1, 1).expand(len(questions), -1, -1, -1),
            pixel_mask=torch.ones(len(questions), side, side, dtype=torch.int64),
        )
        return [self._choice(row, question) for row, question in zip(found.logits, questions, strict=True)]

    def _choice(self, logits: Tensor, question: Question) -> str:
        taught = self._taught(question)
        return max(taught, key=lambda choice: logits[taught[choice]].max().item())

    def _taught(self, question: Question) -> dict[str, list[int]]:
        """The choices that the model was taught, in any spelling, with their places among its answers."""
        places: dict[str, int] = self.model.config.label2id
        found = {
            choice: [places[each] for each in (choice, *SPELLINGS.get(choice, ())) if each in places]
            for choice in question.choices
        }
        return {choice: some for choice, some in found.items() if some}


def load_clip(folder: Path) -> ClipAlignment:
    """CLIP from a folder.

    Raises:
        MissingExtra: transformers is not installed.
        InputError: there is none.
    """
    return ClipAlignment(*_load(folder, "CLIPModel"))


def load_answerer(folder: Path) -> ViltAnswerer:
    """A ViLT that answers questions, from a folder.

    Raises:
        MissingExtra: transformers is not installed.
        InputError: there is none.
        IncompatibleError: it was not taught to say yes and no.
    """
    answerer = ViltAnswerer(*_load(folder, "ViltForQuestionAnswering"))
    if not answerer.knows(IS_THERE):
        raise IncompatibleError(
            f"{folder}: this model was not taught the answers 'yes' and 'no'; give one that was trained to answer "
            "questions about pictures, such as ViLT on VQAv2"
        )
    return answerer


def clip_pixels(images: Tensor, side: int) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] as CLIP was shown them: (N, 3, side, side)."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    shown = images.expand(-1, 3, -1, -1).clamp(-1, 1)
    shown = F.interpolate(shown, (side, side), mode="bicubic", antialias=True).clamp(-1, 1)
    return ((shown + 1) / 2 - mean) / std


def weights_digest(model: nn.Module | None) -> str:
    """sha256 over the names, shapes and float32 bytes of a model's tensors; of nothing without a model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items() if model is not None else []):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _load(folder: Path, kind: str) -> tuple[Any, Any]:
    """A model of that class, and its tokenizer."""
    transformers = require("transformers", "text")
    only_here: dict[str, Any] = {"local_files_only": True}
    with refused_as(f"{folder}: no {kind} with its tokenizer", "give the folder of one, with weights in safetensors"):
        with quietly(transformers):
            model, found = getattr(transformers, kind).from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **only_here
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **only_here)
    # What is not in the file would be drawn at random.
    if found["missing_keys"]:
        raise InputError(f"{folder} lacks {', '.join(sorted(found['missing_keys'])[:3])}; give a whole {kind}")
    return model.eval().requires_grad_(False), tokenizer
