"""The bridge as a process: opens its parts in order, serves until a signal, and closes them in the reverse order."""

import asyncio
import contextlib
import resource
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from aiohttp import web

from bridge import log
from bridge.api.api import api
from bridge.api.calls import CallRoutes
from bridge.api.deliveries import Deliveries
from bridge.api.gate import Gate
from bridge.api.numbers import NumberRoutes
from bridge.audio import voice
from bridge.audio.tick import Tick
from bridge.audio.voice import Probability
from bridge.call.journals import Journals
from bridge.call.memo import our_number
from bridge.call.relay import Relay
from bridge.call.services import Services
from bridge.config import Config, WebhookConfig
from bridge.listener import listening
from bridge.loop import rarely_collect
from bridge.numbers.call_flows import CallFlows
from bridge.numbers.numbers import Numbers
from bridge.outbox.outbox import OutboxDown
from bridge.outbox.retention import retain
from bridge.server import application
from bridge.signals import Signals
from bridge.twilio.addresses import Addresses
from bridge.twilio.gate import Gate as StreamGate
from bridge.twilio.live import LiveCalls
from bridge.twilio.rest import TwilioRest
from bridge.twilio.routes import TwilioRoutes
from bridge.twilio.summons import Summons
from bridge.webhook.delivery import Delivery
from bridge.webhook.partials import Partials
from bridge.webhook.target import Targets
from bridge.whisper.ear import Ear
from bridge.whisper.endpoint import Endpoints
from bridge.workers.company import DIED, ERASE, HEIR, Alone, Company
from bridge.workers.company import opened as opened_outbox
from bridge.workers.supervisor import supervise

FINISH_S: Final = 130.0
"""How long ended calls may wait for their last finals before the process leaves their audio on disk."""

HURRY_S: Final = 10.0
"""The same after a second signal."""

FLUSH_S: Final = 2.0
"""How long the process stays for webhooks that are due; the next one delivers the rest."""

READY_S: Final = 2.0
"""An outbox that does not answer within this is not ready; and the longest that `/metrics` waits for its figures."""

_logger = log.get(__name__)


class Bridge:
    """A bridge that listens. Made by `opened`."""

    def __init__(
        self, config: Config, company: Company, services: Services, delivery: Delivery, live: LiveCalls
    ) -> None:
        self.port = company.port
        self.public_url = config.public_url(company.port)
        """What Twilio calls it."""
        self._company = company
        gate = StreamGate(config, self.public_url, services.outbox.spend)
        self.relay = Relay(
            services,
            Summons(live, gate, Addresses.of(self.public_url)),
            lambda about: config.for_number(our_number(about.from_, about.to, about.direction)),
            shared=config.outbox.shared,
            alone=company.alone,
            possible=live.possible,
        )
        self.calls = self.relay.calls
        self.draining = False
        """No more calls are taken."""
        self._config = config
        self._services = services
        self._delivery = delivery
        self.call_flows = CallFlows(services.outbox)
        self.twilio = TwilioRoutes(
            config,
            public_url=self.public_url,
            calls=self.calls,
            call_flows=self.call_flows,
            gate=gate,
            known=services.outbox.known,
            inherit=self.relay.recovery.inherit,
            take=self.relay.reaper.take,
            unready=self._unready,
            company=company,
        )
        company.answer({DIED: self._sibling_died, HEIR: self._sibling_waits, ERASE: self.calls.erase})
        self.relay.recovery.waits = lambda call_sid: company.tell(HEIR, call_sid)

    async def serve(self, live: LiveCalls, numbers: Numbers) -> web.AppRunner:
        """Begin to answer requests."""
        app = application(self.twilio, self._unready_or_down, self._figures, self._operator(live, numbers))
        return await self._company.serve(app, self.twilio.streams)

    async def drain(self, hurry: asyncio.Event) -> None:
        """Take no more calls, and wait for the live ones: until the deadline, or until `hurry` is set."""
        self.draining = True
        deadline_s = self._config.server.drain_deadline_s
        _logger.info("draining", calls=len(self.calls), deadline_s=deadline_s)
        await self.relay.drain(deadline_s, hurry)
        await self.calls.finish(FINISH_S, hurry, HURRY_S)
        with contextlib.suppress(TimeoutError, OutboxDown):
            async with asyncio.timeout(FLUSH_S):
                while await self._services.outbox.next_due() is not None:  # noqa: ASYNC110 - nobody tells when all is sent
                    await asyncio.sleep(FLUSH_S / 100)

    def _operator(self, live: LiveCalls, numbers: Numbers) -> web.Application | None:
        """The operator's API; none without an admin token."""
        token = self._config.server.admin_token.get_secret_value()
        outbox = self._services.outbox
        console = self.twilio.console(live, outbox)
        calls = CallRoutes(outbox, self.calls, console, self.public_url, self._company)
        routes = [
            *Deliveries(outbox, self._erase).routes(),
            *calls.routes(),
            *NumberRoutes(numbers).routes(),
        ]
        return api(Gate(token), routes) if token else None

    async def _erase(self, call_sid: str) -> bool:
        """Have nobody transcribe the call, and remove its audio from this machine; whether there was any."""
        others = await self._company.ask(ERASE, call_sid)
        return await self.calls.erase(call_sid) or any(others)

    async def _sibling_died(self, node: str) -> None:
        """Take over what another worker left, without waiting until it is silent for long enough."""
        await self.relay.recovery.search()  # first: with its audio, a call goes on where it was
        await self._services.outbox.died(node)

    async def _sibling_waits(self, call_sid: str) -> None:
        """Let go of a call without a stream now rather than at the next beat: its stream is at another worker."""
        self.relay.reaper.hasten(call_sid)

    def _unready(self) -> str:
        return "draining" if self.draining else ""

    async def _unready_or_down(self) -> str:
        try:
            async with asyncio.timeout(READY_S):
                # Cheap however much waits: a backlog must not make the bridge unready.
                await self._services.outbox.next_due()
        except (OutboxDown, TimeoutError):
            return "the outbox is down"
        return self._unready()

    async def _figures(self) -> bytes:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                await self._delivery.measure()
        return await self._company.figures()


@contextlib.asynccontextmanager
async def opened(config: Config, detector: Callable[[], Probability] = voice.load) -> AsyncIterator[Bridge]:
    """A bridge that listens; on leaving, calls that are still live are cut and stay on disk.

    `detector` makes what tells speech from other sounds.
    Raises `BridgeError` when the port, the outbox or the configuration cannot be used.
    """
    config.require_serving()
    with listening(config) as listener:
        async with joined(config, Alone(config, listener), detector) as bridge:
            yield bridge


@contextlib.asynccontextmanager
async def joined(
    config: Config, company: Company, detector: Callable[[], Probability] = voice.load
) -> AsyncIterator[Bridge]:
    """A bridge in some company. For the rest, see `opened`."""
    secrets, targets = _secrets(config), Targets(config.webhook.allow_private_networks)
    node = company.node
    with Journals(config.journal_directory, node) as journals:
        async with (
            opened_outbox(company.outbox) as outbox,
            TwilioRest(config.twilio) as rest,
            Delivery(outbox, secrets, targets, owner=node) as delivery,
            Partials(secrets, targets) as partials,
        ):
            services = Services(
                node=node,
                outbox=outbox,
                delivery=delivery,
                tick=Tick(),
                ear=Ear(detector),
                endpoints=Endpoints(),
                partials=partials,
                journals=journals,
                wall=time.time,
                monotonic=time.monotonic,
                tasks=set(),
            )
            live = LiveCalls(rest, Addresses.of(config.public_url(company.port)))
            bridge = Bridge(config, company, services, delivery, live)
            keep = {"keep_bodies_h": config.outbox.keep_bodies_h, "keep_rows_d": config.outbox.keep_rows_d}
            chores = [
                asyncio.create_task(bridge.calls.run()),
                asyncio.create_task(bridge.twilio.streams.run()),
                asyncio.create_task(bridge.call_flows.run()),
                asyncio.create_task(retain(outbox, **keep)),
            ]
            await bridge.relay.begin()
            runner = await bridge.serve(live, Numbers(config, outbox, rest))
            try:
                yield bridge
            finally:
                for chore in chores:
                    chore.cancel()
                await asyncio.gather(*chores, return_exceptions=True)
                bridge.draining = True
                await bridge.relay.close()
                await bridge.calls.abandon()
                await bridge.twilio.streams.close()
                await runner.cleanup()
                services.tick.close()
                services.ear.close()
                await services.close()


async def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT, let live calls end, and return when everything is stored."""
    raise_open_files()
    for warning in config.warnings:
        _logger.warning("configuration", warning=warning)
    if config.server.processes > 1:
        await supervise(config)
    else:
        with Signals() as signals:
            async with opened(config) as bridge:
                rarely_collect()
                await signals.stop.wait()
                await bridge.drain(signals.hurry)
    _logger.info("stopped")


def raise_open_files() -> None:
    """Let the process have as many files open as it may: a call has a dozen, and the usual limit is for older programs."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS says more than it allows
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _secrets(config: Config) -> Callable[[str], Sequence[str]]:
    """The secrets that sign for an endpoint: its number's own, else those of the section."""

    def texts(webhook: WebhookConfig) -> list[str]:
        return [secret.get_secret_value() for secret in webhook.secret]

    settings = [config.for_number(entry.number).webhook for entry in config.numbers]
    known = {webhook.url: texts(webhook) for webhook in [*settings, config.webhook]}
    return lambda endpoint: known.get(endpoint) or texts(config.webhook)
