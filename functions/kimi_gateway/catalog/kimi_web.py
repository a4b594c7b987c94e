"""The row of the web service of kimi.com, which exists only where KIMI_GATEWAY_KIMI_WEB is on.

Nothing about this service is official; the facts are from third-party clients (docs/kimi-web.md) and may be
wrong tomorrow. So scenarios and models are data, and a row of the operator's can replace them.
"""

from __future__ import annotations

from kimi_gateway.catalog.vendor import Vendor, VendorModel

_WINDOW = 128_000  # tokens; a guess on the safe side, because no source names one
_CLIENTS = "third-party clients, 2026-09 to 2026-10"
# Fields of the platform and of OpenAI without a counterpart there.
_DROPPED = frozenset(
    (
        "temperature", "top_p", "presence_penalty", "frequency_penalty", "max_tokens",
        "max_completion_tokens", "stop", "tools", "tool_choice", "parallel_tool_calls", "logprobs",
        "top_logprobs", "seed", "logit_bias", "metadata", "prompt_cache_options", "prompt_cache_key",
        "safety_identifier",
    )
)  # fmt: skip


def _model(id: str, name: str, thinks: bool, efforts: tuple[str, ...] = ()) -> VendorModel:
    """`fields` are members of the request: the scenario, and its options."""
    options = {"model": name, "thinking": thinks}
    fields = {"scenario": "SCENARIO_CHAT", "options": options}
    return VendorModel(id, _WINDOW, source=_CLIENTS, tools=False, efforts=efforts, fields=fields)


ROW = Vendor(
    id="kimi-web",
    bases={"com": "https://www.kimi.com"},
    docs="docs/kimi-web.md",
    checked="2026-11-28",
    models="",
    wire="kimi-web",
    places=2,
    thinking="switch",
    schema=None,
    choices=frozenset(),
    drop=_DROPPED,
    known=(
        _model("kimi", "k2d6-chat", False),
        _model("k2.6", "k2d6-chat", False),
        _model("k3", "k3", True, ("low", "medium", "high", "max")),
    ),
)
