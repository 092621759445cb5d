"""How much work under way is pinned on the old paths. Queued work is not pinned; what waits has ended its run."""

from apps.execution.models import Run


def engine_runs_on_legacy() -> int:
    """Running runs whose agent the old engine runs."""
    return Run.objects.running().filter(paths__execution_engine__path="legacy").count()


def bridge_runs_on_legacy() -> int:
    """Running runs whose events the old bridge addresses."""
    return Run.objects.running().filter(paths__websocket_bridge__path="legacy").count()
