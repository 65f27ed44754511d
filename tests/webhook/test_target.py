"""Which targets are allowed: the text, the names, the addresses, and that nothing gets round it."""

import asyncio
import ipaddress
import socket
from typing import Any

import pytest

from bridge.webhook.sender import Sender
from bridge.webhook.target import Names, TargetRefused, Targets, is_public

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
]


class Listener:
    def __init__(self) -> None:
        self.connections = 0
        self.port = 0


@pytest.fixture
async def listener() -> Any:
    listener = Listener()

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        listener.connections += 1
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    listener.port = server.sockets[0].getsockname()[1]
    yield listener
    server.close()
    await server.wait_closed()


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


async def test_nothing_hostile_reaches_a_listener_even_past_the_check_of_the_text(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The check of the text is taken away: what is left are the resolver and the check at the connect.
    from bridge.webhook import target  # noqa: PLC0415 - to take its part away

    monkeypatch.setattr(target, "_literal", lambda _: None)
    async with Sender(lambda _: [SECRET], PUBLIC, lookup=to_loopback) as sender:
        for url in HOSTILE:
            outcome = await sender.post(url.replace("PORT", str(listener.port)), "evt_1", b"{}")
            assert not outcome.accepted, url
    assert listener.connections == 0


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
