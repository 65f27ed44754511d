import json
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from bridge.outbox.outbox import Stats
from tests.benchmarks.store import __main__ as program
from tests.benchmarks.store import rows
from tests.benchmarks.store.bed import Bed, PostgresBed, Spent, SqliteBed
from tests.benchmarks.store.climb import BITE, Climb
from tests.benchmarks.store.level import figures, spread_ms
from tests.benchmarks.store.load import Carried, Used, opened

BEDS: dict[str, Callable[[], Bed]] = {"postgresql": PostgresBed, "sqlite": SqliteBed}


@pytest.fixture(params=BEDS)
def bed(request: pytest.FixtureRequest) -> Bed:
    if request.param == "postgresql":
        request.getfixturevalue("postgres_programs")
    return BEDS[request.param]()


async def test_a_store_is_filled_with_calls_as_bridges_leave_them(bed: Bed) -> None:
    async with bed:
        await bed.fill(rows.alive(range(20), 10, time.time()))
        await bed.fill(rows.dead(range(20, 26), time.time()))
        await bed.settle()
        async with opened(bed.store) as outbox:
            assert replace(await outbox.stats(), oldest_age_s=0) == Stats(6, 0, lanes_in_backoff=3, dead=0)
            assert set(await outbox.beat("node1")) == {rows.call_sid(number) for number in range(10, 20)}
            assert await outbox.claim("me", 20, 15, room={rows.DEAD: 0}) == []
            due = await outbox.claim("me", 20, 15)
            assert {lane.call_sid for lane in due} == {rows.call_sid(number) for number in (20, 22, 24)}
            (stored,) = await outbox.peek(due[0])
            assert (stored.sequence, len(stored.body)) == (1, len(rows.final(20, 1)))
            lease = await outbox.own_call(rows.call_sid(3), "me", b"")
            assert (lease.epoch, lease.next_sequence, lease.watermarks) == (2, rows.BEGUN, rows.marks(0))
        assert sum((await bed.sizes()).values()) > 0


async def test_finals_are_published_and_delivered_and_what_they_cost_is_told(bed: Bed) -> None:
    async with bed, Climb(bed, processes=1, share=50, seconds=1, warm_s=0.3) as climb:
        assert await climb.fill(100, [10]) == 150
        quiet = await climb.look()
        level = await climb.level(20)
        assert (level["not_posted"], level["not_published"], level["trouble"]) == (0, 0, "")
        assert 5 <= level["finals"] <= 45
        assert {"publish", "ack"} <= level["statements"].keys()
        assert level["statements_per_final"] > 1
        assert level["publish_ms"]["p50"] > 0
        assert level["commit_to_post_ms"].keys() == level["publish_ms"].keys()
        assert level["bridge_cpu_ms_per_final"] > 0
        assert level["log_bytes_per_final"] >= 0
        await climb.block(10)
        silent = await climb.level(10, silent=True)
        assert silent["commit_to_post_ms"] == {}
        assert (silent["not_posted"], silent["trouble"]) == (0, "")
        assert (await climb.look()).keys() == quiet.keys()
        assert {name: answer["p50"] > 0 for name, answer in (await climb.purge()).items()} == {
            "bodies": True,
            "calls": True,
        }


def test_each_event_is_told_of_once_whoever_delivered_it() -> None:
    one = Carried(
        used=Used(0.2, 0.1, 1000),
        published=[0.001, 0.003],
        committed={"a": 1.0, "b": 2.0},
        posted={"b": 2.5},
        operations={"publish": [0.001, 0.003]},
    )
    other = Carried(claimed={"a": 1.25}, posted={"a": 1.5, "b": 2.75}, operations={"ack": [0.002]})

    told = figures([one, other], Spent(0.3, 5000, 6, 1), {"events": 2600}, finals_s=2, seconds=1)

    assert told["commit_to_claim_ms"] == {"p50": 250, "p99": 250, "max": 250}
    assert told["commit_to_post_ms"] == {"p50": 500, "p99": 500, "max": 500}
    assert (told["store_cpu_ms_per_final"], told["bridge_cpu_ms_per_final"]) == (200, 100)
    assert (told["store_cpu_percent"], told["bridges_cpu_percent"]) == (40, 20)
    assert (told["log_bytes_per_final"], told["transactions_per_final"]) == (3000, 3)
    assert told["disk_bytes_per_final"] == {"events": 1300}
    assert told["statements_per_final"] == 1.5
    assert told["kept_up"]


@pytest.mark.parametrize(
    "carried",
    [
        Carried(published=[0.3], committed={"a": 1.0}, posted={"a": 1.0}),
        Carried(published=[0.1], committed={"a": 1.0}),
        Carried(published=[0.1], committed={"a": 1.0}, posted={"a": 1.0}, skipped=1),
        Carried(published=[0.1], committed={"a": 1.0}, posted={"a": 1.0}, trouble="no"),
        Carried(),
    ],
)
def test_who_is_late_or_loses_does_not_keep_up(carried: Carried) -> None:
    assert not figures([carried], Spent(), {}, finals_s=1, seconds=1)["kept_up"]


def test_what_was_ready_beforehand_took_no_time() -> None:
    assert spread_ms([-0.1, 0.002]) == {"p50": 2, "p99": 2, "max": 2}
    assert spread_ms([]) == {}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["mysql"], "there is no store mysql: choose from postgresql, sqlite"),
        (["--finals", "0"], "must be a whole number from 1 on, not '0'"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        program.main(arguments)
    assert sentence in capsys.readouterr().err


def test_the_body_is_a_final_and_a_bite_is_what_retention_takes() -> None:
    assert json.loads(rows.final(1, 2))["data"]["sequence"] == 2
    assert BITE == 500
