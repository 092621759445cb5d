"""Wake-ups. A task carries no work: the Run row is the truth, and a task that is lost is healed by the sweep.

With Django's own ImmediateBackend a task runs in the process and thread that enqueue it, which is all that
runs in this process need. Scaled out, `apps.execution.jobs` takes them to `manage.py run_worker`. Any other
backend takes them to workers of its own, which know nothing of Turnout: there a wake-up opens what executing
needs, and executes until nothing is queued.
"""

from django.conf import settings
from django.tasks import task
from django.utils.module_loading import import_string

from apps.execution.apps import execution_config


@task()
def wake_executor() -> None:
    """A run was queued: look for it now, instead of at the next sweep."""
    services = getattr(execution_config(), "services", None)
    if services is None and settings.CONFIGURATION.execution == "workers":
        import_string(settings.TURNOUT_EXECUTE_QUEUED)()
    else:
        execution_config().services.executor.wake()


@task()
def cancel_run(run_id: str, process_id: str) -> None:  # noqa: ARG001 - a backend may send it by this
    """A run of this process was asked to stop: tell it now, instead of at the next renewal of its lease."""
    services = getattr(execution_config(), "services", None)
    if services is None and settings.CONFIGURATION.execution == "workers":
        return  # whoever runs it is told with its lease
    execution_config().services.executor.cancel(run_id)
