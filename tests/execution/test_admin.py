import pytest
from django.urls import reverse

from apps.execution.models import Run
from tests.execution.running_room import ANN

pytestmark = pytest.mark.django_db


def test_operators_see_how_runs_stand_and_not_what_users_wrote(desk, admin_client):
    run_id = desk.admit(ANN, text="my secret plan").run_id
    for page in (
        reverse("admin:execution_run_changelist"),
        reverse("admin:execution_run_change", args=[run_id]),
        reverse("admin:execution_userbudget_changelist"),
    ):
        response = admin_client.get(page, secure=True)
        assert response.status_code == 200
        assert "my secret plan" not in response.text
    assert run_id in admin_client.get(reverse("admin:execution_run_changelist"), secure=True).text


def test_nobody_changes_a_run_by_hand(desk, admin_client):
    run_id = desk.admit(ANN).run_id
    for page in ("add", "delete", "change"):
        arguments = [] if page == "add" else [run_id]
        response = admin_client.post(reverse(f"admin:execution_run_{page}", args=arguments), {}, secure=True)
        assert response.status_code == 403
    assert Run.objects.get().status == "queued"
