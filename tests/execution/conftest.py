import pytest

from tests.execution.admitting_desk import Desk


@pytest.fixture
def desk():
    return Desk()
