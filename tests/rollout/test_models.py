"""Waffle's own API on seams and on ordinary flags. Stock waffle is the model: `waffle.models` read and run."""

import json
from decimal import Decimal

import pytest
import waffle
from django.contrib.auth.models import AnonymousUser, User
from django.core.cache import cache
from django.core.management import call_command
from django.db import transaction
from django.template import Context, Template
from waffle.testutils import override_flag
from waffle.views import waffle_json

from apps.rollout.audit import Move
from apps.rollout.models import Flag
from apps.rollout.moves import move
from apps.rollout.stages import BUCKETS, IllegalMove, Placement, Stage, StaleStage
from apps.rollout.waffle_gaps import SeamInUse

OFF, ON = Placement(Stage.OFF), Placement(Stage.ON)


@pytest.fixture
def user(db):
    return User.objects.create_user("user")


@pytest.fixture
def ask(rf, user):
    """Ask waffle for a flag as a request of `user` would, with whatever else the request says."""

    def asked(name, query="", cookies=None, headers=None, by=user):
        request = rf.get(f"/{query}", headers=headers)
        request.COOKIES.update(cookies or {})
        request.user = by
        return waffle.flag_is_active(request, name)

    return asked


def ramp_without(user, anna):
    move("billing", 0, Placement(Stage.RAMP, 0), anna, "nobody yet")


@pytest.mark.parametrize("testing", [True, False])
def test_no_query_string_cookie_or_header_changes_who_serves_a_seam(ask, user, anna, settings, testing):
    settings.WAFFLE_OVERRIDE = True
    ramp_without(user, anna)
    Flag.objects.filter(name="billing").update(testing=testing, superusers=True, authenticated=True, languages="en-us")
    for extra in (
        {"query": "?billing=1"},
        {"query": "?dwft_billing=1"},
        {"cookies": {"dwft_billing": "True"}},
        {"cookies": {"dwf_billing": "True"}},
        {"headers": {"dwft-billing": "1"}},
    ):
        assert ask("billing", **extra) is False
    move("billing", 1, ON, anna, "all")
    for extra in ({"query": "?billing=0"}, {"query": "?dwft_billing=0"}, {"cookies": {"dwft_billing": "False"}}):
        assert ask("billing", **extra) is True


def test_a_share_is_sticky_without_a_cookie_and_the_same_without_a_request(ask, user, anna):
    move("billing", 0, Placement.of(Stage.RAMP, Decimal(50)), anna, "half")
    answers = {ask("billing") for _ in range(20)} | {Flag.get("billing").is_active_for_user(user)}
    assert len(answers) == 1


def test_a_superuser_is_not_served_by_the_factory_because_of_waffles_default(ask, anna):
    ramp_without(None, anna)
    assert ask("billing", by=User.objects.create_superuser("root")) is False


def test_a_listed_user_is_not_active_while_the_seam_is_off(ask, user, anna):
    ramp_without(user, anna)
    Flag.objects.get(name="billing").users.add(user)
    assert ask("billing") is True
    move("billing", 1, OFF, anna, "down")
    assert ask("billing") is False


def test_a_seam_without_a_row_answers_with_its_default(ask):
    assert (ask("billing"), ask("search")) == (False, True)
    assert not Flag.objects.exists()


def test_a_visitor_is_in_no_share_but_is_served_like_everyone(ask, anna):
    move("billing", 0, Placement(Stage.RAMP, BUCKETS), anna, "all by share")
    assert ask("billing", by=AnonymousUser()) is False
    move("billing", 1, ON, anna, "everyone")
    assert ask("billing", by=AnonymousUser()) is True


def test_an_old_flag_in_waffles_cache_changes_nothing(ask, anna):
    move("billing", 0, ON, anna, "up")
    stale = Flag.objects.get(name="billing")
    move("billing", 1, OFF, anna, "down")
    cache.set(Flag._cache_key("billing"), stale)
    cache.set("waffle:5.0.0flags:all", [stale])
    assert ask("billing") is False
    assert [flag.stage for flag in Flag.get_all() if flag.name == "billing"] == ["off"]


def test_the_template_tag_and_waffle_status_say_what_serves_the_user(rf, user, anna):
    request = rf.get("/")
    request.user = user
    template = Template("{% load waffle_tags %}{% flag search %}new{% else %}old{% endflag %}")
    assert template.render(Context({"request": request})) == "new"
    assert _status(request) == {"billing": False, "search": True, "ranking": True}
    move("search", 0, OFF, anna, "down")
    assert template.render(Context({"request": request})) == "old"
    assert _status(request)["search"] is False


def _status(request):
    flags = json.loads(waffle_json(request).content)["flags"]
    return {name: bool(flag["is_active"]) for name, flag in flags.items()}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("everyone", "percent", "placement"),
    [
        (True, None, ON),
        (False, None, OFF),
        (None, Decimal("12.5"), Placement(Stage.RAMP, 1250)),
        (None, None, Placement(Stage.RAMP)),
    ],
)
def test_a_write_of_everyone_is_a_move_with_an_audit_row(anna, everyone, percent, placement):
    before = {ON: OFF}.get(placement, ON)
    move("billing", 0, ON, anna, "up")
    if before == OFF:
        move("billing", 1, OFF, anna, "down")
    moves = Move.objects.count()
    flag = Flag.objects.get(name="billing")
    flag.everyone, flag.percent = everyone, percent
    flag.save()
    assert flag.placement == Flag.objects.get(name="billing").placement == placement
    assert Move.objects.count() == moves + 1
    assert (Move.objects.first().by_name, Move.objects.first().went_to) == (
        "waffle's API (everyone or percent written)",
        placement,
    )


@pytest.mark.django_db
def test_a_write_of_everyone_from_an_old_copy_is_refused_and_any_other_write_keeps_the_stage(anna):
    move("billing", 0, ON, anna, "up")
    old = Flag.objects.get(name="billing")
    move("billing", 1, OFF, anna, "down")
    with pytest.raises(StaleStage, match="moved by anna: down"):
        old.save()
    fresh = Flag.objects.get(name="billing")
    fresh.note = "see the wiki"
    fresh.save()
    assert (Flag.objects.get(name="billing").placement, Flag.objects.get(name="billing").note) == (OFF, "see the wiki")
    assert Move.objects.count() == 2


@pytest.mark.django_db
def test_a_stage_is_not_written_by_save(anna):
    move("billing", 0, ON, anna, "up")
    flag = Flag.objects.get(name="billing")
    flag.stage = "off"
    with pytest.raises(IllegalMove, match=r"written by moves\.move alone"):
        flag.save()
    with pytest.raises(IllegalMove):
        Flag.objects.create(name="search", stage="off")
    assert Flag.objects.get().placement == ON


@pytest.mark.django_db
def test_a_row_made_by_waffle_under_a_seams_name_starts_at_the_default():
    flag, _ = Flag.objects.get_or_create(name="search")
    assert (flag.placement, flag.version, flag.superusers, bool(flag.salt)) == (ON, 0, False, True)
    assert not Move.objects.exists()
    assert Flag.objects.create(name="billing", everyone=True).placement == ON
    assert [(row.came_from, row.went_to) for row in Move.objects.all()] == [(OFF, ON)]


@pytest.mark.django_db
def test_waffles_own_command_moves_a_seam(anna, capsys):
    move("billing", 0, Placement(Stage.RAMP, 0), anna, "start")
    call_command("waffle_flag", "billing", "--everyone")
    assert Flag.objects.get(name="billing").placement == ON
    call_command("waffle_flag", "billing", "--deactivate")
    assert Flag.objects.get(name="billing").placement == OFF
    call_command("waffle_flag", "billing", "--percent", "20")
    assert Flag.objects.get(name="billing").placement == Placement.of(Stage.RAMP, Decimal(20))
    assert Move.objects.count() == 4


@pytest.mark.django_db
def test_waffles_test_helper_works_on_a_seam_that_has_a_row(ask, anna):
    move("billing", 0, Placement.of(Stage.RAMP, Decimal(0)), anna, "start")
    with override_flag("billing", active=True):
        assert ask("billing") is True
    assert ask("billing") is False


@pytest.mark.django_db
def test_a_declared_seam_is_not_deleted_one_by_one_or_by_queryset(anna, settings):
    move("billing", 0, ON, anna, "up")
    for delete in (Flag.objects.get(name="billing").delete, Flag.objects.all().delete):
        with pytest.raises(SeamInUse, match="billing is a declared seam"), transaction.atomic():
            delete()
    settings.TURNOUT_SEAMS = None
    Flag.objects.all().delete()
    assert not Flag.objects.exists()


def test_an_ordinary_flag_behaves_as_stock_waffle(ask, user, settings):
    flag = Flag.objects.create(name="beta", testing=True)
    assert (flag.stage, flag.superusers, flag.placement) == ("", True, None)
    assert ask("beta") is False
    assert ask("beta", query="?dwft_beta=1") is True
    assert ask("beta", headers={"dwft-beta": "1"}) is True
    assert ask("beta", by=User.objects.create_superuser("root")) is True
    settings.WAFFLE_OVERRIDE = True
    assert ask("beta", query="?beta=1") is True


def test_an_ordinary_flag_is_saved_and_deleted_as_stock_waffle_does(ask, user, django_capture_on_commit_callbacks):
    flag = Flag.objects.create(name="beta")
    with django_capture_on_commit_callbacks(execute=True):
        flag.everyone = True
        flag.save()
    assert ask("beta") is True
    with django_capture_on_commit_callbacks(execute=True):
        flag.everyone, flag.percent = None, Decimal("99.9")
        flag.save()
    flag.users.add(user)
    assert ask("beta") is True
    with override_flag("beta", active=False):
        assert ask("beta") is False
    with django_capture_on_commit_callbacks(execute=True):
        flag.delete()
    assert ask("beta") is False
    assert not Move.objects.exists()


def test_clearing_the_users_of_an_ordinary_flag_holds_at_once(ask, user):
    flag = Flag.objects.create(name="beta")
    flag.users.add(user)
    assert ask("beta") is True
    flag.users.clear()
    assert ask("beta") is False
    flag.users.add(user)
    assert ask("beta") is True
    user.flag_set.clear()
    assert ask("beta") is False
