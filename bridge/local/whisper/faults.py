"""Faults a server can be told to have, so that clients can be tested against them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong with a connection. Times are seconds of this socket's audio unless they say otherwise."""

    times: int | None = None
    """How many connections have the faults, counted from the server's start; None: all of them."""
    upgrade_delay_s: float = 0.0
    """The upgrade hangs this long (wall time), as in a cold start."""
    refuse_status: int | None = None
    """The upgrade is refused with this HTTP status: 401, 403, 404, 429, 503."""
    close_after_s: float | None = None
    """The socket is closed with `close_code` after this much audio; 0: right after the start message."""
    close_code: int = 1011
    reset_after_s: float | None = None
    """The connection breaks without a closing handshake (TCP reset): close code 1006 for the client."""
    stall_after_s: float | None = None
    """The server stops reading, and says nothing more."""
    zombie_after_s: float | None = None
    """The server sends one error message, then stops reading while the socket stays open."""
    never_finish: bool = False
    """`end_audio` is acknowledged and the finals come, but `finished` never does."""
