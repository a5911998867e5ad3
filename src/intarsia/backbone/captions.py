"""Captions for one backbone: their token states, and what stands for the label where the backbone learned labels."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import torch
from torch import Tensor

from intarsia.backbone.backbone import Backbone
from intarsia.backbone.text import Prompt, TextEncoder, check_prompt, load_text_encoder, pooled
from intarsia.backbone.uvit import as_uvit
from intarsia.errors import InputError, SettingsError

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

    def ask(self, text: str, *, longest: int) -> Prompt:
        """What an image is asked for, which is never cut.

        Raises:
            InputError: nothing in the text is read, or it has more than `longest` tokens.
        """
        check_prompt(text, self.encoder.tokens, self.encoder.special, min(longest, self.encoder.limit))
        return self.read(text, longest=longest)

    def _lead(self, direction: Tensor) -> Tensor:
        """(D,) for the direction (dim,) of a caption."""
        if self._names is None or self._table is None:
            return torch.zeros(self._dim)
        nearness = (SHARPNESS * (self._names @ direction)).softmax(dim=0)
        return nearness @ self._table[:-1] - self._table[-1]


@functools.lru_cache(maxsize=4)
def caption_reader(backbone: Backbone, name: str, *, digest: str | None = None) -> CaptionReader:
    """The reader of a backbone's captions with the encoder of a name; the one whose digest is stated, if one is.

    An encoder that was trained with and is not where it was any more is looked for where `INTARSIA_TEXT_ENCODER` says.

    Raises:
        SettingsError: the encoder is another than that.
        MissingExtra, InputError, CorruptError: as `load_text_encoder`.
    """
    return CaptionReader(backbone, load_text_encoder(name) if digest is None else _trained_with(name, digest))


def _trained_with(name: str, digest: str) -> TextEncoder:
    """The encoder of a training, from where it was or else from where it is said to be now."""
    folder, elsewhere = Path(name).expanduser(), os.environ.get(ELSEWHERE)
    places = [] if folder.is_absolute() and not folder.is_dir() else [name]
    if elsewhere:
        places.append(elsewhere)
    if not places:
        raise InputError(
            f"there is no text encoder at {name}; if it lies elsewhere now, name its folder in {ELSEWHERE}, or by "
            "--text-encoder where images are drawn"
        )
    for place in places:
        encoder = load_text_encoder(place)
        if encoder.digest == digest:
            return encoder
    raise SettingsError(
        f"the text encoder '{place}' is not the one that was trained with (digest {encoder.digest[:12]}… here, "
        f"{digest[:12]}… there); give the folder of that one, by --text-encoder or in {ELSEWHERE}"
    )
