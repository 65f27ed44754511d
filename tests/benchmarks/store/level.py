"""What became of the finals of one rate, from what each process tells and from what the store has used."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from tests.benchmarks.store.bed import Spent
from tests.benchmarks.store.load import Carried
from tests.chaos.caller import percentile

LATE_MS: Final = 250.0
"""A store keeps up while 99 of 100 finals are stored within this time of being said, and all are delivered."""


def figures(
    carried: Sequence[Carried], spent: Spent, grown: Mapping[str, int], *, finals_s: float, seconds: float
) -> dict[str, Any]:
    """The results; `spent` and `grown` (bytes of each table) are those of this time alone."""
    finals = max(1, sum(len(one.published) for one in carried))
    committed = _joined(one.committed for one in carried)
    claimed, posted = _joined(one.claimed for one in carried), _joined(one.posted for one in carried)
    publish = spread_ms(list(chain.from_iterable(one.published for one in carried)))
    store_s = spent.cpu_s + sum(one.used.store_cpu_s for one in carried)
    bridges_s = sum(one.used.cpu_s for one in carried)
    lost = len(committed.keys() - posted.keys())
    skipped = sum(one.skipped for one in carried)
    trouble = next((one.trouble for one in carried if one.trouble), "")
    operations = {
        name: list(chain.from_iterable(one.operations.get(name, ()) for one in carried))
        for name in sorted(set().union(*(one.operations for one in carried)))
    }
    return {
        "finals_s": finals_s,
        "seconds": seconds,
        "finals": finals,
        "kept_up": bool(publish) and publish["p99"] <= LATE_MS and not (lost or skipped or trouble),
        "publish_ms": publish,
        "commit_to_claim_ms": spread_ms([claimed[e] - at for e, at in committed.items() if e in claimed]),
        "commit_to_post_ms": spread_ms([posted[e] - at for e, at in committed.items() if e in posted]),
        "not_posted": lost,
        "not_published": skipped,
        "trouble": trouble,
        "store_cpu_percent": round(100 * store_s / seconds, 1),
        "bridges_cpu_percent": round(100 * bridges_s / seconds, 1),
        "store_cpu_ms_per_final": round(1000 * store_s / finals, 3),
        "bridge_cpu_ms_per_final": round(1000 * bridges_s / finals, 3),
        "log_bytes_per_final": round((spent.log_bytes + sum(one.used.written for one in carried)) / finals),
        "transactions_per_final": round(spent.transactions / finals, 2),
        "page_images_per_final": round(spent.page_images / finals, 2),
        "disk_bytes_per_final": {table: round(size / finals) for table, size in grown.items()},
        "statements_per_final": round(sum(map(len, operations.values())) / finals, 2),
        "statements": {
            name: {"per_final": round(len(took) / finals, 3), **spread_ms(took)}
            for name, took in operations.items()
            if took
        },
    }


def spread_ms(seconds: Iterable[float]) -> dict[str, float]:
    """p50, p99 and the largest, in ms; empty if there are none. What was ready beforehand took no time."""
    values = sorted(max(0.0, value) for value in seconds)
    if not values:
        return {}
    told = {"p50": percentile(values, 50), "p99": percentile(values, 99), "max": values[-1]}
    return {name: round(1000 * value, 3) for name, value in told.items()}


def _joined(each: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The earliest of each event, whichever process it was in. A move of watermarks alone has no event."""
    joined: dict[str, float] = {}
    for told in each:
        for event, at in told.items():
            if event:
                joined[event] = min(at, joined.get(event, at))
    return joined
