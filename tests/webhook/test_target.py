"""Which targets are allowed: the text, the names, the addresses, and that nothing gets round it."""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from yarl import URL

from bridge.webhook import target
from bridge.webhook.sender import Sender
from bridge.webhook.target import Names, Network, Target, TargetRefused, Targets, is_public

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PUBLIC = Targets()
INSIDE = Targets([ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")])

# PORT is the port of a listener on every loopback address of this machine.
HOSTILE = [
    "http://127.0.0.1:PORT/",
    "https://127.0.0.1:PORT/",
    "https://127.0.0.1/",
    "https://127.0.0.1:8443/",
    "http://localhost:PORT/",
    "https://localhost/",
    "https://localhost./",
    "https://LOCALHOST:8443/",
    "https://sub.localhost/",
    "https://localhost。/",
    "https://127.1/",
    "https://127.0.1:8443/",
    "https://2130706433/",
    "http://2130706433:PORT/",
    "https://0x7f.1/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://0177.1:8443/",
    "https://①②⑦.⓪.⓪.①/",
    "http://①②⑦.⓪.⓪.①:PORT/",
    "https://127.0.0.1./",
    "https://0.0.0.0/",
    "http://0.0.0.0:PORT/",
    "https://0/",
    "https://[::1]/",
    "http://[::1]:PORT/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "http://[::ffff:127.0.0.1]:PORT/",
    "https://[::ffff:7f00:1]:8443/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b:1::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a00:1::1]/",
    "https://[2001:0:4136:e378:8000:63bf:80ff:fffe]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[2606:4700::1111%25eth0]/",
    "https://[fec0::1]/",
    "https://[fc00::1]/",
    "https://[ff02::1]/",
    "https://10.0.0.5/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://100.64.0.1/",
    "https://192.0.0.8/",
    "https://198.18.0.1/",
    "https://203.0.113.9/",
    "https://224.0.0.1/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://user@127.0.0.1/",
    "https://user:password@example.com/",
    "https://@example.com/",
    "https://example.com@127.0.0.1:PORT/",
    "https://example.com#@127.0.0.1/",
    "https://example.com/#",
    "https://127.0.0.1:PORT\\@example.com/",
    "https://example.com\t.evil.example/",
    "https://exa mple.com/",
    "https://example.com\r\nHost: x/",
    "https://\u202eexample.com/",
    "http://example.com/",
    "https://example.com:8080/",
    "https://example.com:0/",
    "https://example.com:99999/",
    "https://example.com:https/",
    "https:///path",
    "https://./",
    "https:example.com",
    "//example.com/",
    "example.com",
    "",
    "ftp://example.com/",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "unix:///run/socket",
    "https://[::1/",
    "https://[not-an-address]/",
    "https://xn--/",
    # Digits and dots that IDNA folds into ASCII, letters too.
    "https://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",
    "https://127\u30020\uff0e0\uff611/",
    "https://\u24dbocalhost/",
    "https://localho\u017ft/",
    # The metadata service of a cloud, in every spelling.
    "https://169.254.169.254./",
    "http://169.254.169.254:PORT/",
    "https://0251.0376.0251.0376/",
    "https://0xa9fea9fe/",
    "https://0xa9.254.0251.254/",
    "https://2852039166/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://[2002:a9fe:a9fe::]/",
    "https://[fe80::a9fe:a9fe%25lo]/",
    "https://[fd00:ec2::254]/",
    "https://100.100.100.200/",
    # Loopback again.
    "https://0x7f.0x0.0x0.0x1/",
    "https://017700000001/",
    "https://127.000.000.001/",
    "https://127.255.255.254/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[0:0:0:0:0:ffff:7f00:1]/",
    "https://[::ffff:0:127.0.0.1]/",
    "https://[::ffff:127.0.0.1%25lo]/",
    "https://[::1%25lo]/",
    "https://localhost../",
    "https://127.0.0.1../",
    "https://a.b.localhost./",
    # Hosts that are no names.
    "https://%31%32%37.0.0.1/",
    "https://127.0.0.1%00.example.com/",
    "https://127.0.0.1%23.example.com/",
    "https://example.com%2f.127.0.0.1/",
    "https://example.com%40127.0.0.1/",
    "https://localhost%E3%80%82/",
    "https://127.0.0.1,example.com/",
    "https://256.256.256.256/",
    "https://0.0.0.0.0/",
    "https://4294967297/",
    "https://[v1.fe80::a+en1]/",
    "https://-/",
]

NAMES_OF_LOOPBACK = [
    "https://metadata.google.internal/",
    "https://127.0.0.1.nip.io/",
    "https://ip6-localhost/",
    "https://\u0661\u0662\u0667.\u0660.\u0660.\u0661.example/",
    "https://xn--lcalhost-54a/",
    "https://example.com:8443/",
]
"""Their text is in order: the resolver of the test says that they are 127.0.0.1."""


class Listener:
    def __init__(self) -> None:
        self.connections = 0
        self.port = 0


@pytest.fixture
async def listener() -> Any:
    """On every address of this machine, also of IPv6 if it has that."""
    listener = Listener()

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        listener.connections += 1
        writer.close()

    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    with socket.create_server(("", 0), family=family, dualstack_ipv6=both) as bound:
        server = await asyncio.start_server(connected, sock=bound)
        listener.port = bound.getsockname()[1]
        yield listener
        server.close()
        await server.wait_closed()


class Unread(Targets):
    """Does not look at the text, and sends everything to the listener's port."""

    def __init__(self, listener: Listener, allow: Sequence[Network] = ()) -> None:
        super().__init__(allow)
        self._port = listener.port

    def check_url(self, url: str) -> Target:
        return Target(URL(url.replace("PORT", "1")).with_port(self._port), inside_only=False)


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The families of the sockets that were opened to connect with."""
    opened: list[str] = []

    class Counted(socket.socket):
        def __init__(self, family: int, *args: Any) -> None:
            opened.append(socket.AddressFamily(family).name)
            super().__init__(family, *args)

    monkeypatch.setattr(target, "socket", SimpleNamespace(**vars(socket) | {"socket": Counted}))
    return opened


def to_loopback(_host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


def refuses_names(_host: str, _port: int, **_: Any) -> list[tuple[Any, ...]]:
    raise socket.gaierror(socket.EAI_NONAME, "no such name")


@pytest.mark.parametrize("url", HOSTILE)
def test_hostile_urls_are_refused_by_their_text(url: str) -> None:
    with pytest.raises(TargetRefused) as refused:
        PUBLIC.check_url(url.replace("PORT", "8080"))
    assert str(refused.value).endswith((".", "yours."))
    assert "password" not in str(refused.value)


async def post_all(sender: Sender, urls: list[str]) -> None:
    for url in urls:
        outcome = await sender.post(url, "evt_1", b"{}")
        assert not outcome.accepted, url


async def test_nothing_hostile_reaches_anything_even_when_nobody_reads_its_text(
    listener: Listener, sockets: list[str]
) -> None:
    # What is left are the resolver and the check at the connect.
    assert len(set(HOSTILE)) >= 120
    async with Sender(lambda _: [SECRET], Unread(listener), lookup=to_loopback) as sender:
        await post_all(sender, HOSTILE + NAMES_OF_LOOPBACK)
    assert sockets == []
    assert listener.connections == 0


async def test_the_listener_would_have_seen_them(listener: Listener, sockets: list[str]) -> None:
    # The test above can fail: with everything allowed, many of these do reach this machine.
    local = [url for url in HOSTILE if "127" in url or "::1" in url or "7f" in url or "local" in url]
    everything = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    async with Sender(lambda _: [SECRET], Unread(listener, everything), lookup=to_loopback) as sender:
        await post_all(sender, [url for url in local if "[" not in url or "[::1]" in url or "ffff:" in url])
    assert listener.connections >= 25
    assert {"AF_INET", "AF_INET6"} == set(sockets)


@pytest.mark.parametrize("url", NAMES_OF_LOOPBACK)
async def test_a_name_of_an_inside_address_is_refused_when_it_is_looked_up(url: str) -> None:
    assert not PUBLIC.check_url(url).inside_only
    async with Sender(lambda _: [SECRET], PUBLIC, lookup=to_loopback) as sender:
        outcome = await sender.post(url, "evt_1", b"{}")
    assert outcome.error.startswith("The webhook target 127.0.0.1 is not a public address")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_the_metadata_service_is_not_followed(
    status: int, receiver: Any, sockets: list[str]
) -> None:
    receiver.status("/hook", status, headers={"location": "http://169.254.169.254/latest/meta-data/"})
    everything = Targets([ipaddress.ip_network("0.0.0.0/0")])
    async with Sender(lambda _: [SECRET], everything) as sender:
        assert (await sender.post(receiver.url(), "evt_1", b"{}")).error == f"status {status}"
    assert sockets == ["AF_INET"], "that to the receiver, and no other"


async def test_a_name_that_comes_to_point_inside_is_refused_at_the_connect(listener: Listener) -> None:
    answers = iter(["93.184.216.34"])

    def rebinding(_host: str, _port: int, **_: Any) -> list[tuple[Any, ...]]:
        address = next(answers, "127.0.0.1")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, listener.port))]

    names = Names(PUBLIC, inside_only=False, lookup=rebinding)
    assert (await names.resolve("rebind.example", 443))[0]["host"] == "93.184.216.34"
    with pytest.raises(TargetRefused, match=r"127\.0\.0\.1"):
        await names.resolve("rebind.example", 443)
    await names.close()

    async with Sender(lambda _: [SECRET], PUBLIC, lookup=rebinding) as sender:
        outcome = await sender.post("https://rebind.example/", "evt_1", b"{}")
    assert "127.0.0.1 is not a public address" in outcome.error
    assert listener.connections == 0


async def test_the_connect_itself_is_checked_when_the_resolver_was_fooled(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fooled(_: Names, host: str, *_args: Any, **_more: Any) -> Any:
        return [
            {
                "hostname": host,
                "host": "127.0.0.1",
                "port": listener.port,
                "family": socket.AF_INET,
                "proto": 6,
                "flags": 0,
            }
        ]

    monkeypatch.setattr(Names, "resolve", fooled)
    async with Sender(lambda _: [SECRET], PUBLIC) as sender:
        outcome = await sender.post("https://fooled.example/", "evt_1", b"{}")
    assert "127.0.0.1 is not a public address" in outcome.error
    assert listener.connections == 0


async def test_one_bad_address_refuses_the_whole_name() -> None:
    def mixed(_host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ("93.184.216.34", "10.0.0.1")
        ]

    names = Names(PUBLIC, inside_only=False, lookup=mixed)
    with pytest.raises(TargetRefused, match=r"10\.0\.0\.1"):
        await names.resolve("mixed.example", 443)
    await names.close()


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook",
        "https://example.com:443/hook?key=1",
        "https://example.com:8443/",
        "HTTPS://EXAMPLE.COM",
        "https://münchen.example/",
        "https://93.184.216.34/",
        "https://[2606:4700::1111]/",
        "https://[64:ff9b::5db8:d822]/",
        "https://example.com/path@with/at",
    ],
)
def test_public_https_targets_are_allowed(url: str) -> None:
    assert not PUBLIC.check_url(url).inside_only


@pytest.mark.parametrize(
    ("url", "inside_only"),
    [
        ("http://10.1.2.3/", True),
        ("http://10.1.2.3:9000/hook", True),
        ("https://10.1.2.3:9000/", True),
        ("https://10.1.2.3/", False),
        ("http://[fd00::5]:8080/", True),
        ("http://[::ffff:10.0.0.1]:8080/", True),
        ("http://receiver.internal:8080/", True),
    ],
)
def test_inside_the_allowed_networks_http_and_any_port_will_do(url: str, inside_only: bool) -> None:
    assert INSIDE.check_url(url).inside_only is inside_only


@pytest.mark.parametrize("url", ["http://93.184.216.34/", "http://192.168.0.1:80/", "https://11.0.0.1:9000/"])
def test_outside_of_them_they_will_not(url: str) -> None:
    with pytest.raises(TargetRefused, match="allow_private_networks"):
        INSIDE.check_url(url)


async def test_a_name_for_http_must_lie_wholly_inside() -> None:
    def lookup(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        addresses = {"all.example": ["10.0.0.1", "10.0.0.2"], "some.example": ["10.0.0.1", "93.184.216.34"]}
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses[host]]

    names = Names(INSIDE, inside_only=True, lookup=lookup)
    assert [found["host"] for found in await names.resolve("all.example", 80)] == ["10.0.0.1", "10.0.0.2"]
    with pytest.raises(TargetRefused, match=r"93\.184\.216\.34 is not in \[webhook\] allow_private_networks"):
        await names.resolve("some.example", 80)
    await names.close()


async def test_a_name_that_is_unknown_or_no_name_is_a_failure_and_nothing_worse() -> None:
    async with Sender(lambda _: [SECRET], PUBLIC, lookup=refuses_names) as sender:
        assert (await sender.post("https://unknown.example/", "evt_1", b"{}")).error == "name not found"
    async with Sender(lambda _: [SECRET], PUBLIC) as sender:
        outcome = await sender.post(f"https://{'a' * 70}..example/", "evt_1", b"{}")
        assert not outcome.accepted


def test_wrapped_addresses_are_judged_by_what_they_wrap() -> None:
    for text in ("::ffff:8.8.8.8", "64:ff9b::808:808"):
        assert is_public(ipaddress.ip_address(text)), text
    for text in ("::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:808:808::1", "ff0e::1", "239.1.2.3"):
        assert not is_public(ipaddress.ip_address(text)), text


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(TargetRefused, match="is none"):
        PUBLIC.check_address("not an address", inside_only=False)


class NameServers:
    """Names that begin with `dead` fail once, and then hang until `end`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.end = threading.Event()

    def lookup(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        again = host in self.asked
        self.asked.append(host)
        if host.startswith("dead"):
            assert not again or self.end.wait(10)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))]


@pytest.fixture
async def servers() -> AsyncIterator[NameServers]:
    servers = NameServers()
    yield servers
    servers.end.set()


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not reached():
            await asyncio.sleep(0.002)


async def test_names_without_an_answer_leave_half_of_the_threads_to_the_others(servers: NameServers) -> None:
    names = Names(PUBLIC, inside_only=False, lookup=servers.lookup)
    dead = [f"dead{n}.example" for n in range(2 * target.LOOKUP_THREADS)]

    def begun() -> list[asyncio.Task[Any]]:
        return [asyncio.create_task(names.resolve(name, 443)) for name in dead]

    await asyncio.gather(*begun(), return_exceptions=True)
    hanging = begun()
    await until(lambda: len(servers.asked) == len(dead) + target.FAILED_THREADS)
    for well in ("known.example", "other.example", "known.example"):
        async with asyncio.timeout(2):
            assert [found["host"] for found in await names.resolve(well, 443)] == ["93.184.216.34"]
    assert len(servers.asked) == len(dead) + target.FAILED_THREADS + 3
    servers.end.set()
    assert all(isinstance(error, OSError) for error in await asyncio.gather(*hanging, return_exceptions=True))
    assert len(servers.asked) == 2 * len(dead) + 3, "the others had their turn"
    await names.close()


async def test_who_asks_for_a_name_that_is_looked_up_waits_for_that(servers: NameServers) -> None:
    names = Names(PUBLIC, inside_only=False, lookup=servers.lookup)
    with pytest.raises(OSError, match="no answer"):
        await names.resolve("dead.example", 443)
    first = asyncio.create_task(names.resolve("dead.example", 443))
    second = asyncio.create_task(names.resolve("dead.example", 8443))
    await until(lambda: len(servers.asked) == 2)
    first.cancel()
    servers.end.set()
    with pytest.raises(OSError, match="no answer"):
        await second
    assert len(servers.asked) == 2
    found = await asyncio.gather(*(names.resolve("well.example", port) for port in (443, 8443)))
    assert [[one["port"] for one in answers] for answers in found] == [[443], [8443]]
    assert len(servers.asked) == 3
    await names.close()


async def test_what_is_known_of_names_is_bounded(
    servers: NameServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "NAMES", 3)
    names = Names(PUBLIC, inside_only=False, lookup=servers.lookup)
    for n in range(5):
        with pytest.raises(OSError, match="no answer"):
            await names.resolve(f"dead{n}.example", 443)
    assert list(names._failed) == ["dead2.example", "dead3.example", "dead4.example"]
    hanging = [asyncio.create_task(names.resolve(f"dead{n}.example", 443)) for n in range(3)]
    await until(lambda: len(names._running) == 3)
    with pytest.raises(OSError, match="too many names"):
        await names.resolve("well.example", 443)
    servers.end.set()
    await asyncio.gather(*hanging, return_exceptions=True)
    assert await names.resolve("well.example", 443)
    await names.close()
