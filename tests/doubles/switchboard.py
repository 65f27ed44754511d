"""What Twilio says to a bridge, one request and one message at a time."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import aiohttp
from prometheus_client import REGISTRY

from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, Setup, running
from tests.doubles.numbered import NumberedWhisper

CA = "CA" + "3" * 32
MZ = "MZ" + "1" * 32
FORM = {
    "CallSid": CA,
    "AccountSid": ACCOUNT.sid,
    "From": "+15550100",
    "To": "+15550199",
    "Direction": "inbound",
}


@asynccontextmanager
async def house(directory: Path, **sections: Any) -> AsyncIterator[tuple[Setup, aiohttp.ClientSession]]:
    """A running bridge, and a client that may ask it anything."""
    async with (
        NumberedWhisper() as whisper,
        running(directory, whisper.url, **sections) as setup,
        aiohttp.ClientSession() as client,
    ):
        yield setup, client


def metric(name: str, **labels: str) -> float:
    """The value of a metric now; 0 if nothing was counted yet."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def post(
    setup: Setup,
    client: aiohttp.ClientSession,
    path: str,
    form: dict[str, str] | None = None,
    signature: str = "",
) -> tuple[int, str]:
    """Post a signed form; the status and the text of the answer."""
    form = FORM if form is None else form
    signed = {"X-Twilio-Signature": signature or ACCOUNT.signature(PUBLIC_URL + path, form)}
    async with client.post(setup.url + path, data=form, headers=signed) as answer:
        return answer.status, await answer.text()


async def token_of(setup: Setup, client: aiohttp.ClientSession, form: dict[str, str] | None = None) -> str:
    """The stream token that a call's TwiML brings."""
    _, text = await post(setup, client, "/twilio/voice", form)
    parameter = ET.fromstring(text).find(".//Parameter")
    assert parameter is not None
    return parameter.attrib["value"]


def start(token: str | None, stream: str = MZ, **changes: Any) -> str:
    """A stream's `start`; `changes` override fields of its body."""
    body = {
        "streamSid": stream,
        "accountSid": ACCOUNT.sid,
        "callSid": CA,
        "tracks": ["inbound", "outbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"tenant": "acme"} | ({} if token is None else {"bridge_token": token}),
    } | changes
    return json.dumps({"event": "start", "sequenceNumber": "1", "streamSid": stream, "start": body})


def media(stream: str, timestamp: int) -> str:
    """20 ms of quiet."""
    body = {"track": "inbound", "chunk": "1", "timestamp": str(timestamp), "payload": "f39/" * 53 + "fw=="}
    return json.dumps({"event": "media", "sequenceNumber": "2", "streamSid": stream, "media": body})


def upgrade(setup: Setup, client: aiohttp.ClientSession) -> Any:
    """A signed media socket."""
    url = PUBLIC_URL.replace("https", "wss") + "/twilio/media"
    return client.ws_connect(
        setup.url + "/twilio/media", headers={"X-Twilio-Signature": ACCOUNT.signature(url)}
    )


async def until(so: Callable[[], bool], timeout: float = 10) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(timeout):
        while not so():
            await asyncio.sleep(0.01)


Raw = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def raw(setup: Setup) -> AsyncIterator[Raw]:
    """A signed media socket, byte by byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.bridge.port)
    signature = ACCOUNT.signature(PUBLIC_URL.replace("https", "wss") + "/twilio/media")
    writer.write(
        f"GET /twilio/media HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n"
        f"X-Twilio-Signature: {signature}\r\n\r\n".encode()
    )
    try:
        async with asyncio.timeout(5):
            answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101"), answer
        yield reader, writer
    finally:
        writer.transport.abort()


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A WebSocket frame of a client's (RFC 6455, section 5.2). Its mask is zero, so the payload can be read in it."""
    size, mask = len(payload), 0x80 * masked
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size < 126:
        head += bytes([mask | size])
    elif size < 65536:
        head += struct.pack("!BH", mask | 126, size)
    else:
        head += struct.pack("!BQ", mask | 127, size)
    return head + bytes(4 * masked) + payload


async def close_code(reader: asyncio.StreamReader, timeout: float = 5) -> int:
    """The code that the bridge closes a socket with; 0 if it cuts the connection without a word."""
    async with asyncio.timeout(timeout):
        try:
            while True:
                opcode, size = await reader.readexactly(2)
                payload = await reader.readexactly(
                    size if size < 126 else int.from_bytes(await reader.readexactly(2))
                )
                if opcode & 0x0F == 8:
                    return int.from_bytes(payload[:2])
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0
