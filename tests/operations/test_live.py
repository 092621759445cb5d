"""The live page begins with the answer, and every act on it needs a right and a reason, and leaves a row."""

from functools import partial

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import IntegrityError, transaction

from apps.execution.apps import execution_config
from apps.execution.models import Run
from apps.operations.live import Bounds, Gauge, Process, live_of
from apps.operations.models import Order, ProcessReport
from apps.operations.orders import Orders, order_to_close, order_to_drain
from apps.realtime.database import DatabaseThreads
from apps.realtime.protocol import CloseCode
from apps.vocabulary import UserId
from tests.operations.world import World

LIVE = "/admin/operations/processreport/live/"
BOUNDS = Bounds(connections=100, run_slots=10, queued_runs=50, database_threads=8, users_with_news=1_000, proofs=1_000)


def a_process(name="serve 1 on h", *, silent=False, version="1", **counts):
    counts = {key.replace("__", "."): number for key, number in counts.items()}
    return Process(name, name, "serve", version, 60.0 if silent else 1.0, silent, counts)


def test_a_deployment_without_a_finding_is_well():
    assert live_of([a_process(hints__connected=1)], BOUNDS).verdict == "All is well."


@pytest.mark.parametrize(
    ("processes", "finding"),
    [
        ([], "No process reports itself"),
        ([a_process(), a_process("serve 2 on h", silent=True)], "serve 2 on h is silent for 60 s"),
        ([a_process(backlog__oldest_queued_ms=30_000)], "A run is queued for 30 s"),
        ([a_process(proofs__broken_total=2)], "2 messages were assembled differently"),
        ([a_process(hints__connected=0)], "does not hear the channel layer"),
        ([a_process(log__users_held=1)], "1 users' rows are held"),
        ([a_process(executor__left_behind=1)], "1 agents did not stop"),
        ([a_process(), a_process(version="2")], "Versions 1 and 2 run side by side"),
    ],
)
def test_each_thing_that_is_wrong_is_named(processes, finding):
    view = live_of(processes, BOUNDS)
    assert view.verdict == "One thing needs you."
    assert finding in view.findings[0]


def test_a_bound_is_shown_of_the_process_in_which_it_is_fullest():
    view = live_of([a_process(pool__connections=20), a_process("full", pool__connections=96)], BOUNDS)
    gauge = next(gauge for gauge in view.gauges if gauge.name == "Connections")
    assert (gauge.says, gauge.where) == ("96 of 100, 96 %", "full")
    assert 'class="full"' in gauge.picture
    assert 'aria-label="Connections: 96 of 100, 96 %"' in gauge.picture
    assert "style=" not in gauge.picture


def test_a_picture_says_nothing_that_a_name_could_inject():
    assert "<b>" not in Gauge("<b>", 1, 2, "x").picture


@pytest.fixture
def world():
    return World()


@pytest.fixture
def operator(client):
    user = User.objects.create_user("olga", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_processreport", "operate"]))
    client.force_login(user)
    return client


@pytest.fixture
def services(world, monkeypatch):
    class Services:
        runs = world.runs

    monkeypatch.setattr(execution_config(), "_services", Services)


def act(client, **posted):
    return client.post(LIVE, posted, follow=True)


def history():
    return [(entry.user.username, entry.object_repr, entry.change_message) for entry in LogEntry.objects.all()]


@pytest.mark.django_db
def test_an_operator_cancels_a_run_and_the_history_says_why(operator, world, services):
    with transaction.atomic():
        run = world.queued(world.user("anna"))
    page = act(operator, act="cancel_run", target=run.pk, why="it costs too much")
    assert f"Run {run.pk} is cancelled." in page.content.decode()
    assert Run.objects.get(pk=run.pk).status == "cancelled"
    assert history() == [("olga", f"run {run.pk}", "Cancelled: it costs too much")]


@pytest.mark.django_db
def test_an_operator_cancels_all_open_runs_of_one_user_and_of_nobody_else(operator, world, services):
    anna, bert = world.user("anna"), world.user("bert")
    with transaction.atomic():
        mine, others = [world.queued(anna), world.queued(anna)], world.queued(bert)
    act(operator, act="cancel_runs", target="anna", why="asked by mail")
    assert {Run.objects.get(pk=run.pk).status for run in mine} == {"cancelled"}
    assert Run.objects.get(pk=others.pk).status == "queued"
    assert history()[0][2] == "2 open runs cancelled: asked by mail"


@pytest.mark.django_db
def test_what_cannot_be_done_is_said_and_leaves_no_row(operator, world, services):
    with transaction.atomic():
        run = world.ended(world.user("anna"))
    for posted, answer in (
        ({"act": "cancel_run", "target": run.pk, "why": "x"}, "the run has ended"),
        ({"act": "cancel_run", "target": "no\u0000pe", "why": "x"}, "Null characters are not allowed"),
        ({"act": "cancel_run", "target": "nope", "why": "x"}, "There is no such run."),
        ({"act": "close_sockets", "target": "nobody", "why": "x"}, "There is no such user."),
        ({"act": "close_sockets", "target": "anna", "why": ""}, "This field is required."),
        ({"process": "gone", "why": "x"}, "This process has ended, or is silent"),
        ({"process": "gone", "why": ""}, "Say why the process is to be drained."),
    ):
        assert answer in act(operator, **posted).content.decode()
    assert not history()
    assert not Order.objects.exists()


@pytest.mark.django_db
def test_without_the_right_the_page_can_be_read_and_nothing_done(client, world):
    reader = User.objects.create_user("rita", is_staff=True)
    client.force_login(reader)
    assert client.get(LIVE).status_code == 403
    reader.user_permissions.set(Permission.objects.filter(codename="view_processreport"))
    page = client.get(LIVE)
    assert page.status_code == 200
    assert b"Do it" not in page.content
    world.user("anna")
    assert client.post(LIVE, {"act": "close_sockets", "target": "anna", "why": "x"}).status_code == 403
    assert not Order.objects.exists()


@pytest.mark.django_db
def test_the_page_shows_the_name_of_no_user_whose_runs_it_counts(operator, world):
    with transaction.atomic():
        world.queued(world.user("anna"))
    world.process(counts={"pool.connections": 3, "backlog.runs_queued": 1})
    text = operator.get(LIVE).content.decode()
    assert str(ProcessReport.objects.get()) in text
    assert "anna" not in text


class _Pool:
    """Stands for the sockets of a process."""

    def __init__(self):
        self.closed = []

    def close_user(self, user_id, code, reason):
        self.closed.append((user_id, code))
        return 1


@pytest.mark.django_db(transaction=True)
async def test_every_process_closes_the_users_sockets_once_and_only_the_one_that_is_named_drains():
    stopped = []
    pools = {name: _Pool() for name in ("one", "two")}
    async with DatabaseThreads(1) as database:
        both = [Orders(database, name, pool, partial(stopped.append, name)) for name, pool in pools.items()]
        await database.call(order_to_close, UserId(7))
        await database.call(order_to_drain, "two")
        for orders in (*both, *both):
            await orders.turn()
    assert [pool.closed for pool in pools.values()] == [[(7, CloseCode.GOING_AWAY)]] * 2
    assert stopped == ["two"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "order", [Order(kind="drain"), Order(kind="drain", user_id=1, process_id="a"), Order(kind="close_sockets")]
)
def test_an_order_names_whom_it_concerns(order):
    with pytest.raises(IntegrityError):
        order.save()
