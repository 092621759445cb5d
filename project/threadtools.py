"""The tools of a process, and what they may do with their user's threads.

The conversation needs the log, and the log needs to know which of the tools' fields are public; so the tools come
first, and are given the conversation when there is one.
"""

from collections.abc import Sequence

from apps.agents.builtin_tools import ThreadHit, builtin_tools
from apps.agents.fetching import FetchTool
from apps.agents.tools import Toolbox
from apps.chat import attachments
from apps.chat.conversation import Conversation
from apps.chat.search import search_threads
from apps.realtime.database import DatabaseThreads
from apps.vocabulary import Identity, ThreadId, UserId
from project.configuration import Configuration
from project.limits import fetch_limits


class ThreadTools:
    """Made by the composition root, which sets `conversation` before any run can begin. `box` holds the tools."""

    def __init__(self, database: DatabaseThreads, configuration: Configuration) -> None:
        self._database = database
        self.conversation: Conversation | None = None
        fetch = fetch_limits(configuration)
        tools = builtin_tools(search=self.search, rename=self.rename, read=self.read)
        self.box = Toolbox(tools if fetch is None else (*tools, FetchTool(fetch)))

    async def search(self, user_id: UserId, query: str, limit: int, besides: ThreadId) -> Sequence[ThreadHit]:
        """The user's other threads that mention `query`."""
        return await self._database.call(search_threads, user_id, query, limit, besides)

    async def read(self, user_id: UserId, attachment_id: str) -> tuple[str, str, bytes]:
        """One of the user's files: name, media type, content. Raises Refusal(not_found)."""
        attachment, content = await self._database.call(attachments.read, user_id, attachment_id)
        return attachment.name, attachment.media_type, content

    async def rename(self, identity: Identity, thread_id: ThreadId, title: str) -> None:
        """Give one of the user's threads another title. Raises Refusal(not_found)."""
        assert self.conversation is not None
        await self._database.call(self.conversation.change_thread, identity, thread_id, title=title)
