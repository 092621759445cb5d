"""Looking for words in a user's own threads: for the list of threads, and for the tool that agents call.

Substring search in any case, on SQLite and PostgreSQL alike. (SQLite folds the case of ASCII letters only.) It reads
the user's messages, which are bounded, and nobody else's.
"""

from collections.abc import Sequence
from typing import Final

from apps.agents.builtin_tools import ThreadHit
from apps.agents.markdown import plain
from apps.chat.models import Message, Thread
from apps.vocabulary import ThreadId, UserId

EXCERPT_BEFORE: Final = 60  # characters before the match
EXCERPT_LENGTH: Final = 240  # characters


def search_threads(user_id: UserId, query: str, limit: int, besides: ThreadId | None = None) -> Sequence[ThreadHit]:
    """The user's newest threads with `query` in the title or in a message, each with an excerpt, without the one
    `besides` which others are looked for. Synchronous.
    """
    query = " ".join(query.replace("\0", "").split())
    if not query:
        return ()
    threads = Thread.objects.owned(user_id).rows.mentioning(query).exclude(pk=besides or "").newest_first()[:limit]
    return [ThreadHit(thread.id, thread.title, _excerpt(user_id, thread, query)) for thread in threads]


def _excerpt(user_id: UserId, thread: Thread, query: str) -> str:
    said = Message.objects.owned(user_id).rows.filter(thread=thread, text__icontains=query)
    text = said.order_by("-pk").values_list("text", flat=True).first()
    if text is None:
        return ""
    start = max(0, text.lower().find(query.lower()) - EXCERPT_BEFORE)
    return plain(text[start : start + EXCERPT_LENGTH])
