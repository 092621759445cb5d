"""The old way to call a singleton, kept for callers that were not moved yet: it works, warns, and is counted.

    @old_entry("billing_client")
    def get_client(): ...

The adapter calls what is behind the shim, so that only those who call it directly are warned.
"""

import asyncio
import functools
import inspect
import threading
import warnings
from collections.abc import Callable
from typing import Any

from django.db import connections

from apps.rollout.reach import reach_legacy
from apps.rollout.seams import Seam, declared_seam

MARK = "old_entry_of_seam"


def old_entry[Entry: Callable[..., Any]](seam: str) -> Callable[[Entry], Entry]:
    """Mark a function, synchronous or not, as the old entry of a seam; its signature stays.

    Each direct call raises a DeprecationWarning where it is made, counts as one that reached legacy, and raises
    LegacyRetired where the seam is retired. Raises UnknownSeam at the call, once the seam is no longer declared.
    """

    def shim(entry: Entry) -> Entry:
        if inspect.iscoroutinefunction(entry):

            @functools.wraps(entry)
            async def called(*args: Any, **kwargs: Any) -> Any:
                _warn(entry, seam)
                await asyncio.to_thread(_reach_in_own_thread, declared_seam(seam))
                return await entry(*args, **kwargs)
        else:

            @functools.wraps(entry)
            def called(*args: Any, **kwargs: Any) -> Any:
                _warn(entry, seam)
                _reach(declared_seam(seam))
                return entry(*args, **kwargs)

        setattr(called, MARK, seam)
        return called  # type: ignore[return-value] # the same signature, by `wraps`

    return shim


def behind_shim(found: Any) -> Any:
    """What stands behind an old entry; anything else as it is."""
    return found.__wrapped__ if hasattr(found, MARK) else found


def _warn(entry: Callable[..., Any], seam: str) -> None:
    name = f"{entry.__module__}.{entry.__qualname__}"
    message = f"{name} is the old way; call it through the seam {seam!r}: `async with adapter.use(...)`"
    warnings.warn(message, DeprecationWarning, stacklevel=3)


def _reach(seam: Seam) -> None:
    """Pass the gate, also where an event loop runs and the ORM may not be used: then in a thread, and waited for.

    That holds the loop up for a query. It is the price of a synchronous call in asynchronous code, which the
    caller pays until it is moved.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        reach_legacy(seam)
        return
    refused: list[BaseException] = []

    def reach() -> None:
        try:
            _reach_in_own_thread(seam)
        except BaseException as error:  # noqa: BLE001 - raised again for the caller
            refused.append(error)

    thread = threading.Thread(target=reach, name=f"gate of {seam.name}")
    thread.start()
    thread.join()
    if refused:
        raise refused[0]


def _reach_in_own_thread(seam: Seam) -> None:
    try:
        reach_legacy(seam)
    finally:
        connections.close_all()
