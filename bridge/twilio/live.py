"""Live telephone calls, by Twilio's REST API: what became of one, and what is done with one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bridge.config import NumberSettings
from bridge.twilio.addresses import Addresses
from bridge.twilio.dial import Dial
from bridge.twilio.rest import RestFailed, TwilioRest
from bridge.twilio.stream_token import PARAMETER

OVER: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
"""The statuses that a call does not leave again."""

STREAMED: Final = frozenset({"in-progress"})
"""The statuses in which there is audio: before somebody picks up there is nothing to stream."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What Twilio says of a call. A party or the direction is empty if it says nothing of it."""

    status: str
    ended_at: float | None
    """In whole seconds since 1970."""
    account_sid: str
    from_: str
    to: str
    direction: str
    """`inbound`, `outbound-api` or `outbound-dial`."""

    @property
    def over(self) -> bool:
        """Whether nobody is on the line any more."""
        return self.status in OVER

    @property
    def streamable(self) -> bool:
        """Whether a stream of the call can be started now."""
        return self.status in STREAMED


class LiveCalls:
    """The calls of one account. Every method raises `RestFailed`, and tries once: again is for the caller to say."""

    def __init__(self, rest: TwilioRest, addresses: Addresses) -> None:
        self._rest = rest
        self._addresses = addresses

    @property
    def possible(self) -> bool:
        """Whether there is an account to use the API with."""
        return self._rest.possible

    async def fate(self, call_sid: str) -> Fate:
        """What became of a call."""
        call = await self._rest.ask(lambda client: client.calls(call_sid).fetch_async(), about="the call")
        if not isinstance(call.status, str):
            raise RestFailed("Twilio's REST API answered with something else than the call.")
        # The library hands on what it cannot read.
        ended_at = call.end_time.timestamp() if isinstance(call.end_time, datetime) else None
        told = (
            call.account_sid,
            call._from,  # noqa: SLF001 - what the library calls a field whose name is a word of the language
            call.to,
            call.direction,
        )
        return Fate(call.status, ended_at, *(each if isinstance(each, str) else "" for each in told))

    async def start_stream(self, call_sid: str, *, token: str, settings: NumberSettings) -> str:
        """Have the audio of a call sent to us from now on; the stream's id.

        `RestFailed.over` when the call is not in progress. After a failure that is `passing` there may be a stream
        all the same: another one takes over from it.
        """
        asked = self._addresses.stream(settings)
        stream = await self._rest.ask(
            lambda client: client.calls(call_sid).streams.create_async(
                **asked, parameter1_name=PARAMETER, parameter1_value=token
            ),
            about="the call",
        )
        return _sid(stream, "the stream")

    async def stop_stream(self, call_sid: str, stream_sid: str) -> None:
        """End a stream; the call goes on. One that is over, and one of a call that is over, has its will already."""
        try:
            await self._rest.ask(
                lambda client: client.calls(call_sid).streams(stream_sid).update_async(status="stopped"),
                about="the stream",
            )
        except RestFailed as failed:
            if not (failed.over or failed.unknown):
                raise

    async def dial(self, dial: Dial) -> str:
        """Place a call; its id. When somebody picks up, our voice URL answers, and it is streamed before anything else.

        Is the bridge gone by then, the call goes on at `dial.then`. After a failure that is `unsure` a telephone may
        ring all the same.
        """
        fallback = {"fallback_url": dial.then, "fallback_method": "POST"} if dial.then else {}
        call = await self._rest.ask(
            lambda client: client.calls.create_async(
                from_=dial.from_,
                to=dial.to,
                url=self._addresses.voice + dial.query,
                method="POST",
                **fallback,
            ),
            about="the numbers",
        )
        return _sid(call, "the call")

    async def redirect(self, call_sid: str, url: str) -> None:
        """Have a call go on with the TwiML at `url`, whatever it is doing. `RestFailed.over` if it is not in progress."""
        await self._rest.ask(
            lambda client: client.calls(call_sid).update_async(url=url, method="POST"), about="the call"
        )


def _sid(made: Any, what: str) -> str:
    """The id of what the library says was made."""
    if not isinstance(made.sid, str) or not made.sid:
        raise RestFailed(f"Twilio's REST API answered with something else than {what}.", unsure=True)
    return made.sid
