"""Stop strings found across any splits, and never shown, not even in part."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.pivot.chunks import Chunk
from kimi_gateway.pivot.stop import StopFilter, StopFinder

FEW = st.text("ab ", max_size=24)  # few letters: stop strings are likely, halves of them more so
STOPS = st.lists(st.text("ab ", min_size=1, max_size=5), min_size=1, max_size=4).map(tuple)


def truth(text: str, stops: tuple[str, ...]) -> int | None:
    """Where the text ends for the client: at the start of the stop string that is complete first."""
    hits = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return min(hits)[1] if hits else None


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted(min(cut, len(text)) for cut in cuts)
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@given(text=FEW, stops=STOPS, cuts=st.lists(st.integers(0, 24), max_size=8))
def test_any_split_shows_what_stands_before_the_first_stop(
    text: str, stops: tuple[str, ...], cuts: list[int]
) -> None:
    finder, shown = StopFinder(stops), ""
    for piece in pieces(text, cuts):
        shown += finder.feed(piece)
        assert text[: truth(text, stops)].startswith(shown)
    place = truth(text, stops)
    assert finder.found == (place is not None)
    assert shown + finder.rest() == text[:place]


@given(text=FEW, stop=st.text("ab ", min_size=1, max_size=5))
def test_letter_by_letter_one_stop_is_where_find_says(text: str, stop: str) -> None:
    finder = StopFinder((stop,))
    shown = "".join(map(finder.feed, text)) + finder.rest()
    assert shown == text.partition(stop)[0]
    assert stop not in shown


@given(text=FEW, stops=STOPS)
def test_after_a_hit_nothing_more_is_shown(text: str, stops: tuple[str, ...]) -> None:
    finder = StopFinder(stops)
    finder.feed(stops[0])
    assert finder.found
    assert finder.feed(text) + finder.rest() == ""


def chunk(text: str, finish: str | None = None, index: int = 0, **more: Any) -> Chunk:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": finish, **more}
    return Chunk({"id": "x", "choices": [choice]}, bool(text or finish), bool(finish))


def seen(result: Chunk | None) -> tuple[str, str | None] | None:
    if result is None:
        return None
    (choice,) = result.body["choices"]
    return choice["delta"].get("content"), choice.get("finish_reason")


def test_a_hit_ends_its_choice_with_the_reason_stop() -> None:
    stops = StopFilter(("END",))
    assert seen(stops.apply(chunk("before E"))) == ("before ", None)
    hit = stops.apply(chunk("ND after"))
    assert hit is not None
    assert (seen(hit), hit.finishes, hit.substance) == (("", "stop"), True, True)
    assert stops.apply(chunk("more")) is None
    assert stops.apply(chunk("", "length")) is None
    assert stops.found_all


def test_each_choice_has_its_own_end() -> None:
    stops = StopFilter(("END",))
    stops.apply(chunk("a END", index=0))
    assert seen(stops.apply(chunk("b", index=1))) == ("b", None)
    assert not stops.found_all


def test_what_is_held_back_comes_with_the_finish_reason() -> None:
    stops = StopFilter(("END",))
    assert seen(stops.apply(chunk("an EN"))) == ("an ", None)
    assert seen(stops.apply(chunk("", "stop"))) == ("EN", "stop")
    assert stops.rest() is None


def test_what_is_held_back_comes_before_a_call() -> None:
    stops = StopFilter(("END",))
    assert seen(stops.apply(chunk("an EN"))) == ("an ", None)
    called = Chunk(
        {
            "choices": [
                {"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "a"}]}, "finish_reason": None}
            ]
        },
        True,
        False,
    )
    assert seen(stops.apply(called)) == ("EN", None)
    assert seen(stops.apply(chunk("", "tool_calls"))) == ("", "tool_calls")


def test_what_is_held_back_comes_at_the_end_where_no_reason_came() -> None:
    stops = StopFilter(("END",))
    stops.apply(chunk("an EN"))
    assert seen(stops.rest()) == ("EN", None)
    assert stops.rest() is None


def test_a_chunk_whose_text_is_all_held_back_has_no_substance() -> None:
    held = StopFilter(("END",)).apply(chunk("E"))
    assert held is not None
    assert not held.substance


def test_logprobs_do_not_spell_what_is_not_shown() -> None:
    stops = StopFilter(("END",))
    scores = {"content": [{"token": "END"}]}
    whole = stops.apply(chunk("an ", logprobs=scores))
    assert whole is not None
    assert whole.body["choices"][0]["logprobs"] == scores
    cut = stops.apply(chunk("END", logprobs=scores))
    assert cut is not None
    assert cut.body["choices"][0]["logprobs"] is None
