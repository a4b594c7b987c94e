"""Files in both shapes, and batches."""

from __future__ import annotations

from kimi_gateway.edge.home.schemas.notation import (
    FLAG,
    MOMENT,
    OBJECT,
    SECONDS,
    TEXT,
    WHOLE,
    Schema,
    array,
    either,
    mapping,
    maybe,
    one,
    page,
    record,
    ref,
)

_ENDS: dict[str, Schema] = {"first_id": maybe(TEXT), "last_id": maybe(TEXT)}
_TIMES = (
    "in_progress_at", "expires_at", "finalizing_at", "completed_at", "failed_at", "expired_at",
    "cancelling_at", "cancelled_at",
)  # fmt: skip
_STATUS = (
    "validating",
    "in_progress",
    "finalizing",
    "completed",
    "failed",
    "expired",
    "cancelling",
    "cancelled",
)
_FAULT = record({"message": TEXT}, code=maybe(TEXT), param=maybe(TEXT), line=maybe(WHOLE))
_USAGE = record(
    {
        "input_tokens": WHOLE,
        "input_tokens_details": record({"cached_tokens": WHOLE}),
        "output_tokens": WHOLE,
        "output_tokens_details": record({"reasoning_tokens": WHOLE}),
        "total_tokens": WHOLE,
    }
)

SCHEMAS: dict[str, Schema] = {
    "FileForm": record(
        {"file": {"type": "string", "format": "binary"}},
        purpose=TEXT,
        **{"expires_after[anchor]": one("created_at"), "expires_after[seconds]": WHOLE},
        expires_in_seconds=WHOLE,
    ),
    "FileCompletion": record({"upload": TEXT}, purpose=TEXT, filename=TEXT, expires_after=OBJECT),
    "UploadRequest": record({"bytes": WHOLE}),
    "Upload": record(
        {
            "id": TEXT,
            "object": one("file.upload"),
            "method": one("PUT"),
            "url": TEXT,
            "bytes": WHOLE,
            "url_expires_at": SECONDS,
            "expires_at": SECONDS,
        }
    ),
    "File": either(ref("OpenAiFile"), ref("AnthropicFile")),
    "OpenAiFile": record(
        {
            "id": TEXT,
            "object": one("file"),
            "bytes": WHOLE,
            "created_at": SECONDS,
            "filename": TEXT,
            "purpose": TEXT,
            "status": one("uploaded", "processed", "error", "deleted"),
            "status_details": maybe(TEXT),
            "expires_at": maybe(SECONDS),
        }
    ),
    "AnthropicFile": record(
        {
            "id": TEXT,
            "type": one("file"),
            "filename": TEXT,
            "mime_type": TEXT,
            "size_bytes": WHOLE,
            "created_at": MOMENT,
            "downloadable": FLAG,
            "expires_at": maybe(MOMENT),
        }
    ),
    "FilePage": either(
        page(ref("OpenAiFile"), **_ENDS),
        record({"data": array(ref("AnthropicFile")), "has_more": FLAG, "next_page": maybe(TEXT), **_ENDS}),
    ),
    "FileDeleted": either(
        record({"id": TEXT, "object": one("file"), "deleted": FLAG}),
        record({"id": TEXT, "type": one("file_deleted")}),
    ),
    "FileText": record({"content": TEXT}, file_type=TEXT, filename=TEXT, title=TEXT, type=TEXT),
    "BatchRequest": record(
        {"input_file_id": TEXT, "endpoint": one("/v1/chat/completions"), "completion_window": TEXT},
        metadata=maybe(mapping(TEXT)),
    ),
    "Batch": record(
        {
            "id": TEXT,
            "object": one("batch"),
            "endpoint": TEXT,
            "errors": maybe(record({"object": one("list"), "data": array(_FAULT)})),
            "input_file_id": TEXT,
            "completion_window": TEXT,
            "status": one(*_STATUS),
            "output_file_id": maybe(TEXT),
            "error_file_id": maybe(TEXT),
            "created_at": SECONDS,
            **dict.fromkeys(_TIMES, maybe(SECONDS)),
            "request_counts": record({"total": WHOLE, "completed": WHOLE, "failed": WHOLE}),
            "metadata": maybe(mapping(TEXT)),
        },
        model=TEXT,
        usage=_USAGE,
    ),
    "BatchPage": page(ref("Batch"), **_ENDS),
}
