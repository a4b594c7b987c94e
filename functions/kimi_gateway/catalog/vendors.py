"""The built-in vendors. Facts with marks: official pages and clients' tables, read on the day in `checked`;
nothing was tried against a live service. docs/vendors.md shows the table; a test compares it with these rows.
"""

from __future__ import annotations

from collections.abc import Mapping

from kimi_gateway.catalog.models import LEFT_TO_IT, Price
from kimi_gateway.catalog.vendor import PLATFORM_FIELDS, ErrorRule, Media, Vendor, VendorModel

_TEXT: frozenset[Media] = frozenset()
_IMAGE: frozenset[Media] = frozenset(("image",))
_ALL: frozenset[Media] = frozenset(("image", "video"))
_MILLION = 1_000_000
# Prices and sizes: a client library's list of 2026-11, which names the vendors' own price pages. Of prices
# that grow with the input, or differ between two addresses, the higher one is here: budgets rely on it.
_LIST = "litellm 1.110.2, 2026-11"

# What the official Emohaa page requires beside the messages (page index of docs.bigmodel.cn, 2026). A
# client's own `meta` replaces these members one by one.
_CHARACTER = {
    "bot_name": "Emohaa",
    "bot_info": "Emohaa is a warm companion who listens, asks back, and gives emotional support.",
    "user_name": "User",
    "user_info": "A user who wants to talk.",
}

STEPFUN = Vendor(
    "stepfun",
    {"ai": "https://api.stepfun.ai/v1", "com": "https://api.stepfun.com/v1"},
    docs="https://platform.stepfun.ai/docs",
    checked="2026-09-29",
    thinking="effort",
    efforts=("low", "medium", "high"),
    extra={"reasoning_format": "deepseek-style"},  # else the field is `reasoning`
    replay="wanted",
    media=_IMAGE,
    errors=(
        ErrorRule("quota", 402),
        ErrorRule("content_filter", 451),
        ErrorRule("overload", 503),
    ),
    known=(
        VendorModel("step-5-preview", _MILLION, source="provider catalog, 2026-09-29"),
        VendorModel("step-3.7-flash", source="provider catalog, 2026-09-29"),
    ),
)

QWEN = Vendor(
    "qwen",
    {
        "intl": "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "cn": "https://dashscope.aliyuncs.com/compatible-mode/v1",
        "us": "https://dashscope-us.aliyuncs.com/compatible-mode/v1",
    },
    docs="https://www.alibabacloud.com/help/en/model-studio",
    checked="2026-11-01",
    thinking="enable",
    choices=LEFT_TO_IT,  # a forced choice is refused by the coder models
    media=_ALL,
    errors=(
        ErrorRule("quota", code="Arrearage"),
        ErrorRule("rate", code="Throttling"),
        ErrorRule("rate", text=r"^Throttling"),
        ErrorRule("content_filter", code="data_inspection_failed"),
    ),
    known=(
        VendorModel("qwen3.8-max", _MILLION, 131_072, _LIST, Price(2.00, 0.25, 6.00, _LIST)),
        VendorModel("qwen3.7-plus", _MILLION, 65_536, _LIST, Price(1.20, 0.24, 4.80, _LIST)),
    ),
)

GLM = Vendor(
    "glm",
    {"bigmodel": "https://open.bigmodel.cn/api/paas/v4", "zai": "https://api.z.ai/api/paas/v4"},
    docs="https://docs.bigmodel.cn and https://docs.z.ai",
    checked="2026-09-29",
    thinking="switch",
    replay="wanted",
    schema="json_object",  # z.ai knows no json_schema
    choices=LEFT_TO_IT,
    media=_TEXT,
    errors=(
        ErrorRule("quota", code="1113"),  # with status 429
        *(ErrorRule("authentication", code=code) for code in ("1000", "1001", "1003", "1005")),
        ErrorRule("model", code="1211"),  # with status 400
        ErrorRule("context", code="1261"),
        ErrorRule("content_filter", code="1301"),
        ErrorRule("rate", code="1302"),
        ErrorRule("overload", code="1305"),
    ),
    known=(
        VendorModel(
            "glm-5.3", _MILLION, 128_000, _LIST, Price(1.40, 0.286, 4.40, _LIST), thinking="effort",
            efforts=("low", "high", "max"),
        ),
        VendorModel(
            "glm-5.3-flash", _MILLION, 128_000, _LIST, Price(0.15, 0.033, 0.50, _LIST), media=_ALL,
            thinking="effort", efforts=("low", "high", "max"),
        ),
        VendorModel("glm-4.7-flash", 200_000, 128_000, _LIST, Price(0, 0, 0, _LIST)),
        VendorModel(
            "emohaa", source="page index of docs.bigmodel.cn, 2026; in no price list", base="bigmodel",
            thinking="never", tools=False, fields={"meta": _CHARACTER},
        ),
    ),
)  # fmt: skip

MINIMAX = Vendor(
    "minimax",
    {"io": "https://api.minimax.io/v1", "com": "https://api.minimaxi.com/v1"},
    docs="https://platform.minimax.io/docs",
    checked="2026-09-29",
    reasoning="reasoning_details",
    extra={"reasoning_split": True},  # else reasoning is between tags in the content
    replay="wanted",  # the whole message of the assistant is to be sent again
    thinking="always",
    limit="max_completion_tokens",
    choices=frozenset(),  # its schema has no tool_choice
    schema=None,
    media=_IMAGE,
    errors=(
        ErrorRule("authentication", code="authorized_error"),
        ErrorRule("rate", code="1002"),
        ErrorRule("rate", text=r"\b1002\b"),
        ErrorRule("quota", code="1008"),
        ErrorRule("quota", text=r"\b1008\b"),
    ),
    known=(
        VendorModel(
            "MiniMax-M3", _MILLION, 128_000, _LIST, Price(0.60, 0.12, 2.40, _LIST), thinking="adaptive"
        ),
    ),
)

SPARK = Vendor(
    "spark",
    {
        "v1": "https://spark-api-open.xf-yun.com/v1",
        "v2": "https://spark-api-open.xf-yun.com/v2",
        "x2": "https://spark-api-open.xf-yun.com/x2",
    },
    docs="https://www.xfyun.cn/doc/spark",
    checked="2025-10-25",
    models="",
    tokens="per-base",  # a password for each family of models
    thinking="always",
    schema=None,
    choices=LEFT_TO_IT,
    media=_TEXT,
    errors=(ErrorRule("permission", text="AppIdNoAuth"),),  # before the free pack is claimed
    known=(
        VendorModel("4.0Ultra", source="xfyun.cn, 2025-10-25", thinking="never"),
        VendorModel("generalv3.5", source="xfyun.cn, 2025-10-25", thinking="never"),
        VendorModel("x1", source="xfyun.cn, 2025-10-25", base="v2", tools=False),
        VendorModel("spark-x", source="several clients, since 2026-02", base="x2", tools=False),
    ),
)

METASO = Vendor(
    "metaso",
    {"cn": "https://metaso.cn/api/v1"},
    docs="https://metaso.cn/search-api (third-party descriptions only)",
    checked="2026-11-28",
    models="",
    thinking="never",
    schema=None,
    choices=frozenset(),
    media=_TEXT,
    drop=PLATFORM_FIELDS | {"logprobs", "top_logprobs"},
    known=(
        VendorModel("fast", source="third party, 2026-11-28", tools=False),
        VendorModel("pro", source="third party, 2026-11-28", tools=False),
    ),
)

VENDORS: Mapping[str, Vendor] = {vendor.id: vendor for vendor in (STEPFUN, QWEN, GLM, MINIMAX, SPARK, METASO)}
