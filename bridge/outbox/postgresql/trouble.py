"""What PostgreSQL and its driver complain about, in a sentence that holds no secret."""

import ssl
from collections.abc import Mapping

from bridge.errors import BridgeError, ConfigError
from bridge.outbox.outbox import OutboxDown, OutboxFull

DISK_FULL = "53100"
READ_ONLY = "25006"

_DOWN: Mapping[str, str] = {
    "08": "the connection broke",
    READ_ONLY: "the server takes no writes now",
    "25P03": "a transaction waited too long",
    "40": "it conflicted with another process",
    "53300": "it has no connection to spare",
    "53": "it lacks memory or another resource",
    "57014": "it took too long",
    "57P03": "the server is starting or stopping",
    "57P": "the server is stopping",
    "58": "the server cannot read or write its files",
}
"""SQLSTATE or the beginning of one (PostgreSQL's Appendix A), and what that means."""

_REFUSED: Mapping[str, str] = {
    "28": "refuses the user or the password of outbox.url",
    "3D000": "has no database of the name that outbox.url gives",
    "42501": "does not let the user of outbox.url do that: grant it, as deploy/README.md says",
}
"""What does not go away by itself."""


def in_words(error: BaseException, server: str, *, opening: bool = False) -> BridgeError:
    """The `OutboxDown` or `OutboxFull` that says so; while `opening`, a `ConfigError` where waiting does not help.

    `server` names the hosts. PostgreSQL's own words are not repeated: they can hold names and values.
    """
    state = str(getattr(error, "sqlstate", None) or "")
    if state == DISK_FULL:
        return OutboxFull(f"The disk of PostgreSQL at {server} is full: make room on it.")
    if refused := _lookup(_REFUSED, state):
        return (ConfigError if opening else OutboxDown)(f"PostgreSQL at {server} {refused}.")
    if isinstance(error, ssl.SSLCertVerificationError):
        return (ConfigError if opening else OutboxDown)(
            f"PostgreSQL at {server} shows a certificate that is not trusted ({error.verify_message}): "
            "name its authority with sslrootcert in outbox.url."
        )
    if isinstance(error, ConnectionError) and "SSL upgrade" in str(error):  # the driver's, without a class
        return (ConfigError if opening else OutboxDown)(
            f"PostgreSQL at {server} offers no TLS: turn it on there, or say sslmode=disable in outbox.url."
        )
    if opening and isinstance(error, ValueError):  # the driver's ClientConfigurationError is one
        return ConfigError("outbox.url has a parameter that the driver does not know how to use.")
    return OutboxDown(f"PostgreSQL at {server} cannot be used now: {_reason(error, state)}.")


def _reason(error: BaseException, state: str) -> str:
    if state:
        return _lookup(_DOWN, state) or f"{type(error).__name__}, SQLSTATE {state}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__) if error.errno else "the connection broke"
    if type(error).__name__ == "TargetServerAttributeNotMatched":  # by name, as the driver is an extra
        return _DOWN[READ_ONLY]
    return f"the connection broke ({type(error).__name__})"


def _lookup(sentences: Mapping[str, str], state: str) -> str:
    """The sentence of the longest beginning of `state`."""
    return next((sentences[state[:end]] for end in range(len(state), 0, -1) if state[:end] in sentences), "")
