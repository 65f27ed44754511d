"""Lists, a page at a time.

https://www.twilio.com/docs/usage/twilios-response#response-formats-list-paging-information
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from bridge.local.twilio.rest.form import Fields, integer, text
from bridge.local.twilio.rest.refusal import Refused

PAGE_SIZE: Final = 50
LARGEST: Final = 1000

FIELDS: Final[Fields] = {
    "PageSize": integer(1, LARGEST),
    "Page": integer(0, 1_000_000),
    "PageToken": text(100),
}
"""Parameters of every list."""


def page(
    path: str, key: str, records: Sequence[Mapping[str, Any]], asked: Mapping[str, str]
) -> dict[str, Any]:
    """One page of `records`, which have a `sid` each. The token of a page names the last record before it.

    Raises Refused for a page that nobody was led to.
    """
    size, number = int(asked.get("PageSize", PAGE_SIZE)), int(asked.get("Page", 0))
    token = asked.get("PageToken", "")
    begin = 0
    if number:
        begin = next((n for n, record in enumerate(records, 1) if "PA" + record["sid"] == token), 0)
        if not begin:
            raise Refused(
                "A further page is asked for by its next_page_uri: PageToken is missing or unknown."
            )
    shown = records[begin : begin + size]
    filters = {name: value for name, value in asked.items() if name not in FIELDS}

    def uri(at: int, before: int) -> str:
        turned = {"PageToken": "PA" + records[before - 1]["sid"]} if at else {}
        return f"{path}?{urlencode(filters | {'PageSize': size, 'Page': at} | turned)}"

    return {
        "page": number,
        "page_size": size,
        "start": begin,
        "end": begin + max(0, len(shown) - 1),
        "uri": uri(number, begin),
        "first_page_uri": uri(0, 0),
        "next_page_uri": uri(number + 1, begin + size) if begin + size < len(records) else None,
        "previous_page_uri": uri(number - 1, max(0, begin - size)) if number else None,
        key: [dict(record) for record in shown],
    }
