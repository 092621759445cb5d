"""The readers of the matrix, and the open services that the calls need."""

import pytest

from tests.authorisation.readers import make_readers
from tests.chat.conftest import ann, bob, services

__all__ = ["ann", "bob", "readers", "services"]


@pytest.fixture
def readers(ann, bob):
    return make_readers(ann, bob)
