import pytest

from apps.execution.apps import ServicesNotOpen, execution_config


@pytest.fixture
def config():
    config = execution_config()
    yield config
    config.services = None


def test_the_slot_gives_what_the_composition_root_put_there(config):
    services = object()
    config.services = services
    assert config.services is services
    config.services = None
    with pytest.raises(ServicesNotOpen):
        _ = config.services


def test_an_empty_slot_says_what_to_start(config):
    with pytest.raises(ServicesNotOpen, match=r"manage\.py serve"):
        _ = config.services
    assert getattr(config, "services", None) is None
