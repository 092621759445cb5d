import pytest

from tools import chromium


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH with nothing but what a test puts there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(chromium, "PLAYWRIGHTS_OWN", "raise SystemExit(1)")

    def program(name: str, line: str) -> str:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
        return str(path)

    return program


def test_a_stub_that_only_tells_people_to_install_a_snap_is_passed_over(programs):
    programs("chromium", "echo 'requires the chromium snap' >&2; exit 1")
    real = programs("google-chrome", "echo 'Google Chrome 150'")
    assert chromium.find_chromium() == real


def test_the_one_that_is_named_in_the_environment_comes_first(programs, monkeypatch):
    programs("chromium", "echo 'Chromium 150'")
    named = programs("my-own", "echo 'Chromium 151'")
    monkeypatch.setenv("CHROMIUM", named)
    assert chromium.find_chromium() == named


def test_without_any_the_error_says_what_was_tried_and_what_to_do(programs, monkeypatch):
    installer = programs("no-network", "echo 'Error: no route to host' >&2; exit 1")
    monkeypatch.setattr(chromium.sys, "executable", installer)
    with pytest.raises(chromium.NoChromiumError, match=r"no route to host.*install Debian's package") as raised:
        chromium.obtain_chromium()
    assert "\n" not in str(raised.value)


def test_root_takes_it_from_the_systems_packages(programs, tmp_path, monkeypatch):
    monkeypatch.setattr(chromium.os, "geteuid", lambda: 0)
    failing = programs("no-network", "exit 1")
    monkeypatch.setattr(chromium.sys, "executable", failing)
    programs(
        "apt-get",
        f"case \"$*\" in *chromium*) printf '#!/bin/sh\\necho 150\\n' > {tmp_path}/chromium;"
        f" /bin/chmod 755 {tmp_path}/chromium;; esac",
    )
    assert chromium.obtain_chromium() == str(tmp_path / "chromium")
