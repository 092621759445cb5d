"""The admin shows processes and changes nothing."""

import pytest
from django.contrib.admin.sites import site
from django.contrib.auth.models import User
from django.test import RequestFactory

from apps.operations.connections import read_connections
from apps.operations.models import ProcessReport

pytestmark = pytest.mark.django_db


@pytest.fixture
def request_of_a_superuser():
    request = RequestFactory().get("/admin/operations/processreport/")
    request.user = User.objects.create_superuser("root", password="a long one")
    return request


def test_even_a_superuser_can_only_read_reports(request_of_a_superuser):
    admin = site.get_model_admin(ProcessReport)
    assert admin.has_view_permission(request_of_a_superuser)
    assert not admin.has_add_permission(request_of_a_superuser)
    assert not admin.has_change_permission(request_of_a_superuser)
    assert not admin.has_delete_permission(request_of_a_superuser)


def test_a_report_shows_what_is_held_and_not_what_is_empty():
    report = ProcessReport(counts={"pool.connections": 2, "executor.running": 0})
    assert site.get_model_admin(ProcessReport).holds(report) == "pool.connections 2"


def a_process(client_counts, pid=1):
    ProcessReport.objects.all().report(
        f"process-{pid}", {"host": "h", "pid": pid, "kind": "serve", "version": "1"}, client_counts
    )


def test_the_page_of_connections_answers_first_and_then_shows_each_process(client):
    client.force_login(User.objects.create_superuser("root", password="a long one"))
    a_process({"pool.connections": 3, "pool.connections_lagging": 1, "pool.connections_closed_no_progress_total": 7})
    a_process({"pool.connections": 4, "pool.connections_healthy": 4, "proofs.verified_total": 9}, pid=2)
    a_process({"executor.running": 1}, pid=3)
    page = client.get("/admin/operations/processreport/connections/")
    text = page.content.decode()
    assert page.status_code == 200
    assert "All tabs keep up, but for those named below." in text
    assert page.context["view"].total.connections == 7
    assert [pool.name for pool in page.context["view"].processes] == ["serve 1 on h", "serve 2 on h"]
    assert "no progress: 7" in text
    assert (
        "/admin/operations/processreport/connections/"
        in client.get("/admin/operations/processreport/").content.decode()
    )


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ({"pool.connections": 2, "proofs.broken_total": 1}, "1 messages were assembled differently"),
        ({"pool.connections": 10, "pool.connections_stalled": 2}, "2 of 10 tabs leave pings unanswered"),
        ({"pool.connections": 10}, "All tabs keep up."),
        ({"executor.running": 1}, "No process that serves sockets has reported lately."),
    ],
)
def test_the_verdict_names_the_worst_that_was_reported(counts, verdict):
    a_process(counts)
    view = read_connections(10.0)
    assert view.verdict.startswith(verdict)
    assert view.is_fine == verdict.startswith("All")


def test_the_page_of_connections_is_for_those_who_may_see_reports(client):
    client.force_login(User.objects.create_user("staff", is_staff=True))
    assert client.get("/admin/operations/processreport/connections/").status_code == 403
    client.force_login(User.objects.create_user("anna"))
    assert client.get("/admin/operations/processreport/connections/").status_code == 302
