from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from bridge.workers import figures
from bridge.workers.figures import Family, combined, lasting, read, text, without


def worker(calls: int, live: int, pending: int, seconds: Sequence[float] = ()) -> list[Family]:
    """What one process has counted."""
    registry = CollectorRegistry()
    Counter("bridge_calls_total", "Calls.", ["reason"], registry=registry).labels("hangup").inc(calls)
    Gauge("bridge_calls_live", "Live calls.", registry=registry).set(live)
    Gauge("bridge_outbox_pending", "Waiting.", registry=registry).set(pending)
    Gauge("bridge_webhook_breakers_open", "Down.", registry=registry).set(live > 1)
    histogram = Histogram("bridge_tick_seconds", "Ticks.", buckets=(1, 2), registry=registry)
    for each in seconds:
        histogram.observe(each)
    return read(registry)


def values(families: Sequence[Family]) -> dict[str, float]:
    parsed = text_string_to_metric_families(text(families).decode())
    return {
        sample.name + "".join(sorted(sample.labels.values())): sample.value
        for family in parsed
        for sample in family.samples
    }


def test_counters_histograms_and_gauges_of_workers_are_added_up() -> None:
    found = values(combined(worker(3, 1, 7, [0.5, 1.5]), worker(4, 2, 7, [1.5])))
    assert found["bridge_calls_totalhangup"] == 7
    assert found["bridge_calls_live"] == 3
    assert found["bridge_tick_seconds_bucket1.0"] == 1
    assert found["bridge_tick_seconds_bucket2.0"] == 3
    assert found["bridge_tick_seconds_count"] == 3
    assert found["bridge_tick_seconds_sum"] == 3.5


def test_what_all_of_them_read_from_one_outbox_is_said_once_by_who_was_asked() -> None:
    assert values(combined(worker(0, 0, 7), worker(0, 0, 1)))["bridge_outbox_pending"] == 7


def test_an_endpoint_that_is_down_for_two_workers_is_one() -> None:
    assert values(combined(worker(0, 2, 0), worker(0, 2, 0)))["bridge_webhook_breakers_open"] == 1


def test_what_a_dead_worker_has_counted_stays_and_what_it_had_goes() -> None:
    buried = combined(lasting(worker(3, 9, 5)))
    for _ in range(2):  # its successors die too
        buried = combined(lasting(worker(1, 9, 5)), buried)
    found = values(combined(worker(1, 1, 0), buried))
    assert found["bridge_calls_totalhangup"] == 6
    assert found["bridge_calls_live"] == 1


def test_the_beginning_of_a_process_is_that_of_the_first() -> None:
    one, other = (
        [Family("process_start_time_seconds", "", "gauge", [("process_start_time_seconds", {}, at)])]
        for at in (20.0, 10.0)
    )
    assert values(combined(one, other)) == {"process_start_time_seconds": 10.0}


def test_every_name_of_the_rules_is_the_name_of_a_metric() -> None:
    known = {family.name for family in read()}
    assert {*figures.OF_THE_OUTBOX, *figures.SMALLEST, *figures.LARGEST, figures.COUNTED_TWICE} <= known
    assert figures.COUNTED_TWICE not in {family.name for family in without(read(), figures.COUNTED_TWICE)}
