"""What the page of a seam shows, and what can be done on it."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from apps.rollout.audit import DeniedUser, Move
from apps.rollout.comparison import Comparison, Result
from apps.rollout.console import ConsoleView
from apps.rollout.evidence import ObservedEnd
from apps.rollout.mismatches import MismatchShape, record
from apps.rollout.models import Flag
from apps.rollout.moves import ACKNOWLEDGE_BREACH, MOVE_STAGE, alarm, move
from apps.rollout.stages import Mover, MoverKind, Placement, Stage
from apps.vocabulary import UserId
from tests.rollout.conftest import permission
from tests.rollout.test_admin import FLAGS, SEAM_PAGE

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("only_the_admin")]

RAMP = Placement.of(Stage.RAMP, Decimal(25))
RANKING_PAGE = "/admin/rollout/flag/seam/ranking/"
GUARD = Mover(MoverKind.AUTOMATION, "guard")
DIFFERENT = Comparison(Result.MISMATCHED, "main: END.how differs", "-  how: <b>returned</b>\n+  how: ValueError")


def ended(path="factory", outcome="clean", user=1, number=1, version=1):
    rows = [
        ObservedEnd(
            seam="billing", user_id=user, path=path, version=version, label="x", release="", outcome=outcome, own_ms=9.0
        )
        for _ in range(number)
    ]
    ObservedEnd.objects.bulk_create(rows)


def headline(name="billing"):
    return ConsoleView.read(name).headline


def test_the_first_line_says_stage_share_verdict_and_what_is_missing(anna, settings):
    settings.TURNOUT_JUDGEMENT = None
    assert headline() == "off · no verdict · a reason is all that a move up needs"
    assert headline("ranking").startswith("on · not yet · guarded by legacy's frozen figures alone, which is weaker")
    move("ranking", 0, Placement(Stage.SHADOW), anna, "compare")
    assert headline("ranking") == "shadow · no verdict · nothing has been compared yet"
    record(UserId(1), "ranking", "w", Comparison(Result.MATCHED))
    assert headline("ranking") == "shadow · no verdict · the comparison holds"
    record(UserId(1), "ranking", "w", DIFFERENT)
    assert headline("ranking") == "shadow · no verdict · 1 open shape of mismatch below"
    move("billing", 0, RAMP, anna, "start")
    ended(number=24)
    assert headline() == "ramp at 25 % · not yet · 41 more clean runs and 4 more users"
    for user in range(2, 7):
        ended(number=20, user=user)
    assert headline() == "ramp at 25 % · holds · a person decides"
    move("billing", 1, Placement(Stage.OFF), GUARD, "it fails")
    assert headline() == "off · breach · a person must acknowledge why it was taken down"


def test_at_retired_it_says_whether_the_old_code_may_go(anna):
    move("billing", 0, Placement(Stage.ON), anna, "up")
    assert headline().endswith("legacy, not reached since")
    move("billing", 1, Placement(Stage.RETIRED), anna, "done")
    assert headline() == "retired · no verdict · the old code may be deleted"


def test_the_page_shows_the_picture_shapes_users_and_the_trail(client, anna):
    move("billing", 0, RAMP, anna, "start")
    user = User.objects.create_user("the user of seven")
    ended(user=user.pk)
    ended(path="legacy", user=999)
    DeniedUser.objects.create(seam="billing", user_id=4, by_name="ben", why="a show")
    record(UserId(1), "billing", "w", DIFFERENT)
    page = client.get(SEAM_PAGE).content.decode()
    for shown in ("<svg", "2 runs, 50 % of them by the factory", "the user of seven", "999", "a show", "by anna"):
        assert shown in page
    assert "&lt;b&gt;returned&lt;/b&gt;" in page
    assert "style=" not in page.partition('class="seam"')[2]


def test_a_page_without_runs_says_so(client):
    assert "Nothing has ended at this seam yet" in client.get(SEAM_PAGE).content.decode()


def test_a_latch_is_taken_off_on_the_page_by_who_has_the_right(client, mover, anna):
    move("billing", 0, RAMP, anna, "start")
    move("billing", 1, Placement(Stage.OFF), GUARD, "it fails")
    wish = {"reason": "the provider was down", "version": 2}
    assert "Acknowledge, so that" not in client.get(SEAM_PAGE).content.decode()
    assert client.post(f"{SEAM_PAGE}acknowledge/", wish).status_code == 403
    mover.user_permissions.add(permission(ACKNOWLEDGE_BREACH.partition(".")[2]))
    assert "Acknowledge, so that" in client.get(SEAM_PAGE).content.decode()
    assert client.post(f"{SEAM_PAGE}acknowledge/", wish | {"reason": ""}).status_code == 400
    assert client.post(f"{SEAM_PAGE}acknowledge/", wish | {"version": 1}).status_code == 409
    assert client.get(f"{SEAM_PAGE}acknowledge/").status_code == 405
    assert client.post(f"{SEAM_PAGE}acknowledge/", wish).status_code == 302
    assert not Flag.objects.get().latched_at


def test_a_share_is_drawn_anew_on_the_page(client, anna):
    assert client.post(f"{SEAM_PAGE}reshuffle/", {"reason": "others", "version": 0}).status_code == 400
    move("billing", 0, RAMP, anna, "start")
    before = Flag.objects.get().salt
    assert "Draw anew" in client.get(SEAM_PAGE).content.decode()
    assert client.post(f"{SEAM_PAGE}reshuffle/", {"reason": "others", "version": 1}).status_code == 302
    assert (Flag.objects.get().salt != before, Move.objects.first().act) == (True, "reshuffle")


def test_a_known_difference_is_muted_on_the_page_with_owner_reason_and_end(client):
    record(UserId(1), "billing", "w", DIFFERENT)
    row = MismatchShape.objects.get()
    address = f"{SEAM_PAGE}shape/{row.pk}/"
    day = timezone.now().date() + timedelta(days=3)
    refused = client.post(address, {"opinion": "muted", "reason": "rounding"})
    assert (refused.status_code, "day in the future" in refused.content.decode()) == (400, True)
    assert client.post(address, {"opinion": "muted", "reason": "rounding", "until": str(day)}).status_code == 302
    row.refresh_from_db()
    assert (row.opinion, row.owner, row.reason, row.until) == ("muted", "mover", "rounding", day)
    assert "Known to mover until" in client.get(SEAM_PAGE).content.decode()
    assert client.post(f"{RANKING_PAGE}shape/{row.pk}/", {"opinion": "open"}).status_code == 404
    assert client.get(address).status_code == 405


def test_who_may_not_move_decides_nothing(client, mover):
    record(UserId(1), "billing", "w", DIFFERENT)
    mover.user_permissions.remove(permission(MOVE_STAGE.partition(".")[2]))
    address = f"{SEAM_PAGE}shape/{MismatchShape.objects.get().pk}/"
    assert client.post(address, {"opinion": "new_is_right", "reason": "x"}).status_code == 403
    assert client.post(f"{SEAM_PAGE}reshuffle/", {"reason": "x", "version": 0}).status_code == 403
    page = client.get(SEAM_PAGE).content.decode()
    assert "Move the stage" not in page
    assert "Decide" not in page


def test_a_seams_flag_leads_to_the_seams_page_and_an_ordinary_one_does_not(client, anna):
    move("billing", 0, RAMP, anna, "start")
    Flag.objects.create(name="beta")
    pages = {flag.name: client.get(f"{FLAGS}{flag.pk}/change/").content.decode() for flag in Flag.objects.all()}
    assert f'<a href="{SEAM_PAGE}">the page of this seam</a>' in pages["billing"]
    assert "the page of this seam" not in pages["beta"]


def test_every_page_of_the_console_warns_of_a_seam_that_leaks_and_of_one_that_is_latched(admin_client, anna):
    move("search", 0, Placement.of(Stage.RAMP, Decimal(99)), anna, "down a little")
    alarm("ranking", 0, GUARD, "the factory is slow")
    flag = Flag.objects.get(name="search")
    beta = Flag.objects.create(name="beta")
    row = Move.objects.first()
    pages = (
        "/admin/rollout/",
        FLAGS,
        f"{FLAGS}add/",
        f"{FLAGS}{flag.pk}/change/",
        f"{FLAGS}{beta.pk}/delete/",
        f"{FLAGS}{flag.pk}/history/",
        "/admin/rollout/move/",
        f"/admin/rollout/move/{row.pk}/change/",
        "/admin/rollout/denieduser/",
        "/admin/rollout/denieduser/add/",
        SEAM_PAGE,
    )
    for page in pages:
        html = admin_client.get(page).content.decode()
        assert "search is ramp at 99 %: its legacy path is known" in html, page
        assert "ranking is latched at on: the factory is slow" in html, page
