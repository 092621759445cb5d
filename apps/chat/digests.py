"""The hashes of stored messages, by which a tab's own text is judged."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping

from apps.chat.messages import bounded_id
from apps.chat.models import Message
from apps.vocabulary import MessageId, UserId


def read_digests(wanted: Collection[tuple[UserId, MessageId]]) -> Mapping[tuple[UserId, MessageId], Collection[str]]:
    """The SHA-256, in hex, of the texts that these users' messages have; nothing for one that is not stored.

    An agent's message ids are unique within a run only, so one may name several. Synchronous, in one query.
    """
    stored_as = {(user_id, bounded_id(message_id)): (user_id, message_id) for user_id, message_id in wanted}
    rows = Message.objects.filter(
        user_id__in={user_id for user_id, _ in stored_as}, message_id__in={message_id for _, message_id in stored_as}
    )
    found: dict[tuple[UserId, MessageId], list[str]] = defaultdict(list)
    for user_id, message_id, text in rows.values_list("user_id", "message_id", "text"):
        asked = stored_as.get((UserId(user_id), MessageId(message_id)))
        if asked is not None:
            found[asked].append(hashlib.sha256(text.encode()).hexdigest())
    return found
