"""Primary and standby archive into one repository (archive_mode=always): the switch, and the old primary afterwards."""

import contextlib
import os
import threading

import pytest

from support.compare import digest
from support.pgcairn import FAILED, REFUSED
from support.process import must, owner, wait_until
from support.receiver import LOAD_TABLE, fill, is_gapless, segments


class Pair:
    """A primary and its standby, both archiving, and their one repository with a backup of the first."""

    def __init__(self, workshop):
        self.workshop = workshop
        self.primary, self.pgcairn = workshop.archiving_server("primary", wal_segsize=1)
        self.primary.configure(archive_mode="always", wal_keep_size="'256MB'")
        self.primary.restart()
        self.primary.sql(LOAD_TABLE)
        self.pgcairn.backup("--wal-timeout=60")
        self.standby = workshop.standby(self.primary, "standby")
        self.expected = {}

    def load(self):
        """Segments that both of them have to archive, as they come."""
        writers = [threading.Thread(target=self.write, args=(number,)) for number in range(2)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()

    def write(self, writer):
        connection = self.primary.connect()
        with contextlib.closing(connection), connection.cursor() as cursor:
            for n in range(60):
                cursor.execute("INSERT INTO load SELECT %s + s, repeat('x', 300) FROM generate_series(1, 100) AS s",
                               (writer * 1000000 + n * 100,))

    def mark(self, name, server):
        """A restore point and what is there at it."""
        server.sql("SELECT pg_create_restore_point(%s)", name)
        self.expected[name] = digest(server)

    def replicated(self):
        self.standby.wait_replayed(self.primary.value("SELECT pg_current_wal_flush_lsn()"))

    def both_archived(self):
        """The last whole segment is archived by both; what they have in common."""
        name = end_segment(self.primary)
        for server in self.primary, self.standby:
            archived(server, name)
        common = done(self.primary) & done(self.standby)
        assert len(common) > 5
        for server in self.primary, self.standby:
            assert server.value("SELECT failed_count FROM pg_stat_archiver") == 0, server.log_tail()
        return common

    def serve_from(self, server):
        self.pgcairn.conninfo = server.conninfo(user="pgcairn")
        self.pgcairn.write_config()

    def check_point(self, name, *arguments):
        restored = self.workshop.restore(self.pgcairn, "--type=name", f"--target={name}", *arguments)
        assert digest(restored.start_restored()) == self.expected[name]
        self.workshop.discard(restored)


def done(server):
    return {path.name.removesuffix(".done")
            for path in (server.data / "pg_wal/archive_status").glob("*.done") if len(path.name) == 29}


def end_segment(server):
    """Ends it also at the standby, which closes a segment when the first bytes of the next one come; its name."""
    name = server.switch_wal()
    server.sql("SELECT pg_create_restore_point('next')")
    return name


def archived(server, name):
    wait_until(f"{server.directory.name} archives {name}", lambda: name in done(server))


def histories(pgcairn):
    return [path.parent.name for path in pgcairn.objects("c/main/w/*/*/history")]


def partials(pgcairn):
    return {path.name.split(".partial")[0] for path in pgcairn.objects("c/main/w/*/*/*/*.partial.*")}


@pytest.fixture
def pair(workshop):
    return Pair(workshop)


def test_the_old_primary_comes_back_as_a_standby(pair):
    primary, standby, pgcairn = pair.primary, pair.standby, pair.pgcairn
    pair.load()
    pair.mark("before", primary)
    common = pair.both_archived()
    assert common <= set(segments(pgcairn, 1))
    fill(primary, 100)
    pair.replicated()
    unfinished = primary.value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    primary.kill()
    standby.promote()
    pair.mark("switched", standby)
    fill(standby, 3000)
    archived(standby, end_segment(standby))
    wait_until("the old timeline's end is archived", lambda: partials(pgcairn) == {unfinished})
    assert histories(pgcairn) == ["00000002"]
    assert unfinished not in segments(pgcairn, 1)

    # Back by pg_rewind, with archive_mode=always again: timeline 2 comes from both. pg_rewind of 15 sees a
    # promotion only after a checkpoint.
    standby.sql("CHECKPOINT")
    must(primary.bin / "pg_rewind", "-D", primary.data, "-R", "--source-server", standby.conninfo())
    primary.start()
    fill(standby, 3000)
    pair.mark("after", standby)
    last = end_segment(standby)
    for server in standby, primary:
        archived(server, last)
        assert server.value("SELECT failed_count FROM pg_stat_archiver") == 0, server.log_tail()
    assert primary.value("SELECT pg_is_in_recovery()")
    assert histories(pgcairn) == ["00000002"] and partials(pgcairn) == {unfinished}
    assert is_gapless(segments(pgcairn, 1)) and is_gapless(segments(pgcairn, 2))

    pair.serve_from(standby)
    pgcairn.run("verify")
    assert "no gaps" in pgcairn.run("info").stdout
    pgcairn.run("check")
    for name in "before", "switched", "after":
        pair.check_point(name)
    restored = pair.workshop.restore(pgcairn).start_restored()
    assert digest(restored) == pair.expected["after"]


def test_the_old_primary_goes_on_and_is_forced_onto_a_taken_timeline(pair):
    primary, standby, pgcairn = pair.primary, pair.standby, pair.pgcairn
    pair.load()
    pair.mark("before", primary)
    pair.both_archived()
    fill(primary, 100)
    pair.replicated()
    standby.promote()
    pair.mark("chosen", standby)
    archived(standby, end_segment(standby))

    # Nobody fenced it: it writes on, on timeline 1, beyond where timeline 2 left it.
    fill(primary, 3000)
    pair.mark("lost", primary)
    for _ in range(2):
        archived(primary, end_segment(primary))
    assert primary.value("SELECT failed_count FROM pg_stat_archiver") == 0, primary.log_tail()
    assert is_gapless(segments(pgcairn, 1))

    # One history with two ends: never chosen between by itself.
    pair.serve_from(standby)
    refused = pgcairn.run("restore", "--to", pair.workshop.new_directory() / "data", expect=REFUSED).stderr
    assert "several timelines" in refused and "--target-timeline=N" in refused
    assert "timeline 1: from" in refused and "timeline 2 (left 1 at" in refused, refused
    pair.check_point("before", "--target-timeline=2")
    pair.check_point("chosen", "--target-timeline=2")
    pair.check_point("lost", "--target-timeline=1")

    # By force onto timeline 2, which is another's: loud, named, and nothing of it is stored.
    primary.stop()
    (primary.data / "standby.signal").touch()
    os.chown(primary.data / "standby.signal", *owner())
    stored = segments(pgcairn, 2)
    (history,) = pgcairn.objects("c/main/w/*/00000002/history")
    content = history.read_bytes()
    primary.start()
    primary.promote()
    assert (primary.data / "pg_wal/00000002.history").exists()
    fill(primary, 3000)
    primary.switch_wal()
    wait_until("it is refused", lambda: "stored with other content" in primary.log_tail())
    assert "00000002.history" in primary.log_tail()
    wait_until("it is counted", lambda: primary.value("SELECT failed_count > 0 FROM pg_stat_archiver"))
    assert segments(pgcairn, 2) == stored and history.read_bytes() == content
    pair.serve_from(primary)
    text = pgcairn.run("check", "--no-switch", expect=FAILED).stdout
    assert "00000002.history" in text or "FAILING" in text
    pair.serve_from(standby)
    fill(standby, 100)
    pair.mark("end", standby)
    archived(standby, end_segment(standby))
    pgcairn.run("verify")
    pair.check_point("end", "--target-timeline=2")
