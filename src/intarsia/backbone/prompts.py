"""A backbone's own text encoder, if its network reads text: CLIP's, as Stable Diffusion's pipelines use it.

A prompt is padded to the full length, and the states of all its places are read; no prompt is an empty one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from intarsia.backbone.text import TOKENIZING, Prompt, check_prompt, quietly, refused_as
from intarsia.digests import canonical_json, digest_of
from intarsia.errors import InputError, require
from intarsia.files import read_bytes, tensors_to_bytes

WORDS = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
"""What a tokenizer may consist of."""

# What decides about the states; the rest of transformers' config is about other uses of the model.
_ARCHITECTURE = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
_PREFIX = "text_model."  # of all names, before transformers 5
GIVE = "give the folder of a Stable Diffusion pipeline as diffusers saves it, weights in safetensors"


@dataclass(frozen=True, eq=False)
class PromptEncoder:
    """CLIP's text model with its tokenizer. Made by `read` or `restore`.

    `architecture` holds the arguments of transformers' config, `words` the tokenizer's files by name.
    """

    architecture: Mapping[str, Any]
    words: Mapping[str, bytes] = field(repr=False)
    tokenizer: Any = field(repr=False)
    model: Any = field(repr=False)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Of a pipeline's folder.

        Raises:
            MissingExtra: transformers is not installed.
            InputError: there is none.
        """
        transformers = require("transformers", "diffusers")
        with refused_as(f"{folder}: its text encoder or tokenizer cannot be read", GIVE):
            with quietly(transformers):
                model, found = transformers.CLIPTextModel.from_pretrained(
                    folder / "text_encoder",
                    use_safetensors=True,
                    dtype=torch.float32,
                    output_loading_info=True,
                    local_files_only=True,
                )
            tokenizer = _tokenizer(folder / "tokenizer")
        # What is not in the file would be drawn at random.
        if lost := sorted(found["missing_keys"]):
            raise InputError(f"{folder / 'text_encoder'} lacks {', '.join(lost[:3])}; {GIVE}")
        files = {name: folder / "tokenizer" / name for name in WORDS}
        words = {name: read_bytes(path, missing=GIVE) for name, path in files.items() if path.is_file()}
        values = model.config.to_dict()
        architecture = {name: values[name] for name in _ARCHITECTURE}
        return cls(architecture, words, tokenizer, model.eval().requires_grad_(False))

    @classmethod
    def restore(cls, architecture: Mapping[str, Any], folder: Path, words: Mapping[str, bytes]) -> Self:
        """With parameters still to be loaded; the tokenizer's files lie in `folder`, and were read as `words`."""
        transformers = require("transformers", "diffusers")
        model = transformers.CLIPTextModel(transformers.CLIPTextConfig(**architecture))
        return cls(architecture, words, _tokenizer(folder), model.eval().requires_grad_(False))

    def settings(self) -> dict[str, Any]:
        """All that decides what the parameters mean, JSON-able."""
        words = {name: digest_of(data) for name, data in sorted(self.words.items())}
        return {"architecture": dict(self.architecture), "words": words}

    def tensors(self) -> dict[str, Tensor]:
        """Parameters by name, the same under all versions of transformers."""
        return {name.removeprefix(_PREFIX): tensor for name, tensor in self.model.state_dict().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave.

        Raises:
            RuntimeError: they are those of another model.
        """
        prefix = _PREFIX if any(name.startswith(_PREFIX) for name in self.model.state_dict()) else ""
        self.model.load_state_dict({f"{prefix}{name}": tensor for name, tensor in tensors.items()})

    @cached_property
    def digest(self) -> str:
        """One sha256 over tokenizer, architecture and parameters."""
        return digest_of(canonical_json(self.settings() | {"tensors": self.tensors_digest}))

    @cached_property
    def tensors_digest(self) -> str:
        """sha256 of the parameters."""
        return digest_of(tensors_to_bytes(self.tensors()))

    @property
    def dim(self) -> int:
        """Width of the states."""
        return int(self.architecture["hidden_size"])

    @property
    def limit(self) -> int:
        """How many tokens are read, those at the ends included."""
        return min(int(self.tokenizer.model_max_length), int(self.architecture["max_position_embeddings"]))

    def read_caption(self, text: str) -> Prompt:
        """A caption, cut where the encoder's reading ends."""
        return Prompt(text, self.digest, self._states(text), torch.zeros(0))

    def ask(self, text: str) -> Prompt:
        """What an image is asked for, which is never cut.

        Raises:
            InputError: nothing in the text is read, or it has more tokens than are.
        """
        check_prompt(text, self._tokens, self.tokenizer.all_special_ids, self.limit)
        return self.read_caption(text)

    def takes(self, text: str | None) -> bool:
        """Whether `ask` does, of what may be no caption at all."""
        try:
            check_prompt(text or "", self._tokens, self.tokenizer.all_special_ids, self.limit)
        except InputError:
            return False
        return True

    def context(self, asked: Sequence[object]) -> Tensor:
        """States (B, limit, dim) of what images are asked for; whatever is no prompt counts as the empty one."""
        return torch.stack([each.states if isinstance(each, Prompt) else self._nothing for each in asked])

    def _tokens(self, text: str) -> list[int]:
        with TOKENIZING:
            ids: list[int] = self.tokenizer(text, truncation=False, padding=False, verbose=False)["input_ids"]
        return ids

    @cached_property
    def _nothing(self) -> Tensor:
        return self._states("")

    @torch.no_grad()
    def _states(self, text: str) -> Tensor:
        """(limit, dim), of one text by itself: its bytes must not depend on what is read beside it."""
        with TOKENIZING:
            ids = self.tokenizer(
                text, padding="max_length", max_length=self.limit, truncation=True, return_tensors="pt"
            )
        states: Tensor = self.model(input_ids=ids["input_ids"]).last_hidden_state[0]
        return states.float()


def _tokenizer(folder: Path) -> Any:
    return require("transformers", "diffusers").CLIPTokenizer.from_pretrained(folder, local_files_only=True)
