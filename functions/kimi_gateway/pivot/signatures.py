"""Recognises the type of a file by its first bytes. The name and the declared type do not count.

Sources: the specifications of the formats, and the media types that IANA lists (2026-11).
"""

from __future__ import annotations

import codecs
import zlib
from typing import Literal

from kimi_gateway.dataclass import dataclass

Kind = Literal["image", "video", "audio", "document", "archive", "unknown"]

LOOKED_AT = 64 * 1024  # most bytes that are needed
_TEXT_SAMPLE = 8 * 1024  # bytes that must look like text


@dataclass(frozen=True, slots=True)
class FileType:
    """`media_type` is IANA's, `extension` has no dot."""

    kind: Kind
    media_type: str
    extension: str


UNKNOWN = FileType("unknown", "application/octet-stream", "bin")
TEXT = FileType("document", "text/plain", "txt")
_ZIP = FileType("archive", "application/zip", "zip")
_OFFICE = "application/vnd.openxmlformats-officedocument."
_QUICKTIME = FileType("video", "video/quicktime", "mov")
# Bytes at an offset, in this order.
_SIGNATURES: tuple[tuple[int, bytes, FileType], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", FileType("image", "image/png", "png")),
    (0, b"\xff\xd8\xff", FileType("image", "image/jpeg", "jpg")),
    (0, b"GIF87a", FileType("image", "image/gif", "gif")),
    (0, b"GIF89a", FileType("image", "image/gif", "gif")),
    (0, b"II*\x00", FileType("image", "image/tiff", "tif")),
    (0, b"MM\x00*", FileType("image", "image/tiff", "tif")),
    (0, b"\x1aE\xdf\xa3", FileType("video", "video/webm", "webm")),
    (0, b"FLV\x01", FileType("video", "video/x-flv", "flv")),
    (0, b"\x00\x00\x01\xba", FileType("video", "video/mpeg", "mpg")),
    (0, b"\x00\x00\x01\xb3", FileType("video", "video/mpeg", "mpg")),
    (0, b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\x00\xaa\x00b\xcel", FileType("video", "video/x-ms-wmv", "wmv")),
    (0, b"ID3", FileType("audio", "audio/mpeg", "mp3")),
    (0, b"fLaC", FileType("audio", "audio/flac", "flac")),
    (0, b"OggS", FileType("audio", "audio/ogg", "ogg")),
    (0, b"%PDF-", FileType("document", "application/pdf", "pdf")),
    (0, b"{\\rtf", FileType("document", "application/rtf", "rtf")),
    (60, b"BOOKMOBI", FileType("document", "application/x-mobipocket-ebook", "mobi")),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", FileType("document", "application/x-ole-storage", "doc")),
    (0, b"\x1f\x8b\x08", FileType("archive", "application/gzip", "gz")),
    (0, b"7z\xbc\xaf'\x1c", FileType("archive", "application/x-7z-compressed", "7z")),
    (0, b"Rar!\x1a\x07", FileType("archive", "application/vnd.rar", "rar")),
    *((4, name, _QUICKTIME) for name in (b"moov", b"mdat", b"wide")),  # files from before `ftyp`
    (257, b"ustar", FileType("archive", "application/x-tar", "tar")),
)
_RIFF = {
    b"WEBP": FileType("image", "image/webp", "webp"),
    b"AVI ": FileType("video", "video/x-msvideo", "avi"),
    b"WAVE": FileType("audio", "audio/wav", "wav"),
}
# Brands of ISO media files (ISO/IEC 14496-12, `ftyp`).
_BRANDS: dict[bytes, FileType] = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx"), FileType("image", "image/heic", "heic")),
    **dict.fromkeys((b"mif1", b"msf1", b"heim", b"heis"), FileType("image", "image/heif", "heif")),
    **dict.fromkeys((b"avif", b"avis"), FileType("image", "image/avif", "avif")),
    b"qt  ": _QUICKTIME,
    b"M4A ": FileType("audio", "audio/mp4", "m4a"),
    **dict.fromkeys((b"3gp4", b"3gp5", b"3gp6", b"3ge6"), FileType("video", "video/3gpp", "3gp")),
}
_MP4 = FileType("video", "video/mp4", "mp4")
_BMP = FileType("image", "image/bmp", "bmp")
# Types of zip archives, by the first member whose name begins like this.
_MEMBERS: tuple[tuple[bytes, FileType], ...] = (
    (b"word/", FileType("document", _OFFICE + "wordprocessingml.document", "docx")),
    (b"xl/", FileType("document", _OFFICE + "spreadsheetml.sheet", "xlsx")),
    (b"ppt/", FileType("document", _OFFICE + "presentationml.presentation", "pptx")),
)
_MIMETYPES = {
    b"application/epub+zip": FileType("document", "application/epub+zip", "epub"),
    b"application/vnd.oasis.opendocument.text": FileType(
        "document", "application/vnd.oasis.opendocument.text", "odt"
    ),
    b"application/vnd.oasis.opendocument.spreadsheet": FileType(
        "document", "application/vnd.oasis.opendocument.spreadsheet", "ods"
    ),
    b"application/vnd.oasis.opendocument.presentation": FileType(
        "document", "application/vnd.oasis.opendocument.presentation", "odp"
    ),
}
_LOCAL = b"PK\x03\x04"  # a member's head in a zip archive


def of(head: bytes) -> FileType:
    """The type of a file that begins with `head`; LOOKED_AT bytes are enough. Text is TEXT, whatever it says;
    UNKNOWN means not recognised."""
    head = head[:LOOKED_AT]
    for look in (_by_signature, _by_container):
        if (found := look(head)) is not None:
            return found
    return TEXT if is_text(head) else UNKNOWN


def _by_signature(head: bytes) -> FileType | None:
    for at, signature, found in _SIGNATURES:
        if head.startswith(signature, at):
            return found
    if head.startswith(b"BM") and len(head) >= 26 and head[6:10] == bytes(4):
        return _BMP
    return None


def _by_container(head: bytes) -> FileType | None:
    if head.startswith(b"RIFF"):
        return _RIFF.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _brand(head)
    if head.startswith((_LOCAL, b"PK\x05\x06")):
        return _archived(head)
    return None


def _brand(head: bytes) -> FileType:
    """The main brand, else a compatible one that is more specific than MP4."""
    size = min(int.from_bytes(head[:4], "big"), 256)
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, size, 4))]
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), _MP4)


def _archived(head: bytes) -> FileType:
    """The type by the names of members, as far as their heads are included."""
    at = 0
    while 0 <= at <= len(head) - 30:
        name_length = int.from_bytes(head[at + 26 : at + 28], "little")
        begins = at + 30 + name_length + int.from_bytes(head[at + 28 : at + 30], "little")
        name = head[at + 30 : at + 30 + name_length]
        if name == b"mimetype" and (found := _MIMETYPES.get(_stored(head, at, begins))):
            return found
        for prefix, found in _MEMBERS:
            if name.startswith(prefix):
                return found
        at = head.find(_LOCAL, max(begins, at + 30))
    return _ZIP


def _stored(head: bytes, at: int, begins: int) -> bytes:
    """The content of a small member, which some writers compress against the rule."""
    size = min(int.from_bytes(head[at + 18 : at + 22], "little"), 200)
    data = head[begins : begins + size]
    if head[at + 8 : at + 10] == b"\x08\x00":
        try:
            data = zlib.decompressobj(-15).decompress(data, 200)
        except zlib.error:
            return b""
    return data.strip()


_CONTROL = bytes(set(range(32)) - {7, 8, 9, 10, 12, 13, 27})
_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def is_text(head: bytes) -> bool:
    """Whether it is text: UTF-8, UTF-16 with a mark, GB 18030, or a Western 8-bit code."""
    sample = head[:_TEXT_SAMPLE]
    if not sample:
        return False
    if sample.startswith(_BOMS):
        return _decodes(sample[: len(sample) // 2 * 2], "utf-16")
    if sample.translate(None, _CONTROL) != sample:
        return False
    return _decodes(sample, "utf-8") or _decodes(sample, "gb18030") or _is_latin(sample)


def _decodes(sample: bytes, encoding: str) -> bool:
    """Whether it is valid UTF-8; a character that is cut at the end of the sample is allowed."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _is_latin(sample: bytes) -> bool:
    """Whether it is mostly ASCII letters and blanks, like Western texts."""
    plain = sum(byte < 128 for byte in sample)
    return plain >= 0.7 * len(sample)
