"""Wake-ups that nobody will finish: found, and deleted, by the tables alone.

Without procrastinate, which is an extra: an audit looks from wherever it is started.
"""

from django.db import connection

from apps.execution.models import Lease

QUEUE = "turnout"  # for whichever process listens; a wake-up for one process goes to the queue that bears its id
_STALLED = """
    SELECT job.id, job.queue_name FROM procrastinate_jobs job
    LEFT JOIN procrastinate_workers worker ON worker.id = job.worker_id
    WHERE job.status = 'doing' AND (worker.id IS NULL OR worker.last_heartbeat < now() - make_interval(secs => %s))
"""


def has_jobs() -> bool:
    """Whether this database has jobs at all: one of PostgreSQL, on which the extra was migrated."""
    return connection.vendor == "postgresql" and "procrastinate_jobs" in connection.introspection.table_names()


def stalled_jobs(stalled_s: float) -> list[tuple[int, str]]:
    """Id and queue of the jobs that a worker took which beats no more."""
    with connection.cursor() as cursor:
        cursor.execute(f"{_STALLED} ORDER BY job.id", (stalled_s,))
        return [(int(job_id), str(queue)) for job_id, queue in cursor.fetchall()]


def jobs_at_work() -> int:
    """How many jobs were taken and are not finished."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM procrastinate_jobs WHERE status = 'doing'")
        return int(cursor.fetchone()[0])


def delete_stalled_jobs(stalled_s: float) -> int:
    """Delete the jobs that nobody will finish: taken by a worker that beats no more, or meant for a process without a
    lease. Returns how many there were. Synchronous.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"DELETE FROM procrastinate_jobs WHERE id IN (SELECT id FROM ({_STALLED}) stalled)",  # noqa: S608 - a constant
            (stalled_s,),
        )
        stalled = cursor.rowcount
        cursor.execute(
            "DELETE FROM procrastinate_jobs WHERE status = 'todo' AND queue_name <> %s AND queue_name <> ALL(%s)",
            (QUEUE, list(Lease.objects.values_list("pk", flat=True))),
        )
        return int(stalled + cursor.rowcount)
