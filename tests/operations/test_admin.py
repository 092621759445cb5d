"""The admin shows processes and changes nothing."""

import pytest
from django.contrib.admin.sites import site
from django.contrib.auth.models import User
from django.test import RequestFactory

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
