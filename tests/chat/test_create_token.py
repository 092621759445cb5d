"""`manage.py create_token`."""

import json
from io import StringIO

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from apps.chat.authentication import authenticate_bearer
from apps.chat.models import ApiToken

pytestmark = pytest.mark.django_db


def create_token(*arguments):
    out = StringIO()
    call_command("create_token", *arguments, stdout=out)
    return out.getvalue()


def could_not(*arguments):
    with pytest.raises(CommandError) as caught:
        create_token(*arguments)
    assert caught.value.returncode == 2
    assert not ApiToken.objects.exists()
    return str(caught.value)


def test_it_prints_a_token_that_works_and_nothing_else():
    user = get_user_model().objects.create_user("anna")
    printed = create_token("anna")
    assert printed == printed.strip() + "\n"
    assert authenticate_bearer(printed.strip()) == user


def test_it_prints_json_for_machines():
    user = get_user_model().objects.create_user("anna")
    assert authenticate_bearer(json.loads(create_token("anna", "--json"))["token"]) == user


def test_it_makes_a_user_only_when_told_to():
    assert "--create-user" in could_not("anna")
    token = create_token("anna", "--create-user").strip()
    user = authenticate_bearer(token)
    assert user == get_user_model().objects.get(username="anna")
    assert not user.has_usable_password()
    assert not user.is_staff
    assert authenticate_bearer(create_token("anna", "--create-user").strip()) == user


@pytest.mark.parametrize("name", ["", "a b", "x" * 151, "a\nb"])
def test_a_name_that_no_user_can_have_is_told_so(name):
    assert "cannot be a user" in could_not(name, "--create-user")
    assert not get_user_model().objects.exists()


def test_a_disabled_user_gets_no_token():
    get_user_model().objects.create_user("anna", is_active=False)
    assert "disabled" in could_not("anna")
