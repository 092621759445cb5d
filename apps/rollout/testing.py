"""A stage for the length of a test, because waffle's `override_flag` restores `everyone` only."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

from waffle import get_waffle_flag_model

from apps.rollout.models import AbstractSeamFlag, columns_of
from apps.rollout.seams import declared_seam
from apps.rollout.stages import Placement, Stage


@contextmanager
def override_stage(seam: str, stage: Stage, percent: Decimal | None = None) -> Iterator[None]:
    """Put a declared seam at any stage, without rights, table and audit row, and restore its row
    afterwards.

    A context manager and a decorator of synchronous tests. `ramp` needs `percent`. Within a real
    transaction it is seen by other threads and processes, as a move would be: the version goes up, and does
    not come back.
    """
    declared_seam(seam)
    model: type[AbstractSeamFlag] = get_waffle_flag_model()
    rows = model.objects.filter(name=seam)
    before = rows.values(*model.MOVED_FIELDS).first()
    values = columns_of(Placement.of(stage, percent))
    if before is None:
        model.objects.bulk_create([model(name=seam, version=1, superusers=False, salt=secrets.token_hex(8), **values)])
    else:
        rows.update(**values, version=before["version"] + 1)
    try:
        yield
    finally:
        if before is None:
            for row in rows:
                row.users.clear()
                row.groups.clear()
            rows._raw_delete(rows.db)  # noqa: SLF001 - `delete` refuses a declared seam
        else:
            version = rows.values_list("version", flat=True).get() + 1
            rows.update(**before | {"version": version})
