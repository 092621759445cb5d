"""What a process holds is counted by asking those who hold it."""

from apps.operations.census import Counted, census_of, held


class Pool:
    """A part with live numbers."""

    def __init__(self):
        self.open = 0

    def census(self):
        return {"connections": self.open, "opened_total": 7}


def test_the_census_is_read_when_it_is_called_not_when_it_is_built():
    pool = Pool()
    census = census_of(pool=pool)
    pool.open = 3
    assert census() == {"pool.connections": 3, "pool.opened_total": 7}


def test_parts_with_equal_names_do_not_overwrite_each_other():
    first, second = Pool(), Pool()
    second.open = 2
    assert census_of(a=first, b=second)()["a.connections"] == 0
    assert census_of(a=first, b=second)()["b.connections"] == 2


def test_whatever_has_a_census_can_be_counted():
    assert isinstance(Pool(), Counted)
    assert not isinstance(object(), Counted)


def test_only_what_was_opened_for_a_user_is_held():
    counts = {
        "pool.connections": 2,
        "pool.connections_opened_total": 9,
        "executor.running": 0,
        "engines.live": 1,
        "database.threads": 8,
    }
    assert held(counts) == {"pool.connections": 2, "engines.live": 1}
