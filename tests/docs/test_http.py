"""The page on HTTP and the calls that there are say the same."""

import re

from apps.chat.api import api
from apps.operations.urls import urlpatterns
from tests.docs.pages import page

HTTP = page("reference/http.md")


def documented():
    """Method and path of every row that begins with a call."""
    return {match for row in HTTP.rows() for match in re.findall(r"`([A-Z]+) (/[^`]*)`", row[0])}


def test_every_call_of_the_api_is_documented_and_no_other():
    schema = api.get_openapi_schema(path_prefix="/api/")
    there = {(method.upper(), path) for path, methods in schema["paths"].items() for method in methods}
    assert {call for call in documented() if call[1].startswith("/api/")} == there


def test_every_address_for_machines_is_documented():
    assert {("GET", f"/{route.pattern}") for route in urlpatterns} <= documented()
