"""Figures of remote functions and of the services that run them. No I/O."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from statefun_ray.core.metrics import Figure

LATENCY_BUCKETS_MS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 60_000)
"""Upper bounds; one bucket more counts what took longer."""

ENDPOINT_FIGURES: Final = (
    "statefun_remote_invocation_requests_total",
    "statefun_remote_invocation_failures_total",
    "statefun_remote_invocation_latency_ms",
)
FUNCTION_FIGURES: Final = (
    "statefun_function_remote_invocation_requests_total",
    "statefun_function_remote_invocation_failures_total",
    "statefun_function_remote_invocation_latency_ms",
)
"""Requests, those without a result, and the histogram of their time: per service, per function."""


@dataclass(slots=True)
class Metrics:
    """Figures of one function since the worker's start, or the sum of several."""

    requests: int = 0
    failures: int = 0
    """Requests without a result, whoever is to blame."""
    latency_sum_ms: float = 0.0
    latency_buckets: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS_MS) + 1))

    def answered(self, latency_ms: float) -> None:
        """Count the time of one request."""
        self.latency_sum_ms += latency_ms
        self.latency_buckets[bisect_left(LATENCY_BUCKETS_MS, latency_ms)] += 1


def total(of: Iterable[Metrics]) -> Metrics:
    """Return the sum."""
    result = Metrics()
    for metrics in of:
        result.requests += metrics.requests
        result.failures += metrics.failures
        result.latency_sum_ms += metrics.latency_sum_ms
        for bucket, count in enumerate(metrics.latency_buckets):
            result.latency_buckets[bucket] += count
    return result


def figures_of(names: tuple[str, str, str], labels: str, metrics: Metrics) -> Iterator[Figure]:
    """Yield the figures as Prometheus has them; ``names`` as `ENDPOINT_FIGURES`."""
    requests, failures, latency = names
    yield requests, labels, metrics.requests
    yield failures, labels, metrics.failures
    count = 0
    for bound_ms, in_bucket in zip((*LATENCY_BUCKETS_MS, "+Inf"), metrics.latency_buckets, strict=True):
        count += in_bucket
        yield f"{latency}_bucket", f'{labels},le="{bound_ms}"', count
    yield f"{latency}_sum", labels, metrics.latency_sum_ms
    yield f"{latency}_count", labels, count
