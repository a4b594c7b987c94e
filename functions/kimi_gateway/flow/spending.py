"""The largest cost of a request, and the cost that the vendor billed.

A token has at least one byte, so the bytes of a text bound its tokens; the template adds a few to each
message and tool, and a still picture has at most the tokens that the model's row names. What neither bounds
(videos, files, kept answers) is bounded by the model's window: the vendor refuses more, and bills no refusal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from kimi_gateway.accounts import budgets
from kimi_gateway.accounts import usage as usages
from kimi_gateway.accounts.store import UNUSED
from kimi_gateway.accounts.values import Admission, Amount, Bound, Unit, Usage
from kimi_gateway.catalog import models
from kimi_gateway.catalog.models import Currency, Model, Price
from kimi_gateway.errors import BudgetExceeded, ContextLengthExceeded
from kimi_gateway.flow.attempts import UpstreamCall
from kimi_gateway.net import jsonio
from kimi_gateway.pivot import token_estimate
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.pivot.window import output_of
from kimi_gateway.providers.provider import Prepared

TEMPLATE = 32  # tokens at most that the vendor's template adds to a message or a tool, and to the whole
PER_MILLION = 1_000_000
BYTES_OF_TOKEN = 4  # of an answer, about


def input_bound(body: dict[str, Any], model: Model) -> int:
    """Tokens of input at most."""
    window = models.largest_window(model)
    messages, tools = body["messages"], body.get("tools") or ()
    media = [part for message in messages for part in _media(message.get("content"))]
    pictures = [url for part in media if (url := _still(part))]
    if media and (len(pictures) < len(media) or not model.picture):
        return window
    texts = len(jsonio.dumps(body)) - sum(map(len, pictures)) + model.picture * len(pictures)
    return min(window, texts + TEMPLATE * (len(messages) + len(tools) + 1))


def _media(content: object) -> list[dict[str, Any]]:
    return [part for part in content if part.get("type") != "text"] if type(content) is list else []


# The first bytes of PNG, JPEG and BMP in base64. GIF, WebP and HEIF may be animated, and then are videos.
_STILL = ("iVBORw0KGgo", "/9j/", "Qk")


def _still(part: dict[str, Any]) -> str:
    """The address of a picture that contains it and does not move; empty for other parts."""
    image = part.get("image_url") if part.get("type") == "image_url" else None
    url = image.get("url") if isinstance(image, dict) else image
    if type(url) is not str or not url.startswith("data:image/"):
        return ""
    start = url.find(";base64,", 0, 100)
    return url if start > 0 and url.startswith(_STILL, start + len(";base64,")) else ""


def bound_of(
    prepared: Prepared | None,
    model: Model,
    provider: str,
    size: int,
    choices: int,
    at: int,
    spare: bool,
    unpriced: bool,
) -> Bound:
    """Before admission, at `at` (unix seconds). `prepared` is None if the body is not known yet; `size` is in
    bytes. `spare` adds a call for the answer of a request that searches. `unpriced`: an unknown price counts
    as none."""
    window, price = models.largest_window(model), models.price_of(provider, model)
    if price is None and unpriced:
        price = Price(0, 0, 0)
    known = prepared is not None and prepared.missing is None
    body = prepared.body if prepared is not None else {"messages": []}
    output = min(output_of(body, model) or model.max_output, window)  # 0: the default is not known
    estimate = token_estimate.of_messages(body["messages"], body.get("tools")) if known else size // 4
    return Bound(
        at=at,
        input=input_bound(body, model) if known else window,
        output=output,
        least=min(budgets.LEAST_OUTPUT, output),
        estimate=(estimate + expected(output, model)) * choices,
        calls=choices + spare,
        spare=spare,
        input_price=None if price is None else _micro(_input_price(price, body, known)),
        output_price=None if price is None else _micro(price.output),
    )


def expected(asked: int, model: Model) -> int:
    """Tokens of output that an answer probably has, for the limit of tokens a minute."""
    return min(asked or model.max_output, 1_024)


def _micro(usd: float) -> int:
    """Micro-dollars for a million tokens."""
    return round(usd * PER_MILLION)


def _input_price(price: Price, body: dict[str, Any], known: bool) -> float:
    """The price of input that misses the cache. Such input may be written to the cache for an hour."""
    short = known and not _for_an_hour(body)
    return max(price.input, price.cached, 0.0 if short else price.written)


def _for_an_hour(body: dict[str, Any]) -> bool:
    """Whether input is written to the cache for longer than five minutes."""
    options = body.get("prompt_cache_options")
    return isinstance(options, dict) and options.get("ttl", "5m") != "5m"


def lower(body: dict[str, Any], model: Model, admission: Admission) -> bool:
    """Keep the first round's body within its reservation. Returns whether that lowers the output limit that
    it asks for. Raises BudgetExceeded if too little is left."""
    bound = admission.bound
    if bound is None:
        return False
    allowed, asked = _allowed(body, model, admission, bound), output_of(body, model)
    if allowed < bound.least:
        raise BudgetExceeded("The request needs more than its budget had reserved for it. Shorten the input.")
    body["max_completion_tokens"] = min(asked or allowed, allowed)
    return allowed < asked


def keep_within(body: dict[str, Any], model: Model, input: int, left: int, most: int) -> bool:
    """Lower the output limit to what `input` tokens leave of a key's tokens for one request. `most` is all of
    them, for the error. Returns whether that lowers what the body asks for. Raises ContextLengthExceeded."""
    asked, room = output_of(body, model), left - input
    if room < min(asked or budgets.LEAST_OUTPUT, budgets.LEAST_OUTPUT):
        needed = input + min(asked or budgets.LEAST_OUTPUT, budgets.LEAST_OUTPUT)
        error = ContextLengthExceeded(
            f"This API key may use {most} tokens of input and output in one request, and this one needs at"
            f" least {most - left + needed}. Shorten the input, or ask the operator for more.",
            param="messages",
        )
        error.tokens, error.maximum = most - left + needed, most
        raise error
    body["max_completion_tokens"] = min(asked or model.max_output, room)
    return room < (asked or model.max_output)


def limit_name(chat: ChatRequest) -> str:
    """The client's name of the output limit."""
    newer = "max_completion_tokens"
    return chat.names.get(newer, newer if newer in chat.body else "max_tokens")


def _allowed(body: dict[str, Any], model: Model, admission: Admission, bound: Bound) -> int:
    known = input_bound(body, model)
    if known <= bound.input:
        return admission.output
    amount, larger = budgets.largest(bound, admission.output), replace(bound, input=known)
    units: tuple[Unit, ...] = ("tokens",) if bound.input_price is None else ("usd", "tokens")
    return min(budgets.affordable(larger, unit, getattr(amount, unit)) for unit in units)


def of_one_call(admission: Admission) -> Amount:
    """The largest cost of a call of the first round."""
    bound = admission.bound
    return Amount() if bound is None else budgets.largest(replace(bound, calls=1), admission.output)


def billed(calls: Iterable[UpstreamCall], admission: Admission) -> Amount:
    """The billed cost: by usage, or the bound of a call that the vendor may have billed without usage."""
    total, bound = Amount(), admission.bound
    for call in calls:
        if bound is None:
            break
        usage, amount, lost = call.progress.usage if call.progress.complete else None, Amount(), call.lost
        if usage is not None:
            amount = _of_usage(call, usage)
        else:
            lost += call.maybe_billed
        usd, tokens = call.largest.usd * lost, call.largest.tokens * lost
        amounts = (total, amount, Amount(usd, tokens), *[_of_usage(call, each) for each in call.earlier])
        total = Amount(sum(each.usd for each in amounts), sum(each.tokens for each in amounts))
    return total


def in_minute(calls: Iterable[UpstreamCall], admission: Admission) -> int:
    """Tokens for the limits of a minute: by usage. A call that ended without it counts by its estimate and
    what came of its answer: the limit is a rate, and its bound would fill many minutes."""
    bound, total = admission.bound, 0
    if bound is None:
        return 0
    estimate = bound.estimate // max(bound.calls - bound.spare, 1)
    for call in calls:
        usage, lost = call.progress.usage if call.progress.complete else None, call.lost
        counted = call.earlier if usage is None else [*call.earlier, usage]
        total += sum([_of_usage(call, each).tokens for each in counted])
        if usage is None and call.maybe_billed:
            lost += 1
            total += call.progress.size // BYTES_OF_TOKEN
        total += min(estimate, call.largest.tokens) * lost
    return total


def _of_usage(call: UpstreamCall, usage: dict[str, Any]) -> Amount:
    price, told = models.price_of(call.upstream.provider.name, call.call.model), Told.by(usage)
    return Amount(0 if price is None else _price(call, usage, told, price), told.prompt + told.completion)


def _price(call: UpstreamCall, usage: dict[str, Any], told: Told, price: Price) -> int:
    """Micro-dollars, rounded up."""
    hit, kept = told.hit, _for_the_hour(call, usage, told)
    each = (price.input, price.written or price.input, price.cached, price.output)
    input, written, cached, output = [round(usd * PER_MILLION) for usd in each]
    micro = (told.prompt - hit - kept) * input + kept * written + hit * cached + told.completion * output
    return -(-micro // PER_MILLION)


def usage_of(calls: Iterable[tuple[UpstreamCall, dict[str, Any] | None]], tools: Sequence[str]) -> Usage:
    """The usage of a request, by the counts of its calls (None if a call has none). `tools` are those that
    the upstream bills."""
    fees = round(models.fee(tools) * PER_MILLION) if tools else 0
    total = Usage(fees=fees, cost=fees) if fees else None
    for call, usage in calls:
        for each in (*call.earlier, *(() if usage is None else (usage,))):
            one = _counted(call, each)
            total = one if total is None else usages.added(total, one)
    return UNUSED if total is None else usages.bounded(total)


def _for_the_hour(call: UpstreamCall, usage: dict[str, Any], told: Told) -> int:
    """Input tokens that were written to the vendor's cache for an hour. Where the vendor does not say how
    many, that may be all that missed the cache."""
    if not _for_an_hour(call.call.body):
        return 0
    details = usage.get("prompt_tokens_details")
    known = isinstance(details, dict) and "cache_write_tokens" in details
    return told.written if known else told.prompt - told.hit


def listed(calls: Iterable[tuple[UpstreamCall, dict[str, Any]]]) -> tuple[float, Currency] | None:
    """The cost of answers by the vendor's list, each of its own model; None if a price is not known, or if
    the currencies differ."""
    total, currency = 0.0, None
    for call, usage in calls:
        name, model, told = call.upstream.provider.name, call.call.model, Told.by(usage)
        kept = _for_the_hour(call, usage, told)
        one = models.cost(name, model, told.prompt, told.hit, told.completion, kept)
        if one is None or currency not in (None, one[1]):
            return None
        total, currency = total + one[0], one[1]
    return None if currency is None else (total, currency)


class Told(NamedTuple):
    """Tokens of one call as its upstream counted them. What was a cache `hit` or `written` to the cache is a
    part of the prompt, and `reasoning` of the completion, whatever the upstream said."""

    prompt: int
    completion: int
    hit: int
    written: int
    reasoning: int

    @classmethod
    def by(cls, usage: dict[str, Any]) -> Told:
        prompt, completion = count(usage, "prompt_tokens"), count(usage, "completion_tokens")
        hit = written = reasoning = 0
        if "cached_tokens" in usage or "prompt_tokens_details" in usage:
            hit = min(cached(usage), prompt)
            written = min(_detail(usage, "prompt_tokens_details", "cache_write_tokens"), prompt - hit)
        if "completion_tokens_details" in usage:
            reasoning = min(_detail(usage, "completion_tokens_details", "reasoning_tokens"), completion)
        return cls(prompt, completion, hit, written, reasoning)


def _counted(call: UpstreamCall, usage: dict[str, Any]) -> Usage:
    told = Told.by(usage)
    price = models.price_of(call.upstream.provider.name, call.call.model)
    if price is None:
        return Usage(*told)
    saved = max(0, told.hit * (_micro(price.input) - _micro(price.cached))) // PER_MILLION if told.hit else 0
    return Usage(*told, 0, _price(call, usage, told, price), saved)


def _detail(usage: dict[str, Any], member: str, name: str) -> int:
    details = usage.get(member)
    return count(details, name) if isinstance(details, dict) else 0


def count(usage: dict[str, Any], name: str) -> int:
    """A count; 0 for null and invalid values."""
    value = usage.get(name)
    return max(0, value) if isinstance(value, int) else 0


def cached(usage: dict[str, Any]) -> int:
    """Input tokens from the vendor's cache, from either of its two places."""
    return count(usage, "cached_tokens") or _detail(usage, "prompt_tokens_details", "cached_tokens")
