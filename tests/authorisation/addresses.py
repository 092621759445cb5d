"""Every address of the site, read from its URL patterns, and how to fill it in with something that is anna's."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from django.urls import URLPattern, URLResolver, get_resolver

PLACE = re.compile(r"<(?:\w+:)?(\w+)>|\(\?P<(\w+)>[^)]*\)")


@dataclass(frozen=True)
class Address:
    """One pattern, as a route from the site's root: `api/threads/<thread_id>`."""

    route: str

    def filled(self, things: Mapping[str, str]) -> str:
        """The route with what stands for its places in `things`, those of its model first."""

        def fill(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            return things.get(f"{self.model}.{name}") or things[name]

        return "/" + PLACE.sub(fill, self.route).replace("\\Z", "").replace("^", "").replace("$", "")

    @property
    def model(self) -> str:
        """`chat.thread`, for the admin's pages of a model; empty for all else."""
        match = re.fullmatch(r"admin/(\w+)/(\w+)/.*", self.route)
        return f"{match[1]}.{match[2]}" if match else ""


def every_address() -> list[Address]:
    return [Address(route) for route in _routes(get_resolver(), "")]


def _routes(resolver: URLResolver, before: str) -> Iterator[str]:
    for pattern in resolver.url_patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield route
        else:
            yield from _routes(pattern, route)
