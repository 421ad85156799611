"""The original is restored over itself, and copies archive only when they are told to."""

import shutil

import pytest

from support.cluster import quoted
from support.compare import digest
from support.pgcairn import NOT_FOUND, OK, REFUSED, USAGE
from support.process import owner, wait_until


@pytest.fixture
def original(workshop):
    """A cluster with small segments, a tablespace and a backup; rows 1..1000 are in the backup."""
    server, pgcairn = workshop.archiving_server("original", wal_segsize=1)
    place = workshop.new_directory("space")
    server.sql(f"CREATE TABLESPACE space LOCATION '{place}'")
    server.sql("CREATE TABLE t (n int)")
    server.sql("CREATE TABLE spaced (n int) TABLESPACE space")
    server.sql("INSERT INTO t SELECT generate_series(1, 1000)")
    server.sql("INSERT INTO spaced SELECT generate_series(1, 1000)")
    pgcairn.backup()
    server.space = place
    return server, pgcairn


def stop_archiving(server):
    """From here on segments wait in pg_wal."""
    server.sql("ALTER SYSTEM SET archive_command = '/bin/false'")
    server.reload()
    wait_until("archive_command has changed",
               lambda: server.value("SHOW archive_command") == "/bin/false")


def waiting(server):
    return sorted(path.name[:-len(".ready")]
                  for path in (server.data / "pg_wal/archive_status").glob("*.ready"))


def restore_over(server, pgcairn, *arguments, expect=OK):
    return pgcairn.run("restore", "--to", server.data, *arguments, expect=expect)


def archive_again(server, pgcairn):
    """What restore keeps of postgresql.auto.conf is the backup's, so archive_command is its own."""
    assert server.value("SHOW archive_command") == pgcairn.archive_command()


def test_what_waited_in_the_old_pg_wal_is_rescued_and_replayed(original):
    server, pgcairn = original
    server.archive_all()
    stop_archiving(server)
    server.sql("INSERT INTO t SELECT generate_series(1001, 2000)")
    server.sql("INSERT INTO spaced SELECT generate_series(1001, 2000)")
    server.switch_wal()
    server.sql("INSERT INTO t SELECT generate_series(2001, 3000)")  # in the last, unfinished segment
    expected = digest(server)
    server.kill()
    names = waiting(server)
    assert names

    said = restore_over(server, pgcairn, "--as=original", "--force").stdout

    assert "rescued" in said
    for name in names:
        assert pgcairn.objects(f"**/{name}")
    assert not waiting(server)
    server.start_restored()
    assert digest(server) == expected
    assert not server.value("SELECT pg_is_in_recovery()")
    archive_again(server, pgcairn)
    server.archive_all()
    assert pgcairn.objects("**/00000002/history")


@pytest.mark.parametrize("mode", ["killed", "immediate", "resumed"])
def test_the_last_commits_in_the_unfinished_segment_are_replayed(original, mode):
    server, pgcairn = original
    server.archive_all()
    stop_archiving(server)
    server.sql("INSERT INTO t SELECT generate_series(1001, 2000)")
    server.switch_wal()
    server.sql("INSERT INTO t SELECT generate_series(2001, 3000)")
    segment = server.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
    expected = digest(server)
    server.kill() if mode != "immediate" else server.stop("immediate")

    said = restore_over(server, pgcairn, "--as=original", "--force").stdout
    if mode == "resumed":  # as an interruption leaves it: only the repository has that segment now
        (server.data / "global/pg_control").unlink()
        for place in (server.data, server.space):
            (place / ".pgcairn-restore-in-progress").touch()
        said = restore_over(server, pgcairn, "--as=original", "--force").stdout

    assert f"included: the unfinished segment {segment}" in said
    assert not (server.data / f"pg_wal/archive_status/{segment}.done").exists()
    server.start_restored()
    assert digest(server) == expected
    archive_again(server, pgcairn)
    server.archive_all()
    again = pgcairn.backup("--wal-timeout", "20")
    assert again["state"] == "wal-complete" and again["timeline"] == 2


def test_a_pg_wal_on_another_disk_stays_there(original, workshop):
    server, pgcairn = original
    server.stop()
    disk = workshop.new_directory("wal-disk")
    wal = server.data / "pg_wal"
    for path in wal.iterdir():
        path.rename(disk / path.name)
    wal.rmdir()
    wal.symlink_to(disk)
    server.start()
    server.archive_all()
    stop_archiving(server)
    server.sql("INSERT INTO t SELECT generate_series(1001, 2000)")
    expected = digest(server)
    server.kill()

    restore_over(server, pgcairn, "--as=original", "--force")

    assert wal.is_symlink() and wal.resolve() == disk.resolve()
    assert (disk / "archive_status").is_dir()
    server.start_restored()
    assert digest(server) == expected


def test_what_is_kept_and_not_replayed_is_named(original):
    server, pgcairn = original
    server.archive_all()
    stop_archiving(server)
    server.sql("INSERT INTO t SELECT generate_series(1001, 2000)")
    segment = server.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
    server.kill()

    said = restore_over(server, pgcairn, "--as=original", "--force", "--type=immediate").stdout

    assert "NOT replayed: WAL from " in said
    assert f"is kept in the repository as {segment}.partial" in said
    assert not (server.data / "pg_wal" / segment).exists()


def test_a_clean_stop_leaves_nothing_behind_that_is_not_replayed(original):
    server, pgcairn = original
    server.archive_all()
    stop_archiving(server)
    server.sql("INSERT INTO t SELECT generate_series(1001, 2000)")
    expected = digest(server)
    server.stop()

    restore_over(server, pgcairn, "--as=original", "--force")

    server.start_restored()
    assert digest(server) == expected


def test_after_an_interruption_the_rescued_wal_is_still_replayed(original):
    server, pgcairn = original
    server.archive_all()
    stop_archiving(server)
    server.sql("INSERT INTO t SELECT generate_series(1001, 2000)")
    expected = digest(server)
    server.stop()
    restoring = pgcairn.start("restore", "--to", server.data, "--as=original", "--force")
    # The old pg_wal is not there any more, the new cluster is not yet, or it is all done.
    wait_until("the old cluster is gone", lambda: restoring.poll() is not None
               or not (server.data / "global/pg_control").exists())
    restoring.kill()
    restoring.communicate()

    restore_over(server, pgcairn, "--as=original", "--force")

    server.start_restored()
    assert digest(server) == expected


def test_a_running_original_is_refused(original):
    server, pgcairn = original
    before = digest(server)
    result = restore_over(server, pgcairn, "--as=original", "--force", expect=REFUSED)
    assert "a server is running" in result.stderr
    assert digest(server) == before


def test_without_force_nothing_is_touched(original):
    server, pgcairn = original
    before = digest(server)
    server.stop()
    for arguments in (["--as=original"], ["--force"], []):
        result = restore_over(server, pgcairn, *arguments, expect=REFUSED)
        assert "holds a database cluster" in result.stderr
    server.start()
    assert digest(server) == before


def test_an_unreachable_target_leaves_the_old_cluster_as_it_is(original):
    server, pgcairn = original
    before = digest(server)
    server.stop()
    restore_over(server, pgcairn, "--as=original", "--force", "--time", "2001-01-01 00:00:00+00",
                 expect=REFUSED)
    restore_over(server, pgcairn, "--as=original", "--force", "--max-memory", "20MB", expect=USAGE)
    server.start()
    assert digest(server) == before


def test_tablespaces_of_a_living_original_are_not_taken(original, workshop):
    server, pgcairn = original
    before = digest(server)
    elsewhere = workshop.new_directory() / "data"
    result = pgcairn.run("restore", "--to", elsewhere, "--as=original", "--force", expect=REFUSED)
    assert "is not empty" in result.stderr
    assert "--tablespace-map" in result.stderr
    server.restart()
    assert digest(server) == before


@pytest.fixture
def plain(workshop):
    """A cluster without tablespaces, backed up."""
    server, pgcairn = workshop.archiving_server("plain", wal_segsize=1)
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    pgcairn.backup()
    server.archive_all()
    return server, pgcairn


def has_ready(cluster, name):
    return (cluster.data / "pg_wal/archive_status" / f"{name}.ready").exists()


def test_a_clone_archives_nothing_until_it_is_adopted(plain, workshop):
    server, pgcairn = plain
    clone = workshop.restore(pgcairn)
    clone.start_restored()
    assert clone.value("SHOW archive_mode") == "off"
    assert clone.value("SHOW synchronous_standby_names") == ""
    assert clone.value("SHOW max_logical_replication_workers") == "0"
    clone.sql("INSERT INTO t SELECT generate_series(1001, 2000)")
    name = clone.switch_wal()
    result = pgcairn.push(clone.data / "pg_wal" / name, expect=1)
    assert "pgcairn adopt" in result.stderr
    assert not pgcairn.objects("**/00000002/**/*")
    server.stop()
    clone.stop()

    adopted = pgcairn.json("adopt", "-D", clone.data, "--original")

    assert adopted["silent_timeline"] == 2
    assert adopted["waiting_history_files"] == 1
    assert has_ready(clone, "00000002.history")
    clone.start()
    assert clone.value("SHOW archive_mode") == "on"
    assert clone.value("SHOW max_logical_replication_workers") == "4"
    auto_conf = (clone.data / "postgresql.auto.conf").read_text()
    assert "synchronous_standby_names" not in auto_conf
    clone.archive_all()
    assert pgcairn.objects("**/00000002/history")
    made = pgcairn_of(pgcairn, clone).backup("--wal-timeout", "20")
    assert made["state"] == "wal-complete" and made["timeline"] == 2
    expected = digest(clone)
    again = workshop.restore(pgcairn)
    again.start_restored()
    assert digest(again) == expected


def pgcairn_of(pgcairn, cluster):
    """The same repository, but this server."""
    pgcairn.conninfo = cluster.conninfo(user="pgcairn")
    pgcairn.write_config()
    return pgcairn


def test_a_clone_beside_its_original_is_told_to_take_another_port(plain, workshop):
    server, pgcairn = plain
    pgcairn.write_config(cluster={"pgdata": server.data})
    said = pgcairn.run("restore", "--to", workshop.new_directory() / "data").stdout
    assert "-o '-p PORT' start" in said
    pgcairn.write_config(cluster={"pgdata": "/nonexistent/data"})
    said = pgcairn.run("restore", "--to", workshop.new_directory() / "data").stdout
    assert "PORT" not in said


def test_adopt_tells_what_was_not_archived_and_can_be_repeated(plain, workshop):
    _, pgcairn = plain
    clone = workshop.restore(pgcairn)
    clone.start_restored()
    clone.stop()
    first = pgcairn.run("adopt", "-D", clone.data, "--as-cluster", "staging").stdout
    assert "timeline 2 began at " in first
    assert "new backup" in first
    assert pgcairn.run("adopt", "-D", clone.data, "--as-cluster", "staging").stdout == first
    assert has_ready(clone, "00000002.history")


def test_a_clone_adopted_before_it_opens_has_missed_nothing(plain, workshop):
    _, pgcairn = plain
    clone = workshop.restore(pgcairn)
    adopted = pgcairn.json("adopt", "-D", clone.data, "--original")
    assert adopted["silent_timeline"] is None
    assert adopted["waiting_history_files"] == 0


def test_a_clone_without_recovery_takes_the_original_place_on_a_timeline_of_its_own_only(plain, workshop):
    """--type=none: it goes on in the original's timeline, and files of both would have the same names."""
    server, pgcairn = plain
    clone = workshop.restore(pgcairn, "--type=none")

    def refuse():
        refused = pgcairn.run("adopt", "-D", clone.data, "--original", expect=REFUSED).stderr
        assert "never left timeline 1" in refused and "standby.signal" in refused
        assert "role = clone" in (clone.data / "pgcairn.identity").read_text()

    refuse()
    clone.start()
    clone.sql("INSERT INTO t SELECT generate_series(1001, 2000)")
    refuse()
    clone.stop()
    refuse()

    # What the refusal says.
    server.stop()
    (clone.data / "standby.signal").touch()
    shutil.chown(clone.data / "standby.signal", *owner())
    clone.start()
    clone.promote()
    adopted = pgcairn.json("adopt", "-D", clone.data, "--original")
    assert adopted["silent_timeline"] == 2
    clone.restart()
    clone.archive_all()
    assert pgcairn.objects("**/00000002/history")


def test_a_clone_without_recovery_may_have_a_place_of_its_own(plain, workshop):
    _, pgcairn = plain
    clone = workshop.restore(pgcairn, "--type=none")
    assert pgcairn.json("adopt", "-D", clone.data, "--as-cluster", "staging")["cluster"] == "staging"


def test_wal_of_a_timeline_without_history_is_not_passed_over(plain, workshop):
    """A copy whose archiving was turned on by hand: its history file never came."""
    server, pgcairn = plain
    clone = workshop.restore(pgcairn)
    clone.start_restored()
    clone.sql("INSERT INTO t SELECT generate_series(1001, 2000)")
    server.stop()
    (clone.data / "pgcairn.identity").unlink()
    clone.sql("ALTER SYSTEM RESET archive_mode")
    clone.restart()
    clone.archive_all()
    assert pgcairn.objects("**/00000002/**/*") and not pgcairn.objects("**/00000002/history")
    expected = digest(clone)

    for arguments in ([], ["--type=immediate"], ["--target-timeline=latest"]):
        result = pgcairn.run("restore", "--to", workshop.new_directory() / "data", *arguments,
                             expect=REFUSED)
        assert "00000002.history" in result.stderr
        assert "pgcairn-wal push" in result.stderr
    pgcairn.run("restore", "--to", workshop.new_directory() / "data", "--target-timeline=2",
                expect=NOT_FOUND)
    older = workshop.restore(pgcairn, "--target-timeline=1", "--type=immediate")
    older.start()
    older.wait_paused()
    assert older.value("SELECT count(*) FROM t") == 1000

    pgcairn.push(clone.data / "pg_wal/00000002.history")
    newest = workshop.restore(pgcairn, "--target-timeline=2")
    newest.start_restored()
    assert digest(newest) == expected


def test_an_earlier_system_is_restored_by_set_and_told_of_otherwise(plain, workshop):
    server, pgcairn = plain
    expected = digest(server)
    (made,) = pgcairn.backups()
    moment = server.value("SELECT clock_timestamp()::text")
    server.stop()
    young = workshop.cluster("young").initdb(wal_segsize=1)
    young.configure(archive_mode="on", archive_command=quoted(pgcairn.archive_command()))
    young.start()
    young.make_role()
    pgcairn_of(pgcairn, young).run("init", "--another-system")
    young.sql("CREATE TABLE other AS SELECT 1 AS n")
    pgcairn.backup()

    result = pgcairn.run("restore", "--to", workshop.new_directory() / "data", "--time", moment,
                         expect=REFUSED)
    assert "earlier system" in result.stderr and "--set" in result.stderr
    old = workshop.restore(pgcairn, "--set", made["label"])
    old.start_restored()
    assert digest(old) == expected
    new = workshop.restore(pgcairn)
    new.start_restored()
    assert new.value("SELECT n FROM other") == 1
