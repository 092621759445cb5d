"""One list of bounds: each can be set, a wrong one says what it takes, and contradictions stop the process."""

import dataclasses

import pytest

from project.configuration import Configuration, ConfigurationError

BOUNDS = dataclasses.fields(Configuration)


def test_the_defaults_agree_with_each_other():
    Configuration()


@pytest.mark.parametrize("bound", BOUNDS, ids=[bound.name for bound in BOUNDS])
def test_each_bound_has_a_unit_and_a_meaning_and_is_read_from_its_variable(bound):
    assert bound.metadata["unit"]
    assert bound.metadata["meaning"]
    default = getattr(Configuration(), bound.name)
    read = Configuration.from_environment({f"TURNOUT_{bound.name.upper()}": str(default)})
    assert getattr(read, bound.name) == default


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("TURNOUT_RUN_SLOTS", "many", "TURNOUT_RUN_SLOTS is 'many'; it takes a whole number"),
        ("TURNOUT_HEARTBEAT_S", "soon", "TURNOUT_HEARTBEAT_S is 'soon'; it takes a number"),
        ("TURNOUT_METRICS", "perhaps", "TURNOUT_METRICS is 'perhaps'; it takes true or false"),
        ("TURNOUT_RUN_SLOTS", "0", "TURNOUT_RUN_SLOTS is 0; it must be above 0"),
        ("TURNOUT_RUN_TIMEOUT_S", "-1", "TURNOUT_RUN_TIMEOUT_S is -1.0; it must be above 0"),
        ("TURNOUT_EXECUTION", "elsewhere", "execution is in_process or workers"),
    ],
)
def test_a_wrong_value_says_what_was_wrong_and_what_is_accepted(variable, text, says):
    with pytest.raises(ConfigurationError) as refused:
        Configuration.from_environment({variable: text})
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "bounds",
    [
        {"text_bytes": 65_536},
        {"window_events": 128},
        {"window_bytes": 65_536},
        {"segment_events": 300},
        {"flush_window_min_ms": 41},
        {"run_slots_per_user": 21},
        {"run_slots": 2},
        {"drain_timeout_s": 10},
        {"heartbeat_s": 30},
        {"report_stale_s": 4},
        {"revalidate_s": 5},
        {"connections": 15},
        {"event_bytes": 300_000},
    ],
)
def test_bounds_that_contradict_each_other_are_refused_with_the_relation(bounds):
    with pytest.raises(ConfigurationError, match=r"contradict each other: .*(<|<=|>) "):
        Configuration(**bounds)
