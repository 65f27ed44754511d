from ipaddress import ip_network

import pytest
from multidict import CIMultiDict

from bridge.twilio.sources import PENDING, PENDING_EACH, UNSIGNED, Sources

PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


def sources() -> Sources[object]:
    return Sources(PROXIES)


@pytest.mark.parametrize(
    ("peer", "headers", "address"),
    [
        ("192.0.2.1", {}, "192.0.2.1"),
        ("192.0.2.1", {"X-Forwarded-For": "203.0.113.9"}, "192.0.2.1"),  # nobody that we trust says so
        ("192.0.2.1", {"Forwarded": "for=203.0.113.9"}, "192.0.2.1"),
        ("10.0.0.1", {}, "10.0.0.1"),
        ("10.0.0.1", {"X-Forwarded-For": "203.0.113.9"}, "203.0.113.9"),
        ("10.0.0.1", {"X-Forwarded-For": "1.2.3.4, 203.0.113.9"}, "203.0.113.9"),  # the first may be invented
        ("10.0.0.1", {"X-Forwarded-For": "1.2.3.4, 203.0.113.9, 10.7.7.7"}, "203.0.113.9"),
        ("10.0.0.1", {"X-Forwarded-For": "10.1.1.1, 10.2.2.2"}, "10.1.1.1"),
        ("10.0.0.1", {"X-Forwarded-For": "203.0.113.9:4711"}, "203.0.113.9"),
        ("10.0.0.1", {"X-Forwarded-For": "junk"}, "10.0.0.1"),
        ("10.0.0.1", {"X-Forwarded-For": "203.0.113.9, junk"}, "10.0.0.1"),
        ("10.0.0.1", {"X-Forwarded-For": " , ,"}, "10.0.0.1"),
        ("10.0.0.1", {"Forwarded": 'for="[2001:db8::7]:4711";proto=https'}, "2001:db8::7"),
        ("10.0.0.1", {"Forwarded": "proto=https;For=203.0.113.9, for=10.2.2.2"}, "203.0.113.9"),
        ("10.0.0.1", {"Forwarded": "for=1.2.3.4", "X-Forwarded-For": "203.0.113.9"}, "203.0.113.9"),
        ("10.0.0.1", {"Forwarded": "for=_hidden"}, "10.0.0.1"),
        ("10.0.0.1", {"Forwarded": "by=x"}, "10.0.0.1"),
        ("::ffff:10.0.0.1", {"X-Forwarded-For": "203.0.113.9"}, "203.0.113.9"),
        ("fd00::1", {"X-Forwarded-For": "2001:db8::7"}, "2001:db8::7"),
        ("", {"X-Forwarded-For": "203.0.113.9"}, ""),
    ],
)
def test_the_address_of_a_request(peer: str, headers: dict[str, str], address: str) -> None:
    assert sources().address(peer, CIMultiDict(headers)) == address


def test_a_header_that_comes_twice_is_read_as_one() -> None:
    twice = CIMultiDict([("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", "203.0.113.9, 10.2.2.2")])
    assert sources().address("10.0.0.1", twice) == "203.0.113.9"


def test_a_chain_without_an_end_is_read_from_its_end() -> None:
    chain = ", ".join(["1.2.3.4", *["10.1.1.1"] * 5000])
    assert sources().address("10.0.0.1", CIMultiDict({"X-Forwarded-For": chain})) == "10.1.1.1"


def test_upgrades_without_a_signature_are_counted_by_second_and_address() -> None:
    one = sources()
    assert [one.unsigned("a", 5.0) for _ in range(UNSIGNED + 2)] == [False] * UNSIGNED + [True] * 2
    assert not one.unsigned("b", 5.9)
    assert not one.unsigned("a", 6.0)


def test_sockets_that_say_nothing_are_bounded_by_address_and_in_all() -> None:
    one, sockets = sources(), [object() for _ in range(PENDING)]
    for number, socket in enumerate(sockets):
        address = str(number // PENDING_EACH)
        assert one.full(address, 0) == ""
        one.wait(socket, address)
        if number == PENDING_EACH - 1:
            assert one.full("0", 0) == "pending_address"
    assert one.pending == PENDING
    assert one.full("new", 0) == "pending_node"
    one.started(sockets[0])
    one.started(sockets[0])
    assert one.full("new", 0) == ""


def test_who_is_expected_is_never_one_too_many() -> None:
    """A thousand calls in a second come from one address of Twilio's."""
    one = sources()
    for _ in range(999):
        one.wait(object(), "twilio")
    assert one.full("twilio", awaited=1000) == ""
    assert one.full("twilio", awaited=999) == "pending_address"


def test_who_has_said_nothing_for_the_longest_time_gives_way() -> None:
    one, (first, second, third) = sources(), [object() for _ in range(3)]
    for socket, address in ((first, "other"), (second, "its own"), (third, "its own")):
        one.wait(socket, address)
    assert one.give_way("its own", "") is one.give_way("its own", "unready") is None
    assert one.give_way("its own", "pending_address") is second
    assert one.give_way("its own", "pending_node") is first
    assert one.give_way("its own", "pending_node") is third
    assert one.give_way("its own", "pending_node") is None
    assert one.pending == 0
