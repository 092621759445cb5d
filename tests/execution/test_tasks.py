import pytest

from apps.execution.apps import execution_config
from apps.execution.tasks import cancel_run, wake_executor


class Services:
    """The part of the open services that a wake-up reaches."""

    def __init__(self):
        self.executor = self
        self.told = []

    def wake(self):
        self.told.append("wake")

    def cancel(self, run_id):
        self.told.append(run_id)


@pytest.fixture
def services():
    execution_config().services = services = Services()
    yield services
    execution_config().services = None


def test_a_wake_up_reaches_the_executor_of_this_process(services):
    wake_executor.enqueue()
    cancel_run.enqueue("run-1", "this process")
    assert services.told == ["wake", "run-1"]


def test_a_wake_up_where_nothing_is_open_fails_and_says_what_to_start():
    result = wake_executor.enqueue()
    assert "manage.py serve" in result.errors[0].traceback
