"""Answers of vendors: tags that are cut anywhere, details in both ways, errors in three places."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest

from kimi_gateway.catalog.vendor import ErrorRule, Vendor
from kimi_gateway.catalog.vendors import MINIMAX, VENDORS
from kimi_gateway.providers import failures
from kimi_gateway.providers.compatible.answers import Details, Reader, Tags, error_of, refused
from kimi_gateway.providers.failures import UpstreamFailure

TAGGED = Vendor("lan", {"default": "http://lan.test/v1"}, reasoning="think-tags")


def split(pieces: list[str]) -> tuple[str, str]:
    tags = Tags()
    parts = [*map(tags.add, pieces), tags.end()]
    return "".join(each for each, _ in parts), "".join(each for _, each in parts)


WHOLE = {
    "<think>a < b</think>\n\nyes": ("a < b", "yes"),
    "\n<think>\nhm\n</think>yes </think> <think>": ("\nhm\n", "yes </think> <think>"),
    "<think></think>": ("", ""),
    "<think>never closed </thin": ("never closed </thin", ""),
    "plain <think>no</think>": ("", "plain <think>no</think>"),
    "<thinking> is a word": ("", "<thinking> is a word"),
    "<th": ("", "<th"),
    "<think>x</</think>y": ("x</", "y"),
    "": ("", ""),
}


@pytest.mark.parametrize("text", WHOLE)
def test_tags_may_be_cut_at_any_two_places(text: str) -> None:
    for one, two in itertools.combinations_with_replacement(range(len(text) + 1), 2):
        assert split([text[:one], text[one:two], text[two:]]) == WHOLE[text]
    assert split(list(text)) == WHOLE[text]


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> tuple[bytes, bytes]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return json.dumps({"choices": [choice]}).encode(), b""


def deltas(vendor: Vendor, events: list[tuple[bytes, bytes]]) -> list[dict[str, Any]]:
    read = [data for event in events for data, _ in Reader(vendor).pivot([event])]
    return [json.loads(data)["choices"][0]["delta"] for data in read if data != b"[DONE]"]


def test_choices_have_tags_of_their_own() -> None:
    reader = Reader(TAGGED)
    events = [chunk({"content": "<think>a"}, index=0), chunk({"content": "b"}, index=1)]
    events += [chunk({"content": "</think>c"}, index=0), chunk({}, "stop", index=1)]
    read = [json.loads(data)["choices"][0] for data, _ in reader.pivot(events)]
    assert [(each["index"], each["delta"].get("content")) for each in read] == [
        (0, ""),
        (1, "b"),
        (0, "c"),
        (1, None),
    ]
    assert read[0]["delta"]["reasoning_content"] == "a"


def test_what_is_held_back_comes_before_the_end() -> None:
    reader = Reader(TAGGED)
    first = reader.pivot([chunk({"content": "<thi"})])
    last = reader.pivot([(b"[DONE]", b"")])
    texts = [json.loads(data)["choices"][0]["delta"]["content"] for data, _ in (*first, *last[:-1])]
    assert ("".join(texts), last[-1]) == ("<thi", (b"[DONE]", b""))
    assert deltas(TAGGED, [chunk({"content": "a"}, "stop")]) == [{"content": "a"}]


@pytest.mark.parametrize(
    "texts", [["The user", " greets", " me."], ["The user", "The user greets", "The user greets me."]]
)
def test_details_are_read_as_parts_and_as_everything_so_far(texts: list[str]) -> None:
    details = Details()
    assert "".join(details.add([{"text": text}]) for text in texts) == "The user greets me."


@pytest.mark.parametrize("details", [None, [], [1], [{"text": 5}], [{}], {}])
def test_odd_details_are_nothing(details: Any) -> None:
    assert Details().add(details) == ""
    assert deltas(MINIMAX, [chunk({"reasoning_details": details, "content": "a"})]) == [{"content": "a"}]


ERRORS: list[tuple[Any, str | None]] = [
    ({"error": {"message": "a", "code": "1"}}, "a"),
    ({"error": "words"}, "words"),
    ({"base_resp": {"status_code": 1008, "status_msg": "b"}, "choices": []}, "b"),
    ({"code": 10007, "message": "c"}, "c"),
    ({"code": 10007, "message": "d", "choices": []}, "d"),
    ({"base_resp": {"status_code": 0, "status_msg": ""}, "choices": []}, None),
    ({"code": 0, "message": "Success", "choices": []}, None),
    ({"choices": []}, None),
    ([], None),
    ({"error": None, "choices": []}, None),
]


@pytest.mark.parametrize(("body", "message"), ERRORS)
def test_an_error_is_found_in_its_three_places(body: Any, message: str | None) -> None:
    error = error_of(body)
    assert (None if error is None else error["message"]) == message


def test_words_of_a_model_are_no_error() -> None:
    text = 'a line {"error": {"code": 1}} of the answer'
    assert deltas(MINIMAX, [chunk({"content": text})]) == [{"content": text}]


def test_the_first_rule_that_matches_counts() -> None:
    rules = (ErrorRule("quota", 429, "x", "money"), ErrorRule("rate", 429))
    vendor = replace(TAGGED, errors=rules)

    def cause(status: int, **error: str) -> str:
        return refused(vendor, status, {"retry-after": "7"}, json.dumps({"error": error}).encode()).cause

    assert cause(429, code="x", message="No Money left") == "quota"
    assert cause(429, type="x", message="no money") == "quota"
    assert (cause(429, code="x", message="slow"), cause(429)) == ("rate", "rate")
    assert (cause(400, message="slow"), cause(503)) == ("invalid", "server")
    assert refused(vendor, 429, {"retry-after": "7"}, b"<html>").retry_after == 7
    with pytest.raises(UpstreamFailure) as caught:
        Reader(vendor).pivot([(b'{"error": {"message": "odd"}}', b"")])
    assert caught.value.cause == "server"


@pytest.mark.parametrize("vendor", VENDORS.values(), ids=VENDORS)
def test_causes_of_the_rows_are_the_pools(vendor: Vendor) -> None:
    known = failures.OTHER_TOKEN | failures.AGAIN | failures.CLIENTS_FAULT
    assert {rule.cause for rule in vendor.errors} <= known
    assert vendor.checked
    assert vendor.docs
