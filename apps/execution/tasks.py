"""Wake-ups. A task carries no work: the Run row is the truth, and a task that is lost is healed by the sweep.

With Django's own ImmediateBackend a task runs in the process and thread that enqueue it, which is all that
runs in this process need.
"""

from django.tasks import task

from apps.execution.apps import execution_config


@task()
def wake_executor() -> None:
    """A run was queued: look for it now, instead of at the next sweep."""
    execution_config().services.executor.wake()


@task()
def cancel_run(run_id: str) -> None:
    """A run was asked to stop: tell it now, if it runs in this process."""
    execution_config().services.executor.cancel(run_id)
