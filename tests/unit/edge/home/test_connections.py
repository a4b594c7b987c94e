"""The bounds of connections, and whose address counts, without sockets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.edge.addresses import block
from kimi_gateway.edge.home.connections import MOST_OF_HEADS, Connections, Proxies


class Fake:
    def __init__(self, idle: bool = True) -> None:
        self.idle = idle
        self.aborted = 0

    def abort(self) -> None:
        self.aborted += 1


def test_the_oldest_keyless_one_of_an_address_makes_room() -> None:
    bound = Connections(1000, 2)
    first, second, third, other = Fake(), Fake(), Fake(), Fake()
    for one in (first, second):
        bound.add(one, "a")
    bound.add(other, "b")
    bound.add(third, "a")
    assert [one.aborted for one in (first, second, third, other)] == [1, 0, 0, 0]
    assert len(bound) == 3


def test_one_with_a_key_counts_for_no_address_and_not_in_the_quarter() -> None:
    bound = Connections(8, 100)
    keyed = [Fake(idle=False) for _ in range(6)]
    for number, one in enumerate(keyed):
        bound.add(one, str(number))
        bound.know(one)
    keyless = [Fake() for _ in range(3)]
    for one in keyless:
        bound.add(one, "a")
    assert [one.aborted for one in keyed] == [0] * 6
    assert [one.aborted for one in keyless] == [1, 0, 0]


def test_where_all_is_full_an_idle_one_makes_room_and_one_at_work_does_not() -> None:
    bound = Connections(4, 100)
    keyed = [Fake(idle=False), Fake(), Fake(idle=False), Fake()]
    for one in keyed:
        bound.add(one, "a")
        bound.know(one)
    newcomers = [Fake(), Fake(), Fake()]
    for one in newcomers:
        bound.add(one, "a")
        bound.know(one)
    assert [one.aborted for one in keyed] == [0, 1, 0, 1]
    assert len(bound) == 4


def test_where_all_are_at_work_the_newcomer_goes() -> None:
    bound = Connections(2, 100)
    for one in (busy := [Fake(idle=False), Fake(idle=False)]):
        bound.add(one, "a")
        bound.know(one)
    bound.add(late := Fake(), "a")
    assert (late.aborted, len(bound)) == (1, 2)
    assert not any(one.aborted for one in busy)


def test_where_none_is_idle_the_account_with_most_waiting_bodies_makes_room() -> None:
    bound = Connections(6, 100)
    working, few, *many = (busy := [Fake(idle=False) for _ in range(5)])
    for one in busy:
        bound.add(one, "a")
        bound.know(one)
    bound.wait(few, "few")
    for one in many:
        bound.wait(one, "many")
    newcomers = [Fake(idle=False) for _ in range(4)]
    for one in newcomers:
        bound.add(one, "b")
        bound.know(one)
    assert [one.aborted for one in (working, few, *many)] == [0, 1, 1, 1, 0]  # one waiting body each is left
    bound.go_on(many[2])
    bound.add(last := Fake(), "c")
    assert (last.aborted, many[2].aborted) == (1, 0)
    assert bound._waiting == {}


def test_a_connection_without_a_key_waits_for_no_account() -> None:
    bound = Connections(4, 100)
    bound.add(one := Fake(), "a")
    bound.wait(one, "account")
    bound.wait(one, None)
    bound.go_on(one)
    assert bound._waiting == bound._waits == {}


def test_of_incomplete_heads_the_oldest_makes_room() -> None:
    bound, most = Connections(10_000, 10_000), MOST_OF_HEADS // 60_000
    many = [Fake() for _ in range(most + 3)]
    for one in many:
        bound.add(one, "a")
    for one in many[:most]:
        bound.head(one, 20_000)
        bound.head(one, 60_000)
    assert not any(one.aborted for one in many)
    bound.head(many[0], 0)
    bound.head(many[most], 60_000)
    assert not any(one.aborted for one in many)
    bound.head(many[most + 1], 60_000)
    bound.remove(many[2])
    bound.head(many[most + 2], 60_000)
    assert [at for at, one in enumerate(many) if one.aborted] == [1]
    assert len(bound) == most + 1
    for one in many:
        bound.remove(one)
    assert (bound._of_heads, bound._heads) == (0, {})


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "know", "remove", "work", "rest", "wait", "go on"]),
            st.integers(0, 30),
            st.integers(0, 3),
        )
    ),
    st.integers(1, 12),
    st.integers(1, 5),
)
def test_the_bounds_hold_whatever_comes(steps: list[tuple[str, int, int]], most: int, each: int) -> None:
    bound, connections = Connections(most, each), [Fake() for _ in range(31)]
    addresses: dict[Fake, str] = {}
    for what, number, address in steps:
        one = connections[number]
        if what == "add":
            addresses[one] = str(address)
            bound.add(one, str(address))
        elif what == "know":
            bound.know(one)
        elif what == "remove":
            bound.remove(one)
        elif what == "wait":
            bound.wait(one, str(address))
        elif what == "go on":
            bound.go_on(one)
        else:
            one.idle = what == "rest"
        assert len(bound) <= most
        assert bound.keyless <= max(most // 4, 1)
        assert all(len(same) <= each for same in bound._of.values())
        assert sum(map(len, bound._of.values())) == bound.keyless
        assert sum(map(len, bound._waiting.values())) == len(bound._waits) <= len(bound._keyed)


HOPS = [
    ("203.0.113.9", [], "203.0.113.9"),
    ("203.0.113.9", ["1.2.3.4"], "203.0.113.9"),
    ("10.0.0.1", [], "10.0.0.1"),
    ("10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
    ("10.0.0.1", ["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
    ("10.0.0.1", ["6.6.6.6", "1.2.3.4, 10.9.9.9"], "1.2.3.4"),
    ("10.0.0.1", ["1.2.3.4:5678"], "1.2.3.4"),
    ("10.0.0.1", ["[2001:db8::7]:80"], "2001:db8::7"),
    ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
    ("10.0.0.1", ["1.2.3.4, unknown"], "10.0.0.1"),
    ("10.0.0.1", ["1.2.3.4, nonsense, 10.0.0.5"], "10.0.0.5"),
    ("::ffff:10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
    ("2001:db8:1::1", ["::ffff:1.2.3.4"], "1.2.3.4"),
    ("", ["1.2.3.4"], ""),
]


@pytest.mark.parametrize(("peer", "forwarded", "counts"), HOPS)
def test_the_last_untrusted_hop_counts(peer: str, forwarded: list[str], counts: str) -> None:
    assert Proxies(["10.0.0.0/8", "2001:db8:1::/48"]).client(peer, forwarded) == counts


def test_an_address_of_ipv6_is_its_network() -> None:
    assert block("2001:db8::1") == block("2001:db8::ffff:1") != block("2001:db8:0:1::1")
    assert block("::ffff:192.0.2.1") == block("192.0.2.1") == "192.0.2.1"
