"""The execution room's app, and the one slot through which Django's own calls reach the services of this
process.
"""

from typing import Any

from django.apps import AppConfig, apps


class ServicesNotOpen(AttributeError):  # noqa: N818 - names the state that was met
    """The services of this process are not open: start it with `manage.py serve`, or under a server that
    speaks ASGI lifespan. A shell, a command or a plain WSGI server can read rows, but runs nothing.

    An AttributeError, so that `getattr(config, "services", None)` asks whether they are.
    """

    def __init__(self) -> None:
        super().__init__(" ".join((self.__doc__ or "").split("\n\n")[0].split()))


class ExecutionConfig(AppConfig):
    """Label `execution`. Holds the slot `services`, which the composition root fills and empties, and nobody
    else.
    """

    name = "apps.execution"
    label = "execution"
    verbose_name = "Execution"

    _services: Any = None

    @property
    def services(self) -> Any:
        """The open services of this process, for views, admin and tasks: Django calls those without
        arguments.

        Raises ServicesNotOpen.
        """
        if self._services is None:
            raise ServicesNotOpen
        return self._services

    @services.setter
    def services(self, services: Any) -> None:
        self._services = services


def execution_config() -> ExecutionConfig:
    """The configuration of this app, typed."""
    config = apps.get_app_config("execution")
    assert isinstance(config, ExecutionConfig)
    return config
