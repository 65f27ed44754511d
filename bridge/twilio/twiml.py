"""The TwiML that the bridge answers: the stream, and then the number's own call flow."""

import secrets
from dataclasses import dataclass

from twilio.twiml.voice_response import Connect, Start, VoiceResponse

from bridge.config import NumberSettings
from bridge.twilio.stream_token import PARAMETER

PAUSE_S = 600
"""Seconds of silence at a time when a number has no call flow of its own; then Twilio asks again."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where Twilio finds us: absolute URLs."""

    media: str
    stream_status: str
    resume: str


def with_stream(settings: NumberSettings, addresses: Addresses, token: str) -> str:
    """Start the stream, then go on with the call flow."""
    response = VoiceResponse()
    connect = settings.twilio.mode == "connect"
    verb = Connect() if connect else Start()
    tracks = "inbound" if connect else settings.twilio.tracks
    stream = verb.stream(
        name=f"bridge-{secrets.token_hex(4)}",  # unique in the call, as Twilio wants it
        url=addresses.media,
        track=None if connect else f"{tracks}_track" if tracks != "both" else "both_tracks",
        status_callback=addresses.stream_status,
        status_callback_method="POST",
    )
    stream.parameter(name=PARAMETER, value=token)
    response.append(verb)
    if connect:  # the next verb runs when the stream is over, and without one the call would end
        response.redirect(addresses.resume, method="POST")
    else:
        _call_flow(response, settings, addresses)
    return str(response)


def without_stream(settings: NumberSettings, addresses: Addresses) -> str:
    """The call flow alone: the caller's call goes on, whatever is the matter with us."""
    response = VoiceResponse()
    _call_flow(response, settings, addresses)
    return str(response)


def _call_flow(response: VoiceResponse, settings: NumberSettings, addresses: Addresses) -> None:
    if settings.then:
        response.redirect(settings.then, method="POST")
    else:
        response.pause(length=PAUSE_S)
        response.redirect(addresses.resume, method="POST")
