"""Which webhook targets are allowed, checked as text, as resolved names, and at the connect itself.

A webhook URL must not become a way into the private network: https on 443 or 8443 to public
addresses, anything else only inside the networks that the operator allowed. Names may resolve to
something else at any time (DNS rebinding), so the last word is spoken over the very address that the
socket connects to; that check also covers IP literals, for which aiohttp asks no resolver.
"""

import asyncio
import contextlib
import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from bridge.errors import BridgeError

PORTS = (443, 8443)
"""Where https may go on the public network."""

NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are the IPv4 address that is really meant."""

NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # IETF protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "64:ff9b:1::/48",  # NAT64 into a private network
        "2001::/23",  # Teredo, which wraps IPv4 addresses, and other protocol assignments
        "2002::/16",  # 6to4, which does too
        "3fff::/20",  # documentation
        "fec0::/10",  # site-local
    )
)
"""What `is_global` does not refuse in every version of Python."""

NAME = re.compile(r"([a-z0-9_-]+\.)*[0-9_-]*[a-z][a-z0-9_-]*\.?")
"""A host that may be looked up, in lower case and IDNA: no escapes, and its last label is no number."""

LOOKUP_THREADS = 32
"""Names that may be looked up at a time: own threads, so that a dead name server holds up nothing else."""

FAILED_THREADS = 16
"""So many of them may be at names whose last look-up failed. A name server that does not answer keeps a thread
for 10 to 30 s, each time; the other half is there for names that are well."""

NAMES = 1000
"""Names to look up or wait for at a time, and failed ones to remember."""

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
Found = list[tuple[Any, ...]]
Lookup = Callable[..., Found]
"""`socket.getaddrinfo`, or a test's own."""


class TargetRefused(BridgeError, OSError):  # noqa: N818 - named for what happened
    """The webhook target is not allowed. An `OSError`, so that aiohttp takes it for a failed connect."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that passed the check of its text."""

    url: URL
    inside_only: bool
    """Plain http or another port: every address must lie inside the allowed networks."""


class Targets:
    """The policy: public addresses, and `allow` (networks that are the operator's own)."""

    def __init__(self, allow: Sequence[Network] = ()) -> None:
        self._allow = tuple(allow)

    def check_url(self, url: str) -> Target:
        """Check what the URL's text tells. Raises `TargetRefused` with a sentence."""
        target = _parse(url)
        host = target.url.host or ""
        address = _literal(target.url.raw_host or "")
        if address is not None:
            self.check_address(address, inside_only=target.inside_only)
        elif not NAME.fullmatch((target.url.raw_host or "").lower()):
            raise TargetRefused(f"The webhook URL's host {host} is not a name: write https://host/path.")
        elif target.inside_only and not self._allow:
            raise TargetRefused(_outside(host))
        return target

    def check_address(self, text: str | Address, *, inside_only: bool) -> None:
        """Check an address that is about to be connected to. Raises `TargetRefused` with a sentence."""
        try:
            address = ipaddress.ip_address(text)
        except ValueError as error:
            raise TargetRefused(f"The webhook target's address {text} is none.") from error
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in self._allow):
            return
        if inside_only:
            raise TargetRefused(_outside(str(address)))
        if not is_public(address):
            raise TargetRefused(
                f"The webhook target {address} is not a public address: add its network to [webhook] allow_private_networks if it is yours."
            )


def is_public(address: Address) -> bool:
    """Whether the address, or the IPv4 address that it stands for, belongs to the public internet."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        if address.scope_id is not None:
            return False
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved)
        and not any(address in network for network in NOT_PUBLIC)
    )


def _parse(text: str) -> Target:
    if not text.isprintable() or any(sign in text for sign in " \\"):
        raise TargetRefused("The webhook URL has a space, a backslash or a control character in it.")
    try:
        url = URL(text)
        host, port, authority = url.host, url.port, urlsplit(text).netloc
    except ValueError as error:
        raise TargetRefused("The webhook URL is not a URL: write https://host/path.") from error
    if url.scheme not in {"http", "https"}:
        raise TargetRefused("The webhook URL must begin with https://.")
    if not host or not host.strip("."):
        raise TargetRefused("The webhook URL names no host: write https://host/path.")
    if "@" in authority:
        raise TargetRefused(
            f"The webhook URL of {host} has a user in it: receivers verify the signature instead."
        )
    if "#" in text:
        raise TargetRefused(f"The webhook URL of {host} has a fragment (#) in it, which is never sent.")
    if not port:
        raise TargetRefused(f"The webhook URL of {host} has no usable port.")
    return Target(url, inside_only=url.scheme == "http" or port not in PORTS)


def _literal(host: str) -> str | None:
    """The address that a host is, without asking anybody; None for a name."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        # Operating systems read 127.1, 0x7f.1 and 2130706433 as addresses too.
        return socket.inet_ntoa(socket.inet_aton(name))
    except OSError:
        return None


def _outside(host: str) -> str:
    return f"The webhook target {host} is not in [webhook] allow_private_networks: elsewhere only https on port 443 or 8443 is allowed."


class Names(AbstractResolver):
    """Looks names up in its own threads, and refuses a name if any of its addresses is not allowed."""

    def __init__(self, targets: Targets, *, inside_only: bool, lookup: Lookup = socket.getaddrinfo) -> None:
        self._targets = targets
        self._inside_only = inside_only
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(LOOKUP_THREADS, "webhook-names")
        self._for_failed = asyncio.Semaphore(FAILED_THREADS)
        # Names whose last look-up failed, the oldest first.
        self._failed: dict[str, None] = {}
        self._running: dict[tuple[str, int], asyncio.Task[Found]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`. Raises `TargetRefused`, and `OSError` when it has none.

        Whoever asks for a name that is being looked up gets the answer to that.
        """
        name = (host, family)
        if name not in self._running:
            if len(self._running) >= NAMES:
                raise OSError("too many names are being looked up")
            task = asyncio.create_task(self._find(host, port, family))
            self._running[name] = task
            task.add_done_callback(partial(self._found, name))
        found = await asyncio.shield(self._running[name])
        for *_, address in found:
            self._targets.check_address(address[0], inside_only=self._inside_only)
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Let go of the threads; a look-up that still runs ends by itself."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _find(self, host: str, port: int, family: socket.AddressFamily) -> Found:
        lookup = partial(
            self._lookup, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        async with self._for_failed if host in self._failed else contextlib.nullcontext():
            return await asyncio.get_running_loop().run_in_executor(self._threads, lookup)

    def _found(self, name: tuple[str, int], task: asyncio.Task[Found]) -> None:
        del self._running[name]
        host, _ = name
        self._failed.pop(host, None)
        if not task.cancelled() and task.exception() is not None:
            self._failed[host] = None
            if len(self._failed) > NAMES:
                del self._failed[next(iter(self._failed))]


def connector(
    targets: Targets, *, inside_only: bool, lookup: Lookup = socket.getaddrinfo
) -> tuple[aiohttp.TCPConnector, Names]:
    """A connector that reaches allowed addresses only, and its resolver, which its owner closes after it.

    It bounds no connections: who posts bounds what is in flight, per endpoint and not per host, since a
    slow endpoint must not make another one of the same host wait.
    """

    def open_socket(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        targets.check_address(address[0], inside_only=inside_only)
        return socket.socket(family, kind, protocol)

    names = Names(targets, inside_only=inside_only, lookup=lookup)
    return (
        aiohttp.TCPConnector(
            resolver=names,
            socket_factory=open_socket,
            limit=0,
            ttl_dns_cache=30,  # seconds: a failover by DNS is followed soon
        ),
        names,
    )
