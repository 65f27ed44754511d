"""Where sockets come from, and how many of them may wait for their `start`.

Only what has proved nothing is counted against an address. Twilio brings many calls from one address, and so does
a proxy: an upgrade that Twilio signed is never refused for its rate, and while calls are expected none for being one
of too many: those give way that have said nothing for the longest time. The signature of an upgrade is always the same,
and who has seen it once can come with it for ever.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Generic, TypeVar

from multidict import MultiMapping

PENDING: Final = 200
"""Sockets that may be open without having said `start`: some seconds of calls that all begin at once."""

PENDING_EACH: Final = 50
"""Of these from one address."""

UNSIGNED: Final = 20
"""Upgrades without Twilio's signature that one address has in a second, before it is told to wait."""

_HOPS: Final = 20
"""Proxies in a row that are looked at; more are no real chain."""

_Socket = TypeVar("_Socket")


class Sources(Generic[_Socket]):
    """Counts what has not proved itself, by address. Sans-I/O; `now` is monotonic, in seconds."""

    def __init__(self, trusted_proxies: Sequence[IPv4Network | IPv6Network]) -> None:
        self._trusted = trusted_proxies
        self._pending: dict[_Socket, str] = {}  # address, by socket; the oldest first
        self._second = -1
        self._unsigned: Counter[str] = Counter()  # of this second, by address

    @property
    def pending(self) -> int:
        """Sockets that have not said `start`."""
        return len(self._pending)

    def address(self, peer: str, headers: MultiMapping[str]) -> str:
        """Where a request came from: the peer, or what the proxies that we trust say before we trust no more."""
        address = _address(peer)
        if not self._is_trusted(address):
            return peer
        for hop in _hops(headers):
            address = _address(hop)
            if address is None:  # "unknown", or an alias: this proxy does not say
                break
            peer = str(address)
            if not self._is_trusted(address):
                break
        return peer

    def unsigned(self, address: str, now: float) -> bool:
        """Count an upgrade that Twilio did not sign; whether its address has had too many of these."""
        if (second := int(now)) != self._second:
            self._second, self._unsigned = second, Counter()
        self._unsigned[address] += 1
        return self._unsigned[address] > UNSIGNED

    def full(self, address: str, awaited: int) -> str:
        """Why one more socket of this address may not wait for its `start`; empty if it may.

        `awaited` sockets are expected, as so many calls were told to open one.
        """
        if len(self._pending) < awaited:
            return ""
        if sum(each == address for each in self._pending.values()) >= PENDING_EACH:
            return "pending_address"
        return "pending_node" if len(self._pending) >= PENDING else ""

    def give_way(self, address: str, reason: str) -> _Socket | None:
        """The socket to close so that one of this address may wait, which `full` has a reason against; it counts no more."""
        among = {"pending_address": {address}, "pending_node": {*self._pending.values()}}.get(reason, set())
        oldest = next((socket for socket, its in self._pending.items() if its in among), None)
        if oldest is not None:
            del self._pending[oldest]
        return oldest

    def wait(self, socket: _Socket, address: str) -> None:
        """A socket was opened that has not said `start`."""
        self._pending[socket] = address

    def started(self, socket: _Socket) -> None:
        """It has, or it is closed. Once is enough; twice does no harm."""
        self._pending.pop(socket, None)

    def _is_trusted(self, address: IPv4Address | IPv6Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


def _hops(headers: MultiMapping[str]) -> Iterator[str]:
    """The addresses that proxies have noted, the latest first.

    RFC 7239's header counts where the older one is not: most proxies write that, and hand on the other as they got it.
    """
    if noted_by_most := headers.getall("X-Forwarded-For", []):
        noted = _latest(noted_by_most)
    else:
        noted = [_for(element) for element in _latest(headers.getall("Forwarded", []))]
    return (hop for hop in noted if hop.strip())


def _latest(lines: list[str]) -> list[str]:
    """What stands between the commas of a header, which may come in several lines: the last first."""
    return ",".join(lines).split(",")[: -_HOPS - 1 : -1]


def _for(element: str) -> str:
    """The `for` of one element of RFC 7239."""
    pairs = (pair.partition("=") for pair in element.split(";"))
    return next((value.strip().strip('"') for name, _, value in pairs if name.strip().lower() == "for"), "?")


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address as headers have it: `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]:4711`."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
