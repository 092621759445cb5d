"""What a scrape sees."""

from prometheus_client.parser import text_string_to_metric_families

from apps.operations.metrics import Metrics


def scrape(metrics):
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {sample.name: sample for family in families for sample in family.samples}


def test_what_is_held_is_a_gauge_and_what_only_rises_a_counter():
    metrics = Metrics(lambda: {"pool.connections": 3, "log.commits_total": 12}, kind="serve", version="0.1.0")
    text = metrics.exposition().decode()
    assert "# TYPE turnout_pool_connections gauge" in text
    assert "# TYPE turnout_log_commits_total counter" in text
    assert scrape(metrics)["turnout_pool_connections"].value == 3
    assert scrape(metrics)["turnout_log_commits_total"].value == 12


def test_the_numbers_are_those_of_the_moment_of_the_scrape():
    counts = {"pool.connections": 1}
    metrics = Metrics(lambda: counts, kind="serve", version="0.1.0")
    assert scrape(metrics)["turnout_pool_connections"].value == 1
    counts["pool.connections"] = 2
    assert scrape(metrics)["turnout_pool_connections"].value == 2


def test_no_label_names_a_user_a_thread_or_a_run():
    metrics = Metrics(lambda: {"pool.connections": 1, "runs_total": 2}, kind="serve", version="0.1.0")
    assert {label for sample in scrape(metrics).values() for label in sample.labels} == {"kind", "version"}


def test_two_processes_in_one_interpreter_do_not_mix_their_numbers():
    first = Metrics(lambda: {"a": 1}, kind="serve", version="1")
    second = Metrics(lambda: {"b": 2}, kind="serve", version="1")
    assert "turnout_b" not in scrape(first)
    assert "turnout_a" not in scrape(second)
