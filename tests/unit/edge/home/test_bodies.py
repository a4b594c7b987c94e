"""Who loses a body, against a plain search, and how many comparisons it takes."""

from __future__ import annotations

import random

import pytest

from kimi_gateway.edge.home.bodies import SMALL, Bodies, Body
from kimi_gateway.http import Headers, Request
from kimi_gateway.observe import RequestRecord


class Counted(int):
    """A size that counts how often it is compared."""

    compared = 0

    def __add__(self, other: int) -> Counted:
        return Counted(int(self) + int(other))

    __radd__ = __add__

    def __sub__(self, other: int) -> Counted:
        return Counted(int(self) - int(other))

    def __neg__(self) -> Counted:
        return Counted(-int(self))

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return int(self) == other

    def __lt__(self, other: int) -> bool:
        Counted.compared += 1
        return int(self) < int(other)

    def __gt__(self, other: int) -> bool:
        Counted.compared += 1
        return int(self) > int(other)

    __hash__ = int.__hash__


def arriving(bodies: Bodies, account: str) -> Body:
    request = Request("POST", "/", Headers(()), "req", record=RequestRecord())
    request.record.account = account
    return Body(bodies, request, lambda: None)


@pytest.mark.parametrize("accounts", [10, 20_000])
def test_finding_who_loses_a_body_takes_few_comparisons(accounts: int) -> None:
    """As many accounts as there are, each with a large body, and one of them with one body more for each."""
    bodies = Bodies(2**62)
    for number in range(accounts):
        arriving(bodies, str(number)).grow(Counted(SMALL + 1))
        arriving(bodies, "greedy").grow(Counted(SMALL + 2))
    last, most = arriving(bodies, "last"), 500
    bodies._most = bodies.held
    Counted.compared = 0
    for _ in range(5):
        last.grow(Counted(SMALL + 1))
    assert not last.gone
    assert Counted.compared < 5 * most
    assert bodies.held <= bodies._most


@pytest.mark.parametrize("seed", range(10))
def test_the_account_with_most_loses_its_largest_body(seed: int) -> None:
    """In any order of growing, completing and ending, against a search through all."""
    chance, bodies = random.Random(seed), Bodies(2**62)
    running: list[Body] = []
    for _ in range(400):
        if chance.random() < 0.5 or not running:
            running.append(arriving(bodies, str(chance.randrange(6))))
        body = chance.choice(running)
        if chance.random() < 0.1:
            body.arriving = False
        if chance.random() < 0.15:
            body.end()
        else:
            body.grow(chance.randrange(2 * SMALL))
        running = [each for each in running if not each._over]
        large = [each for each in running if each.size > SMALL]
        assert bodies.held == sum(each.size for each in running)
        totals = {each.owner: sum(o.size for o in large if o.owner == each.owner) for each in large}
        small = arriving(bodies, "asking")
        victim = bodies._victim(small)
        small.end()
        assert {owner: each.total for owner, each in bodies._of.items()} == totals
        if victim is not None:
            most = [owner for owner, total in totals.items() if total == max(totals.values())]
            assert victim.owner in most
            assert victim.size == max(e.size for e in large if e.owner == victim.owner and e.arriving)
        elif totals:
            owner = max(totals, key=totals.__getitem__)
            left = [e.size for e in large if e.owner == owner and e.arriving]
            assert not left or max(left) == bodies.held
    for body in running:
        body.end()
    assert (bodies.held, bodies._of) == (0, {})
    assert len(bodies._accounts._heap) < 200


def test_running_requests_of_an_account_get_half_of_what_the_others_leave() -> None:
    bodies = Bodies(1_000)
    assert [bodies.run("a", 200) for _ in range(3)] == [True, True, False]
    assert [bodies.run("b", 150) for _ in range(3)] == [True, True, False]
    assert bodies.run("c", 900)  # each has one in any case
    assert not bodies.run("c", 1)
    bodies.rest("a", 200)
    assert not bodies.run("a", 1)  # now the others have more
    bodies.rest("c", 900)
    assert bodies.run("a", 100)
    for owner, size in (("a", 200), ("a", 100), ("b", 150), ("b", 150)):
        bodies.rest(owner, size)
    assert (bodies.running, bodies._running) == (0, {})


def test_a_small_body_runs_uncounted_and_a_large_one_ends_once() -> None:
    bodies = Bodies(1_000_000)
    small, large = arriving(bodies, "a"), arriving(bodies, "a")
    small.grow(SMALL)
    large.grow(SMALL + 1)
    for body in (small, large):
        body.admitted()
    assert (bodies.held, bodies.running) == (0, SMALL + 1)
    for _ in range(2):
        large.end()
        small.end()
    assert (bodies.running, bodies._running) == (0, {})
