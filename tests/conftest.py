"""Fixtures and options for all tests."""

from collections.abc import Generator
from typing import Any

import hypothesis
import pytest

pytest_plugins = ["tests.budget", "tests.chromium", "tests.postgresql", "tests.serving", "tests.valkey"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("turnout")
    group.addoption("--no-skips", action="store_true", help="a test that cannot be run is a failure")
    group.addoption("--proof", action="store_true", help="search long, with new seeds")
    group.addoption("--seed", type=int, help="replay the seeded tests with this seed")


def pytest_configure(config: pytest.Config) -> None:
    # Examples are the same ones each time, so that a red build means that the code changed; a slow machine is no
    # fault of the code. The search for new examples is `make proof`.
    hypothesis.settings.register_profile(
        "usual", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.register_profile(
        "proof",
        deadline=None,
        max_examples=5_000,
        print_blob=True,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("proof" if config.getoption("--proof") else "usual")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Playwright keeps an event loop running in the main thread until the session ends, in which no test of
    # pytest-asyncio can run its own. What takes longest begins first, beside all the others.
    items.sort(key=lambda item: ("playwright" in getattr(item, "fixturenames", ()), "contracts" not in item.path.parts))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not hasattr(report, "wasxfail"):
        _refuse_skip(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report, collector.config)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    if report.skipped and config.getoption("--no-skips"):
        reason: Any = report.longrepr
        report.longrepr = f"could not be run: {reason[2] if isinstance(reason, tuple) else reason}"
        report.outcome = "failed"
