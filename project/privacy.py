"""Answers that depend on a cookie are kept by no cache, whoever wrote the page, Django's admin and libraries included.

`Vary: Cookie` alone leaves it to each proxy on the way to tell users apart.
"""

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.cache import add_never_cache_headers, has_vary_header, patch_cache_control
from django.utils.deprecation import MiddlewareMixin


class PrivateByCookie(MiddlewareMixin):
    """`private, no-store` for each answer that varies by cookie, and says nothing of caches itself."""

    def process_response(self, _request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Runs outside of the sessions' middleware, which says that a session was looked at."""
        if has_vary_header(response, "Cookie") and not response.has_header("Cache-Control"):
            add_never_cache_headers(response)
            patch_cache_control(response, private=True, no_store=True)
        return response
