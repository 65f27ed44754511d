"""How a live call is brought back to us: with a stream of its own, or with the TwiML for one."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from bridge.twilio.addresses import Addresses
from bridge.twilio.gate import Gate
from bridge.twilio.live import Fate, LiveCalls

if TYPE_CHECKING:
    from bridge.call.call import Call


class Summons:
    """See `lifeline.Twilio`. Every method raises `RestFailed`."""

    def __init__(
        self, live: LiveCalls, gate: Gate, addresses: Addresses, wall: Callable[[], float] = time.time
    ) -> None:
        self._live = live
        self._gate = gate
        self._addresses = addresses
        self._wall = wall

    async def fate(self, call_sid: str) -> Fate:
        """What became of a call."""
        return await self._live.fate(call_sid)

    async def bring_back(self, call: "Call") -> None:
        """Ask for a stream of a call that was streamed before. A load balancer may lead it to another process."""
        about = call.about
        if call.memo.mode == "connect":  # such a stream comes by TwiML only
            await self._live.redirect(about.call_sid, self._addresses.resumed(1).resume)
            return
        form = {
            "CallSid": about.call_sid,
            "AccountSid": about.account_sid,
            "From": about.from_,
            "To": about.to,
            "Direction": about.direction,
        }
        token = self._gate.issue(form, self._wall(), again=True)
        await self._live.start_stream(about.call_sid, token=token, settings=call.settings)

    async def dismiss(self, call: "Call") -> None:
        """End the call's present stream, as another one carries it; the call goes on."""
        await self._live.stop_stream(call.about.call_sid, call.memo.stream_sid)
