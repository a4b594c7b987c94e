"""A multipart form with one file, read while it comes. At most HELD bytes of the file are in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from kimi_gateway.accounts.files import LONGEST_NAME
from kimi_gateway.errors import BodyTooLarge, InvalidRequest
from kimi_gateway.pivot import signatures
from kimi_gateway.providers.files import MOST_BYTES

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartParser

UNKNOWN_TYPE = "application/octet-stream"
HELD = 64 * 1024  # bytes of a file that are read before its upload begins
LONGEST_FIELD = 1024  # bytes of a field's value
MOST_PARTS = 32
FIELDS = ("purpose", "expires_after[anchor]", "expires_after[seconds]", "expires_in_seconds")
TOO_LARGE = (
    f"File size is too large, max file size is {MOST_BYTES // 2**20}MB, please confirm and re-upload the file"
)
EMPTY = "File size is zero, please confirm and re-upload the file"


class Form:
    """The parser's side. `fields` are the known ones that came so far. `chunks` may be read once."""

    def __init__(self, content_type: str, pieces: AsyncGenerator[bytes, None]) -> None:
        """Raises InvalidRequest where the body is not a multipart form."""
        self.fields: dict[str, str] = {}
        self.filename = ""
        self.media_type = ""
        self.head = b""  # the first bytes of the file
        self.size = 0  # bytes of the file so far
        self.ended = False
        self._pieces = pieces
        self._parser, self._error = _parser(content_type, self)
        self._file: list[bytes] | None = None  # what came of the file and was not taken yet
        self._parts = 0
        self._sending = False
        self._header = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._value = bytearray()

    async def start(self) -> None:
        """Read until the form has ended or HELD bytes of its file are here. Raises InvalidRequest, and what
        the pieces raise."""
        held = 0
        while held < HELD and await self._read():
            held = sum(map(len, self._file or ()))
        if self._file is None:
            raise InvalidRequest("file: the form has no part with this name.", param="file")
        self.head = b"".join(self._file)[:HELD]
        if not self.head:
            raise InvalidRequest(EMPTY, param="file")

    @property
    def whole(self) -> int | None:
        """The file's size in bytes; None while that is not known."""
        return self.size if self.ended else None

    @property
    def type(self) -> str:
        """The media type: the client's word, else by the file's name, else by its content."""
        import mimetypes  # loads slowly, and few requests need it

        given = self.media_type if self.media_type != UNKNOWN_TYPE else ""
        return given or mimetypes.guess_type(self.filename)[0] or signatures.of(self.head).media_type

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The bytes of the file. Raises InvalidRequest if the form goes on or ends wrongly."""
        self._sending = True
        while True:
            taken, self._file = self._file or [], []
            for chunk in taken:
                yield chunk
            if not self._file and not await self._read():
                return

    async def _read(self) -> bool:
        """Whether there was another piece of the body. Raises InvalidRequest."""
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            if not self.ended:
                raise InvalidRequest("The form ends before its last boundary.") from None
            return False
        try:
            self._parser.write(piece)
        except self._error:
            raise InvalidRequest("The form is malformed; send it as multipart/form-data.") from None
        return True

    # Called by the parser

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise InvalidRequest(f"The form has more than {MOST_PARTS} parts.")
        self._headers.clear()
        self._header = b"", b""
        self._name = ""
        self._value.clear()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header = self._header[0] + data[start:end], self._header[1]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header = self._header[0], self._header[1] + data[start:end]

    def on_header_end(self) -> None:
        name, value = self._header
        self._headers[name.lower()] = value
        self._header = b"", b""

    def on_headers_finished(self) -> None:
        options = _options(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name != "file":
            self._name = name if name in FIELDS else ""
            if self._name and (self._name in self.fields or self._sending):
                why = "send it before the file" if self._sending else "it is given twice"
                raise InvalidRequest(f"{name}: {why}.", param=name)
            return
        if self._file is not None:
            raise InvalidRequest("file: a request carries one file only.", param="file")
        self._name, self._file = "file", []
        self.filename = named(options.get(b"filename", b""))
        self.media_type = media_type(self._headers.get(b"content-type", b""))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file" and self._file is not None:
            self.size += end - start
            if self.size > MOST_BYTES:
                raise BodyTooLarge(TOO_LARGE, param="file")
            self._file.append(data[start:end])
        elif self._name:
            self._value += data[start:end]
            if len(self._value) > LONGEST_FIELD:
                raise InvalidRequest(f"{self._name}: it is too long.", param=self._name)

    def on_part_end(self) -> None:
        if self._name and self._name != "file":
            self.fields[self._name] = self._value.decode("utf-8", "replace").strip()
        self._name = ""

    def on_end(self) -> None:
        self.ended = True


def _parser(content_type: str, form: Form) -> tuple[MultipartParser, type[Exception]]:
    from python_multipart.exceptions import FormParserError  # takes 35 ms, and few requests need it
    from python_multipart.multipart import MultipartParser, parse_options_header

    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequest(
            "The body must be a form with a part called file: send it with Content-Type:"
            " multipart/form-data; boundary=… (an SDK or curl -F does so by itself)."
        )
    callbacks: Any = {name: getattr(form, name) for name in dir(form) if name.startswith("on_")}
    try:
        return MultipartParser(boundary, callbacks), FormParserError
    except FormParserError:
        raise InvalidRequest("The boundary of the form is too long.") from None


def _options(header: bytes) -> dict[bytes, bytes]:
    from python_multipart.multipart import parse_options_header

    found: dict[bytes, bytes] = parse_options_header(header.decode("latin-1"))[1]
    return found


def named(raw: bytes) -> str:
    """The last component of a file's name, without control characters. Browsers escape quotes and line ends
    (WHATWG HTML, "Multipart form data", read 2026-11)."""
    text = raw.decode("utf-8", "replace").replace("%22", '"').replace("%0D", "").replace("%0A", "")
    text = text.replace("\\", "/").rpartition("/")[2]
    return "".join(ch for ch in text if ch.isprintable()).strip()[:LONGEST_NAME] or "unnamed"


def media_type(raw: bytes) -> str:
    """The type and subtype of a part's header; empty where it has none that is well-formed."""
    text = raw.decode("latin-1").partition(";")[0].strip().lower()
    kind, slash, subtype = text.partition("/")
    good = all(
        part and part.replace("-", "").replace("+", "").replace(".", "").isalnum() for part in (kind, subtype)
    )
    return text if slash and good and text.isascii() and len(text) <= 100 else ""
