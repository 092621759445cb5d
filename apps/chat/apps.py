from django.apps import AppConfig


class ChatConfig(AppConfig):
    """The room of the people: threads, messages, the page, the calls and the socket."""

    name = "apps.chat"
    label = "chat"
    verbose_name = "Chat"
