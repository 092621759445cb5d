"""As many sockets as there are descriptors for, and no more."""

import subprocess
import sys

import pytest

from tests.serving import ROOT

LOOK = """
import resource, logging
logging.basicConfig()
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from project.configuration import Configuration
from project.descriptors import within_descriptors
bounds = within_descriptors(Configuration(connections={wanted}, connections_per_address=50))
print(bounds.connections, bounds.connections_per_address, bounds.connections_per_user)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "taken", "limit"),
    [
        (100, 400, 60, "60 50 16", 100),
        (100, 400, 200, "200 50 16", 321),
        (100, 200, 4_000, "125 50 16", 200),
        (12, 12, 4_000, "7 7 7", 12),
    ],
)
def test_a_process_raises_its_limit_as_far_as_it_may_and_takes_fewer_sockets_where_that_is_too_little(
    soft, hard, wanted, taken, limit
):
    code = LOOK.format(soft=soft, hard=hard, wanted=wanted)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [taken, str(limit)], done.stderr
    assert ("takes" in done.stderr) == (int(taken.split()[0]) < wanted)
