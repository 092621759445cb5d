"""Who may do what at which address: the rows of the matrix. An address without a row fails `test_matrix.py`.

A row says for each method who is let in; what is not named is refused to everyone (405).
"""

import enum
from dataclasses import dataclass

from tests.authorisation.addresses import Address


class Let(enum.Enum):
    """Whom one method of one address lets in."""

    ANYONE = "anyone, and each reader is told the same"
    PERSON = "who is logged in; nobody else is led to the log-in page"
    USER = "any user, for what is their own; nobody else is told 401"
    OWNER = "the one user whose thing is named; all others are told 404, staff of every kind too"
    STAFF = "any staff; all others are led to the admin's log-in page"
    RIGHT = "staff with the right; without it they are told 403 or 404, all others are led to the log-in page"
    NOBODY = "not even a superuser: nobody writes here"


@dataclass(frozen=True)
class Row:
    """The methods of an address, and a body with which a call of a method can succeed."""

    methods: dict[str, Let]
    bodies: dict[str, str] | None = None


SAFE = {"GET", "HEAD"}
PUBLIC = Row({"GET": Let.ANYONE})
ROWS: dict[str, Row] = {
    "healthz": PUBLIC,
    "readyz": PUBLIC,
    "metrics": PUBLIC,
    "": Row({"GET": Let.PERSON}),
    "threads/<str:thread_id>/": Row({"GET": Let.PERSON}),
    "accounts/login/": Row({"GET": Let.ANYONE, "POST": Let.ANYONE, "PUT": Let.ANYONE}),
    "accounts/logout/": Row({"POST": Let.ANYONE}),
    "words/": PUBLIC,
    "favicon.ico": Row(
        dict.fromkeys(("GET", "POST", "PUT", "PATCH", "DELETE"), Let.ANYONE)
    ),  # leads to the static file
    "language/": Row(dict.fromkeys(("GET", "POST", "PUT", "PATCH", "DELETE"), Let.ANYONE)),
    "api/openapi.json": Row(dict.fromkeys(("GET", "POST", "PUT", "PATCH", "DELETE"), Let.ANYONE)),
    "api/docs": Row(dict.fromkeys(("GET", "POST", "PUT", "PATCH", "DELETE"), Let.ANYONE)),
    "api/threads": Row({"GET": Let.USER, "POST": Let.USER}),
    "api/threads/<thread_id>": Row(
        {"GET": Let.OWNER, "PATCH": Let.OWNER, "DELETE": Let.OWNER}, {"PATCH": '{"title": "mine now"}'}
    ),
    "api/threads/<thread_id>/export": Row({"GET": Let.OWNER}),
    "api/threads/<thread_id>/events": Row({"GET": Let.OWNER}),
    "api/attachments": Row({"POST": Let.USER}),
    "api/attachments/<attachment_id>": Row({"GET": Let.OWNER}),
    "api/agui/<agent>": Row({"POST": Let.USER}),
    "api/runs": Row({"POST": Let.OWNER}, {"POST": '{"thread_id": "<thread_id>", "text": "hello"}'}),
    "api/runs/<run_id>": Row({"GET": Let.OWNER}),
    "api/runs/<run_id>/cancel": Row({"POST": Let.OWNER}),
    "api/me": Row({"GET": Let.USER}),
    "api/agents": Row({"GET": Let.USER}),
    "api/usage": Row({"GET": Let.USER}),
    "admin/": Row({"GET": Let.STAFF, "POST": Let.STAFF}),
    "admin/login/": Row({"GET": Let.ANYONE, "POST": Let.ANYONE, "PUT": Let.ANYONE}),
    "admin/logout/": Row({"POST": Let.ANYONE}),
    "admin/password_change/": Row({"GET": Let.STAFF, "POST": Let.STAFF}),
    "admin/password_change/done/": Row({"GET": Let.STAFF}),
    "admin/autocomplete/": Row({"GET": Let.RIGHT}),
    "admin/jsi18n/": Row({"GET": Let.STAFF}),
    "admin/r/<path:content_type_id>/<path:object_id>/": Row({"GET": Let.STAFF}),
    "admin/leak-live/": Row({"GET": Let.RIGHT}),
    "admin/leak-live/begin/": Row({"POST": Let.RIGHT}),
    "admin/leak-live/switch/": Row({"POST": Let.RIGHT}),
    "admin/leak-live/end/": Row({"POST": Let.RIGHT}),
    "admin/operations/processreport/connections/": Row({"GET": Let.RIGHT}),
    "admin/operations/processreport/live/": Row({"GET": Let.RIGHT, "POST": Let.RIGHT}),
    "admin/rollout/flag/seam/<str:name>/": Row({"GET": Let.RIGHT, "POST": Let.RIGHT}),
    "admin/rollout/flag/seam/<str:name>/acknowledge/": Row({"POST": Let.RIGHT}),
    "admin/rollout/flag/seam/<str:name>/reshuffle/": Row({"POST": Let.RIGHT}),
    "admin/rollout/flag/seam/<str:name>/shape/<int:shape_id>/": Row({"POST": Let.RIGHT}),
    "admin/auth/user/<id>/password/": Row({"GET": Let.RIGHT, "POST": Let.RIGHT}),
}
# Below the API and the admin every other address is answered as one that there is not.
NO_SUCH_ADDRESS = {"api/", "api/^.*$", "admin/(?P<url>.*)$"}

# Rows whose addresses leave with a room that can be taken out.
LEAVING = {"apps.legacy": ("admin/leak-live/",), "apps.rollout": ("admin/leak-live/", "admin/rollout/", "rollout.")}

READ, WRITE = "read only, for staff with the right to view", "written by staff with the right, as Django does"
MODELS = {
    "auth.group": WRITE,
    "auth.user": WRITE,
    "waffle.sample": WRITE,
    "waffle.switch": WRITE,
    "axes.accessattempt": WRITE,
    "axes.accesslog": WRITE,
    "axes.accessfailurelog": WRITE,
    "execution.run": READ,
    "execution.userbudget": READ,
    "rollout.flag": WRITE,
    "rollout.move": READ,
    "rollout.denieduser": WRITE,
    "chat.thread": READ,
    "chat.message": READ,
    "chat.apitoken": READ,
    "operations.processreport": READ,
}


def row_of(address: Address) -> Row | None:
    """The row of an address; None where somebody has to write one."""
    if address.route in ROWS:
        return ROWS[address.route]
    if address.route.startswith("admin/^(?P<app_label>"):
        return Row({"GET": Let.RIGHT})
    kind = MODELS.get(address.model)
    ending = address.route.removeprefix(f"admin/{address.model.replace('.', '/')}/")
    writing = Let.NOBODY if kind is READ else Let.RIGHT
    pages = {
        "": Row({"GET": Let.RIGHT, "POST": Let.RIGHT}),
        "add/": Row({"GET": writing, "POST": writing}),
        "<path:object_id>/history/": Row({"GET": Let.RIGHT}),
        "<path:object_id>/delete/": Row({"GET": writing, "POST": writing}),
        "<path:object_id>/change/": Row({"GET": Let.RIGHT, "POST": writing}),
        "<path:object_id>/": Row({"GET": Let.STAFF}),  # leads to `change/`, which looks for itself
    }
    return pages.get(ending) if kind else None
