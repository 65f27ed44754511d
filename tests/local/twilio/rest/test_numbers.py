import json
from typing import Any

import pytest
from yarl import URL

from tests.local.twilio.rest.conftest import ACCOUNT, World

FIRST, SECOND = "+15550101", "+15550102"
HANDLER = "https://calls.example.com/in?a=1&b=2"


async def update(world: World, sid: str, **changes: Any) -> Any:
    return await world.twilio.ask(lambda client: client.incoming_phone_numbers(sid).update(**changes))


async def test_a_number_is_shown_with_everything_that_the_library_reads(world: World) -> None:
    sid = world.api.numbers.add(FIRST, voice_url=HANDLER, voice_method="GET", friendly_name="Desk")
    shown = await world.twilio.ask(lambda client: client.incoming_phone_numbers(sid).fetch())
    assert (shown.sid, shown.phone_number, shown.friendly_name) == (sid, FIRST, "Desk")
    assert (shown.voice_url, shown.voice_method, shown.voice_fallback_url) == (HANDLER, "GET", "")
    assert (shown.voice_application_sid, shown.trunk_sid) == ("", None)
    read = {name for name, value in vars(shown).items() if not name.startswith("_")}
    assert read - {"subresource_uris"} <= world.api.numbers.of(FIRST).keys()


async def test_what_was_changed_can_be_changed_back_byte_for_byte(world: World) -> None:
    sid = world.api.numbers.add(FIRST, voice_url=HANDLER, voice_method="GET")
    world.api.numbers.add(SECOND)
    before = world.api.numbers.snapshot()
    changed = await update(
        world,
        sid,
        voice_url="https://bridge.example.com/twilio/voice",
        voice_method="POST",
        voice_fallback_url=HANDLER,
        voice_fallback_method="GET",
        voice_caller_id_lookup=True,
        status_callback="https://calls.example.com/status",
    )
    assert changed.voice_fallback_url == HANDLER
    assert changed.voice_caller_id_lookup is True
    assert world.api.numbers.snapshot() != before
    await update(
        world,
        sid,
        voice_url=HANDLER,
        voice_method="GET",
        voice_fallback_url="",
        voice_fallback_method="POST",
        voice_caller_id_lookup=False,
        status_callback="",
    )
    assert world.api.numbers.snapshot() == before
    assert FIRST.encode() in before


async def test_an_application_and_a_trunk_replace_each_other(world: World) -> None:
    application = world.api.applications.add("Desk")
    sid, trunk = world.api.numbers.add(FIRST), "TK" + "1" * 32
    assert (await update(world, sid, voice_application_sid=application)).voice_application_sid == application
    changed = await update(world, sid, trunk_sid=trunk)
    assert (changed.trunk_sid, changed.voice_application_sid) == (trunk, "")
    changed = await update(world, sid, voice_application_sid=application)
    assert (changed.trunk_sid, changed.voice_application_sid) == (None, application)
    assert world.api.numbers.handler(FIRST).url == ""


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"voice_url": "calls.example.com"}, 21402),
        ({"voice_url": "https://calls.example.com/a b"}, 21402),
        ({"voice_url": "https://calls.example.com:0/"}, 21402),
        ({"voice_url": "https://calls.example.com:99999/"}, 21402),
        ({"voice_url": "https://calls.example.com/" + "a" * 4000}, 21402),
        ({"voice_method": "post"}, 21403),
        ({"voice_fallback_url": HANDLER}, 21405),
        ({"voice_application_sid": "AP" + "1" * 32}, 21218),
        ({"voice_application_sid": "desk"}, 21218),
        ({"trunk_sid": "TK1"}, 20001),
        ({"voice_receive_mode": "telex"}, 20001),
        ({"voice_caller_id_lookup": "perhaps"}, 20001),
        ({"friendly_name": "a" * 65}, 20001),
        ({"account_sid": "AC" + "9" * 32}, 20001),
    ],
)
async def test_a_change_that_cannot_be(world: World, wrong: dict[str, Any], code: int) -> None:
    sid = world.api.numbers.add(FIRST)
    before = world.api.numbers.snapshot()
    refused = await world.twilio.refused(lambda client: client.incoming_phone_numbers(sid).update(**wrong))
    assert refused == (400, code)
    assert world.api.numbers.snapshot() == before


async def test_numbers_are_listed_page_by_page(world: World) -> None:
    numbers = [f"+1555010{n}" for n in range(7)]
    for number in numbers:
        world.api.numbers.add(number)
    listed = await world.twilio.ask(lambda client: client.incoming_phone_numbers.list(page_size=3))
    assert [each.phone_number for each in listed] == numbers
    assert [one.query.get("Page") for one in world.api.requests] == [None, "1", "2"]
    listed = await world.twilio.ask(lambda client: client.incoming_phone_numbers.list(limit=2))
    assert [each.phone_number for each in listed] == numbers[:2]
    page = await world.twilio.ask(lambda client: client.incoming_phone_numbers.page(page_size=3))
    second = await world.twilio.ask(lambda _: page.next_page())
    back = await world.twilio.ask(lambda _: second.previous_page())
    assert [each.phone_number for each in back] == numbers[:3]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"phone_number": FIRST}, [FIRST]),
        ({"phone_number": "5550"}, [FIRST, SECOND]),
        ({"phone_number": "+1555010*"}, [FIRST, SECOND]),
        ({"phone_number": "+1*****02"}, [SECOND]),
        ({"phone_number": "+1555"}, [FIRST, SECOND]),
        ({"phone_number": "+44"}, []),
        ({"friendly_name": "Desk"}, [SECOND]),
        ({"origin": "hosted"}, []),
        ({"beta": False}, [FIRST, SECOND]),
    ],
)
async def test_a_part_of_a_number_finds_all_that_have_it(
    world: World, asked: dict[str, Any], found: list[str]
) -> None:
    world.api.numbers.add(FIRST)
    world.api.numbers.add(SECOND, friendly_name="Desk")
    listed = await world.twilio.ask(lambda client: client.incoming_phone_numbers.list(**asked))
    assert [each.phone_number for each in listed] == found


async def test_the_filter_stays_on_every_page(world: World) -> None:
    for n in range(5):
        world.api.numbers.add(f"+1555010{n}")
        world.api.numbers.add(f"+4420000{n}")
    listed = await world.twilio.ask(
        lambda client: client.incoming_phone_numbers.list(phone_number="+1555", page_size=2)
    )
    assert len(listed) == 5
    assert {one.query["PhoneNumber"] for one in world.api.requests} == {"+1555"}


@pytest.mark.parametrize("asked", [{"phone_number": "desk"}, {"origin": "mars"}, {"page_size": 0}])
async def test_a_list_that_cannot_be(world: World, asked: dict[str, Any]) -> None:
    refused = await world.twilio.refused(lambda client: client.incoming_phone_numbers.page(**asked))
    assert refused == (400, 20001)


async def test_a_number_that_is_not_there(world: World) -> None:
    sid = "PN" + "1" * 32
    one = world.twilio.client.incoming_phone_numbers(sid)
    assert await world.twilio.refused(lambda _: one.fetch()) == (404, 20404)
    assert await world.twilio.refused(lambda _: one.update(voice_url=HANDLER)) == (404, 20404)


def test_a_number_is_made_as_there_are_numbers(world: World) -> None:
    with pytest.raises(TypeError, match="a number has no voice_uri"):
        world.api.numbers.add(FIRST, voice_uri=HANDLER)


async def test_a_page_is_written_as_the_api_writes_it(world: World) -> None:
    for n in range(3):
        world.api.numbers.add(f"+1555010{n}")
    page = await world.twilio.ask(lambda client: client.incoming_phone_numbers.page(page_size=2))
    following = URL(page._payload["next_page_uri"])
    assert following.path == f"/2010-04-01/Accounts/{ACCOUNT.sid}/IncomingPhoneNumbers.json"
    assert following.query["PageToken"].startswith("PAPN")
    assert (page._payload["page"], page._payload["page_size"], page._payload["end"]) == (0, 2, 1)
    json.dumps(page._payload)
