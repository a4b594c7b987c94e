"""A vendor whose API is OpenAI's Chat Completions, as data: addresses, models, rules and errors.

The built-in rows are in `vendors.py`; the operator adds others in KIMI_GATEWAY_MODELS (docs/vendors.md).
Loaded only when a vendor is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field, replace
from datetime import date
from typing import Any, ClassVar, Literal

from kimi_gateway.catalog.models import ANY, Choice, Model, Price, Replay, neutral
from kimi_gateway.dataclass import dataclass

# The answer's field with reasoning. "think-tags": at the start of the content, between <think> and </think>.
Reasoning = Literal["reasoning_content", "reasoning", "reasoning_details", "think-tags"]
# How thinking is asked for. "switch": `thinking.type` enabled or disabled; "adaptive": adaptive or disabled;
# "enable": `enable_thinking` and `thinking_budget`; "effort": `reasoning_effort`; "always": it cannot be
# changed; "free": the client's fields pass on; "never": they are dropped.
Thinking = Literal["switch", "adaptive", "enable", "effort", "always", "free", "never"]
Limit = Literal["max_completion_tokens", "max_tokens"]
Schema = Literal["json_schema", "json_object"]
Media = Literal["image", "video"]
# "openai": Chat Completions; "kimi-web": the web service of kimi.com (docs/kimi-web.md).
Wire = Literal["openai", "kimi-web"]
# The causes of providers/failures.py that a vendor can report.
Cause = Literal[
    "authentication", "quota", "permission", "model", "rate", "overload", "server", "invalid",
    "content_filter", "context",
]  # fmt: skip

NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
NAMED = re.compile(r"([a-z][a-z0-9-]{0,15})=[^=].*")  # a token behind the name of its address
AGENT = re.compile(r"[0-9a-z]{20}")  # the id of an agent of kimi.com
OLD = 180  # days after which a row should be checked again
# The platform's own fields, and OpenAI's that no other vendor documents.
PLATFORM_FIELDS = frozenset(("prompt_cache_options", "prompt_cache_key", "safety_identifier"))


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """An error has this `cause` if all given marks match. `code` is the error's code or type, `text` a
    regular expression for its message."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    cause: Cause
    status: int | None = None
    code: str = ""
    text: str = ""

    def matches(self, status: int | None, codes: tuple[str, ...], message: str) -> bool:
        return (
            (self.status is None or self.status == status)
            and (not self.code or self.code in codes)
            and (not self.text or re.search(self.text, message, re.IGNORECASE) is not None)
        )


@dataclass(frozen=True, slots=True)
class VendorModel:
    """A known model of a vendor. What is None is as in the vendor's row. `window` and `output` are tokens, 0
    if not known. `base` names the only address that serves it. `fields` are always sent."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    id: str
    window: int = 0
    output: int = 0
    source: str = ""
    price: Price | None = None
    base: str = ""
    media: frozenset[Media] | None = None
    thinking: Thinking | None = None
    efforts: tuple[str, ...] | None = None
    tools: bool = True
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Vendor:
    """One row.

    - `bases`: addresses by name; a token may name its own (`name=token`), else it is of the first.
    - `docs`, `checked`: where the facts were read, and when (YYYY-MM-DD).
    - `models`: the path of the model list; empty if there is none, then `known` is all.
    - `tokens`: "one" serves each model, "per-base" only those of its address, "none" is needed.
    - `replay`: earlier reasoning is not sent, helps, or is required after tool calls.
    - `efforts`: the known words of `reasoning_effort`, from low to high.
    - `limit`: the name of the output limit. `schema`: the strongest known `response_format`.
    - `choices`: the known values of `tool_choice`. `extra`: fields that are always sent.
    - `drop`: fields that are not sent. `media`: what messages may contain besides text.
    - `errors`: the first rule that matches gives the cause; others have the usual meaning of their status.
    - `wire`: how it is spoken to. `places`: requests that a token serves at a time; 0 means no bound.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    id: str
    bases: Mapping[str, str]
    docs: str = ""
    checked: str = ""
    models: str = "/models"
    tokens: Literal["one", "per-base", "none"] = "one"
    reasoning: Reasoning = "reasoning_content"
    replay: Replay = "none"
    thinking: Thinking = "free"
    efforts: tuple[str, ...] = ()
    limit: Limit = "max_tokens"
    schema: Schema | None = "json_schema"
    choices: frozenset[Choice] = ANY
    extra: Mapping[str, Any] = field(default_factory=dict)
    drop: frozenset[str] = PLATFORM_FIELDS
    media: frozenset[Media] = frozenset(("image",))
    errors: tuple[ErrorRule, ...] = ()
    known: tuple[VendorModel, ...] = ()
    wire: Wire = "openai"
    places: int = 0

    def model(self, id: str) -> VendorModel | None:
        """The known model; of the web service also an agent, which is as its first model."""
        found = next((model for model in self.known if model.id == id), None)
        if found is None and self.wire == "kimi-web" and self.known and AGENT.fullmatch(id):
            first = self.known[0]
            return replace(first, id=id, fields={**first.fields, "kimi_plus_id": id})
        return found

    def base_of(self, id: str) -> str:
        """The name of the only address that serves a model; empty if each does."""
        model = self.model(id)
        if model is not None and model.base:
            return model.base
        return next(iter(self.bases)) if self.tokens == "per-base" else ""

    def misnames(self, token: str) -> bool:
        """Whether a token names an address that the vendor lacks, or is only the name of one. It would be
        sent whole to the first address."""
        if len(self.bases) == 1:
            return False
        named = NAMED.fullmatch(token)
        return token.rstrip("=") in self.bases if named is None else named[1] not in self.bases

    def row(self, id: str) -> Model | None:
        """The catalog's row for a model; None if the vendor is known not to have it."""
        model = self.model(id)
        if model is None and not self.models:
            return None
        model = model or VendorModel(id)
        base = neutral(id)
        thinking = model.thinking or self.thinking
        media = self.media if model.media is None else model.media
        window = model.window or base.window
        output = model.output or window
        return Model(
            f"{self.id}/{id}", id, window, output, window, fixed=frozenset(),
            thinking="free" if thinking == "never" else "effort", thinks=thinking != "never",
            replay=self.replay, choices=self.choices, choices_thinking=self.choices, mfjs=False,
            media=bool(media), created=0,
            owned_by=self.id, provider=self.id, price=model.price, tools=model.tools,
        )  # fmt: skip

    def age(self, today: date) -> int:
        """Days since the row was checked; 0 for an operator's row without a date."""
        return (today - date.fromisoformat(self.checked)).days if self.checked else 0
