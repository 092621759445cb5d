"""Seams of a team's own, declared for the tests of the rollout room only."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.test import Client
from django.urls import include, path

from apps.rollout.moves import MOVE_STAGE, RIGHTS
from apps.rollout.stages import Mover, MoverKind
from apps.vocabulary import Identity, UserId


@pytest.fixture(autouse=True)
def declared(settings):
    settings.TURNOUT_SEAMS = "tests.rollout.paths.SEAMS"
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def anna():
    return Mover(MoverKind.PERSON, "anna", UserId(1), RIGHTS)


@pytest.fixture
def ben():
    return Mover(MoverKind.PERSON, "ben", UserId(2), RIGHTS)


@pytest.fixture
def make_user(db):
    def make(name, *rights, **fields):
        user = User.objects.create_user(name, password="a pass phrase", **fields)
        for right in rights:
            user.user_permissions.add(Permission.objects.get(codename=right.partition(".")[2]))
        return user

    return make


def identity_of(user):
    return Identity(UserId(user.pk), user.get_username())


@pytest.fixture
def only_the_admin(settings):
    settings.ROOT_URLCONF = (path("admin/", admin.site.urls), path("static/", include([])))
    settings.STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.SECURE_SSL_REDIRECT = False


@pytest.fixture
def mover(make_user):
    user = make_user("mover", MOVE_STAGE, is_staff=True)
    user.user_permissions.add(
        *Permission.objects.filter(
            content_type__app_label="rollout", codename__in=["view_flag", "change_flag", "delete_flag", "view_move"]
        )
    )
    return user


@pytest.fixture
def client(mover):
    client = Client()
    client.force_login(mover)
    return client


def permission(codename):
    return Permission.objects.get(content_type__app_label="rollout", codename=codename)
