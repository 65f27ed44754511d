from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from prometheus_client import REGISTRY

from bridge.api.gate import FAILURES, Gate

TOKEN = "an-admin-token"


def request(authorization: str | None, remote: str = "192.0.2.1") -> web.Request:
    headers = {} if authorization is None else {"Authorization": authorization}
    return make_mocked_request("GET", "/api/deliveries", headers=headers).clone(remote=remote)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refused(why: str) -> float:
    return REGISTRY.get_sample_value("bridge_refusals_total", {"why": why}) or 0.0


@pytest.mark.parametrize("authorization", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Bearer   {TOKEN} "])
def test_the_token_is_let_in(clock: Clock, authorization: str) -> None:
    Gate(TOKEN, clock).check(request(authorization))


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer \u00e4\u4e2d",
        "Bearer " + "x" * 8000,
        f"Bearer {TOKEN} {TOKEN}",
    ],
)
def test_anything_else_is_refused_and_counted(clock: Clock, authorization: str | None) -> None:
    before = refused("admin_token")
    with pytest.raises(web.HTTPUnauthorized) as error:
        Gate(TOKEN, clock).check(request(authorization))
    assert error.value.headers["WWW-Authenticate"].startswith("Bearer")
    assert refused("admin_token") == before + 1


def test_a_token_in_the_query_is_not_looked_at(clock: Clock) -> None:
    with pytest.raises(web.HTTPUnauthorized):
        Gate(TOKEN, clock).check(
            make_mocked_request("GET", f"/api/deliveries?token={TOKEN}&access_token={TOKEN}")
        )


def test_who_guesses_too_often_is_not_even_heard_for_a_second(clock: Clock) -> None:
    gate = Gate(TOKEN, clock)
    before = refused("admin_rate")
    for _ in range(FAILURES):
        with pytest.raises(web.HTTPUnauthorized):
            gate.check(request("Bearer guess"))
    for authorization in ("Bearer guess", f"Bearer {TOKEN}"):
        with pytest.raises(web.HTTPTooManyRequests) as error:
            gate.check(request(authorization))
        assert error.value.headers["Retry-After"] == "1"
    assert refused("admin_rate") == before + 2
    gate.check(request(f"Bearer {TOKEN}", remote="127.0.0.1"))  # nobody is locked out by somebody else
    clock.now += 1
    gate.check(request(f"Bearer {TOKEN}"))


def test_the_right_token_may_come_as_often_as_it_likes(clock: Clock) -> None:
    gate = Gate(TOKEN, clock)
    for _ in range(5 * FAILURES):
        gate.check(request(f"Bearer {TOKEN}"))


def test_memory_is_for_one_second(clock: Clock) -> None:
    gate: Any = Gate(TOKEN, clock)
    for second in range(3):
        clock.now = second
        for host in range(50):
            with pytest.raises(web.HTTPUnauthorized):
                gate.check(request(None, remote=f"192.0.2.{host}"))
    assert len(gate._failures) == 50
