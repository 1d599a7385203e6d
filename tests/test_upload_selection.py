"""Which files an upload takes, what their keys are, and what a header says of an image."""

import base64
import io
import os
import struct
from pathlib import Path

import pytest
from awscrt.checksums import crc64nvme
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from photographs import photographs
from pipeline_cli.errors import NotFoundError
from pipeline_cli.pipeline.uploading.pacing import Window
from pipeline_cli.pipeline.uploading.preflight import JPEG_PIXEL_ALLOWANCE, Inspector, Limits, refusal
from pipeline_cli.pipeline.uploading.selection import Filter, LocalFile, Selection, Unusable, select
from pipeline_contract.headers import stored_size
from pipeline_contract.kinds import sniff


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def keys(selection: Selection, stdin: bytes = b"") -> list[str]:
    found = list(select(selection, io.BytesIO(stdin)))
    assert all(isinstance(file, LocalFile) for file in found), found
    return [file.key for file in found if isinstance(file, LocalFile)]


def test_a_folder_comes_in_the_order_of_its_keys(tmp_path: Path) -> None:
    tree(tmp_path, "a/z.jpg", "a.jpg", "a-b.jpg", "b/c/d.jpg", "é.jpg", "Z.jpg", "\U0001f600.jpg", "\uffee.jpg")
    found = keys(Selection([str(tmp_path)]))
    assert found == sorted(found, key=str.encode)
    assert len(found) == 8


@pytest.mark.parametrize("include", [["*.jpg"], ["*.jpg", "*.png"]])
@pytest.mark.parametrize("exclude", [["raw"], ["raw/*"], ["raw/", "*.txt"]])
def test_includes_and_excludes_have_no_order(tmp_path: Path, include: list[str], exclude: list[str]) -> None:
    tree(tmp_path, "a.jpg", "b/c.jpg", "b/notes.txt", "raw/d.jpg", "raw/deep/e.jpg")
    found = {tuple(keys(Selection([str(tmp_path)], include=i, exclude=e))) for i in (include, include[::-1])
             for e in (exclude, exclude[::-1])}  # fmt: skip
    assert found == {("a.jpg", "b/c.jpg")}


def test_exclude_everything_include_some_means_only_these_as_with_aws_s3(tmp_path: Path) -> None:
    tree(tmp_path, "a.jpg", "b/c.jpg", "b/notes.txt")
    assert keys(Selection([str(tmp_path)], include=["*.jpg"], exclude=["*"])) == ["a.jpg", "b/c.jpg"]
    assert keys(Selection([str(tmp_path)], exclude=["*"])) == []


def test_hidden_files_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    tree(tmp_path, "a.jpg", "._a.jpg", ".git/b.jpg", "c/.thumbs/d.jpg")
    selection = Selection([str(tmp_path)])
    assert keys(selection) == ["a.jpg"]
    assert selection.left_out.hidden == 3
    assert len(keys(Selection([str(tmp_path)], hidden=True))) == 4
    assert keys(Selection([str(tmp_path / "._a.jpg")])) == ["._a.jpg"]  # named on purpose


def test_globs_keep_what_follows_their_fixed_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "p/a.jpg", "p/x/b.jpg", "p/x/y/c.jpg", "p/x/y/d.png")
    monkeypatch.chdir(tmp_path)
    assert keys(Selection(["p/*.jpg"])) == ["a.jpg"]
    assert keys(Selection(["p/**/*.jpg"])) == ["a.jpg", "x/b.jpg", "x/y/c.jpg"]
    assert keys(Selection(["p/x/[b-c].jpg"])) == ["b.jpg"]
    assert keys(Selection(["p/x/y/?.png"], prefix="/new")) == ["new/d.png"]
    for missing in ("p/*.gif", "nowhere/*.jpg", "p/none.jpg"):
        with pytest.raises(NotFoundError):
            select(Selection([missing]))


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    tree(tmp_path, "a[1].jpg", "a1.jpg")
    assert keys(Selection([str(tmp_path / "a[1].jpg")])) == ["a[1].jpg"]


@pytest.mark.parametrize("separator", [b"\n", b"\0"])
def test_a_list_keeps_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separator: bytes) -> None:
    outside = tree(tmp_path / "outside", "z.jpg") / "z.jpg"
    here = tree(tmp_path / "here", "a/b.jpg", "c.jpg")
    monkeypatch.chdir(here)
    listed = [b"./a/b.jpg", os.fsencode(here / "c.jpg"), os.fsencode(outside)]
    expected = ["a/b.jpg", "c.jpg", str(outside).lstrip("/")]
    assert keys(Selection(["-"]), separator.join(listed) + separator) == expected
    assert keys(Selection(["-"]), separator.join(listed)) == expected


def test_two_files_of_one_key_are_not_both_sent(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.jpg", "b/1.jpg", "b/2.jpg")
    found = list(select(Selection([str(tmp_path / "a"), str(tmp_path / "b")])))
    assert [file.key for file in found if isinstance(file, LocalFile)] == ["1.jpg", "2.jpg"]
    assert [file.code for file in found if isinstance(file, Unusable)] == ["DUPLICATE_KEY"]


def test_a_key_that_s3_would_refuse_is_named(tmp_path: Path) -> None:
    tree(tmp_path, "ü" * 100 + ".jpg")
    (found,) = select(Selection([str(tmp_path)], prefix="p" * 900))
    assert isinstance(found, Unusable)
    assert found.code == "KEY_TOO_LONG"


NAMES = st.text(st.sampled_from("ab.*?[]/-é"), min_size=1, max_size=12)


@given(NAMES, st.lists(NAMES, max_size=3), st.lists(NAMES, max_size=3))
def test_a_filter_never_depends_on_order_and_excludes_win(name: str, include: list[str], exclude: list[str]) -> None:
    taken = Filter(include, exclude).takes(name)
    assert Filter(include[::-1], exclude[::-1]).takes(name) == taken
    if taken:
        assert Filter(include, []).takes(name)
        assert not Filter([], [pattern for pattern in exclude if not include or set(pattern) != {"*"}]).prunes(name)


FORMATS = {"JPEG": "RGB", "PNG": "RGBA", "GIF": "P", "WEBP": "RGB", "TIFF": "RGB", "BMP": "RGB", "AVIF": "RGB"}


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (641, 479)])
def test_a_header_has_the_size_that_pillow_reads(image_format: str, size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    options = {"JPEG": {"progressive": size[0] > 100, "exif": b"Exif\0\0" + bytes(3000)}}.get(image_format, {})
    Image.new(FORMATS[image_format], size).save(buffer, image_format, **options)  # type: ignore[arg-type]
    data = buffer.getvalue()
    assert sniff(data[:64]) == image_format
    assert stored_size(image_format, lambda offset, count: data[offset : offset + count]) == size


@pytest.mark.skipif(not photographs(), reason="no photographs here")
def test_real_photographs_have_the_size_that_pillow_reads() -> None:
    for file in photographs():
        data = file.read_bytes()
        image_format = sniff(data[:64])
        if image_format is None:
            continue
        with Image.open(file) as image:
            size = stored_size(image_format, lambda offset, count, data=data: data[offset : offset + count])  # type: ignore[misc]
            assert size == image.size, file.name


@given(st.sampled_from(sorted(FORMATS)), st.binary(max_size=300))
def test_no_bytes_make_the_header_reader_fail(image_format: str, data: bytes) -> None:
    magic = {"JPEG": b"\xff\xd8\xff\xe0", "PNG": b"\x89PNG\r\n\x1a\n", "TIFF": b"II*\0", "WEBP": b"RIFF\0\0\0\0WEBP"}
    whole = magic.get(image_format, b"") + data
    size = stored_size(image_format, lambda offset, count: whole[offset : offset + count])
    assert size is None or min(size) > 0


def test_the_limits_are_those_of_the_processor() -> None:
    from image_processor import admission
    from image_processor.settings import ImageSettings

    settings, limits = ImageSettings(), Limits()
    assert (limits.max_bytes, limits.max_pixels) == (settings.max_bytes, settings.max_pixels)
    assert admission._JPEG_ALLOWANCE == JPEG_PIXEL_ALLOWANCE


def test_what_claims_nothing_is_not_refused() -> None:
    assert refusal("notes.txt", "text/plain", 0, None, None, Limits()) is None
    answer = refusal("drawing.svg", "image/svg+xml", 10, None, None, Limits())
    assert answer is not None
    assert answer.code == "UNSUPPORTED_FORMAT"


def test_a_large_file_is_inspected_in_pieces(tmp_path: Path) -> None:
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 300, 200) + os.urandom(20_000_000)
    (tmp_path / "large.png").write_bytes(png)
    inspected = Inspector(Limits()).inspect(str(tmp_path / "large.png"), "large.png")
    assert base64.b64decode(inspected.checksum) == crc64nvme(png).to_bytes(8, "big")
    assert inspected.size == len(png)
    assert (inspected.width, inspected.height) == (300, 200)


def test_the_window_grows_until_it_hurts_and_shrinks_once_a_round() -> None:
    window = Window(most=64, start=16)
    for _ in range(48):
        window.succeeded()
    assert window.size == 64
    for _ in range(64):  # one round of throttles is one sign
        window.congested()
    assert window.size == 32
    for _ in range(31):
        window.succeeded()
    assert window.size == 32
    for _ in range(2000):
        window.succeeded()
    assert window.size == 64
    for _ in range(10_000):
        window.congested()
    assert window.size == 1
