import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridge.config import (
    CallFlow,
    NumberSettings,
    TranscriptConfig,
    TwilioConfig,
    WebhookConfig,
    WhisperConfig,
)
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.handler import Handler
from bridge.local.twilio.rest import Fault, Line, RestApi
from bridge.twilio.addresses import Addresses
from bridge.twilio.dial import Dial
from bridge.twilio.live import LiveCalls
from bridge.twilio.rest import RestFailed, TwilioRest
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL

NOWHERE = "http://127.0.0.1:9"
UNKNOWN = "CA" + "9" * 32
ELSEWHERE = Handler(url="https://voice.example.com/existing")
SETTINGS = NumberSettings(
    "+1", CallFlow(), TwilioConfig(tracks="outbound"), WhisperConfig(), WebhookConfig(), TranscriptConfig()
)


@asynccontextmanager
async def twilio(api: RestApi) -> AsyncIterator[LiveCalls]:
    config = TwilioConfig.model_validate(
        {"account_sid": ACCOUNT.sid, "auth_token": ACCOUNT.auth_token, "api_base_url": api.url}
    )
    async with TwilioRest(config) as rest:
        yield LiveCalls(rest, Addresses.of(PUBLIC_URL))


def a_call() -> SimulatedCall:
    """Two people who talk for a minute, and of whom the bridge knows nothing."""
    audio = {"inbound": b"\xff" * 480_000}
    return SimulatedCall(ACCOUNT, NOWHERE, audio, public_url=PUBLIC_URL, handler=ELSEWHERE)  # type: ignore[arg-type]  # a literal


@asynccontextmanager
async def in_progress() -> AsyncIterator[tuple[RestApi, SimulatedCall, LiveCalls]]:
    """A call in progress, and what the bridge may do with it."""
    async with RestApi(ACCOUNT) as api, twilio(api) as live:
        call = api.add(a_call())
        running = asyncio.create_task(call.run())
        async with asyncio.timeout(5):
            while call.status != "in-progress":
                await asyncio.sleep(0.01)
        try:
            yield api, call, live
        finally:
            call.hang_up()
            await running


async def test_what_becomes_of_a_call() -> None:
    async with in_progress() as (_, call, live):
        fate = await live.fate(call.report.call_sid)
        assert (fate.status, fate.over, fate.streamable, fate.ended_at) == ("in-progress", False, True, None)
        assert (fate.from_, fate.to, fate.direction) == ("+15550100", "+15550199", "inbound")
        assert fate.account_sid == ACCOUNT.sid


async def test_before_somebody_picks_up_there_is_nothing_to_stream() -> None:
    async with RestApi(ACCOUNT) as api, twilio(api) as live:
        call_sid = api.add(a_call()).report.call_sid
        fate = await live.fate(call_sid)
        assert (fate.status, fate.over, fate.streamable) == ("queued", False, False)
        with pytest.raises(RestFailed) as failed:
            await live.start_stream(call_sid, token="v1.token", settings=SETTINGS)
        assert (failed.value.over, failed.value.passing, failed.value.unsure) == (True, False, False)
        assert "nobody has picked up yet" in str(failed.value)


async def test_a_stream_is_started_and_stopped() -> None:
    async with in_progress() as (api, call, live):
        call_sid = call.report.call_sid
        stream_sid = await live.start_stream(call_sid, token="v1.token", settings=SETTINGS)
        asked = dict(api.requests[-1].form)
        assert asked.pop("Name").startswith("bridge-")
        assert asked == {
            "Url": "wss://bridge.example.com/twilio/media",
            "Track": "outbound_track",
            "StatusCallback": f"{PUBLIC_URL}/twilio/stream-status",
            "StatusCallbackMethod": "POST",
            "Parameter1.Name": "bridge_token",
            "Parameter1.Value": "v1.token",
        }
        assert [stream.stream_sid for stream in call.report.streams] == [stream_sid]
        await live.stop_stream(call_sid, stream_sid)
        await live.stop_stream(call_sid, stream_sid)
        assert [request.form for request in api.requests[-2:]] == [{"Status": "stopped"}] * 2


async def test_a_stream_that_is_over_needs_no_stop() -> None:
    async with in_progress() as (_, call, live):
        call_sid = call.report.call_sid
        stream_sid = await live.start_stream(call_sid, token="t", settings=SETTINGS)
        await live.stop_stream(call_sid, "MZ" + "0" * 32)
        call.hang_up()
        await live.stop_stream(call_sid, stream_sid)
        await live.stop_stream(UNKNOWN, stream_sid)


async def test_a_stop_that_twilio_refuses_is_told() -> None:
    async with in_progress() as (api, call, live):
        api.faults.add(Fault(status=503, where="/Streams/"))
        with pytest.raises(RestFailed) as failed:
            await live.stop_stream(call.report.call_sid, "MZ" + "0" * 32)
        assert failed.value.passing


async def test_a_call_is_led_somewhere_else() -> None:
    async with in_progress() as (api, call, live):
        url = f"{PUBLIC_URL}/twilio/resume?n=2"
        await live.redirect(call.report.call_sid, url)
        assert api.requests[-1].form == {"Url": url, "Method": "POST"}
        call.hang_up()
        with pytest.raises(RestFailed) as failed:
            await live.redirect(call.report.call_sid, url)
        assert failed.value.over


async def test_a_call_is_placed() -> None:
    async with RestApi(ACCOUNT) as api, twilio(api) as live:
        api.numbers.add("+15550199")
        api.calls.line = Line(NOWHERE, PUBLIC_URL, {"inbound": b"\xff" * 800})
        then = "https://voice.example.com/hello?x=1&y=2"
        call_sid = await live.dial(Dial("+15550199", "+15550100", then))
        assert api.calls.known[call_sid].direction == "outbound-api"
        assert api.requests[-1].form == {
            "From": "+15550199",
            "To": "+15550100",
            "Url": f"{PUBLIC_URL}/twilio/voice?then=https://voice.example.com/hello?x%3D1%26y%3D2",
            "Method": "POST",
            "FallbackUrl": then,
            "FallbackMethod": "POST",
        }
        await live.dial(Dial("+15550199", "+15550100", ""))
        assert api.requests[-1].form["Url"] == f"{PUBLIC_URL}/twilio/voice"
        assert "FallbackUrl" not in api.requests[-1].form


async def test_a_number_that_is_not_ours_cannot_call() -> None:
    async with RestApi(ACCOUNT) as api, twilio(api) as live:
        with pytest.raises(RestFailed) as failed:
            await live.dial(Dial("+15550199", "+15550100", ""))
    assert str(failed.value) == (
        "Twilio's REST API answered 400, error 21210: see https://www.twilio.com/docs/errors/21210."
    )
    assert (failed.value.code, failed.value.passing) == (21210, False)


@pytest.mark.parametrize(
    ("fault", "passing", "unsure", "unknown"),
    [
        (Fault(status=404), False, False, True),
        (Fault(status=429), True, False, False),
        (Fault(status=500), True, True, False),
        (Fault(status=503), True, True, False),
        (Fault(status=401), False, False, False),
        (Fault(drops=True, afterwards=True), True, True, False),
    ],
)
async def test_what_may_help_after_a_failure(
    fault: Fault, passing: bool, unsure: bool, unknown: bool
) -> None:
    async with in_progress() as (api, call, live):
        api.faults.add(fault)
        with pytest.raises(RestFailed) as failed:
            await live.start_stream(call.report.call_sid, token="t", settings=SETTINGS)
        why = failed.value
        assert (why.passing, why.unsure, why.unknown, why.over) == (passing, unsure, unknown, False)
