"""Who is let in: requests that Twilio signed for our account, and streams that hold a token of ours."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NoReturn

import msgspec
from aiohttp import web
from multidict import MultiDict

from bridge import log, metrics
from bridge.config import Config
from bridge.outbox.outbox import OutboxDown
from bridge.twilio import mismatch
from bridge.twilio.admission import RESERVED_S
from bridge.twilio.media import Start
from bridge.twilio.signature import HEADER, Signatures
from bridge.twilio.stream_token import AGAIN_S, PARAMETER, StreamTokens, Ticket, TokenRefused

LOG_EVERY_S: Final = 1.0
"""At most one log line about refused signatures in this time; the counter has them all."""

SPEND_S: Final = 2.0
"""How long a stream waits to have its token noted; its audio waits with it."""

BODY_S: Final = 5.0
"""How long a request's body may take; Twilio gives up on the whole answer after 15 s."""

MOST_FIELDS: Final = 100
"""Fields of a form for which it is worth finding out what else was signed; Twilio sends some thirty."""

_NOBODY: Final = Ticket("", "", "", "", "", 0.0, "")

_logger = log.get(__name__)


class Gate:
    """Checks signatures and tokens as the configuration asks for it."""

    def __init__(
        self, config: Config, public_url: str, spend: Callable[[str, float], Awaitable[bool]]
    ) -> None:
        tokens = [token.get_secret_value() for token in config.twilio.auth_token]
        self.signatures = Signatures(tokens, public_url)
        self._tokens = StreamTokens(tokens or [""])  # only what nobody verifies does without
        self._spend = spend  # see `Outbox.spend`
        self._admitted: dict[str, float] = {}  # nonce -> expiry, of tokens that this process let in
        self._awaited: dict[str, float] = {}  # call -> until when its stream is expected
        self._verify = config.twilio.verify_signatures
        self._account_sid = config.twilio.account_sid
        self._public_url = public_url
        self._logged_at = -LOG_EVERY_S

    async def form(self, request: web.Request) -> MultiDict[str]:
        """The fields of a POST that Twilio signed; raises 403 or 413, and 400 when nothing is verified.

        Twilio posts forms. Of a body in JSON its hash is signed, and the texts of its object are the fields.
        """
        is_json = request.content_type == "application/json"
        try:
            async with asyncio.timeout(BODY_S):
                form = _texts(await request.read()) if is_json else _form(await request.post())
        except TimeoutError as error:
            raise web.HTTPRequestTimeout(text="the body took too long") from error
        except (ValueError, LookupError, RecursionError, web.RequestPayloadError) as error:
            if self._verify:  # Twilio signs what it sends as a form, and this is none
                self._refuse(request, self._public_url, None)
            raise web.HTTPBadRequest(text="the body is not a form") from error
        if self._verify and not self._is_signed(request, await request.read() if is_json else form):
            self._refuse(request, self._public_url, None if is_json else form)
        return form

    def check_upgrade(self, request: web.Request) -> None:
        """Raise 403 unless Twilio signed this WebSocket upgrade."""
        if self._verify and not self.signatures.upgrade_is_valid(request.raw_path, _signature(request)):
            self._refuse(request, self.signatures.stream_origin, MultiDict())

    def _is_signed(self, request: web.Request, content: MultiDict[str] | bytes) -> bool:
        signature = _signature(request)
        if isinstance(content, bytes):
            return self.signatures.body_is_valid(request.raw_path, content, signature)
        return self.signatures.post_is_valid(request.raw_path, content, signature)

    def is_ours(self, account_sid: str) -> bool:
        """Whether this is the account that we serve."""
        return not self._account_sid or account_sid == self._account_sid

    def issue(
        self, form: Mapping[str, str], now: float, *, again: bool = False, by_hand: bool = False
    ) -> str:
        """A token for a stream of the call that a form of Twilio's is about. See `Ticket` for `again` and `by_hand`."""
        self._awaited[form.get("CallSid", "")] = now + (AGAIN_S if again else RESERVED_S)
        return self._tokens.issue(
            call_sid=form.get("CallSid", ""),
            account_sid=form.get("AccountSid", ""),
            from_=form.get("From", ""),
            to=form.get("To", ""),
            direction=form.get("Direction", ""),
            now=now,
            again=again,
            by_hand=by_hand,
        )

    def awaited(self, now: float) -> int:
        """Streams that were let in, and have not come: none of them may be turned away at the door."""
        self._awaited = {call_sid: until for call_sid, until in self._awaited.items() if until > now}
        return len(self._awaited)

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
        self._awaited.pop(ticket.call_sid, None)
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

    def _refuse(self, request: web.Request, public_url: str, form: MultiDict[str] | None) -> NoReturn:
        """Say that Twilio did not sign this, and to the log why; `form` is None of a body that is none."""
        metrics.REFUSALS.labels("signature").inc()
        now = time.monotonic()
        if now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            path, question, query = request.raw_path.partition("?")
            names = "&".join(f"{part.partition('=')[0]}=..." for part in query.split("&") if part)
            _logger.warning(
                "signature_refused",
                checked_url=f"{public_url}{path}{question}{names}"[:300],
                header=HEADER in request.headers,
                likely=self._likely_cause(request, public_url, form),
            )
        raise web.HTTPForbidden(text="the signature is missing or wrong")

    def _likely_cause(self, request: web.Request, public_url: str, form: MultiDict[str] | None) -> str:
        """Why the signature does not fit, in a sentence."""
        given, path = request.headers.getall(HEADER, []), request.raw_path
        fields = MultiDict[str]() if form is None else form
        if len(given) != 1:
            likely = "the request has more than one signature" if given else "this is not Twilio"
        elif form is None and self.signatures.post_is_valid(path, fields, given[0]):
            likely = "the body is not the one that Twilio signed (bodySHA256 in the query is another), or is no form"
        elif len(fields) > MOST_FIELDS:
            likely = "this is not Twilio: it never sends so many fields"
        elif signed := mismatch.likely_cause(
            public_url, path, request.headers, lambda url: self.signatures.fits(url, fields, given[0])
        ):
            likely = signed
        elif not self.is_ours(fields.get("AccountSid", self._account_sid)):
            likely = "the request is about another account than twilio.account_sid, whose auth token signs it"
        else:
            likely = mismatch.guess(public_url, request.headers)
        return likely


def _signature(request: web.Request) -> str:
    """The signature; nothing when there are several."""
    given = request.headers.getall(HEADER, [])
    return given[0] if len(given) == 1 else ""


def _form(posted: Mapping[str, object]) -> MultiDict[str]:
    return MultiDict((name, value) for name, value in posted.items() if isinstance(value, str))


def _texts(body: bytes) -> MultiDict[str]:
    """The texts of a JSON object. Raises `ValueError` for anything else."""
    fields = msgspec.json.decode(body, type=dict[str, object])
    return MultiDict((name, value) for name, value in fields.items() if isinstance(value, str))
