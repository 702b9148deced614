"""A running build's figures for Prometheus, on request: `vigorl build TASK --metrics 9464`.

    with served(9464, progress):            # None: nothing is served
        await build(settings, progress=progress)

`http://127.0.0.1:9464/metrics` then shows the figures of the progress line as counters and
gauges. They are computed on request, so that they cost nothing otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flows.progress import BuildCounts
from flows.settings_base import Problem


class BuildCollector(Collector):
    """Collects one build's counts as Prometheus' metric families."""

    def __init__(self, counts: BuildCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        counts = self._counts
        trees = GaugeMetricFamily("vigorl_trees", "Trees of this build.", labels=["state"])
        for state, number in (
            ("wanted", counts.total),
            ("there_before", counts.already),
            ("running", len(counts.growing)),
            ("done", counts.done),
            ("right", counts.right),
            ("failed", counts.failed),
        ):
            trees.add_metric([state], number)
        yield trees
        left = counts.seconds_left
        if left is not None:
            yield GaugeMetricFamily("vigorl_left_seconds", "What is left at this pace.", left)
        if counts.teacher is None:
            return
        ledger = counts.teacher.ledger
        yield GaugeMetricFamily(
            "vigorl_requests_in_flight", "Being answered now.", ledger.in_flight
        )
        requests = CounterMetricFamily(
            "vigorl_requests", "Requests to the teacher.", labels=["outcome"]
        )
        requests.add_metric(["asked"], ledger.requests)
        requests.add_metric(["failed"], ledger.failures)
        requests.add_metric(["tried_again"], ledger.retries)
        yield requests
        tokens = CounterMetricFamily("vigorl_tokens", "Tokens of the teacher.", labels=["kind"])
        tokens.add_metric(["prompt"], ledger.prompt_tokens)
        tokens.add_metric(["prompt_cached"], ledger.cached_tokens)
        tokens.add_metric(["written"], ledger.completion_tokens)
        yield tokens


@contextmanager
def served(port: int | None, counts: BuildCounts) -> Iterator[None]:
    """Serve `counts` on this machine's `port` for as long as the block runs.

    Raises:
        Problem: the port is taken.
    """
    if port is None:
        yield
        return
    registry = CollectorRegistry()
    registry.register(BuildCollector(counts))
    try:
        server, thread = start_http_server(port, "127.0.0.1", registry)
    except OSError as error:
        raise Problem(f"metrics: port {port} of this machine cannot be had: {error}") from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
