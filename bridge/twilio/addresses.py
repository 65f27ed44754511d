"""Where Twilio finds us, and what it is asked for when a call is to be streamed to us: in TwiML and by REST alike."""

import secrets
from dataclasses import dataclass, replace
from typing import Final, Self

from bridge.config import NumberSettings

TRACKS: Final = {"inbound": "inbound_track", "outbound": "outbound_track", "both": "both_tracks"}
"""What Twilio calls the sides of a call."""

TIMES: Final = "n"
"""Says in `resume`'s query that a stream is over, and how many there were."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Absolute URLs."""

    voice: str
    media: str
    stream_status: str
    resume: str

    @classmethod
    def of(cls, public_url: str) -> Self:
        """Those of a bridge that Twilio knows as `public_url`."""
        return cls(
            voice=f"{public_url}/twilio/voice",
            media=f"{stream_origin(public_url)}/twilio/media",
            stream_status=f"{public_url}/twilio/stream-status",
            resume=f"{public_url}/twilio/resume",
        )

    def going_on(self, query: str) -> Self:
        """The same for a call whose flow was named when it was dialled: `query` (`?then=...`) tells `resume`, too."""
        return replace(self, resume=self.resume + query)

    def resumed(self, times: int) -> Self:
        """The same for a call that was streamed so many times: `resume` is asked at the end of the stream."""
        return replace(self, resume=f"{self.resume}{'&' if '?' in self.resume else '?'}{TIMES}={times}")

    def stream(self, settings: NumberSettings) -> dict[str, str]:
        """What a stream is asked for with: the library's names of these are the same for a verb and for REST.

        A stream of mode "connect" has the inbound track only.
        """
        tracks = "inbound" if settings.twilio.mode == "connect" else settings.twilio.tracks
        return {
            "name": f"bridge-{secrets.token_hex(4)}",  # unique in the call, as Twilio wants it
            "url": self.media,
            "track": TRACKS[tracks],
            "status_callback": self.stream_status,
            "status_callback_method": "POST",
        }


def stream_origin(public_url: str) -> str:
    """The public address with the scheme of a WebSocket."""
    scheme, _, rest = public_url.partition("://")
    return f"{'wss' if scheme == 'https' else 'ws'}://{rest}"
