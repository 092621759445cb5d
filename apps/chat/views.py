"""The pages: log in, and the chat. They carry who is logged in and where things are; all else comes over the socket and
the API, so a page holds nobody's messages.
"""

from typing import Any

from django.conf import settings
from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.auth.views import LoginView, LogoutView
from django.templatetags.static import static
from django.utils.decorators import method_decorator
from django.views.decorators.cache import cache_control
from django.views.generic import RedirectView, TemplateView
from django.views.i18n import JavaScriptCatalog

SOCKET_PATH = "/ws/chat/"
API_PATH = "/api/"
ENTRY_MODULE = "chat/chat.js"
# Everything that a page may import. The names in the modules are relative and plain; where static files carry a hash in
# their name, an import map leads from the plain name to the hashed one, so that no cache mixes two releases.
MODULES = (
    "chat/addresses.js",
    "chat/api.js",
    "chat/branches.js",
    "chat/chat.js",
    "chat/commands.js",
    "chat/composer.js",
    "chat/connection.js",
    "chat/dialogs.js",
    "chat/dom.js",
    "chat/files.js",
    "chat/items.js",
    "chat/keys.js",
    "chat/markdown.js",
    "chat/memory.js",
    "chat/meter.js",
    "chat/outbox.js",
    "chat/pages.js",
    "chat/sidebar.js",
    "chat/store.js",
    "chat/threadlist.js",
    "chat/transcript.js",
    "chat/trouble.js",
    "chat/turnactions.js",
    "chat/turns.js",
    "chat/turnview.js",
    "chat/words.js",
)
LIBRARIES = ("vendor/marked.js", "vendor/dompurify.js", "vendor/highlight.js")

private = method_decorator(cache_control(private=True, no_store=True), name="dispatch")


def import_map() -> dict[str, str]:
    """From the plain address of a module to the one to load, for those that differ. Missing libraries are left out."""
    addresses: dict[str, str] = {}
    for name in (*MODULES, *LIBRARIES):
        plain = f"{settings.STATIC_URL}{name}"
        try:
            address = static(name)
        except ValueError:  # a manifest storage does not know it: the libraries were not fetched
            continue
        if address != plain:
            addresses[plain] = address
    return addresses


@private
class ChatPage(LoginRequiredMixin, TemplateView):
    """The chat; with a thread in its address, opened there. Whether that thread exists, and is theirs, says the API."""

    template_name = "chat/chat.html"
    extra_context = {"socket_path": SOCKET_PATH, "api_path": API_PATH}  # noqa: RUF012 - Django's own hook

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(
            **kwargs,
            import_map=import_map(),
            entry=static(ENTRY_MODULE),
            modules=[static(name) for name in MODULES if name != ENTRY_MODULE],
            csrf_cookie=settings.CSRF_COOKIE_NAME,
        )


@private
class LogInPage(LoginView):
    """Django's log in, in our dress. A user who is logged in goes on to the chat."""

    template_name = "chat/login.html"
    redirect_authenticated_user = True


@private
class LogOutPage(LogoutView):
    """Django's log out (POST only), then the log-in page."""


@private
class PageWords(JavaScriptCatalog):
    """The words of the page's modules in the reader's language, as Django makes them for scripts."""

    packages = ["apps.chat"]  # noqa: RUF012 - Django's own hook


class Icon(RedirectView):
    """Where browsers look for an icon on pages that name none, as the admin's do not."""

    def get_redirect_url(self, *_args: Any, **_kwargs: Any) -> str:
        return static("chat/turnout.svg")
