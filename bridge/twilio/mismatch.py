"""Why a signature does not fit: the address that Twilio did sign, found by trying what proxies do to addresses.

Only for the log. What is let in is decided by the configured address alone.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations, product
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode

CHANGES: Final = 2
"""Things that may be wrong with one address at a time. More are one mistake in a thousand, and hundreds of tries."""

_OTHER_SCHEMES: Final = {
    "https": ("http",),
    "http": ("https",),
    "wss": ("https", "ws"),
    "ws": ("http", "wss"),
}
_URIS: Final = ("X-Original-URI", "X-Forwarded-Uri", "X-Envoy-Original-Path")
"""Headers in which proxies hand on the path that they were asked for."""


class _Part(NamedTuple):
    """Another value for a part of the address, and what it means if that is what was signed."""

    value: str
    meaning: str


def likely_cause(
    public_url: str, path: str, headers: Mapping[str, str], signed: Callable[[str], bool]
) -> str:
    """What is wrong, in a sentence; empty if Twilio signed none of the addresses that are worth trying.

    `public_url` is `server.public_url`, for an upgrade with wss; `path` is what the request asked for, with its
    query, and `signed` says whether the signature fits a URL.
    """
    scheme, authority, prefix = _parts(public_url)
    asked, _, query = path.partition("?")
    parts = [
        (scheme, list(_schemes(scheme))),
        (authority, list(_authorities(authority, headers))),
        (prefix, list(_prefixes(prefix, path, headers))),
        (asked, list(_paths(asked))),
        (query, list(_queries(query))),
    ]
    for count in range(1, CHANGES + 1):
        for changed in combinations(range(len(parts)), count):
            for others in product(*(parts[at][1] for at in changed)):
                values = [present for present, _ in parts]
                for at, other in zip(changed, others, strict=True):
                    values[at] = other.value
                if signed(_url(*values)):
                    return "; ".join(other.meaning for other in others)
    return ""


def guess(public_url: str, headers: Mapping[str, str]) -> str:
    """What it may be when nothing fits, in a sentence."""
    _, authority, _ = _parts(public_url)
    host = headers.get("Host", "")
    if _split(host)[0] != _split(authority)[0]:
        return (
            "twilio.auth_token is not the account's, or server.public_url is not what Twilio calls: "
            f"the Host header has {host[:100]!a}"
        )
    return (
        "twilio.auth_token is not the account's, or server.public_url lacks a path prefix that a proxy strips"
    )


def _parts(public_url: str) -> tuple[str, str, str]:
    """Scheme, host with its port, and the path, which is empty or begins with a slash."""
    scheme, _, rest = public_url.partition("://")
    authority, slash, path = rest.partition("/")
    return scheme, authority, slash + path


def _url(scheme: str, authority: str, prefix: str, path: str, query: str) -> str:
    return f"{scheme}://{authority}{prefix}{path}" + (f"?{query}" if query else "")


def _schemes(scheme: str) -> Iterator[_Part]:
    for other in _OTHER_SCHEMES.get(scheme, ()):
        yield _Part(other, f"Twilio calls {other}://, and server.public_url makes it {scheme}://")


def _authorities(authority: str, headers: Mapping[str, str]) -> Iterator[_Part]:
    host, port = _split(authority)
    seen = {authority}
    for name in ("X-Forwarded-Host", "Host"):
        named = headers.get(name, "").partition(",")[0].strip()[:255]
        its_host, its_port = _split(named)
        for other in (named, its_host, f"{host}:{its_port}" if its_port else host, f"{its_host}:{port}"):
            if other in seen or not its_host or other.endswith(":"):
                continue
            seen.add(other)
            what = "port" if _split(other)[0] == host else "host"
            yield _Part(other, f"Twilio calls another {what} than server.public_url has: {other}")


def _split(authority: str) -> tuple[str, str]:
    """Host and port, which is empty if there is none."""
    host, colon, port = authority.rpartition(":")
    return (host, port) if colon and port.isdigit() else (authority, "")


def _prefixes(prefix: str, path: str, headers: Mapping[str, str]) -> Iterator[_Part]:
    if prefix:
        yield _Part("", "server.public_url has a path prefix that is not in the address Twilio calls")
    handed_on = [headers.get("X-Forwarded-Prefix", "").rstrip("/")]
    handed_on += [uri.removesuffix(path) for name in _URIS if (uri := headers.get(name, "")).endswith(path)]
    for other in dict.fromkeys(handed_on):
        if other not in {"", prefix}:
            yield _Part(other, f"server.public_url lacks the path prefix that a proxy strips: {other[:100]}")


def _paths(path: str) -> Iterator[_Part]:
    seen = {path}
    for other in (path.rstrip("/") if path.endswith("/") else f"{path}/", unquote(path), quote(path)):
        if other not in seen:
            seen.add(other)
            yield _Part(other, "a proxy rewrote the path (its slash at the end, or its encoding)")


def _queries(query: str) -> Iterator[_Part]:
    if not query:
        return
    pairs = parse_qsl(query, keep_blank_values=True)
    seen = {query}
    spellings = (
        urlencode(pairs),
        urlencode(pairs, quote_via=quote),
        urlencode(pairs, quote_via=quote, safe="/:@"),
        urlencode(sorted(pairs)),
        unquote(query),
        "&".join(part for part in query.split("&") if not part.endswith("=")),
        "",
    )
    for other in spellings:
        if other not in seen:
            seen.add(other)
            yield _Part(other, "a proxy rewrote the query (its order or its encoding), or added it")
