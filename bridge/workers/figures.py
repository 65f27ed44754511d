"""What workers have counted and measured, each for itself, as the figures of one bridge."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
from prometheus_client import REGISTRY, CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

SMALLEST: Final = ("process_start_time_seconds",)
LARGEST: Final = ("process_max_fds", "python_info", "bridge_webhook_breakers_open")
OF_THE_OUTBOX: Final = (
    "bridge_outbox_pending",
    "bridge_outbox_oldest_pending_seconds",
    "bridge_outbox_dead",
    "bridge_outbox_lanes_backoff",
    "bridge_webhook_endpoints_paused",
)
"""Gauges that every worker reads from the same outbox, when it is asked: only who is asked has them right."""

COUNTED_TWICE: Final = "bridge_outbox_publish_seconds"
"""Measured by the worker that waits for the outbox, and by the process that has it."""

_SUMMED: Final = ("counter", "histogram")


class Family(msgspec.Struct, array_like=True, frozen=True):
    """One metric with all its samples."""

    name: str
    about: str
    type: str
    samples: list[tuple[str, dict[str, str], float]]


def read(registry: CollectorRegistry = REGISTRY) -> list[Family]:
    """What this process has counted and measured so far."""
    return [
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            [(sample.name, dict(sample.labels), sample.value) for sample in metric.samples],
        )
        for metric in registry.collect()
    ]


def without(families: Iterable[Family], *names: str) -> list[Family]:
    """All but these."""
    return [family for family in families if family.name not in names]


def lasting(families: Iterable[Family]) -> list[Family]:
    """What is true of a process that is no more: what it has counted."""
    return [family for family in families if family.type in _SUMMED]


def combined(asked: Sequence[Family], *others: Sequence[Family]) -> list[Family]:
    """The figures of all; those that are not of one process are the ones of who was asked."""
    found: dict[str, Family] = {}
    samples: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for number, families in enumerate((asked, *others)):
        for family in families:
            if number and family.name in OF_THE_OUTBOX:
                continue
            found.setdefault(family.name, family)
            values = samples.setdefault(family.name, {})
            for name, labels, value in family.samples:
                key = name, tuple(sorted(labels.items()))
                values[key] = _together(family.name, name, values[key], value) if key in values else value
    return [
        Family(
            name,
            family.about,
            family.type,
            [(sample, dict(labels), value) for (sample, labels), value in samples[name].items()],
        )
        for name, family in found.items()
    ]


def text(families: Iterable[Family]) -> bytes:
    """As Prometheus reads it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families))
    return generate_latest(registry)


def _together(family: str, sample: str, one: float, other: float) -> float:
    if sample.endswith("_created") or family in SMALLEST:
        return min(one, other)
    return max(one, other) if family in LARGEST else one + other


class _Collected(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.about, family.type)
            metric.samples = [Sample(name, labels, value) for name, labels, value in family.samples]
            yield metric
