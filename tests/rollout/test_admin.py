import re
from decimal import Decimal

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from apps.rollout.audit import DeniedUser, Move
from apps.rollout.models import Flag
from apps.rollout.moves import MOVE_STAGE, move
from apps.rollout.stages import Placement, Stage
from tests.rollout.conftest import permission

RAMP = Placement.of(Stage.RAMP, Decimal("12.5"))
SEAM_PAGE = "/admin/rollout/flag/seam/billing/"
FLAGS = "/admin/rollout/flag/"

pytestmark = pytest.mark.usefixtures("only_the_admin")


WHEN = {"created_0": "2030-01-01", "created_1": "00:00", "modified_0": "2030-01-01", "modified_1": "00:00"}


def asked(stage, percent="", reason="because", version=0):
    return {"stage": stage, "percent": percent, "reason": reason, "version": version}


def test_a_person_moves_a_stage_with_a_reason_and_sees_it_in_the_trail(client, mover):
    answer = client.post(SEAM_PAGE, asked("ramp", "12.5", "first users"))
    assert (answer.status_code, answer["Location"]) == (302, SEAM_PAGE)
    row = Move.objects.get()
    assert (row.went_to, row.by_user_id, row.by_name, row.why) == (RAMP, mover.pk, "mover", "first users")
    page = client.get(SEAM_PAGE).content.decode()
    assert "Seam billing went from off to ramp at 12.5 %" in page
    assert "ramp at 12.5 %: The factory serves the chosen users and 12.5 % of all others" in page
    assert "first users" in page


def test_a_missing_reason_is_refused_and_nothing_moves(client):
    for reason in ("", "   "):
        answer = client.post(SEAM_PAGE, asked("on", reason=reason))
        assert answer.status_code == 400
        assert "This field is required" in answer.content.decode()
    assert not Move.objects.exists()


def test_who_saw_an_old_version_is_told_and_can_decide_again_on_the_same_page(client, ben):
    move("billing", 0, RAMP, ben, "ben was here")
    answer = client.post(SEAM_PAGE, asked("on", reason="looks fine", version=0))
    page = answer.content.decode()
    assert answer.status_code == 409
    assert "moved by ben: ben was here" in page
    assert 'name="version" value="1"' in page
    assert "looks fine" in page
    assert Flag.objects.get().placement == RAMP
    assert client.post(SEAM_PAGE, asked("on", reason="looks fine", version=1)).status_code == 302


def test_a_wish_that_the_new_stage_does_not_allow_is_still_answered(client, ben):
    move("billing", 0, Placement(Stage.ON), ben, "ben was here")
    answer = client.post(SEAM_PAGE, asked("on", version=0))
    assert answer.status_code == 400
    assert Move.objects.count() == 1


@pytest.mark.parametrize(
    ("stage", "percent", "says"),
    [
        ("ramp", "", "needs a share"),
        ("on", "50", "a share belongs to the stage ramp"),
        ("ramp", "101", "less than or equal to 100"),
        ("retired", "", "Select a valid choice"),
        ("nonsense", "", "Select a valid choice"),
    ],
)
def test_a_refused_wish_says_why(client, stage, percent, says):
    answer = client.post(SEAM_PAGE, asked(stage, percent))
    assert (answer.status_code, says in answer.content.decode()) == (400, True)
    assert not Flag.objects.exists()


def test_a_form_without_a_version_moves_nothing(client):
    wish = asked("on")
    del wish["version"]
    assert client.post(SEAM_PAGE, wish).status_code == 400
    assert not Move.objects.exists()


def test_who_may_only_look_sees_no_form_and_moves_nothing(make_user):
    viewer = make_user("viewer", is_staff=True)
    client = Client()
    client.force_login(viewer)
    assert client.get(SEAM_PAGE).status_code == 403
    viewer.user_permissions.add(permission("view_flag"))
    page = client.get(SEAM_PAGE)
    assert page.status_code == 200
    assert "Move the stage" not in page.content.decode()
    assert client.post(SEAM_PAGE, asked("on")).status_code == 403
    assert not Move.objects.exists()


def test_who_is_no_staff_is_sent_to_the_login(make_user):
    client = Client()
    client.force_login(make_user("visitor", MOVE_STAGE))
    for answer in (client.get(SEAM_PAGE), client.post(SEAM_PAGE, asked("on"))):
        assert answer.status_code == 302
        assert answer["Location"].startswith("/admin/login/")
    assert not Move.objects.exists()


def test_a_move_needs_the_forms_own_token(mover):
    client = Client(enforce_csrf_checks=True)
    client.force_login(mover)
    assert client.post(SEAM_PAGE, asked("on")).status_code == 403
    assert not Move.objects.exists()


def test_an_unknown_seam_has_no_page(client):
    assert client.get("/admin/rollout/flag/seam/nowhere/").status_code == 404


def test_every_seam_is_reached_from_the_list_of_flags_before_it_has_a_row(client):
    page = client.get(FLAGS).content.decode()
    for name in ("billing", "search", "ranking"):
        assert reverse("admin:rollout_flag_seam", args=[name]) in page


def test_every_page_warns_while_a_seam_that_leaks_is_lower_than_on(client, ben):
    pages = (FLAGS, "/admin/rollout/move/", SEAM_PAGE)
    assert all("known to show one user" not in client.get(page).content.decode() for page in pages)
    move("search", 0, Placement.of(Stage.RAMP, Decimal(99)), ben, "down a little")
    assert all(
        "search is ramp at 99 %: its legacy path is known" in client.get(page).content.decode() for page in pages
    )


def test_no_page_needs_an_inline_script_or_style(client, ben):
    move("search", 0, RAMP, ben, "down")
    flag = Flag.objects.get()
    for page in (FLAGS, "/admin/rollout/move/", SEAM_PAGE, f"{FLAGS}{flag.pk}/change/"):
        answer = client.get(page)
        assert "script-src" in answer["Content-Security-Policy"]
        html = answer.content.decode()
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", html)
        assert all("src=" in tag or "application/json" in tag for tag in re.findall(r"<script[^>]*>", html))


def test_what_people_wrote_is_shown_as_text(client, ben):
    move("billing", 0, RAMP, ben, "<script>alert(1)</script>")
    assert "<script>alert(1)</script>" not in client.get(SEAM_PAGE).content.decode()


def test_a_seams_flag_shows_its_stage_and_lets_nobody_write_it(client, ben):
    move("billing", 0, RAMP, ben, "start")
    flag = Flag.objects.get()
    change = f"{FLAGS}{flag.pk}/change/"
    assert 'name="everyone"' not in client.get(change).content.decode()
    wish = {
        "note": "see the wiki",
        "everyone": "true",
        "stage": "on",
        "percent": "99",
        "name": "other",
        "staff": "on",
    } | WHEN
    assert client.post(change, wish).status_code == 302
    flag.refresh_from_db()
    assert (flag.placement, flag.name, flag.note, flag.staff, flag.version) == (
        RAMP,
        "billing",
        "see the wiki",
        True,
        1,
    )
    assert Move.objects.count() == 1


def test_a_seams_flag_is_not_deleted_from_the_admin(client, ben):
    move("billing", 0, RAMP, ben, "start")
    flag = Flag.objects.get()
    assert client.post(f"{FLAGS}{flag.pk}/delete/", {"post": "yes"}).status_code == 403
    client.post(FLAGS, {"action": "delete_individually", "_selected_action": [flag.pk]})
    assert Flag.objects.exists()


def test_waffles_actions_pass_over_seams_and_serve_ordinary_flags(client, ben):
    move("billing", 0, RAMP, ben, "start")
    ordinary = Flag.objects.create(name="beta")
    chosen = [flag.pk for flag in Flag.objects.all()]
    answer = client.post(FLAGS, {"action": "enable_for_all", "_selected_action": chosen}, follow=True)
    assert "Seam billing is moved on its own page" in answer.content.decode()
    assert (Flag.objects.get(name="beta").everyone, Flag.objects.get(name="billing").placement) == (True, RAMP)
    client.post(FLAGS, {"action": "disable_for_all", "_selected_action": chosen})
    assert Flag.objects.get(pk=ordinary.pk).everyone is False
    client.post(FLAGS, {"action": "delete_individually", "_selected_action": chosen})
    assert [flag.name for flag in Flag.objects.all()] == ["billing"]
    assert LogEntry.objects.count() == 3


def test_a_flag_is_not_created_under_a_seams_name(client, mover):
    mover.user_permissions.add(permission("add_flag"))
    answer = client.post(f"{FLAGS}add/", {"name": "billing", "everyone": "true"} | WHEN)
    assert "billing is a seam" in answer.content.decode()
    assert client.post(f"{FLAGS}add/", {"name": "beta", "everyone": "unknown"} | WHEN).status_code == 302
    assert [flag.name for flag in Flag.objects.all()] == ["beta"]


def test_the_trail_is_read_only_for_everyone(admin_client, ben):
    row = move("billing", 0, RAMP, ben, "start")
    assert admin_client.get("/admin/rollout/move/").status_code == 200
    assert admin_client.get("/admin/rollout/move/add/").status_code == 403
    assert admin_client.post(f"/admin/rollout/move/{row.pk}/change/", {"why": "never said"}).status_code == 403
    assert admin_client.post(f"/admin/rollout/move/{row.pk}/delete/", {"post": "yes"}).status_code == 403


def test_the_deny_list_is_kept_by_those_who_may_move_stages(client, make_user):
    add = "/admin/rollout/denieduser/add/"
    wish = {"seam": "billing", "user_id": "7", "why": "asked for the old path"}
    stranger = Client()
    stranger.force_login(make_user("stranger", is_staff=True))
    assert stranger.post(add, wish).status_code == 403
    assert client.post(add, wish | {"why": ""}).status_code == 200
    assert client.post(add, wish | {"seam": "nowhere"}).status_code == 200
    assert not DeniedUser.objects.exists()
    assert client.post(add, wish).status_code == 302
    assert (DeniedUser.objects.get().by_name, DeniedUser.objects.get().user_id) == ("mover", 7)
    assert client.post(add, wish).status_code == 200, "a user is denied once"
