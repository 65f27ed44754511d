import asyncio
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import REGISTRY

from bridge.workers.line import Lost
from tests.doubles.bridge import running

NOWHERE = "ws://127.0.0.1:9/websocket"


async def test_health_readiness_and_metrics(tmp_path: Path) -> None:
    async with running(tmp_path, NOWHERE) as setup, aiohttp.ClientSession() as client:
        async with client.get(setup.url + "/healthz") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ok"})
        async with client.get(setup.url + "/readyz") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ready"})
        async with client.get(setup.url + "/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert "bridge_outbox_pending 0.0" in await answer.text()


async def test_an_outbox_that_is_down_is_not_ready_but_alive(tmp_path: Path) -> None:
    async with running(tmp_path, NOWHERE) as setup, aiohttp.ClientSession() as client:
        await setup.bridge._services.outbox.close()
        async with client.get(setup.url + "/readyz") as answer:
            assert (answer.status, await answer.json()) == (503, {"status": "the outbox is down"})
            assert answer.headers["Retry-After"]
        for path in ("/healthz", "/metrics"):
            async with client.get(setup.url + path) as answer:
                assert answer.status == 200


async def test_figures_that_cannot_be_had_now_are_503(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost() -> bytes:
        raise Lost("the other process is gone")

    async with running(tmp_path, NOWHERE) as setup, aiohttp.ClientSession() as client:
        monkeypatch.setattr(setup.bridge._company, "figures", lost)
        async with client.get(setup.url + "/metrics") as answer:
            assert (answer.status, await answer.text()) == (503, "no figures: the other process is gone\n")


async def test_what_is_not_there_is_404(tmp_path: Path) -> None:
    async with running(tmp_path, NOWHERE) as setup, aiohttp.ClientSession() as client:
        for path in ("/", "/api/calls", "/monitor", "/twilio", "/twilio/voice/x", "/%00", "//twilio/voice"):
            async with client.get(setup.url + path) as answer:
                assert answer.status == 404
        async with client.get(setup.url + "/twilio/voice") as answer:
            assert answer.status == 405


async def test_bytes_that_are_no_http_are_counted_without_a_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def malformed() -> float:
        return REGISTRY.get_sample_value("bridge_http_refusals_total", {"status": "malformed"}) or 0.0

    before = malformed()
    async with running(tmp_path, NOWHERE) as setup:
        for head in (b"X" * 20_000, b"A: 1\r\n" * 5000, b"Content-Length: -1", b"Content-Length: \xd9\xa3"):
            reader, writer = await asyncio.open_connection("127.0.0.1", setup.bridge.port)
            writer.write(
                b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\nX: " + head + b"\r\n" + head + b"\r\n\r\n"
            )
            assert b" 400 " in await asyncio.wait_for(reader.readline(), 5)
            writer.close()
            await writer.wait_closed()
    assert malformed() == before + 4
    assert caplog.records == []


async def test_a_body_that_is_not_what_its_encoding_says_is_refused_without_a_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        running(tmp_path, NOWHERE) as setup,
        aiohttp.ClientSession(headers={"Content-Encoding": "gzip"}) as client,
        client.post(setup.url + "/twilio/voice", data=b"CallSid=CA1") as answer,
    ):
        assert answer.status == 403
    assert caplog.records == []
