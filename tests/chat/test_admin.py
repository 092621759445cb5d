"""Operators see who has what; what was said is for those with the permission alone; nobody writes."""

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from apps.chat.models import ApiToken, Message, Thread
from tests.chat.chat_room import Room

pytestmark = pytest.mark.django_db

PAGES = ["thread", "message", "apitoken"]


def staff(*codenames: str) -> Client:
    user = User.objects.create_user("operator", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="chat", codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


def rows() -> dict[str, int | str]:
    room = Room()
    thread = room.thread("canary title")
    room.answer(thread.pk, "canary question", "canary answer")
    token = ApiToken.objects.create(token_hash="c" * 64, user_id=room.user_id, name="ci")
    return {"thread": thread.pk, "message": Message.objects.get(role="assistant").pk, "apitoken": token.pk}


def page(client: Client, name: str, key: int | str | None = None, query: str = "") -> str:
    where = (
        reverse(f"admin:chat_{name}_changelist") if key is None else reverse(f"admin:chat_{name}_change", args=[key])
    )
    response = client.get(where + query, follow=True)
    assert response.status_code == 200, where
    return response.content.decode()


def test_staff_without_the_permission_to_read_see_rows_and_no_words():
    keys = rows()
    client = staff("view_thread", "view_message", "view_apitoken")
    for name in PAGES:
        for shown in (page(client, name), page(client, name, keys[name])):
            assert "canary" not in shown
            assert "c" * 64 not in shown


def test_staff_with_the_permission_to_read_see_what_was_said():
    keys = rows()
    client = staff("view_thread", "view_message", "view_contents")
    assert "canary title" in page(client, "thread", keys["thread"])
    assert "canary answer" in page(client, "message", keys["message"])
    assert "canary" not in page(client, "message")


def test_staff_who_may_view_nothing_see_nothing():
    rows()
    client = staff()
    for name in PAGES:
        assert client.get(reverse(f"admin:chat_{name}_changelist")).status_code == 403


def test_nobody_adds_changes_or_deletes_here():
    keys = rows()
    User.objects.create_superuser("root", password="x")
    client = Client()
    client.force_login(User.objects.get(username="root"))
    for name in PAGES:
        assert client.get(reverse(f"admin:chat_{name}_add")).status_code == 403
        assert client.post(reverse(f"admin:chat_{name}_change", args=[keys[name]]), {"title": "x"}).status_code == 403
        assert client.post(reverse(f"admin:chat_{name}_delete", args=[keys[name]]), {"post": "yes"}).status_code == 403
    assert Thread.objects.get(pk=keys["thread"]).title == "canary title"


@pytest.mark.parametrize("words", ["abc", "1000", "%00", "'"])
@pytest.mark.parametrize("name", PAGES)
def test_any_search_is_answered(name, words):
    rows()
    page(staff("view_thread", "view_message", "view_apitoken"), name, query=f"?q={words}")
