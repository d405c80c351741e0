"""What Prometheus may ask the service, and the middleware that counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from imagenette.serving.served import Served

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Metrics:
    """The figures of one application."""

    def __init__(self, served: Served, waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "imagenette_requests_total", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "imagenette_request_seconds",
            "From a request's body to its answer.",
            ["route"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.batch = Histogram(
            "imagenette_batch_pictures",
            "Pictures in a pass of the network.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(_State(served, waiting))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _State(Collector):
    """Read when asked."""

    def __init__(self, served: Served, waiting: Callable[[], int]) -> None:
        self._served, self._waiting = served, waiting

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "imagenette_pictures_waiting", "Pictures that wait for the network.", value=self._waiting()
        )
        yield CounterMetricFamily(
            "imagenette_model_swaps", "New versions taken while serving.", value=self._served.swaps
        )
        yield CounterMetricFamily(
            "imagenette_model_refusals", "Versions that failed their proof.", value=self._served.refused
        )
        info = GaugeMetricFamily(
            "imagenette_model_info", "The model that answers.", labels=["name", "version", "run_id"]
        )
        if self._served.current:
            known = self._served.current.lineage
            labels = [known.name, str(known.version), known.run_id or ""] if known else ["", "", ""]
            info.add_metric(labels, 1)
        yield info


class Counting:
    """Counts each request under its route, not its path: a stranger's paths make no new series."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status = time.perf_counter(), "none"  # the client went away

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)
