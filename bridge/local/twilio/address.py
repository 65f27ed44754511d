"""Where a request goes, as against which URL it is signed for.

Twilio knows the bridge by its public URL and signs that; a simulator on the same machine must speak
to 127.0.0.1. The two differ in scheme, host, port and possibly a path prefix.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit, urlunsplit

from bridge.errors import UsageError

_PLAIN = {"https": "http", "wss": "ws", "http": "http", "ws": "ws"}
_SOCKET = {"https": "wss", "http": "ws", "wss": "wss", "ws": "ws"}
_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}


@dataclass(frozen=True, slots=True)
class Address:
    """The bridge, seen from outside (`public`, with a path prefix if there is one) and from here (`target`)."""

    public: str
    target: str

    @classmethod
    def of(cls, voice_url: str, public_url: str | None) -> "Address":
        """The bridge that answers at `voice_url` and calls itself `public_url` (None: the same origin).

        Raises UsageError for a URL that is not http(s).
        """
        parts = _web(voice_url, "the voice URL")
        target = f"{parts.scheme}://{parts.netloc}"
        public = (public_url or target).rstrip("/")
        _web(public, "the public URL")
        return cls(target, target) if _origin(public) == _origin(target) else cls(public, target)

    def signed(self, url: str) -> str:
        """The URL at which Twilio knows what lies at `url` here."""
        return self.public + url.removeprefix(self.target) if _origin(url) == _origin(self.target) else url

    def reach(self, url: str) -> str | None:
        """Where to connect for `url` as the bridge wrote it; None if that is not this bridge."""
        outside, here, written = urlsplit(self.public), urlsplit(self.target), urlsplit(url)
        if _origin(url) == _origin(self.public) and written.path.startswith(outside.path):
            path = written.path.removeprefix(outside.path)
        elif _origin(url) == _origin(self.target):
            path = written.path
        else:
            return None
        scheme = _SOCKET[here.scheme] if written.scheme in {"ws", "wss"} else here.scheme
        return urlunsplit((scheme, here.netloc, path, written.query, ""))


def is_loopback(url: str) -> bool:
    """Whether `url` names this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _web(url: str, what: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"{what} {url!r} cannot be used: expected http:// or https://, a host and a path.")
    return parts


def _origin(url: str) -> tuple[str, int | None]:
    """Host and port; wss and https are one origin, and ws and http."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
