"""What a Prometheus server may read from a process: the census, and no name of a user, thread or run.

The registry is this object's own, so that two processes in one test, or a library with metrics of its own,
never mix their numbers.
"""

import re
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from apps.operations.census import Census

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_UNFIT = re.compile(r"[^a-zA-Z0-9_]")


class Metrics(Collector):
    """Draws the census when it is scraped. No label but the version: the number of series never grows."""

    def __init__(self, census: Census, *, kind: str, version: str) -> None:
        self._census = census
        self._about = {"kind": kind, "version": version}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """One gauge for each thing held, one counter for each total."""
        yield InfoMetricFamily("turnout_process", "What was started", value=self._about)
        for name, number in self._census().items():
            metric = "turnout_" + _UNFIT.sub("_", name)
            if name.endswith("_total"):
                yield CounterMetricFamily(metric, f"{name} since the process started", value=number)
            else:
                yield GaugeMetricFamily(metric, f"{name} now", value=number)

    def exposition(self) -> bytes:
        """The page that a scrape is answered with, of type CONTENT_TYPE."""
        return generate_latest(self._registry)
