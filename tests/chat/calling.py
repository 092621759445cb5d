"""A user who calls the API, what every problem has, and the calls that take an id."""

import json
from typing import Any

from django.contrib.auth.models import User
from django.test import Client

from apps.chat.authentication import issue_token
from tests.chat.chat_room import Room


class Person(Room):
    """A user of the database with their own program and browser."""

    def __init__(self, name: str) -> None:
        self.user = User.objects.create_user(name, password="s3cret-enough")
        super().__init__(user_id=self.user.pk)
        self.token = issue_token(self.user_id)

    def call(self, method: str, path: str, body: Any = None, **extra: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        data = "" if body is None else json.dumps(body)
        return Client().generic(method, f"/api/{path}", data, "application/json", headers=headers, **extra)


def check_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    assert response["Cache-Control"] == "private, no-store"
    body: dict[str, Any] = response.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["title"]
    assert body["detail"]
    return body


HOSTILE_IDS = ["x", "%00", "a%0Ab", "a" * 10_240, "%F0%9F%98%80", "..", "%2e%2e%2fadmin", "'%20OR%201=1--", "%ED%A0%80"]
CALLS = [
    ("GET", "threads/{thread}", None),
    ("PATCH", "threads/{thread}", {"title": "mine now"}),
    ("PATCH", "threads/{thread}", {"leaf_id": "{message}"}),
    ("DELETE", "threads/{thread}", None),
    ("GET", "threads/{thread}/events", None),
    ("GET", "threads/{thread}/export", None),
    ("GET", "threads/{thread}/export?format=json", None),
    ("POST", "runs", {"thread_id": "{thread}", "text": "hello"}),
    ("POST", "runs", {"thread_id": "{thread}", "text": "hello", "parent_message_id": "{message}"}),
    ("POST", "runs", {"thread_id": "{thread}", "retry_of": "{run}"}),
    ("GET", "attachments/{attachment}", None),
    ("GET", "runs/{run}", None),
    ("POST", "runs/{run}/cancel", None),
]


def filled(template: Any, ids: dict[str, str]) -> Any:
    text = json.dumps(template)
    for name, value in ids.items():
        text = text.replace("{" + name + "}", value)
    return json.loads(text)
