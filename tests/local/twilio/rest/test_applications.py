import pytest

from tests.local.twilio.rest.conftest import World

HANDLER = "https://calls.example.com/in"


async def test_applications_are_shown_and_listed(world: World) -> None:
    desk = world.api.applications.add("Desk", voice_url=HANDLER, voice_fallback_url=HANDLER + "/2")
    shop = world.api.applications.add("Shop")
    shown = await world.twilio.ask(lambda client: client.applications(desk).fetch())
    assert (shown.friendly_name, shown.voice_url, shown.voice_method) == ("Desk", HANDLER, "POST")
    read = {name for name in vars(shown) if not name.startswith("_")}
    assert read <= world.api.applications.known[desk].keys()
    listed = await world.twilio.ask(lambda client: client.applications.list(page_size=1))
    assert [each.sid for each in listed] == [desk, shop]
    listed = await world.twilio.ask(lambda client: client.applications.list(friendly_name="Shop"))
    assert [each.sid for each in listed] == [shop]


async def test_a_number_goes_where_its_application_leads(world: World) -> None:
    desk = world.api.applications.add("Desk", voice_url=HANDLER, voice_method="GET")
    world.api.numbers.add("+15550101", voice_application_sid=desk, voice_url="https://ignored.example.com/")
    handler = world.api.numbers.handler("+15550101")
    assert (handler.url, handler.method) == (HANDLER, "GET")


async def test_an_application_that_is_not_there(world: World) -> None:
    assert await world.twilio.refused(lambda client: client.applications("AP" + "1" * 32).fetch()) == (
        404,
        20404,
    )
    with pytest.raises(TypeError, match="an application has no url"):
        world.api.applications.add("Desk", url=HANDLER)
