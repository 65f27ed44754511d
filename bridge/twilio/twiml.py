"""The TwiML that the bridge answers: the stream, and then the number's own call flow."""

from xml.etree import ElementTree as ET

from twilio.twiml import TwiML
from twilio.twiml.voice_response import Connect, Start, VoiceResponse

from bridge.config import NumberSettings
from bridge.twilio.addresses import Addresses
from bridge.twilio.stream_token import PARAMETER

PAUSE_S = 600
"""Seconds of silence at a time when a number has no call flow of its own; then Twilio asks again."""


def with_stream(settings: NumberSettings, addresses: Addresses, token: str) -> str:
    """Start the stream, then go on with the call flow."""
    response = VoiceResponse()
    connect = settings.twilio.mode == "connect"
    verb = Connect() if connect else Start()
    asked = addresses.stream(settings)
    if connect:  # has no choice
        del asked["track"]
    stream = verb.stream(**asked)
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
    flow = settings.then
    if flow.twiml:
        for verb in ET.fromstring(flow.twiml):  # noqa: S314 - the configuration's own, and checked when it was read
            response.append(_Verbatim(verb))
    elif flow.url:
        response.redirect(flow.url, method=flow.method)
    else:
        response.pause(length=PAUSE_S)
        response.redirect(addresses.resume, method="POST")


class _Verbatim(TwiML):  # type: ignore[misc]  # the library is not typed
    """A verb as somebody else wrote it."""

    def __init__(self, element: ET.Element) -> None:
        super().__init__()
        self._element = element

    def xml(self) -> ET.Element:
        """What the library puts into the document."""
        return self._element
