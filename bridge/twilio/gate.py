"""Who is let in: requests that Twilio signed for our account, and streams that hold a token of ours."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from multidict import MultiDict

from bridge import log, metrics
from bridge.config import Config
from bridge.outbox.outbox import OutboxDown
from bridge.twilio.media import Start
from bridge.twilio.signature import HEADER, Signatures
from bridge.twilio.stream_token import PARAMETER, StreamTokens, Ticket, TokenRefused

LOG_EVERY_S: Final = 1.0
"""At most one log line about refused signatures in this time; the counter has them all."""

SPEND_S: Final = 2.0
"""How long a stream waits to have its token noted; its audio waits with it."""

BODY_S: Final = 5.0
"""How long a request's body may take; Twilio gives up on the whole answer after 15 s."""

_NOBODY: Final = Ticket("", "", "", "", "", 0.0, "")

_logger = log.get(__name__)


class Gate:
    """Checks signatures and tokens as the configuration asks for it."""

    def __init__(
        self, config: Config, public_url: str, spend: Callable[[str, float], Awaitable[bool]]
    ) -> None:
        token = config.twilio.auth_token.get_secret_value()
        self.signatures = Signatures([token] if token else [], public_url)
        self._tokens = StreamTokens(token)
        self._spend = spend  # see `Outbox.spend`
        self._admitted: dict[str, float] = {}  # nonce -> expiry, of tokens that this process let in
        self._verify = config.twilio.verify_signatures
        self._account_sid = config.twilio.account_sid
        self._public_url = public_url
        self._logged_at = -LOG_EVERY_S

    async def form(self, request: web.Request) -> MultiDict[str]:
        """The form of a POST that Twilio signed; raises 403 or 413, and 400 when nothing is verified."""
        signature = request.headers.get(HEADER, "")
        url = self._public_url + request.raw_path
        try:
            async with asyncio.timeout(BODY_S):
                posted = await request.post()
        except TimeoutError as error:
            raise web.HTTPRequestTimeout(text="the body took too long") from error
        except (ValueError, LookupError, web.RequestPayloadError) as error:
            if self._verify:  # Twilio signs what it sends as a form, and this is none
                self._refuse(url, present=bool(signature))
            raise web.HTTPBadRequest(text="the body is not a form") from error
        form = MultiDict((name, value) for name, value in posted.items() if isinstance(value, str))
        if self._verify and not self.signatures.post_is_valid(request.raw_path, form, signature):
            self._refuse(url, present=bool(signature))
        return form

    def check_upgrade(self, request: web.Request) -> None:
        """Raise 403 unless Twilio signed this WebSocket upgrade."""
        signature = request.headers.get(HEADER, "")
        if self._verify and not self.signatures.upgrade_is_valid(request.raw_path, signature):
            self._refuse(self.signatures.stream_origin + request.raw_path, present=bool(signature))

    def is_ours(self, account_sid: str) -> bool:
        """Whether this is the account that we serve."""
        return not self._account_sid or account_sid == self._account_sid

    def issue(self, form: MultiDict[str], now: float) -> str:
        """A token for the stream of the call that Twilio asks about."""
        return self._tokens.issue(
            call_sid=form.get("CallSid", ""),
            account_sid=form.get("AccountSid", ""),
            from_=form.get("From", ""),
            to=form.get("To", ""),
            direction=form.get("Direction", ""),
            now=now,
        )

    async def redeem(self, start: Start, now: float) -> Ticket:
        """Take the token out of a stream's parameters and spend it; raises `TokenRefused`.

        Without signatures (loopback only) a stream may come without a token; then nothing is known of its call.
        """
        token = start.parameters.pop(PARAMETER, "")
        if not self.is_ours(start.account_sid):
            raise TokenRefused("account")
        if not token and not self._verify:
            return _NOBODY
        ticket = self._tokens.read(token, call_sid=start.call_sid, account_sid=start.account_sid, now=now)
        if not await self._admit(ticket, now):
            raise TokenRefused("used")
        return ticket

    async def _admit(self, ticket: Ticket, now: float) -> bool:
        """Note that a token was used; False if it was used before.

        While the outbox is down this process alone knows, for a minute at most: a signed stream of a live call
        is worth more than that.
        """
        self._admitted = {nonce: expires for nonce, expires in self._admitted.items() if expires > now}
        if ticket.nonce in self._admitted:
            return False
        self._admitted[ticket.nonce] = ticket.expires
        try:
            async with asyncio.timeout(SPEND_S):
                return await self._spend(ticket.nonce, ticket.expires)
        except (OutboxDown, TimeoutError):
            metrics.UNCHECKED_TOKENS.inc()
            _logger.warning("token_unchecked", call_sid=ticket.call_sid)
            return True

    def _refuse(self, url: str, *, present: bool) -> None:
        metrics.REFUSALS.labels("signature").inc()
        now = time.monotonic()
        if now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            likely = (
                "twilio.auth_token or server.public_url is not what Twilio has" if present else "not Twilio"
            )
            _logger.warning("signature_refused", checked_url=url[:300], header=present, likely=likely)
        raise web.HTTPForbidden(text="the signature is missing or wrong")
