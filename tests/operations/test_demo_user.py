import stat
from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command


@pytest.fixture
def folder(settings, tmp_path):
    settings.BASE_DIR = tmp_path
    settings.DEBUG = True
    return tmp_path


def printed() -> str:
    out = StringIO()
    call_command("demo_user", stdout=out)
    return out.getvalue()


def password_in(folder: Path) -> str:
    return (folder / "var" / "demo_password").read_text()


@pytest.mark.django_db
def test_the_demo_user_may_sign_in_with_what_is_printed_and_use_the_admin(folder):
    text = printed()
    demo = get_user_model().objects.get(username="demo")
    assert password_in(folder) in text
    assert demo.check_password(password_in(folder))
    assert demo.is_staff
    assert demo.is_superuser


@pytest.mark.django_db
def test_a_second_call_prints_the_same_password(folder):
    assert printed() == printed()


@pytest.mark.django_db
def test_nobody_else_on_the_machine_may_read_the_password(folder):
    printed()
    assert stat.S_IMODE((folder / "var" / "demo_password").stat().st_mode) == 0o600


@pytest.mark.django_db
def test_a_lost_file_and_a_new_database_are_both_mended(folder):
    first = printed()
    (folder / "var" / "demo_password").unlink()
    second = printed()
    assert second != first
    assert get_user_model().objects.get(username="demo").check_password(password_in(folder))
    get_user_model().objects.all().delete()
    assert printed() == second
    assert get_user_model().objects.get(username="demo").check_password(password_in(folder))


@pytest.mark.django_db
def test_without_debug_no_user_is_made(folder, settings):
    settings.DEBUG = False
    with pytest.raises(CommandError, match="DEBUG"):
        printed()
    assert not get_user_model().objects.filter(username="demo").exists()
    assert not (folder / "var").exists()
