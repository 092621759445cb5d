"""The pages' words in other languages: complete, current, and with the same places to fill in."""

import re
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po
from django.conf import settings
from django.core.management import CommandError, call_command
from django.test import Client

from apps.chat.management.commands import compile_translations

CHAT = Path(settings.BASE_DIR) / "apps" / "chat"
LANGUAGES = [code for code, _ in settings.LANGUAGES if code != settings.LANGUAGE_CODE]
IN_MODULES = re.compile(r'gettext\(\s*"((?:[^"\\]|\\.)*)"')
IN_TEMPLATES = re.compile(r'{% translate "([^"]*)" %}')
PLACES = re.compile(r"%\((\w+)\)s")


def words(folder: str, pattern: str, call: re.Pattern[str]) -> set[str]:
    found: set[str] = set()
    for path in sorted((CHAT / folder).rglob(pattern)):
        found |= set(call.findall(path.read_text(encoding="utf-8")))
    return found


SOURCES = {
    "djangojs": words("static/chat", "*.js", IN_MODULES),
    "django": words("templates/chat", "*.html", IN_TEMPLATES),
}


def catalog(language: str, domain: str) -> Catalog:
    with (CHAT / "locale" / language / "LC_MESSAGES" / f"{domain}.po").open("rb") as lines:
        return read_po(lines, locale=language, abort_invalid=True)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("domain", sorted(SOURCES))
def test_every_word_of_the_pages_is_translated_and_no_other(language, domain):
    translated = {message.id: message for message in catalog(language, domain) if message.id}
    assert set(translated) == SOURCES[domain]
    for source, message in translated.items():
        assert message.string, source
        assert not message.fuzzy, source
        assert sorted(PLACES.findall(message.string)) == sorted(PLACES.findall(source)), source


def test_no_word_of_a_template_is_left_in_one_language():
    for path in (CHAT / "templates" / "chat").glob("*.html"):
        if path.name == "api_docs.html":
            continue  # for developers, as the reference is
        text = re.sub(r"{#.*?#}|{%.*?%}|{{.*?}}", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        text = re.sub(r"<(script|style|svg|kbd)\b.*?</\1>", " ", text, flags=re.DOTALL)
        left = {piece.strip(" \n\u2013") for piece in re.split(r"<[^>]*>", text)}
        assert {piece for piece in left if re.search(r"[a-z]{3}", piece)} <= {"Turnout"}, path.name


@pytest.mark.django_db
def test_the_log_in_page_speaks_the_readers_language_and_remembers_another_choice():
    call_command("compile_translations", verbosity=0)
    client = Client(headers={"accept-language": "de-DE,de;q=0.9"})
    page = client.get("/accounts/login/").content.decode()
    assert '<html lang="de"' in page
    assert "Bei Turnout anmelden" in page
    chosen = client.post("/language/", {"language": "en", "next": "/accounts/login/"})
    assert (chosen.status_code, chosen["Location"]) == (302, "/accounts/login/")
    assert "Log in to Turnout" in client.get("/accounts/login/").content.decode()


def test_the_words_of_the_modules_come_as_a_script_that_no_cache_keeps():
    call_command("compile_translations", verbosity=0)
    answer = Client().get("/words/", headers={"accept-language": "de"})
    assert "Unterhaltung" in answer.content.decode()
    assert answer["Cache-Control"] == "private, no-store"
    assert "Connected" not in Client().get("/words/", headers={"accept-language": "en"}).content.decode()


def test_only_what_changed_is_compiled_and_a_broken_catalog_is_named(tmp_path, settings, capsys):
    settings.BASE_DIR = tmp_path
    folder = tmp_path / "apps" / "some" / "locale" / "de" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    source = folder / "django.po"
    source.write_text('msgid "Yes"\nmsgstr "Ja"\n', encoding="utf-8")
    call_command(compile_translations.Command())
    call_command(compile_translations.Command())
    assert capsys.readouterr().out.split("\n")[:2] == ["Translations: 1 compiled", "Translations: 0 compiled"]
    assert b"Ja" in source.with_suffix(".mo").read_bytes()
    source.with_suffix(".mo").unlink()
    source.write_text('msgid "Yes\n', encoding="utf-8")
    with pytest.raises(CommandError, match=r"django\.po cannot be read"):
        call_command(compile_translations.Command())
