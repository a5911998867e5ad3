"""The paper's Table 2 from end to end, on a tiny random pipeline: what is compared, not how good its figures are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("diffusers")

from transformers import CLIPConfig, CLIPModel

from intarsia.audit.features import Images, as_drawn
from intarsia.backbone import convert_pipeline
from intarsia.compartments import FullCopy
from intarsia.data import Source, encode_png
from intarsia.diffusion import keyed_generator
from intarsia.errors import IncompatibleError, InputError, SettingsError
from intarsia.experiments.reproduce import Inputs, aesthetic, reproduce, run
from intarsia.experiments.reproduce.aesthetic import Counts, aesthetic_world, read_scores, subsets_of
from intarsia.experiments.reproduce.scale import PAPER_TEXT, Scale
from intarsia.files import read_json
from intarsia.vault import make_package

from .tiny import tokenizer

SCORES = [6.5, 7.0, 6.1, 5.5, 5.9, 5.0, 4.9, 3.0, 4.0, 6.0, 6.2, 4.1, 4.2, 5.1]


@dataclass(frozen=True)
class Blurred:
    """A feature network: the picture at two pixels a side."""

    name: str = "blurred"
    digest: str = "blurred"
    image_size: int = 2

    def features(self, images: Images) -> Tensor:
        return F.adaptive_avg_pool2d(as_drawn(images), self.image_size).flatten(1)


def noise(k: int, side: tuple[int, int] = (16, 16)) -> np.ndarray:
    return keyed_generator("photograph", k).integers(0, 256, (*side, 3), dtype=np.uint8)


def write_table(folder: Path, lines: Sequence[Mapping[str, object]]) -> None:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Photographs with captions and scores, one of them not square."""
    folder = tmp_path / "coco"
    folder.mkdir()
    for k in range(len(SCORES)):
        (folder / f"{k:02d}.png").write_bytes(encode_png(noise(k, (16, 20) if k == 3 else (16, 16))))
    write_table(
        folder,
        [
            {"file_name": f"{k:02d}.png", "text": f"a hat {'abcdefghijklmn'[k]}", "aesthetic_score": score}
            for k, score in enumerate(SCORES)
        ],
    )
    return folder


@pytest.fixture(scope="module")
def package(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    images, files = np.stack([noise(1000 + k) for k in range(24)]), [f"{k}.png" for k in range(24)]
    core = Source.build("core", owner="Ada", licence="MIT", images=images, file_names=files)
    out = tmp_path_factory.mktemp("packages") / "sd.package"
    make_package(out, convert_pipeline(saved), core, basis_rank=4)
    return out


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole CLIP, tiny and random, with its tokenizer."""
    folder = tmp_path_factory.mktemp("clip")
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = {"vocab_size": 64, "max_position_embeddings": 12, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    torch.manual_seed(4)
    CLIPModel(
        CLIPConfig(
            text_config={**shape, **words}, vision_config={**shape, "image_size": 8, "patch_size": 4}, projection_dim=12
        )
    ).save_pretrained(folder / "model")
    tokenizer(folder).save_pretrained(folder / "model")
    return folder / "model"


def quick(scale: Scale) -> Scale:
    training = replace(scale.training, rows=2, precision="float32", threads=1)
    few = replace(scale, steps=3, training=training, images=4, sampling=replace(scale.sampling, steps=2))
    return replace(few, methods=("clip", "gaussian", "naive", "soup"))


def nobody(*_: object) -> None:
    """Is told of progress and does nothing."""


def test_sources_are_the_papers(data: Path) -> None:
    def places(most: int) -> list[list[int]]:
        return [sorted(int(file[:2]) for file in files) for files in subsets_of(read_scores(data), most).values()]

    assert places(3) == [[0, 1, 10], [3, 4, 13], [6, 11, 12]]  # the highest of each
    assert places(9) == [[0, 1, 2, 10], [3, 4, 5, 13], [6, 7, 8, 11, 12]]  # and none is in two; a 6 is in none
    assert (PAPER_TEXT.training.adapter, PAPER_TEXT.training.lr, PAPER_TEXT.training.rows) == (FullCopy(), 1e-4, 256)
    assert PAPER_TEXT.trained(1, 3, seed=0).steps == 15_000
    assert (aesthetic.PAPER_COUNTS.subset, PAPER_TEXT.images) == (1000, 2000)


def test_a_held_out_caption_that_is_too_long_to_be_asked_for_is_left_out(data: Path, package: Path) -> None:
    def held() -> dict[str, str | None]:
        world = aesthetic_world(data, package, Blurred(), counts=Counts(subset=2, held=4))
        return {sample.file_name: sample.text for sample in world.reference.manifest}

    before = held()
    longer = next(iter(before))
    lines = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    for line in lines:
        if line["file_name"] == longer:
            line["text"] += " and many words more than it takes"
    write_table(data, lines)
    assert len(before) == 4
    assert held() == {file: text for file, text in before.items() if file != longer}


@pytest.mark.integration
def test_the_table_from_end_to_end(
    data: Path, package: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "features_of", lambda file: Blurred())
    monkeypatch.setattr(aesthetic, "PAPER_COUNTS", Counts(subset=2, held=4))
    inputs = Inputs(data=data, backbone=str(package), clip=clip)

    def go() -> Path:
        told = {"on_phase": nobody, "on_step": nobody}
        return reproduce("alignment", tmp_path / "out", scale="paper", inputs=inputs, seeds=1, budget=quick, **told)

    page = go()
    lines = [line.split("|")[1].strip() for line in page.read_text().splitlines() if line.startswith("| ")]
    alone = [f"{name} alone" for name in ("ae6-plus", "ae6-minus", "ae5-minus")]
    assert lines[1:] == ["---", "real drawings", "backbone", "monolith x1", *alone, "clip", "gaussian", "naive", "soup"]
    kept = (tmp_path / "out" / "results.csv").read_bytes()
    assert read_json(tmp_path / "out" / "settings.json")["world"]["images"].startswith("6, root ")
    assert go() == page  # nothing is computed again
    assert (tmp_path / "out" / "results.csv").read_bytes() == kept


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"file_name": "00.png", "text": "a hat"}, "line 1: expected a line for each picture with file_name, text and"),
        ({"file_name": "00.png", "text": " ", "aesthetic_score": 5}, "line 1"),
        ({"file_name": "00.png", "text": "a", "aesthetic_score": "5"}, "line 1"),
        ({"file_name": "00.png", "text": "a", "aesthetic_score": float("nan")}, "line 1"),
        ({"file_name": "00.png", "text": "a", "aesthetic_score": 6.5}, "1 picture with aesthetic_score above 6"),
    ],
)
def test_pictures_that_say_too_little_are_refused(
    line: Mapping[str, object], says: str, data: Path, package: Path
) -> None:
    write_table(data, [line])
    with pytest.raises(InputError, match=says):
        aesthetic_world(data, package, Blurred())


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"data": None}, SettingsError, "needs --data, a folder of pictures whose metadata.jsonl states file_name"),
        ({"clip": None}, SettingsError, "and a judge: --answerer, --clip or both"),
        ({"backbone": "uvit-tiny-8"}, IncompatibleError, "the backbone uvit-tiny-8 reads no text"),
    ],
)
def test_what_is_missing_is_said_first(
    changes: dict[str, object],
    error: type[Exception],
    says: str,
    data: Path,
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "features_of", lambda file: Blurred())
    inputs = replace(Inputs(data=data, backbone="sd.package", clip=clip), **changes)
    with pytest.raises(error, match=says):
        reproduce("alignment", tmp_path / "out", scale="paper", inputs=inputs, on_phase=nobody, on_step=nobody)
