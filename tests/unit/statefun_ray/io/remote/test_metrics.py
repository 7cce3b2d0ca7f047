"""Figures of requests, by function and by service."""

from __future__ import annotations

from statefun_ray.io.remote.metrics import (
    ENDPOINT_FIGURES,
    LATENCY_BUCKETS_MS,
    Metrics,
    figures_of,
    total,
)


def metrics(requests: int, failures: int, *latencies_ms: float) -> Metrics:
    made = Metrics(requests, failures)
    for latency_ms in latencies_ms:
        made.answered(latency_ms)
    return made


def test_a_latency_is_counted_in_the_first_bucket_that_holds_it() -> None:
    longest_ms = LATENCY_BUCKETS_MS[-1]
    made = metrics(5, 0, 0.2, 1, 1.1, longest_ms, longest_ms + 1)
    assert made.latency_buckets[:2] == [2, 1]
    assert made.latency_buckets[-2:] == [1, 1]
    assert made.latency_sum_ms == 0.2 + 1 + 1.1 + 2 * longest_ms + 1


def test_a_service_has_the_sum_of_its_functions() -> None:
    both = total([metrics(3, 1, 0.5, 70_000), metrics(4, 2, 0.7, 3, 3)])
    assert both == metrics(7, 3, 0.5, 70_000, 0.7, 3, 3)
    assert total([]) == Metrics()


def test_a_histogram_is_cumulative_and_ends_with_all() -> None:
    figures = list(figures_of(ENDPOINT_FIGURES, 'endpoint="e"', metrics(4, 1, 0.5, 1.5, 1e6)))
    values = {
        (name.removeprefix("statefun_remote_invocation_"), labels): value for name, labels, value in figures
    }
    assert values["requests_total", 'endpoint="e"'] == 4
    assert values["failures_total", 'endpoint="e"'] == 1
    assert values["latency_ms_bucket", 'endpoint="e",le="1"'] == 1
    assert values["latency_ms_bucket", 'endpoint="e",le="2"'] == 2
    assert values["latency_ms_bucket", 'endpoint="e",le="60000"'] == 2
    assert values["latency_ms_bucket", 'endpoint="e",le="+Inf"'] == 3
    assert values["latency_ms_count", 'endpoint="e"'] == 3
    assert values["latency_ms_sum", 'endpoint="e"'] == 1e6 + 2
