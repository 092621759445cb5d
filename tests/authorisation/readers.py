"""Who asks: nobody, anna whose things they are, ben, staff who may do nothing, and staff who may do everything."""

from typing import Any

from django.contrib.auth.models import User
from django.test import Client

from tests.chat.calling import Person

ANONYMOUS, OWNER, OTHER, STAFF, OPERATOR = "anonymous", "owner", "other", "staff", "operator"


def make_readers(ann: Person, bob: Person) -> dict[str, Client]:
    people = {
        OWNER: ann.user,
        OTHER: bob.user,
        STAFF: User.objects.create_user("staff", is_staff=True),
        OPERATOR: User.objects.create_superuser("operator"),
    }
    readers = {ANONYMOUS: Client(raise_request_exception=False)}
    for name, user in people.items():
        readers[name] = Client(raise_request_exception=False)
        readers[name].force_login(user)
    return readers


def ask(client: Client, method: str, address: str, body: Any = None, **headers: str) -> Any:
    data = b"" if body is None else body
    return client.generic(method, address, data, "application/json", headers=headers)
