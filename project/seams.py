"""The seams of this project: what is being replaced, by what. Deleting the legacy room ends with deleting
these lines.
"""

from django.conf import settings

from apps.rollout.seams import Scope, Seam
from apps.rollout.stages import Stage

# Both default to `on`: a new installation is safe without anyone doing anything. The old paths are known to
# leak.
ENGINE_SEAM = Seam(
    name="execution_engine",
    legacy=settings.TURNOUT_LEGACY_ENGINE,
    factory="apps.execution.factory.ExecutionEngineFactory.open_engine",
    scope=Scope.RUN,
    default_stage=Stage.ON,
    replayable=True,
    legacy_leaks=True,
    private=settings.TURNOUT_LEGACY_PRIVATE_ENGINE,
    open_work="project.pinned_work.engine_runs_on_legacy",
)

BRIDGE_SEAM = Seam(
    name="websocket_bridge",
    legacy=settings.TURNOUT_LEGACY_BRIDGE,
    factory="apps.realtime.bridge.WebSocketBridgeFactory.open_run_bridge",
    scope=Scope.RUN,
    default_stage=Stage.ON,
    replayable=True,  # both sets of recipients can be computed for every event, without running anything twice
    legacy_leaks=True,
    open_work="project.pinned_work.bridge_runs_on_legacy",
)

SEAMS = (ENGINE_SEAM, BRIDGE_SEAM)
