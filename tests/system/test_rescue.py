"""WAL that only the old data directory holds, when restore replaces it."""

import pytest

from support import damage
from support.cluster import remove_tree
from support.compare import digest
from support.pgcairn import DAMAGED, OK

REPLACE = ("--as=original", "--force")


def server_that_stopped_archiving(workshop):
    """Its last whole segment was never archived; the digest is of the moment when that ended."""
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    server.sql("CREATE TABLE t (n int)")
    pgcairn.backup()
    server.configure(archive_command="'false'")
    server.reload()
    server.sql("INSERT INTO t SELECT generate_series(1, 1000)")
    expected = digest(server)
    server.sql("SELECT pg_switch_wal()")
    server.kill()
    return server, pgcairn, expected


@pytest.mark.parametrize("control", ["whole", "damaged", "gone"])
def test_what_waited_to_be_archived_is_recovered_whatever_became_of_pg_control(workshop, control):
    server, pgcairn, expected = server_that_stopped_archiving(workshop)
    path = server.data / "global/pg_control"
    if control == "damaged":
        path.write_bytes(b"\xff" * 8192)
    if control == "gone":
        path.unlink()

    said = pgcairn.run("restore", "--to", server.data, *REPLACE, expect=OK)

    assert "rescued" in said.stdout
    server.start_restored()
    assert digest(server) == expected


@pytest.mark.parametrize("control", ["whole", "gone"])
def test_without_archive_status_all_wal_is_kept_and_that_is_said(workshop, control):
    server, pgcairn, expected = server_that_stopped_archiving(workshop)
    remove_tree(server.data / "pg_wal/archive_status")
    if control == "gone":
        (server.data / "global/pg_control").unlink()

    said = pgcairn.run("restore", "--to", server.data, *REPLACE, expect=OK)

    assert "has no pg_wal/archive_status" in said.stderr and "rescued" in said.stdout
    assert "breaks off" not in said.stderr
    assert pgcairn.json("verify")["finding_count"] == 0
    server.start_restored()
    assert digest(server) == expected


def test_whose_wal_it_is_the_segments_say_and_not_the_newest_record(workshop):
    server, pgcairn, expected = server_that_stopped_archiving(workshop)
    stranger = workshop.server("stranger", wal_segsize=1)
    pgcairn.conninfo = stranger.conninfo(user="pgcairn")
    pgcairn.write_config()
    pgcairn.run("init", "--another-system")
    (server.data / "global/pg_control").unlink()

    said = pgcairn.run("restore", "--to", server.data, *REPLACE, expect=OK)

    assert "rescued" in said.stdout
    server.start_restored()
    assert digest(server) == expected


def test_wal_whose_system_s_record_is_damaged_keeps_its_directory(workshop):
    server, pgcairn, _ = server_that_stopped_archiving(workshop)
    record, = pgcairn.objects("c/main/i/*")
    stranger = workshop.server("stranger", wal_segsize=1)
    pgcairn.conninfo = stranger.conninfo(user="pgcairn")
    pgcairn.write_config()
    stranger.archive_with(pgcairn)
    stranger.restart()
    pgcairn.run("init", "--another-system")
    pgcairn.backup()
    damage.truncate(record, record)
    (server.data / "global/pg_control").unlink()
    waiting = sorted(path.name for path in (server.data / "pg_wal").iterdir())

    refused = pgcairn.run("restore", "--to", server.data, *REPLACE, expect=DAMAGED)

    assert "nothing was changed" in refused.stderr and record.name in refused.stderr
    assert sorted(path.name for path in (server.data / "pg_wal").iterdir()) == waiting


def test_damaged_wal_of_the_backup_is_found_before_the_original_is_touched(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    server.sql("CREATE TABLE t (n int)")
    made = pgcairn.backup()
    expected = digest(server)
    segment = server.value("SELECT pg_walfile_name(%s)", made["start_lsn"])
    server.stop()
    (path,) = pgcairn.objects(f"**/{segment}")
    damage.truncate(path, path)

    refused = pgcairn.run("restore", "--to", server.data, "--type=immediate", *REPLACE,
                          expect=DAMAGED)

    assert "nothing was changed" in refused.stderr
    server.start()
    assert digest(server) == expected


def test_what_a_copy_wrote_is_never_taken_for_the_original_s(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    server.sql("CREATE TABLE t (n int)")
    pgcairn.backup()
    server.archive_all()  # also the file that tells of the backup
    copy = workshop.restore(pgcairn)
    copy.start_restored()
    copy.sql("CREATE TABLE of_the_copy (n int)")
    copy.kill()
    before = pgcairn.objects("**/w/**/*")

    refused = pgcairn.run("restore", "--to", copy.data, expect=None)
    assert refused.returncode != OK
    assert "only to replace the original" in refused.stderr
    said = pgcairn.run("restore", "--to", copy.data, *REPLACE, expect=OK)

    assert "no WAL of the old directory is rescued" in said.stderr
    assert pgcairn.objects("**/w/**/*") == before
