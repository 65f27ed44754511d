from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bridge.call.memo import About
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.rest import RestApi
from bridge.twilio.addresses import Addresses
from bridge.twilio.gate import Gate
from bridge.twilio.live import LiveCalls
from bridge.twilio.rest import TwilioRest
from bridge.twilio.stream_token import StreamTokens
from bridge.twilio.summons import Summons
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, settings


async def test_a_call_is_brought_back_as_its_mode_wants_it(tmp_path: Path) -> None:
    asked: list[Any] = []
    config = settings(tmp_path, "ws://127.0.0.1:9/", "http://127.0.0.1:9/")
    simulated = SimulatedCall(ACCOUNT, "http://127.0.0.1:9/", {}, public_url=PUBLIC_URL)

    class Live(LiveCalls):
        async def start_stream(self, call_sid: str, **options: Any) -> str:
            asked.append((call_sid, options))
            return "MZ1"

        async def redirect(self, call_sid: str, url: str) -> None:
            asked.append((call_sid, url))

        async def stop_stream(self, call_sid: str, stream_sid: str) -> None:
            asked.append((call_sid, stream_sid))

    addresses = Addresses.of(PUBLIC_URL)
    gate = Gate(config, PUBLIC_URL, lambda *_: None)  # type: ignore[arg-type]  # spends nothing here
    async with RestApi(ACCOUNT) as twilio:
        twilio.add(simulated)
        rest = TwilioRest(config.twilio.model_copy(update={"api_base_url": twilio.url}))
        async with rest:
            summons = Summons(Live(rest, addresses), gate, addresses, wall=lambda: 1000.0)
            assert not (await summons.fate(simulated.report.call_sid)).over
            about = About(simulated.report.call_sid, ACCOUNT.sid, "+1", "+2", "inbound", {})
            call: Any = SimpleNamespace(
                about=about,
                settings=config.for_number("+2"),
                memo=SimpleNamespace(mode="start", stream_sid="MZ0"),
            )
            await summons.bring_back(call)
            call.memo.mode = "connect"
            await summons.bring_back(call)
            await summons.dismiss(call)
    (sid, options), redirect, dismissed = asked
    ticket = StreamTokens([ACCOUNT.auth_token]).read(
        options["token"], call_sid=sid, account_sid=ACCOUNT.sid, now=1001.0
    )
    assert (ticket.again, ticket.from_, ticket.to, ticket.expires) == (True, "+1", "+2", 1090.0)
    assert redirect == (sid, f"{PUBLIC_URL}/twilio/resume?n=1")
    assert dismissed == (sid, "MZ0")
