"""Captions in a vault: read for training, and as prompts for what its compartments draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from intarsia.backbone import Backbone, CaptionReader, Prompt, caption_reader
from intarsia.compartments import Compartment, TextPrompts, TrainData
from intarsia.compartments.adapters import Kind
from intarsia.data import Manifest, Source
from intarsia.errors import EncoderError, IncompatibleError, SettingsError
from intarsia.routers import CaptionPart


def check_captions(name: str, manifest: Manifest, adapter: TextPrompts, backbone: Backbone) -> None:
    """Refuse to train on captions where there are none, or no encoder that reads them, before anything is trained.

    Raises:
        SettingsError: no image of the source has a caption; the encoder has states of another width; or of a caption
            more tokens are to be read than it takes, or none but those at its ends.
        EncoderError: the encoder cannot be had, or is another than the adapter's.
        MissingExtra: what reads it is not installed.
    """
    if not any(_text(sample.text) for sample in manifest):
        raise SettingsError(
            f"source '{name}' has no captions, from which the adapter 'text' learns; add it with captions (`text` in "
            "metadata.jsonl, or a .txt file beside each image), or train another kind of adapter"
        )
    if not isinstance(adapter.encoder, str):
        raise SettingsError(f"encoder is {adapter.encoder!r}, expected a name; text_prompts reads all of it off one")
    encoder = caption_reader(backbone, adapter.encoder, digest=adapter.digest).encoder
    if adapter.states != encoder.dim:
        raise SettingsError(f"states is {adapter.states}, and '{encoder.name}' has states of {encoder.dim}; make it so")
    ends = len(encoder.tokens(""))
    if not ends < adapter.length <= encoder.limit:
        raise SettingsError(
            f"length is {adapter.length}, and '{encoder.name}' takes {encoder.limit} tokens, of which it adds {ends} "
            "itself; read some between"
        )


def with_captions(data: TrainData, source: Source, backbone: Backbone, adapter: Kind) -> TrainData:
    """The data with its captions' token states, if network or adapter read them; each is encoded once, and by itself.

    They live as long as the training, and are written nowhere: there is nothing of them to forget.
    """
    if backbone.text is not None:
        encode = backbone.text.read_caption
    elif isinstance(adapter, TextPrompts):
        reader = caption_reader(backbone, adapter.encoder, digest=adapter.digest)
        encode = partial(reader.read, longest=adapter.length)
    else:
        return data
    texts = [_text(sample.text) for sample in source.manifest]
    read = {text: encode(text) for text in dict.fromkeys(texts) if text is not None}
    return replace(data, captions=[None if text is None else read[text] for text in texts])


def read_prompts(
    texts: Sequence[str], compartments: Sequence[Compartment], backbone: Backbone, *, encoder: str | None = None
) -> list[Prompt]:
    """Prompts for a composition of these compartments, in the order of the texts; equal texts are encoded once.

    Args:
        encoder: name, folder or hub id of the text encoder, where it is not to be had under the name it was trained by.

    Raises:
        SettingsError: a compartment has no adapter that reads captions.
        IncompatibleError: they were trained with different encoders.
        InputError: a prompt is empty, or longer than one of the compartments reads.
        EncoderError: the encoder cannot be had, or is another.
        MissingExtra: what reads it is not installed.
    """
    if backbone.text is not None:
        if encoder is not None:
            raise SettingsError(f"this backbone reads prompts with a text encoder of its own, not with {encoder}")
        return _each_once(texts, backbone.text.ask)
    adapters = {each.name: each.adapter for each in compartments}
    reading = {name: adapter for name, adapter in adapters.items() if isinstance(adapter, TextPrompts)}
    deaf = sorted(adapters.keys() - reading.keys())
    if deaf or not reading:
        raise SettingsError(
            f"{', '.join(deaf) or 'this composition'} cannot be asked in words (sources that can: "
            f"{', '.join(sorted(reading)) or 'none'}); train with the adapter 'text', compose sources that can, or ask "
            "for labels"
        )
    different = {adapter.digest: name for name, adapter in reading.items()}
    if len(different) > 1:
        raise IncompatibleError(
            f"{' and '.join(sorted(different.values()))} were trained with different text encoders; train them with one"
        )
    reader = _reader(backbone, list(reading.values()), encoder)
    least = min(reading, key=lambda name: reading[name].length)
    return _each_once(texts, partial(reader.ask, longest=reading[least].length, reader=least))


def _reader(backbone: Backbone, adapters: Sequence[TextPrompts], encoder: str | None) -> CaptionReader:
    """Of adapters with one encoder: from where any of them has it, or where it is said to be."""
    names = dict.fromkeys(each.encoder for each in adapters) if encoder is None else [encoder]
    failed: EncoderError | None = None
    for name in names:
        try:
            return caption_reader(backbone, name, digest=adapters[0].digest, elsewhere=encoder is None)
        except EncoderError as error:
            failed = failed or error
    assert failed is not None
    raise failed


def _each_once(texts: Sequence[str], ask: Callable[[str], Prompt]) -> list[Prompt]:
    """What each of them is asked for, encoded once where texts are equal."""
    read = {text: ask(text) for text in dict.fromkeys(texts)}
    return [read[text] for text in texts]


def read_caption_part(compartment: Compartment) -> CaptionPart:
    """What a compartment knows of how likely captions are in its source.

    Raises:
        IncompatibleError: it has no such part.
        CorruptError: it is damaged.
    """
    if "caption" not in compartment.router_settings:
        raise IncompatibleError(
            f"compartment '{compartment.name}' has no router part 'caption', by which prompts count in the weights; "
            "draw without, or train it (again) with --routers gaussian,caption where its images are"
        )
    tensors = {name.removeprefix("caption."): tensor for name, tensor in compartment.router.items()}
    return CaptionPart.from_tensors(tensors, compartment.router_settings["caption"])


def _text(text: str | None) -> str | None:
    """A caption that says something."""
    return text.strip() or None if text is not None else None
