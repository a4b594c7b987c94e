"""The platform's files: what it takes, how it renames and reads them, and its own refusals.
Facts: docs/upstream.md.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Protocol

from upstream import kimi
from upstream.steps import Status

PATH = "/v1/files"
PURPOSES = ("file-extract", "image", "video", "batch")
MOST_FILES = 1_000
MOST_BYTES = 100 * 2**20

Json = dict[str, Any]


class Asked(Protocol):
    """What of a request decides the answer."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    raw: bytes

    @property
    def token(self) -> str | None: ...


@dataclass
class File:
    id: str
    token: str | None
    filename: str
    sent_as: str
    purpose: str
    data: bytes = field(repr=False)

    def told(self) -> Json:
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.data),
            "created_at": kimi.CREATED,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "ok",
            "status_details": "",
        }


@dataclass
class FileStore:
    """Files by account, that is by token. `beta`: it speaks as the platform's beta does. `refused` answers
    the next requests of a method, while there are any; None lets one pass."""

    files: dict[str, File] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=partial(count, 1))
    given: list[str] = field(default_factory=list)  # the ids of all uploads
    uploads: int = 0
    deletions: int = 0
    beta: bool = False
    most: int = MOST_FILES
    refused: dict[str, list[Status | None]] = field(default_factory=dict)
    lost: int = 0  # uploads that are kept, and answered as by an edge that lost the answer

    def answer(self, request: Asked) -> Status:
        if self.refused.get(request.method):
            refused = self.refused[request.method].pop(0)
            if refused is not None:
                return refused
        if request.method == "POST" and request.path == PATH:
            return self._upload(request)
        if request.method == "GET" and request.path == PATH:
            mine = [file.told() for file in self.files.values() if file.token == request.token]
            return Status(200, {"object": "list", "data": mine})
        id, _, rest = request.path.removeprefix(PATH + "/").partition("/")
        file = self.files.get(id)
        if file is None or file.token != request.token:
            return Status(404, kimi.error("resource_not_found_error", f"file {id} not found"))
        if request.method == "DELETE":
            del self.files[id]
            self.deletions += 1
            return Status(200, {"id": id, "object": "file", "deleted": True})
        return self._content(file) if rest == "content" else Status(200, file.told())

    def _upload(self, request: Asked) -> Status:
        parts = multipart(request.headers.get("content-type", ""), request.raw)
        filename, data = parts.get("file", (None, None))
        purpose = parts.get("purpose", (None, b""))[1].decode()
        if data is None:
            return _invalid("file is required")
        if purpose not in PURPOSES:
            return _invalid(f"Invalid purpose: {purpose}, only {'|'.join(PURPOSES)} accepted")
        if not data:
            return _invalid("File size is zero, please confirm and re-upload the file")
        if len(data) > MOST_BYTES:
            told = "File size is too large, max file size is 100MB, please confirm and re-upload the file"
            return _invalid(told)
        mine = [file for file in self.files.values() if file.token == request.token]
        if len(mine) >= self.most:
            return _invalid(
                f"The number of files you have uploaded exceeded the max file count {self.most},"
                " please delete previous uploaded files"
            )
        self.uploads += 1
        name = str(filename)
        if any(file.filename == name for file in mine):  # the platform renames it
            name = f"{self.uploads}_{name}"
        file = File(f"file_{next(self.ids):08x}", request.token, name, str(filename), purpose, data)
        self.files[file.id] = file
        self.given.append(file.id)
        if self.lost:
            self.lost -= 1
            return Status(502, "<html>Bad Gateway</html>")
        if not self.beta:
            return Status(200, file.told())
        told = {"id": file.id, "filename": name, "mime_type": "", "size_bytes": len(data)}
        return Status(201, {**told, "extract_status": "ready"})

    def _content(self, file: File) -> Status:
        if file.purpose == "batch_output":
            return Status(200, file.data.decode())
        if file.purpose != "file-extract":
            return _invalid("the content of this file cannot be read")
        told = {
            "content": text_of(file.data),
            "file_type": "application/octet-stream",
            "filename": file.filename,
            "title": "",
            "type": "file",
        }
        return Status(200, json.dumps(told, ensure_ascii=False))


def _invalid(message: str) -> Status:
    return Status(400, kimi.error("invalid_request_error", message))


def multipart(kind: str, raw: bytes) -> dict[str, tuple[str | None, bytes]]:
    """Parts by name, each with its file name; nothing where the body is not what its head says."""
    found = re.fullmatch(r"multipart/form-data; boundary=([\w'()+,./:=?-]{1,70})", kind)
    if found is None:
        return {}
    mark = b"--" + found[1].encode()
    first, *pieces = raw.split(mark)
    if first or len(pieces) < 2 or pieces[-1] not in (b"--", b"--\r\n"):
        return {}
    parts = {}
    for piece in pieces[:-1]:
        head, _, data = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"\r\n]*)"', head)
        filename = re.search(rb'filename="([^"\r\n]*)"', head)
        if name is not None and data.endswith(b"\r\n"):
            named = filename[1].decode() if filename else None
            parts[name[1].decode()] = (named, data.removesuffix(b"\r\n"))
    return parts


def text_of(data: bytes) -> str:
    """As far as the tests' documents go: what a PDF shows, the words of office files, and plain text. Of a
    picture there is none: the platform no longer reads those."""
    if data.startswith(b"%PDF"):
        return "\n".join(each.decode("latin-1") for each in re.findall(rb"\(((?:[^()\\]|\\.)*)\) Tj", data))
    if data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [
                n for n in archive.namelist() if re.search(r"word/document|sheet\d|sharedStrings|slide\d", n)
            ]
            return " ".join(re.sub(r"<[^>]+>", " ", archive.read(n).decode()).strip() for n in names)
    if data.startswith((b"\x89PNG", b"\xff\xd8", b"GIF8", b"RIFF")):
        return ""
    return data.decode("utf-8", "replace")
