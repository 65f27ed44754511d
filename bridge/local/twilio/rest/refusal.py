"""How the API says no.

https://www.twilio.com/docs/usage/twilios-response#errors
"""

from http import HTTPStatus
from typing import Final

from aiohttp import web

INVALID: Final = 20001
"""A parameter that is none, or has a value that cannot be: here always, where Twilio may overlook it."""

UNAUTHORIZED: Final = 20003
NO_METHOD: Final = 20004
NOT_FOUND: Final = 20404
TOO_MANY: Final = 20429
FAILED: Final = 20500


class Refused(Exception):  # noqa: N818 - says what was done
    """The request is answered with a status, Twilio's code and a sentence."""

    def __init__(
        self,
        sentence: str,
        code: int = INVALID,
        status: int = HTTPStatus.BAD_REQUEST,
        *,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(sentence)
        self.code = code
        self.status = status
        self.retry_after_s = retry_after_s

    def answer(self) -> web.Response:
        """As the API writes it."""
        body = {
            "code": self.code,
            "message": str(self),
            "more_info": f"https://www.twilio.com/docs/errors/{self.code}",
            "status": int(self.status),
        }
        headers = None if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return web.json_response(body, status=self.status, headers=headers)


def not_found(path: str) -> Refused:
    """Nothing is there, or it is another account's."""
    return Refused(f"The requested resource {path} was not found", NOT_FOUND, HTTPStatus.NOT_FOUND)
