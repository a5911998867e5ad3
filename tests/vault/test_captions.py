"""Captions in a vault: what is trained on them is as isolated, resumable and forgettable as everything else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from intarsia.backbone import CaptionReader, Prompt, caption_reader, load_text_encoder
from intarsia.compartments import TextPrompts, text_prompts
from intarsia.compartments.slices import slice_of
from intarsia.composition import SampleSettings
from intarsia.data import Manifest, Source
from intarsia.errors import EncoderError, IncompatibleError, InputError, SettingsError
from intarsia.files import read_json, write_json
from intarsia.routers import CaptionSettings
from intarsia.vault import Vault
from intarsia.vault.captions import read_prompts

from .helpers import ROUTER, all_bytes, quick, toy_source, traces

Fresh = Callable[[Path], Vault]
WORDS = ("a red oak", "the sea", "fir in snow", "", "an elm")


def captioned(name: str, count: int = 10) -> Source:
    source = toy_source(name, count)
    samples = [replace(sample, text=WORDS[int(sample.id[:4], 16) % len(WORDS)]) for sample in source.manifest]
    return replace(source, manifest=Manifest(tuple(samples)))


@pytest.fixture
def text(tiny_text: Path) -> TextPrompts:
    return text_prompts(load_text_encoder(str(tiny_text)), tokens=2, width=2, length=12)


def train(vault: Vault, source: Source, adapter: TextPrompts, steps: int = 8) -> Vault:
    vault.add_source(source.name, source)
    vault.train(source.name, quick(adapter=adapter, steps=steps, slices=4, rows=8), routers=[ROUTER])
    return vault


def test_forgotten_captions_leave_the_bytes_of_a_vault_that_never_had_them(
    fresh: Fresh, empty: Path, text: TextPrompts
) -> None:
    oak = captioned("oak")
    gone = [id for id in oak.manifest.ids if slice_of(id, 4) == 2][:1]
    never = train(fresh(empty), oak.without(gone), text)
    vault = train(fresh(empty), oak, text)
    vault.forget("oak", gone)
    assert all_bytes(vault.root) == all_bytes(never.root)
    vault.forget("oak")
    assert traces(vault.root, ["oak", *gone, *filter(None, WORDS)]) == []


def test_interrupted_training_on_captions_ends_with_the_same_bytes(
    fresh: Fresh, empty: Path, text: TextPrompts
) -> None:
    whole, broken = train(fresh(empty), captioned("oak"), text), fresh(empty)
    broken.add_source("oak", captioned("oak"))
    settings = quick(adapter=text, steps=8, slices=4, rows=8)
    run = broken.training("oak", settings, routers=[ROUTER], save_every=1)
    for _ in range(3):
        next(run)
    run.close()
    broken.train("oak", settings, routers=[ROUTER])
    assert all_bytes(broken.root) == all_bytes(whole.root)


def test_what_comes_later_is_forgotten_as_exactly(fresh: Fresh, empty: Path, text: TextPrompts) -> None:
    """In a second batch, and learned from by a neighbour too."""
    base, more = captioned("oak"), replace(captioned("late", 6), owner="owner of oak")
    gone = more.manifest.ids[:2]

    def built(second: Source) -> Vault:
        vault = train(fresh(empty), base, text)
        vault.extend("oak", second, slices=2)
        vault.add_source("elm", captioned("elm"))
        vault.permit("oak", to="elm")
        vault.train("elm", quick(adapter=text), neighbours="oak", routers=[ROUTER])
        return vault

    never, vault = built(more.without(gone)), built(more)
    vault.forget("oak", gone)
    assert all_bytes(vault.root) == all_bytes(never.root)


def test_a_pack_is_asked_in_words_where_it_is_imported(
    fresh: Fresh, empty: Path, text: TextPrompts, tiny_text: Path, tmp_path: Path
) -> None:
    home, vault = train(fresh(empty), captioned("oak"), text), fresh(empty)
    vault.import_pack(tmp_path / "oak.pack", signer=home.pack("oak", tmp_path / "oak.pack"))
    settings = SampleSettings(steps=2, seed=3, guidance_scale=2.0)
    moved = Path(shutil.copytree(tiny_text, tmp_path / "moved"))
    drawn = [
        each.compose("oak", precision="float32").draw(2, settings, prompt="a fir", text_encoder=encoder)
        for each, encoder in ((home, None), (vault, str(moved)))
    ]
    assert torch.equal(drawn[0].images, drawn[1].images)
    assert traces(vault.root, filter(None, WORDS)) == [], "of the captions nothing is handed over"


def test_an_encoder_that_was_moved_is_found_where_the_environment_says(
    fresh: Fresh, empty: Path, text: TextPrompts, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever trains again would fail without it, and no option of theirs says where it is."""
    oak = captioned("oak")
    gone = [next(iter(oak.manifest)).id]
    there, now = (Path(shutil.copytree(tiny_text, tmp_path / name)) for name in ("there", "now"))
    expected = train(fresh(empty), oak.without(gone), text)
    vault = train(fresh(empty), oak, replace(text, encoder=str(there)))
    there.rename(tmp_path / "away")
    caption_reader.cache_clear()
    with pytest.raises(InputError, match=f"no text encoder at {there}; .*INTARSIA_TEXT_ENCODER"):
        vault.compose("oak").sample(1, prompt="a fir", steps=2)
    monkeypatch.setenv("INTARSIA_TEXT_ENCODER", str(now))
    vault.forget("oak", gone)
    left, right = (each.compartment("oak").params for each in (vault, expected))
    assert all(torch.equal(left[key], right[key]) for key in right)


def test_an_encoder_that_was_replaced_in_place_is_found_where_the_environment_says(
    fresh: Fresh, empty: Path, text: TextPrompts, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Path(shutil.copytree(tiny_text, tmp_path / "there"))
    vault = train(fresh(empty), captioned("oak"), replace(text, encoder=str(there)))
    drawn = vault.compose("oak").sample(1, prompt="a fir", steps=2)
    config = read_json(there / "tokenizer_config.json")
    write_json(there / "tokenizer_config.json", {**config, "model_max_length": 7})
    load_text_encoder.cache_clear()
    caption_reader.cache_clear()
    with pytest.raises(EncoderError, match=f"'{there}' is not the one .*INTARSIA_TEXT_ENCODER"):
        vault.compose("oak").sample(1, prompt="a fir", steps=2)
    monkeypatch.setenv("INTARSIA_TEXT_ENCODER", str(there))
    with pytest.raises(EncoderError, match=f"'{there}' is not the one"):
        vault.compose("oak").sample(1, prompt="a fir", steps=2)
    monkeypatch.setenv("INTARSIA_TEXT_ENCODER", str(tiny_text))
    again = vault.compose("oak").sample(1, prompt="a fir", steps=2)
    assert torch.equal(again.images, drawn.images)


def test_an_encoder_is_had_from_wherever_one_of_them_has_it(
    fresh: Fresh, empty: Path, text: TextPrompts, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Path(shutil.copytree(tiny_text, tmp_path / "there"))
    vault = train(fresh(empty), captioned("elm"), replace(text, encoder=str(there)))
    train(vault, captioned("oak"), text)
    drawn = [vault.compose(names).sample(1, prompt="a fir", steps=2).images for names in ("elm", ["elm", "oak"])]
    there.rename(tmp_path / "away")
    there.mkdir()  # as a disk that is not mounted
    load_text_encoder.cache_clear()
    caption_reader.cache_clear()
    assert torch.equal(vault.compose(["elm", "oak"]).sample(1, prompt="a fir", steps=2).images, drawn[1])
    with pytest.raises(EncoderError, match=f"{there}: no text encoder can be read .*INTARSIA_TEXT_ENCODER"):
        vault.compose("elm").sample(1, prompt="a fir", steps=2)
    before = all_bytes(vault.root / "sources")
    with pytest.raises(EncoderError, match="no text encoder can be read"):
        vault.extend("elm", replace(captioned("more", 13), name="elm", owner="owner of elm"))
    assert all_bytes(vault.root / "sources") == before
    monkeypatch.setenv("INTARSIA_TEXT_ENCODER", str(tmp_path / "nowhere"))
    with pytest.raises(EncoderError, match=r"INTARSIA_TEXT_ENCODER: no text encoder '.*nowhere'"):
        vault.compose("elm").sample(1, prompt="a fir", steps=2)
    monkeypatch.setenv("INTARSIA_TEXT_ENCODER", str(tiny_text))
    assert torch.equal(vault.compose("elm").sample(1, prompt="a fir", steps=2).images, drawn[0])
    monkeypatch.delenv("INTARSIA_TEXT_ENCODER")
    with pytest.raises(EncoderError, match="the text encoder's name is empty"):
        vault.compose("elm").prompts(["a fir"], text_encoder="")


def test_an_encoder_that_is_named_is_the_one_that_is_meant(
    fresh: Fresh, empty: Path, text: TextPrompts, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the environment nor the wheel takes its place where it is wrong."""
    oak = train(fresh(empty), captioned("oak"), text).compose("oak")
    other = Path(shutil.copytree(tiny_text, tmp_path / "other"))
    config = read_json(other / "tokenizer_config.json")
    write_json(other / "tokenizer_config.json", {**config, "model_max_length": 7})
    monkeypatch.setenv("INTARSIA_TEXT_ENCODER", str(tiny_text))
    with pytest.raises(EncoderError, match=f"'{other}' is not the one that was trained with"):
        oak.prompts(["a fir"], text_encoder=str(other))
    with pytest.raises(EncoderError, match="no text encoder at"):
        oak.prompts(["a fir"], text_encoder=str(tmp_path / "nowhere"))


def test_captions_are_what_is_learned_from(fresh: Fresh, empty: Path, text: TextPrompts) -> None:
    """The same pictures under other captions, or other labels."""
    oak = captioned("oak")
    other = replace(oak, manifest=Manifest(tuple(replace(s, text="one for all") for s in oak.manifest)))
    unlabelled = replace(oak, manifest=Manifest(tuple(replace(s, label=None) for s in oak.manifest)))
    learned = [train(fresh(empty), each, text).compartment("oak").params for each in (oak, other, unlabelled)]
    same = [all(torch.equal(learned[0][key], each[key]) for key in each) for each in learned]
    assert same == [True, False, True]


def test_images_are_asked_for_in_words(fresh: Fresh, empty: Path, text: TextPrompts, tmp_path: Path) -> None:
    vault = train(train(fresh(empty), captioned("oak"), text), captioned("elm"), text)
    model = vault.compose()
    drawn = model.sample(3, prompt=["a red oak", "the sea", "a red oak"], seed=7, steps=3, guidance_scale=2.0)
    assert drawn.prompts == drawn.asked == ("a red oak", "the sea", "a red oak")
    assert drawn.labels == (None,) * 3
    assert drawn.receipt is not None
    same = model.sample(3, prompt="a red oak", seed=7, steps=3, guidance_scale=2.0)
    torch.testing.assert_close(same.images[[0, 2]], drawn.images[[0, 2]], rtol=1e-4, atol=1e-4)
    assert (same.images[1] - drawn.images[1]).abs().max() > 1e-3
    assert (model.sample(3, seed=7, steps=3).images - same.images).abs().max() > 1e-3
    drawn.save(tmp_path / "out")
    with Image.open(tmp_path / "out" / "00001.png") as written:
        assert written.info == {"Description": "the sea"}


def test_equal_texts_are_encoded_once(
    fresh: Fresh, empty: Path, text: TextPrompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, read = [], CaptionReader.read

    def counted(self: CaptionReader, words: str, *, longest: int) -> Prompt:
        encoded.append(words)
        return read(self, words, longest=longest)

    monkeypatch.setattr(CaptionReader, "read", counted)
    vault = train(fresh(empty), captioned("oak", 40), text)
    assert sorted(encoded) == sorted(filter(None, WORDS))
    encoded.clear()
    asked = vault.compose().prompts(["the sea", "a red oak", "the sea"])
    assert [each.text for each in asked] == ["the sea", "a red oak", "the sea"]
    assert encoded == ["the sea", "a red oak"]


def test_a_prompt_may_weigh_the_sources_by_what_their_captions_say(
    fresh: Fresh, empty: Path, text: TextPrompts, tmp_path: Path
) -> None:
    """Each is asked for what it speaks of."""
    vault = fresh(empty)
    for name, texts in (("oak", ("red oak", "red oaks", "red")), ("elm", ("blue", "bluebell", ""))):
        source = toy_source(name, 9)
        samples = [replace(sample, text=texts[k % 3]) for k, sample in enumerate(source.manifest)]
        vault.add_source(name, replace(source, manifest=Manifest(tuple(samples))))
    parts = [ROUTER, CaptionSettings(sharpness=30)]
    vault.train(["oak", "elm"], quick(adapter=text), routers=parts)
    model = vault.compose(weights="prior")
    asked = {"seed": 1, "steps": 2}
    plain = model.sample(2, prompt=["red oaks", "blue"], **asked)
    torch.testing.assert_close(plain.weights, torch.full_like(plain.weights, 0.5))
    settings = SampleSettings(**asked)
    weighed = model.draw(2, settings, prompt=["red oaks", "blue"], prompt_weights=True)
    oak = weighed.names.index("oak")
    assert weighed.weights[:, 0, oak].min() > 0.7 > 0.4 > weighed.weights[:, 1, oak].max()
    receipts = (json.dumps(drawn.receipt) for drawn in (plain, weighed))
    assert ['"prompt_weights": true' in receipt for receipt in receipts] == [False, True]
    with pytest.raises(SettingsError, match="weigh sources by a prompt; give one"):
        model.draw(2, settings, prompt_weights=True)
    shielded = vault.compose(operator="protected")
    with pytest.raises(SettingsError, match="the protected operator weighs nobody; leave them out"):
        shielded.draw(2, settings, prompt="blue", prompt_weights=True)
    with pytest.raises(IncompatibleError, match="'fir' has no router part 'caption'"):
        train(vault, captioned("fir"), text).compose("fir").draw(1, settings, prompt="a", prompt_weights=True)
    with pytest.raises(SettingsError, match="tells its captions to whoever guesses them"):
        vault.pack("oak", tmp_path / "oak.pack")
    assert not (tmp_path / "oak.pack").exists()
    with pytest.raises(SettingsError, match=r"goes with the adapter 'text', .* this one is 'lora'"):
        vault.train("fir", quick(), routers=["caption"], restart=True)
    vault.forget("elm", [sample.id for sample in vault.find_samples("elm", patterns=["caption:blue"])])
    left = vault.compose(["oak", "elm"], weights="prior").draw(1, settings, prompt="blue", prompt_weights=True)
    assert left.weights.isfinite().all(), "nobody speaks any more of what elm spoke of"


def test_a_prompt_nobody_can_read_is_said_in_one_line(
    fresh: Fresh, empty: Path, text: TextPrompts, tiny_text: Path
) -> None:
    vault = train(fresh(empty), captioned("oak"), text)
    vault.add_source("elm", toy_source("elm"))
    vault.train("elm", quick(), routers=[ROUTER])
    model = vault.compose("oak")
    for prompt, complaint in (("", "is empty"), (["a", " "], "is empty"), ("twelve letters", "has 15 tokens")):
        with pytest.raises(InputError, match=complaint):
            model.sample(2, prompt=prompt, steps=2)
    with pytest.raises(SettingsError, match="1 labels or prompts for 2 images"):
        model.sample(2, prompt=["a"], steps=2)
    for odd in (5, [5, 5], [None, "a"], b"oak"):
        with pytest.raises(SettingsError, match="expected a text, or a list of texts"):
            model.sample(2, prompt=odd, steps=2)
    with pytest.raises(SettingsError, match="text_encoder reads a prompt, and there is none"):
        model.draw(2, SampleSettings(steps=2), text_encoder="minilm")
    with pytest.raises(SettingsError, match="were both given"):
        model.sample(2, prompt="a", labels=["a", "b"], steps=2)
    with pytest.raises(SettingsError, match=r"elm cannot be asked in words \(sources that can: oak\)"):
        vault.compose().sample(2, prompt="a", steps=2)
    with pytest.raises(SettingsError, match=r"elm cannot be asked in words \(sources that can: none\)"):
        vault.compose("elm").sample(2, prompt="a", steps=2)
    other = replace(vault.compartment("oak"), adapter=replace(text, digest="0" * 64))
    with pytest.raises(EncoderError, match="is not the one that was trained with"):
        read_prompts(["a"], [other], vault.backbone, encoder=str(tiny_text))
    with pytest.raises(IncompatibleError, match="different text encoders"):
        read_prompts(["a"], [replace(other, name="fir"), vault.compartment("oak")], vault.backbone)


def test_there_is_nothing_to_learn_from_where_there_are_no_captions(vault: Vault, text: TextPrompts) -> None:
    silent = toy_source("oak")
    silent = replace(silent, manifest=Manifest(tuple(replace(s, text=" ") for s in silent.manifest)))
    vault.add_source("oak", silent)
    before = all_bytes(vault.root)
    with pytest.raises(SettingsError, match="source 'oak' has no captions"):
        vault.train("oak", quick(adapter=text))
    vault.add_source("elm", captioned("elm"))
    with pytest.raises(EncoderError, match="is not the one that was trained with"):
        vault.train("elm", quick(adapter=replace(text, digest="0" * 64)))
    with pytest.raises(SettingsError, match="states is 9"):
        vault.train("elm", quick(adapter=replace(text, states=9)))
    for length in (1, 2, 10_000):
        with pytest.raises(SettingsError, match=f"length is {length}, and .* takes"):
            vault.train("elm", quick(adapter=replace(text, length=length)))
    vault.forget("elm")
    assert all_bytes(vault.root) == before
