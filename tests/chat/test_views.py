"""The pages as the server sends them; what they do is tested in a browser (tests/browser)."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.storage import staticfiles_storage
from django.test import Client

from apps.chat import views

pytestmark = pytest.mark.django_db

MODULES = Path(views.__file__).parent / "static" / "chat"


@pytest.fixture
def client() -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_user('<b>"ada"'))
    return client


def hashed(name: str) -> str:
    return f"/static/{name.replace('.', '.0123abcd.', 1)}"


def test_the_chat_asks_who_is_there_and_remembers_where_they_wanted_to_go():
    answer = Client().get("/threads/some-thread/")
    assert answer.status_code == 302
    assert answer["Location"] == "/accounts/login/?next=/threads/some-thread/"


def test_user_pages_are_private_and_kept_by_no_cache(client: Client):
    for address in ("/", "/threads/some-thread/"):
        assert set(client.get(address)["Cache-Control"].split(", ")) == {"private", "no-store"}
    assert "no-store" in Client().get("/accounts/login/")["Cache-Control"]


def test_a_name_is_text_and_never_markup(client: Client):
    page = client.get("/").content.decode()
    assert "<b>" not in page
    assert 'title="&lt;b&gt;&quot;ada&quot;"' in page


def test_a_page_holds_no_inline_style_handler_or_script_without_the_nonce(client: Client):
    for page in (client.get("/"), Client().get("/accounts/login/")):
        text = page.content.decode()
        assert not re.search(r"<[^>]+\s(style|on\w+)=", text)
        assert not re.search(r"<style", text)
        for script in re.findall(r"<script[^>]*>", text):
            assert " src=" in script or " nonce=" in script


def test_modules_with_hashed_names_are_found_through_an_import_map(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(staticfiles_storage, "url", hashed)
    answer = client.get("/")
    page = answer.content.decode()
    found = re.search(r'<script type="importmap" nonce="([^"]+)">(.*?)</script>', page, re.DOTALL)
    assert found
    assert f"'nonce-{found[1]}'" in answer["Content-Security-Policy"]
    imports = json.loads(found[2])["imports"]
    assert imports["/static/chat/store.js"] == "/static/chat/store.0123abcd.js"
    assert imports["/static/vendor/marked.js"] == "/static/vendor/marked.0123abcd.js"
    assert page.index("importmap") < page.index("modulepreload") < page.index('type="module"')


def test_libraries_that_were_not_fetched_are_left_out(client: Client, monkeypatch: pytest.MonkeyPatch):
    def known(name: str) -> str:
        if name.startswith("vendor/"):
            raise ValueError("Missing staticfiles manifest entry")
        return hashed(name)

    monkeypatch.setattr(staticfiles_storage, "url", known)
    assert "/static/vendor/" not in client.get("/").content.decode()


def test_every_module_of_the_page_is_named():
    of_another_page = {"chat/tryout.js"}  # the API's documents load it
    assert {f"chat/{path.name}" for path in MODULES.glob("*.js")} - of_another_page == set(views.MODULES)


def test_every_import_is_relative_so_that_the_modules_can_be_used_alone():
    for path in MODULES.glob("*.js"):
        for address in re.findall(r"""(?:from|import\()\s*["']([^"']+)["']""", path.read_text()):
            assert re.fullmatch(r"\./\w+\.js|\.\./vendor/\w+\.js", address), (path.name, address)


def test_no_module_takes_html_or_evaluates_text():
    for path in MODULES.glob("*.js"):
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)


def test_a_user_who_is_logged_in_is_led_on_from_the_log_in_page(client: Client):
    assert client.get("/accounts/login/")["Location"] == "/"


def test_logging_out_takes_a_post(client: Client):
    assert client.get("/accounts/logout/").status_code == 405
    assert client.post("/accounts/logout/")["Location"] == "/accounts/login/"
    assert client.get("/").status_code == 302


def test_a_foreign_address_is_not_where_a_log_in_leads(client: Client, settings: Any):
    answer = client.get("/accounts/login/?next=https://evil.example/")
    assert answer["Location"] == "/"


def test_a_browser_that_looks_for_an_icon_is_led_to_it(client):
    answer = client.get("/favicon.ico")
    assert (answer.status_code, answer["Location"]) == (302, "/static/chat/turnout.svg")
