"""A Whisper deployment that sockets are opened to, and what the calls of this process know of it together."""

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from bridge import log
from bridge.whisper.breaker import Breaker
from bridge.whisper.lifespan import Lifespan
from bridge.whisper.protocol import Dialect
from bridge.whisper.turnstile import Turnstile

if TYPE_CHECKING:
    from bridge.config import WhisperConfig

_logger = log.get(__name__)

DIALECT_PROBES: Final = 3
"""Rejections in a row after which a session tries another dialect than the confirmed one."""

IN_ORDER: Final = 3
"""Finals that waited in vain for an earlier one, after which the server is taken to keep its finals in order."""


class Endpoint:
    """One URL and its key. With dialect `auto` it learns which start message the server takes."""

    def __init__(self, url: str, api_key: str, dialect: str, turnstile: Turnstile | None = None) -> None:
        self.url = url
        self.api_key = api_key
        self.dialect = Dialect.V1 if dialect == "auto" else Dialect(dialect)
        self.breaker = Breaker()
        self.turnstile = turnstile or Turnstile()
        self.lifespan = Lifespan()
        self.knows_health: bool | None = None
        """Whether it answers `health_check`: True once it did, False when it closed the socket instead."""
        self.complained = False
        """Somebody said that its sockets are dropped at once; said again only after one that was not."""
        self._learning = dialect == "auto"
        self._confirmed = False
        self._rejections = 0
        self._in_vain = 0
        self._reorders = False

    @property
    def host(self) -> str:
        """What logs call it: the rest of an URL may hold a secret."""
        try:
            return urlsplit(self.url).hostname or ""
        except ValueError:
            return ""

    @property
    def keeps_order(self) -> bool:
        """Whether its finals come in the order of time, as far as known: then none waits for an earlier one."""
        return not self._reorders and self._in_vain >= IN_ORDER

    def dialect_after(self, refused: "tuple[Endpoint, Dialect] | None") -> Dialect:
        """What a session tries next whose latest refused start message is known."""
        return self.dialect.other if refused == (self, self.dialect) else self.dialect

    def waited_in_vain(self) -> None:
        """A final waited for an earlier one that did not come."""
        self._in_vain += 1

    def reordered(self) -> None:
        """A final came after a later one."""
        self._reorders = True

    def accepted(self, dialect: Dialect) -> None:
        """The server answered a session that was started in `dialect`: it is the right one."""
        if dialect is not self.dialect:
            if not self._learning or self._rejections < DIALECT_PROBES:
                return  # the other one works as well
            _logger.warning("whisper_dialect", rejected=self.dialect.value, using=dialect.value)
            self.dialect = dialect
        self._confirmed = True
        self._rejections = 0

    def rejected(self, dialect: Dialect) -> bool:
        """The server refused a start message in `dialect`. True when another one is worth trying.

        Sessions that were started together may report the same refusal; only the first one counts. A confirmed
        dialect stays what other sessions speak until another one was accepted: it may be what one number asks
        for that is refused.
        """
        if not self._learning:
            return False
        if dialect is not self.dialect:
            return True
        self._rejections += 1
        if self._confirmed:
            return self._rejections >= DIALECT_PROBES
        self.dialect = dialect.other
        if self._rejections == 1:
            _logger.warning("whisper_dialect", rejected=dialect.value, using=self.dialect.value)
        return True


class Endpoints:
    """The endpoints of this process, so that all calls share what one of them learned."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], Endpoint] = {}
        self._turnstile = Turnstile()

    def of(self, whisper: "WhisperConfig") -> tuple[Endpoint, ...]:
        """The endpoints to try for these settings: the first choice, then the fallback if there is one."""
        urls = [url for url in (whisper.endpoint_url, whisper.fallback_url) if url]
        key = whisper.api_key.get_secret_value()
        return tuple(
            self._known.setdefault(
                (url, key, whisper.dialect), Endpoint(url, key, whisper.dialect, self._turnstile)
            )
            for url in urls
        )
