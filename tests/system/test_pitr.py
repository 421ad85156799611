"""A restore to a moment gives exactly what every table held at that moment.

Three clusters live through the same kind of past (support/history.py): with and without page
checksums, with WAL segments of 1, 16 and 64 MB, one of them with a relation of more than a gigabyte.
"""

import pytest

from support.compare import after_restore, check_checksums, check_tables, digest, verify_backup
from support.history import History
from support.pgcairn import REFUSED

HISTORIES = {
    "small segments": {"wal_segsize": 1, "checksums": False},
    "big relation": {"wal_segsize": 16, "checksums": True, "big": True},
    "large segments": {"wal_segsize": 64, "checksums": True},
}

EVERY_TARGET = ("time", "time-exclusive", "later-time", "xid", "xid-exclusive", "lsn",
                "lsn-exclusive", "next-lsn-exclusive", "name-before", "name-after")

CASES = (
    [("small segments", "first", how) for how in EVERY_TARGET]
    + [("small segments", "second", how) for how in ("time", "lsn-exclusive", "name-before")]
    + [("big relation", "first", how) for how in ("xid-exclusive", "lsn")]
    + [("big relation", "second", "time-exclusive")]
    + [("large segments", "first", how) for how in ("time-exclusive", "name-after")]
    + [("large segments", "second", how) for how in ("xid", "lsn-exclusive")]
)


class Histories:
    """Made when first asked for; each ends with its server stopped."""

    def __init__(self, shop):
        self.shop = shop
        self.made = {}

    def __getitem__(self, name):
        if name not in self.made:
            history = History(self.shop, f"h{len(self.made)}", **HISTORIES[name])
            history.go_on("first")
            history.go_on("second")
            history.end()
            self.made[name] = history
        return self.made[name]


@pytest.fixture(scope="module")
def histories(module_workshop):
    return Histories(module_workshop)


def assert_equal_and_sound(restored, expected, checksums):
    """Looks at what restore wrote, starts it, and compares all tables; leaves it stopped."""
    verify_backup(restored.data)
    restored.start_restored()
    assert digest(restored) == after_restore(expected)
    check_tables(restored)
    restored.stop()
    if checksums:
        check_checksums(restored.data)


@pytest.mark.parametrize("name, mark, how", CASES)
def test_restore_to_a_target_gives_the_side_it_names(histories, workshop, name, mark, how):
    history = histories[name]
    options, expected = history.marks[mark].target(how)

    restored = history.restore(workshop, *options)

    assert_equal_and_sound(restored, expected, HISTORIES[name]["checksums"])


def test_the_sides_of_a_mark_differ(histories):
    for mark in histories["small segments"].marks.values():
        assert after_restore(mark.before) != after_restore(mark.after)


def test_relation_over_a_gigabyte_keeps_its_hole_sparse(histories, workshop):
    history = histories["big relation"]
    restored = history.restore(workshop, "--type=immediate", "--target-action=promote")
    big = [path for path in restored.data.glob("base/*/*.1") if path.name[:-2].isdigit()]
    assert len(big) == 1
    first = big[0].with_suffix("")
    assert first.stat().st_size == 1 << 30
    assert first.stat().st_blocks * 512 < 1 << 29


def test_restore_to_the_end_gives_the_end(histories, workshop):
    history = histories["large segments"]
    restored = history.restore(workshop)
    restored.start_restored()
    assert restored.sql("SELECT n FROM after_the_last_mark") == [(1,)]


def test_backup_alone_becomes_consistent_without_archive(histories, workshop):
    """--type=none: the WAL that restore laid into pg_wal is enough."""
    history = histories["small segments"]
    restored = history.restore(workshop, "--type=none", "--as=clone")
    assert not (restored.data / "recovery.signal").exists()
    verify_backup(restored.data)
    restored.start()
    assert not restored.value("SELECT pg_is_in_recovery()")
    assert restored.value("SELECT count(*) FROM frozen") == 20000
    check_tables(restored)


@pytest.fixture(scope="module")
def forked(module_workshop):
    """Two branches: timeline 1 with marks "fork" and "left", timeline 2 from "fork" to "right"."""
    history = History(module_workshop, "fork", wal_segsize=1, checksums=True)
    history.go_on("fork")
    history.go_on("left")
    history.end()
    left = history.cluster

    options, expected = history.marks["fork"].target("name-after")
    history.cluster = history.restore(module_workshop, *options, "--as=original",
                                      "--target-action=promote")
    history.cluster.start_restored()
    assert digest(history.cluster) == after_restore(expected)
    assert history.cluster.value("SELECT timeline_id FROM pg_control_checkpoint()") in (1, 2)
    history.round -= 1
    history.go_on("right")
    history.end()
    assert left.data != history.cluster.data
    return history


@pytest.mark.parametrize("mark, timeline, how", [
    ("left", "1", "time-exclusive"),
    ("left", "current", "xid"),
    ("left", "1", "lsn-exclusive"),
    ("right", "2", "xid-exclusive"),
    ("right", "latest", "time"),
    ("right", "2", "lsn"),
    ("right", "2", "name-before"),
    ("fork", "2", "xid-exclusive"),
])
def test_both_branches_of_a_fork_can_be_reached(forked, workshop, mark, timeline, how):
    options, expected = forked.marks[mark].target(how)
    restored = forked.restore(workshop, *options, f"--target-timeline={timeline}")
    assert_equal_and_sound(restored, expected, checksums=True)


def test_a_fork_without_a_timeline_is_refused_with_the_tree(forked, workshop):
    result = forked.pgcairn.run("restore", "--to", workshop.new_directory() / "data",
                                expect=REFUSED)
    assert "timeline" in result.stderr
    assert "1" in result.stderr and "2" in result.stderr
