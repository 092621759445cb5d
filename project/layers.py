"""The channel layer that hints go over, and how its connections are dropped, which each layer calls differently.

Redis in production is used by publish and subscribe (`channels_redis.pubsub`), not by the layer that Channels calls its
core: docs/explanation/hints.md says why, with what was measured.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from channels.layers import channel_layers


def own_layer(alias: str) -> Any:
    """A layer that nobody else uses, so that its connections may be dropped at any time."""
    return channel_layers.make_backend(alias)


def disconnecting(layer: Any) -> Callable[[], Awaitable[None]]:
    """What drops the connections of this layer and leaves everybody else's messages and groups as they are."""

    async def nothing_to_drop() -> None:
        """A layer in memory has no connections."""

    module = type(layer).__module__
    drop: Callable[[], Awaitable[None]] = nothing_to_drop
    if module == "channels_redis.pubsub":
        drop = layer.flush  # it keeps nothing in Redis that this could take from others
    elif module == "channels_redis.core":
        drop = layer.close_pools  # its `flush` would empty the groups of all processes
    return drop
