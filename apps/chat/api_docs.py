"""The browsable page of the API, drawn on the server from the OpenAPI document. Nothing comes from elsewhere; the one
script sends what its reader fills in.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import render
from ninja import NinjaAPI
from ninja.openapi.docs import DocsBase


@dataclass(frozen=True, slots=True)
class Field:
    """One field or parameter: where it stands, its type in words, and what it means."""

    name: str
    kind: str
    required: bool
    description: str
    place: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One status, and the name of the schema that comes with it."""

    status: str
    description: str
    schema: str


@dataclass(frozen=True, slots=True)
class Call:
    """One method at one address."""

    method: str
    path: str
    summary: str
    description: str
    anchor: str
    parameters: tuple[Field, ...]
    body: str
    takes_file: bool
    example: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """A named schema."""

    name: str
    description: str
    fields: tuple[Field, ...]


class BrowsablePage(DocsBase):
    """Ninja's own page loads scripts from a CDN, which the content security policy forbids."""

    def render_page(self, request: HttpRequest, api: NinjaAPI, **kwargs: Any) -> HttpResponse:
        """The page."""
        get_token(request)  # has the middleware set the cookie that the page's calls send back
        document = api.get_openapi_schema(path_params=kwargs)
        context = {
            "api": api,
            "openapi_url": self.get_openapi_url(api, kwargs),
            "calls": list(calls_of(document)),
            "shapes": list(shapes_of(document)),
            "csrf_cookie": settings.CSRF_COOKIE_NAME,
        }
        return render(request, "chat/api_docs.html", context)


def calls_of(document: Mapping[str, Any]) -> Iterator[Call]:
    """The calls of an OpenAPI document, in its order."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {})
            yield Call(
                method.upper(),
                path,
                operation["summary"],
                operation.get("description", ""),
                operation["operationId"],
                tuple(_parameter(parameter) for parameter in operation["parameters"]),
                _content(body),
                "multipart/form-data" in body,
                _example(body, document["components"]["schemas"]),
                tuple(
                    Answer(str(status), answer["description"], _content(answer.get("content", {})))
                    for status, answer in operation["responses"].items()
                ),
            )


def shapes_of(document: Mapping[str, Any]) -> Iterator[Shape]:
    """The named schemas, in order of their names."""
    for name, schema in sorted(document["components"]["schemas"].items()):
        required = schema.get("required", ())
        fields = schema.get("properties", {})
        yield Shape(
            name,
            schema.get("description", ""),
            tuple(
                Field(key, kind_of(field), key in required, field.get("description", ""))
                for key, field in fields.items()
            ),
        )


def kind_of(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if options := schema.get("anyOf") or schema.get("allOf"):
        return " or ".join(kind_of(option) for option in options)
    if "enum" in schema:
        return " or ".join(f"“{value}”" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {kind_of(schema.get('items', {}))}"
    return str(schema.get("type", "any value"))


def _parameter(parameter: Mapping[str, Any]) -> Field:
    schema = parameter["schema"]
    description = parameter.get("description") or schema.get("description", "")
    kind = f"{kind_of(schema)}, in the {parameter['in']}"
    return Field(parameter["name"], kind, parameter.get("required", False), description, parameter["in"])


def _example(body: Mapping[str, Any], shapes: Mapping[str, Any]) -> str:
    """The body's required fields, empty, as JSON to fill in."""
    schema = body.get("application/json", {}).get("schema", {})
    options = schema.get("anyOf") or [schema]
    shape: Mapping[str, Any] = next((shapes[kind_of(option)] for option in options if kind_of(option) in shapes), {})
    empty: dict[str, Any] = {"array": [], "object": {}, "integer": 0, "boolean": False}
    fields = shape.get("properties", {})
    filled = {name: empty.get(fields[name].get("type", "string"), "") for name in shape.get("required", ())}
    return orjson.dumps(filled, option=orjson.OPT_INDENT_2).decode()


def _content(content: Mapping[str, Any]) -> str:
    """The name of the schema; where it may be left out, that is not said here."""
    return ", ".join(kind_of(media["schema"]).removesuffix(" or null") for media in content.values())
