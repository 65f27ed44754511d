from typing import Any

import pytest

from bridge.local.twilio.rest.paging import page
from bridge.local.twilio.rest.refusal import Refused

RECORDS = [{"sid": str(n)} for n in range(5)]


def asked(uri: str) -> dict[str, str]:
    return dict(part.split("=") for part in uri.partition("?")[2].split("&"))


def test_each_page_leads_to_the_next_one_and_back() -> None:
    shown: list[dict[str, Any]] = []
    pages: list[dict[str, Any]] = []
    uri: str | None = "/things.json?PageSize=2&Filter=x"
    while uri is not None:
        pages.append(page("/things.json", "things", RECORDS, asked(uri)))
        shown += pages[-1]["things"]
        uri = pages[-1]["next_page_uri"]
    assert shown == RECORDS
    assert [(each["start"], each["end"]) for each in pages] == [(0, 1), (2, 3), (4, 4)]
    assert all("Filter=x" in each["uri"] for each in pages)
    assert pages[0]["previous_page_uri"] is None
    assert (
        page("/things.json", "things", RECORDS, asked(pages[2]["previous_page_uri"]))["things"]
        == RECORDS[2:4]
    )


def test_an_empty_list_is_one_page() -> None:
    only = page("/things.json", "things", [], {})
    assert (only["things"], only["next_page_uri"], only["end"]) == ([], None, 0)


@pytest.mark.parametrize("token", [{}, {"PageToken": "PA9"}])
def test_a_page_that_nobody_was_led_to(token: dict[str, str]) -> None:
    with pytest.raises(Refused):
        page("/things.json", "things", RECORDS, {"Page": "1", "PageSize": "2", **token})
