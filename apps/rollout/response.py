"""What automation may do about a breach: the one table of it. Pure."""

import enum

from apps.rollout.seams import Seam
from apps.rollout.stages import Stage


class Breach(enum.Enum):
    """What was found."""

    RATE = "the factory's rate is worse"
    FACTORY_ISOLATION = "the factory showed one user's data to another"
    LEGACY_ISOLATION = "legacy showed one user's data to another"


class Response(enum.Enum):
    """What is done about it. Each latches the seam until a person acknowledges, with a reason."""

    TO_SHADOW = "it goes to shadow"
    TO_OFF = "it goes to off"
    ALARM = "it stays where it is, and rings the alarm"
    REFUSE_WORK = "it stays where it is, and no new work begins until a person decides"


def responses_to(breach: Breach, stage: Stage, seam: Seam) -> tuple[Response, ...]:
    """What to try, in this order: the next one where a stage cannot be served. Nothing where nothing helps.

    Nobody is ever moved to a legacy path because legacy is at fault, nor by automation from `on` to a legacy
    path that is known to leak.
    """
    if breach is Breach.LEGACY_ISOLATION:
        return ()  # it is counted and reported; a latch would keep people from moving up, which is the cure
    if stage is Stage.RETIRED or (stage is Stage.ON and seam.legacy_leaks):
        return (Response.ALARM,) if breach is Breach.RATE else (Response.REFUSE_WORK,)
    if stage not in {Stage.RAMP, Stage.ON}:
        return (Response.ALARM,) if breach is Breach.FACTORY_ISOLATION else ()
    if breach is Breach.FACTORY_ISOLATION:
        return (Response.TO_OFF,)
    return (Response.TO_SHADOW, Response.TO_OFF) if seam.replayable else (Response.TO_OFF,)
