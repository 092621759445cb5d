"""How fast may one connection talk? A token bucket that can go into debt. Pure: time is an argument.

It fills with `rate_per_s` up to `burst`, and each frame takes its cost out of it. Below zero the client is
told to wait (OVER); a client that goes on until it owes another whole burst does not listen, and is closed
(FAR_OVER).
"""

import enum


class Pace(enum.Enum):
    """How a client's speed compares with what it may."""

    WITHIN = enum.auto()
    OVER = enum.auto()
    FAR_OVER = enum.auto()


class TokenBucket:
    """One connection's allowance. `now` is seconds on any clock that never goes back."""

    def __init__(self, rate_per_s: float, burst: float, now: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, cost: float, now: float) -> Pace:
        """Pay for one frame. What is FAR_OVER takes nothing more, so that the debt has a bound."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate_per_s)
        self._at = now
        if self._tokens - cost < -self._burst:
            return Pace.FAR_OVER
        self._tokens -= cost
        return Pace.OVER if self._tokens < 0 else Pace.WITHIN

    def wait_s(self, cost: float) -> float:
        """Seconds after the last `take` in which a frame of this cost is WITHIN again."""
        return max(0.0, (cost - self._tokens) / self._rate_per_s)
