"""A Whisper deployment that sockets are opened to, and what is known of it."""

from typing import TYPE_CHECKING, Final

from bridge import log
from bridge.whisper.protocol import Dialect

if TYPE_CHECKING:
    from bridge.config import WhisperConfig

_logger = log.get(__name__)

DIALECT_PROBES: Final = 3
"""Rejections in a row, of either dialect, after which a confirmed dialect counts as unknown again."""


class Endpoint:
    """One URL and its key. With dialect `auto` it learns which start message the server takes."""

    def __init__(self, url: str, api_key: str, dialect: str) -> None:
        self.url = url
        self.api_key = api_key
        self.dialect = Dialect.V1 if dialect == "auto" else Dialect(dialect)
        self._learning = dialect == "auto"
        self._confirmed = False
        self._rejections = 0

    def accepted(self, dialect: Dialect) -> None:
        """The server answered a session that was started in `dialect`: it is the right one."""
        if dialect is self.dialect:
            self._confirmed = True
            self._rejections = 0

    def rejected(self, dialect: Dialect) -> bool:
        """The server refused a start message in `dialect`. True when another one is worth trying.

        Sessions that were started together may report the same refusal; only the first one counts.
        """
        if not self._learning:
            return False
        if dialect is not self.dialect:
            return True
        self._rejections += 1
        if self._confirmed and self._rejections < DIALECT_PROBES:
            return False
        self._confirmed = False
        self.dialect = dialect.other
        if self._rejections == 1:
            _logger.warning("whisper_dialect", rejected=dialect.value, using=self.dialect.value)
        return True


class Endpoints:
    """The endpoints of this process, so that all calls share what one of them learned."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], Endpoint] = {}

    def of(self, whisper: "WhisperConfig") -> tuple[Endpoint, ...]:
        """The endpoints to try for these settings: the first choice, then the fallback if there is one."""
        urls = [url for url in (whisper.endpoint_url, whisper.fallback_url) if url]
        key = whisper.api_key.get_secret_value()
        return tuple(
            self._known.setdefault((url, key, whisper.dialect), Endpoint(url, key, whisper.dialect))
            for url in urls
        )
