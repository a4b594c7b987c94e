"""What a file is, by its bytes: against `filetype` as the oracle, and by the formats beyond its knowledge."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib

import filetype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.pivot import signatures
from kimi_gateway.pivot.signatures import TEXT, UNKNOWN, of


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def archive(*names: str, kind: int = zipfile.ZIP_DEFLATED, first: tuple[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        if first:
            archive.writestr(*first)
        for name in names:
            archive.writestr(name, f"<xml>{name}</xml>" * 20)
    return out.getvalue()


def ftyp(brand: bytes, *others: bytes) -> bytes:
    body = brand + b"\0\0\0\0" + b"".join(others)
    return struct.pack(">I", len(body) + 8) + b"ftyp" + body + b"\0" * 64


OFFICE = ("[Content_Types].xml", "_rels/.rels")
SAMPLES = {
    "png": png(),
    "jpg": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(300),
    "gif": b"GIF89a" + bytes(300),
    "webp": b"RIFF\x10\0\0\0WEBPVP8 " + bytes(300),
    "bmp": b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0" + bytes(300),
    "tif": b"II*\0" + bytes(300),
    "heic": ftyp(b"heic", b"mif1", b"heic"),
    "avif": ftyp(b"avif", b"mif1", b"avif"),
    "mp4": ftyp(b"isom", b"isom", b"mp42"),
    "mov": ftyp(b"qt  "),
    "3gp": ftyp(b"3gp5", b"3gp5"),
    "webm": b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x84webm"
    + bytes(300),
    "avi": b"RIFF\x10\0\0\0AVI LIST" + bytes(300),
    "flv": b"FLV\x01\x05" + bytes(300),
    "mpg": b"\0\0\x01\xba" + bytes(300),
    "wmv": b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\x00\xaa\x00b\xcel" + bytes(300),
    "mp3": b"ID3\x03" + bytes(300),
    "wav": b"RIFF\x10\0\0\0WAVEfmt " + bytes(300),
    "pdf": b"%PDF-1.7\n" + bytes(300),
    "rtf": b"{\\rtf1\\ansi hello}",
    "docx": archive(*OFFICE, "word/document.xml"),
    "xlsx": archive(*OFFICE, "xl/workbook.xml"),
    "pptx": archive(*OFFICE, "ppt/presentation.xml"),
    "epub": archive("META-INF/container.xml", first=("mimetype", "application/epub+zip"), kind=0),
    "odt": archive("content.xml", first=("mimetype", "application/vnd.oasis.opendocument.text"), kind=0),
    "zip": archive("readme.txt"),
    "gz": gzip.compress(b"hello"),
    "7z": b"7z\xbc\xaf'\x1c" + bytes(300),
    "rar": b"Rar!\x1a\x07\x00" + bytes(300),
    "tar": bytes(257) + b"ustar" + bytes(300),
    "mobi": bytes(60) + b"BOOKMOBI" + bytes(300),
    "doc": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
}
# The oracle has another word, or none.
OTHER = {"tif": "tif", "mobi": None, "doc": None, "wmv": "wmv", "mpg": None, "epub": "epub", "3gp": None}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_is_known_by_its_bytes(name: str) -> None:
    found = of(SAMPLES[name])
    assert found.extension == name
    if name not in OTHER:
        oracle = filetype.guess(SAMPLES[name])
        assert oracle is not None
        assert oracle.extension == name
        if name not in ("avi", "wav", "flac", "rar", "m4a"):  # names with and without x-
            assert oracle.mime.replace("x-", "") == found.media_type.replace("x-", "")


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        "你好，世界。".encode(),
        "你好，世界。".encode("gb18030"),
        "Grüße, ça va?".encode("latin-1"),
        "hello".encode("utf-16"),
        b"# Title\r\n\tcode\x1b[0m\n",
        b"<!doctype html><p>x",
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b'{"a": 1}',
        ("x" * (8 * 1024 - 1) + "你").encode(),
    ],
)
def test_text_is_text_in_any_code(data: bytes) -> None:
    assert of(data) is TEXT


@pytest.mark.parametrize(
    "data", [b"", bytes(100), b"\x01\x02\x03\xff\xfe\xfd" * 20, b"MZ\x90\0\x03" + bytes(100)]
)
def test_what_cannot_be_told_is_unknown(data: bytes) -> None:
    assert of(data) is UNKNOWN


def test_an_office_file_is_found_behind_other_members() -> None:
    many = [f"docProps/custom{number}.xml" for number in range(60)]
    assert of(archive(*OFFICE, *many, "word/document.xml")).extension == "docx"
    assert of(archive("my/word/x.txt")).extension == "zip"


def test_a_compressed_mimetype_is_read_all_the_same() -> None:
    assert of(archive("x", first=("mimetype", "application/epub+zip"))).extension == "epub"


@given(st.binary(max_size=400) | st.sampled_from(sorted(SAMPLES.values())).flatmap(
    lambda data: st.tuples(st.integers(0, min(len(data), 400)), st.binary(max_size=60)).map(
        lambda cut: data[: cut[0]] + cut[1])))  # fmt: skip
def test_any_bytes_have_one_type_and_more_of_them_do_not_crash(data: bytes) -> None:
    found = of(data)
    assert found.kind in ("image", "video", "audio", "document", "archive", "unknown")
    assert of(data + bytes(signatures.LOOKED_AT)).kind is not None
