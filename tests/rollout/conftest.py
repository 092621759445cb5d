"""Seams of a team's own, declared for the tests of the rollout room only."""

import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import cache

from apps.rollout.moves import RIGHTS
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
