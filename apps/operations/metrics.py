"""What a Prometheus server may read from a process: the census, and no name of a user, thread or run.

The registry is this object's own, so that two processes in one test, or a library with metrics of its own,
never mix their numbers.
"""

import re
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from apps.operations.catalog import FAMILIES, Family
from apps.operations.census import Census

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_UNFIT = re.compile(r"[^a-zA-Z0-9_]")
_CREATED = "_created"  # a time that the client adds to each series of a histogram; it doubles them and tells nothing


class Metrics(Collector):
    """Draws the census when it is scraped, and the histograms that parts keep.

    Labels are those of the catalog, each of a set that the code or the deployment's seams bound: the number of series
    does not grow with users.
    """

    def __init__(self, census: Census, *, kind: str, version: str, histograms: Iterable[Histogram] = ()) -> None:
        self._census = census
        self._about = {"kind": kind, "version": version}
        self._histograms = tuple(histograms)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """One family for each name of the catalog that the census knows; what it does not know stands for itself."""
        yield InfoMetricFamily("turnout_process", "What was started", value=self._about)
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for source, number in self._census().items():
            family, labels = _family_of(source)
            drawn = families.setdefault(family.name, _drawn(family))
            drawn.add_metric(list(labels.values()), number)
        yield from families.values()
        for histogram in self._histograms:
            for metric in histogram.collect():
                metric.samples = [sample for sample in metric.samples if not sample.name.endswith(_CREATED)]
                yield metric

    def exposition(self) -> bytes:
        """The page that a scrape is answered with, of type CONTENT_TYPE."""
        return generate_latest(self._registry)


def _family_of(source: str) -> tuple[Family, dict[str, str]]:
    for family in FAMILIES:
        labels = family.labels_of(source)
        if labels is not None:
            return family, labels
    name = "turnout_" + _UNFIT.sub("_", source)
    return Family(source, name, "count", f"{source}, as the process counts it"), {}


def _drawn(family: Family) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if family.is_counter else GaugeMetricFamily
    return kind(family.name, family.meaning, labels=family.labels)
