"""Captions for one backbone: their token states, and what stands for the label where the backbone learned labels."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import torch
from torch import Tensor

from intarsia.backbone.backbone import Backbone
from intarsia.backbone.text import (
    MINILM,
    MINILM_DIGEST,
    Prompt,
    TextEncoder,
    check_prompt,
    load_text_encoder,
    pooled,
)
from intarsia.backbone.uvit import as_uvit
from intarsia.errors import CorruptError, EncoderError, InputError, MissingExtra

# Cosines of MiniLM: 1 for a label's own name, .6 to .9 for its relatives, .2 for strangers. The name itself gets nearly
# all of the weight, a caption between several names a mixture of them.
SHARPNESS = 40.0
ELSEWHERE = "INTARSIA_TEXT_ENCODER"


class CaptionReader:
    """Reads captions for a backbone that never saw text.

    A backbone with a label table knows what its labels look like, and their names are text: a caption's `lead` turns
    the null label into the mean of the labels, weighted by how near their names come to the caption. It is a function
    of backbone and encoder, both public; without labels it is 0.
    """

    def __init__(self, backbone: Backbone, encoder: TextEncoder):
        network = as_uvit(backbone.network, "the adapter 'text'", "train lora or full")
        self.encoder, self._dim = encoder, network.config.dim
        self._names = encoder.pooled(backbone.labels) if backbone.labels else None
        self._table = network.label_emb.weight if backbone.labels else None

    def read(self, text: str, *, longest: int) -> Prompt:
        """A caption, cut after `longest` tokens."""
        states = self.encoder.states(text, longest=longest)
        return Prompt(text, self.encoder.digest, states, self._lead(pooled(states)))

    def ask(self, text: str, *, longest: int, reader: str | None = None) -> Prompt:
        """What an image is asked for, which is never cut; `reader` is what reads no more than `longest`, to be named.

        Raises:
            InputError: nothing in the text is read, or it has more than `longest` tokens.
        """
        limit = self.encoder.limit
        named = reader if longest < limit else None
        check_prompt(text, self.encoder.tokens, self.encoder.special, min(longest, limit), reader=named)
        return self.read(text, longest=longest)

    def _lead(self, direction: Tensor) -> Tensor:
        """(D,) for the direction (dim,) of a caption."""
        if self._names is None or self._table is None:
            return torch.zeros(self._dim)
        nearness = (SHARPNESS * (self._names @ direction)).softmax(dim=0)
        return nearness @ self._table[:-1] - self._table[-1]


@functools.lru_cache(maxsize=4)
def caption_reader(
    backbone: Backbone, name: str, *, digest: str | None = None, elsewhere: bool = True
) -> CaptionReader:
    """The reader of a backbone's captions with the encoder of a name; the one whose digest is stated, if one is.

    An encoder that was trained with and is not where it was any more is looked for where `INTARSIA_TEXT_ENCODER` says,
    unless whoever draws named one (`elsewhere` False): that one is meant, and no other takes its place.

    Raises:
        EncoderError: of a stated digest there is none where it was, nor there.
        MissingExtra, InputError, CorruptError: as `load_text_encoder`; of a stated digest the first only.
    """
    encoder = load_text_encoder(name) if digest is None else _trained_with(name, digest, look=elsewhere)
    return CaptionReader(backbone, encoder)


def _trained_with(name: str, digest: str, *, look: bool) -> TextEncoder:
    """The encoder of a training, from where it was or else, if one is to `look`, from where it is said to be now."""
    folder, elsewhere = Path(name).expanduser(), os.environ.get(ELSEWHERE) if look else None
    found: list[str] = []
    known = MINILM if look and digest == MINILM_DIGEST else None
    for place in dict.fromkeys([name, *filter(None, [elsewhere, known])]):
        if place == name and folder.is_absolute() and not folder.is_dir():
            found.append(f"there is no text encoder at {name}")
            continue
        try:
            encoder = load_text_encoder(place)
        except (InputError, CorruptError, MissingExtra) as error:
            if place == name and isinstance(error, MissingExtra):
                raise
            found.append(f"{ELSEWHERE}: {error}" if place == elsewhere else str(error))
            continue
        if encoder.digest == digest:
            return encoder
        found.append(
            f"the text encoder '{place}' is not the one that was trained with (digest {encoder.digest[:12]}… here, "
            f"{digest[:12]}… there)"
        )
    raise EncoderError(
        f"{'; '.join(found)}; give the folder of the one that was trained with in {ELSEWHERE}, or by --text-encoder "
        "where images are drawn"
    )
