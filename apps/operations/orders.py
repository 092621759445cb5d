"""What operators tell processes to do: close a user's sockets, drain. The order is a row, as a trace's question is.

Each process looks for orders as often as it reports itself, so an order is obeyed within `report_s`, by every process
that it concerns, whoever served the page on which it was given. It is taken first and obeyed then: a process that dies
between the two has neither sockets left nor a need to be drained.
"""

import logging
import os
import signal
from collections.abc import Callable
from datetime import timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from apps.operations.models import Order, OrderTaken
from apps.realtime.database import DatabaseThreads
from apps.realtime.pool import WebSocketConnectionPool
from apps.realtime.protocol import CloseCode
from apps.vocabulary import UserId

logger = logging.getLogger(__name__)

OBEYED_WITHIN_S = 60.0  # an older order is not obeyed any more
_ORDERS = 100  # of one look


def order_to_close(user_id: UserId) -> Order:
    """Tell all processes to close this user's sockets. Synchronous."""
    return _give(Order(kind=Order.Kind.CLOSE_SOCKETS, user_id=user_id))


def order_to_drain(process_id: str) -> Order:
    """Tell one process to drain and to end. Synchronous."""
    return _give(Order(kind=Order.Kind.DRAIN, process_id=process_id))


def _give(order: Order) -> Order:
    with transaction.atomic():
        Order.objects.filter(given_at__lt=Now() - timedelta(seconds=OBEYED_WITHIN_S)).delete()
        order.save()
        return order


def stop_this_process() -> None:
    """As SIGTERM from outside: whoever started the process has its handler in place, which drains."""
    os.kill(os.getpid(), signal.SIGTERM)


class Orders:
    """Obeys for one process; `turn` belongs into a `Periodic`."""

    def __init__(
        self, database: DatabaseThreads, process_id: str, pool: WebSocketConnectionPool, stop: Callable[[], None]
    ) -> None:
        self._database = database
        self._process_id = process_id
        self._pool = pool
        self._stop = stop

    async def turn(self) -> None:
        """Obey what this process was not told before."""
        for order in await self._database.call(self._take):
            if order.kind == Order.Kind.DRAIN:
                logger.warning("an operator tells this process to drain", extra={"process_id": self._process_id})
                self._stop()
            elif order.user_id is not None:
                reason = "an operator closed this connection; come back"
                closed = self._pool.close_user(UserId(order.user_id), CloseCode.GOING_AWAY, reason)
                logger.info("an operator closed %d sockets", closed, extra={"process_id": self._process_id})

    def _take(self) -> list[Order]:
        mine = OrderTaken.objects.filter(order_id=OuterRef("pk"), process_id=self._process_id)
        recent = Order.objects.filter(given_at__gte=Now() - timedelta(seconds=OBEYED_WITHIN_S))
        for_me = recent.filter(Q(process_id="") | Q(process_id=self._process_id)).filter(~Exists(mine))
        orders = list(for_me.order_by("pk")[:_ORDERS])
        taken = [OrderTaken(order=order, process_id=self._process_id) for order in orders]
        OrderTaken.objects.bulk_create(taken, ignore_conflicts=True)
        return orders
