"""What `backup` makes, says and costs; what `info` tells of it afterwards."""

import os
import threading
import time

import pytest

from support.cluster import make_directory, quoted
from support.compare import digest, verify_backup
from support.memory import run_watched
from support.pgcairn import DAMAGED, FAILED, NOT_FOUND, OK, REFUSED
from support.process import owner, wait_until

MEMORY_LIMIT_MIB = 64


def fill(cluster, rows=5000):
    cluster.sql(f"CREATE TABLE t AS SELECT n, md5(n::text) AS body FROM generate_series(1, {rows}) n")
    cluster.sql("CHECKPOINT")


def restore_and_digest(shop, pgcairn, *arguments):
    restored = shop.restore(pgcairn, *arguments)
    verify_backup(restored.data)
    restored.start_restored()
    return digest(restored)


def test_backup_says_what_it_made_and_info_agrees(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    fill(server)

    made = pgcairn.backup("--label", "before the migration")

    assert made["state"] == "wal-complete"
    assert made["type"] == "full"
    assert made["label"].endswith("F")
    assert server.value("SELECT %s::pg_lsn < %s::pg_lsn", made["start_lsn"], made["stop_lsn"])
    (listed,) = pgcairn.backups()
    assert {name: listed[name] for name in ("label", "state", "start_lsn", "stop_lsn")} == {
        name: made[name] for name in ("label", "state", "start_lsn", "stop_lsn")}
    assert listed["name"] == "before the migration"
    assert not listed["from_standby"]
    text = pgcairn.run("info").stdout
    assert text.splitlines()[0].startswith("recoverable: ")
    assert "no gaps" in text.splitlines()[0]
    assert made["label"] in text


def test_info_of_an_empty_repository_says_that_nothing_is_recoverable(workshop):
    _, pgcairn = workshop.archiving_server(wal_segsize=1)
    assert pgcairn.backups() == []
    assert not pgcairn.info()["recoverable"]["possible"]
    target = workshop.new_directory() / "data"
    assert pgcairn.run("restore", "--to", target, expect=None).returncode in (NOT_FOUND, REFUSED)
    assert not target.exists() or not list(target.iterdir())


def test_check_is_green_where_all_is_well(workshop):
    _, pgcairn = workshop.archiving_server(wal_segsize=1)
    lines = pgcairn.run("check").stdout.splitlines()
    assert lines
    assert not [line for line in lines if "FAILED" in line]
    assert [line for line in lines if line.startswith("wal-arrival: OK")]


def test_backup_of_the_least_privileged_role_needs_no_superuser(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    assert server.sql("SELECT rolsuper, rolcreatedb, rolcreaterole, rolbypassrls, rolreplication "
                      "FROM pg_roles WHERE rolname = 'pgcairn'") == [(False, False, False, False, True)]
    assert not server.value("SELECT pg_has_role('pgcairn', 'pg_read_server_files', 'member')")
    fill(server)
    expected = digest(server)
    pgcairn.backup()
    assert restore_and_digest(workshop, pgcairn) == expected


def test_backup_from_a_standby_restores_what_the_primary_had(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    fill(server)
    standby = workshop.standby(server)
    from_standby = workshop.pgcairn(standby, name="from-standby",
                                    repository={"path": pgcairn.repository})
    server.sql("INSERT INTO t SELECT 0, 'while the standby is backed up' FROM generate_series(1, 100)")
    expected = digest(server)
    standby.wait_replayed(server.value("SELECT pg_current_wal_flush_lsn()"))

    stop = threading.Event()

    def switch_often():
        """The primary archives what the standby's backup needs when it gets to it."""
        while not stop.wait(0.1):
            server.switch_wal()

    thread = threading.Thread(target=switch_often)
    thread.start()
    try:
        made = from_standby.backup()
    finally:
        stop.set()
        thread.join()

    assert made["state"] == "wal-complete"
    (listed,) = pgcairn.backups()
    assert listed["from_standby"]
    assert restore_and_digest(workshop, pgcairn, "--set", made["label"]) == expected


def test_tablespaces_may_have_spaces_and_backslashes_in_their_path(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    odd = make_directory(workshop.directory / " räume mit \\ backslash ")
    server.sql("CREATE TABLESPACE odd LOCATION %s", str(odd))
    server.sql("CREATE TABLE there TABLESPACE odd AS SELECT n FROM generate_series(1, 2000) n")
    oid = server.value("SELECT oid FROM pg_tablespace WHERE spcname = 'odd'")
    expected = digest(server)
    pgcairn.backup()

    refused = workshop.new_directory() / "data"
    assert "tablespace" in pgcairn.run("restore", "--to", refused, expect=REFUSED).stderr

    other = make_directory(workshop.directory / "other \\ place")
    assert restore_and_digest(workshop, pgcairn, "--tablespace-map", f"{oid}={other}") == expected
    assert list(other.iterdir())


def test_backups_of_one_second_get_labels_of_their_own(workshop):
    """The server's clock stands still, so that all of them begin in the same second."""
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    server.sql("SET allow_system_table_mods = on; "
               "ALTER FUNCTION pg_catalog.clock_timestamp() RENAME TO ticking_clock; "
               "CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz LANGUAGE sql "
               "AS $$ SELECT '2026-01-02 03:04:05+00'::timestamptz $$")
    made = [pgcairn.json("backup", f"--type={kind}", "--start-fast", "--no-expire")
            for kind in ("full", "incr", "full", "incr")]
    assert [one["label"] for one in made] == ["20260102-030405F", "20260102-030406I",
                                              "20260102-030407F", "20260102-030408I"]
    for one in made:
        assert pgcairn.json("info", "--set", one["label"])["id"] == one["bid"]


def test_max_rate_slows_a_backup_down(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    server.sql("CREATE TABLE t AS SELECT repeat(md5(n::text), 30) FROM generate_series(1, 5000) n")

    def timed(*arguments):
        begin = time.monotonic()
        made = pgcairn.backup(*arguments)
        return made, time.monotonic() - begin

    made, fast = timed()
    # Three times slower than without a rate, however slow this machine is.
    seconds = max(4, 3 * fast)
    _, slow = timed(f"--max-rate={int(made['size_bytes'] / seconds / 1024)}KiB")
    assert slow > 0.9 * seconds


def test_backup_stays_copied_while_the_archive_is_down_and_completes_by_itself(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    fill(server)
    server.archive_all()
    server.configure(archive_command="'false'")
    server.reload()

    result = pgcairn.run("backup", "--type=full", "--start-fast", "--wal-timeout=1", expect=FAILED)

    segment = server.value("SELECT pg_walfile_name(%s::pg_lsn)", pgcairn.backups()[0]["start_lsn"])
    assert segment in result.stdout + result.stderr
    assert [backup["state"] for backup in pgcairn.backups()] == ["copied"]
    assert pgcairn.backups()[0]["first_missing"] == segment
    target = workshop.new_directory() / "data"
    refusal = pgcairn.run("restore", "--to", target, expect=REFUSED)
    assert segment in refusal.stderr

    server.configure(archive_command=quoted(pgcairn.archive_command()))
    server.reload()
    server.archive_all()
    wait_until("the backup is wal-complete", lambda: pgcairn.backups("wal-complete"))
    assert restore_and_digest(workshop, pgcairn) == digest(server)


def test_restore_without_any_wal_says_what_to_do(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    server.configure(archive_command="'false'")
    server.reload()
    pgcairn.run("backup", "--type=full", "--start-fast", "--wal-timeout=0", expect=FAILED)
    refusal = pgcairn.run("restore", "--to", workshop.new_directory() / "data", expect=REFUSED)
    assert "no WAL" in refusal.stderr
    assert "`pgcairn check`" in refusal.stderr


def flip_byte(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x40]))


def test_checksum_failures_are_listed_and_the_backup_is_never_chosen(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1, checksums=True)
    fill(server, rows=20000)
    good = pgcairn.backup()
    relation = server.value("SELECT pg_relation_filepath('t')")
    flip_byte(server.data / relation, 3 * 8192 + 4000)
    flip_byte(server.data / relation, 7 * 8192 + 4000)

    result = pgcairn.run("backup", "--type=full", "--start-fast", expect=DAMAGED)

    assert relation in result.stdout + result.stderr
    (bad,) = pgcairn.backups("damaged")
    assert bad["checksum_failures"] == [{"path": relation, "block": 3},
                                        {"path": relation, "block": 7}]
    assert bad["checksum_failure_count"] == 2
    assert pgcairn.info()["recoverable"]["possible"]

    restored = workshop.restore(pgcairn)
    restored.start_restored()
    assert restored.value("SELECT count(*) FROM t") == 20000
    assert [backup["label"] for backup in pgcairn.backups("wal-complete")] == [good["label"]]

    forced = workshop.new_directory() / "data"
    pgcairn.run("restore", "--to", forced, "--set", bad["label"], expect=REFUSED)
    pgcairn.run("restore", "--to", forced, "--set", bad["label"], "--force", expect=OK)
    with open(forced / relation, "rb") as copy, open(server.data / relation, "rb") as original:
        assert copy.read() == original.read()


def make_many_small_relations(server):
    """2 000 tables and 28 000 files that look like relations."""
    server.sql("CREATE PROCEDURE make() LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..2000 LOOP "
               "EXECUTE 'CREATE TABLE many_' || i || ' AS SELECT ' || i || ' AS n'; "
               "IF i % 100 = 0 THEN COMMIT; END IF; END LOOP; END $$")
    server.sql("CALL make()")
    directory = server.data / "base" / str(
        server.value("SELECT oid FROM pg_database WHERE datname = 'postgres'"))
    ids = owner()
    for number in range(28000):
        path = directory / str(3_000_000_000 + number)
        with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            # A page header that is no empty page would be taken for a damaged page.
            file.write(bytes(8192 * (number % 3)))
        os.chown(path, *ids)


@pytest.fixture(scope="module")
def many_relations(module_workshop):
    server, pgcairn = module_workshop.archiving_server("many", wal_segsize=16)
    make_many_small_relations(server)
    server.sql("CREATE TABLE large AS SELECT repeat(md5(n::text), 60) FROM generate_series(1, 60000) n")
    return server, pgcairn


def test_memory_of_backup_and_restore_stays_below_64_mib_with_30000_files(many_relations, workshop):
    server, pgcairn = many_relations
    report = workshop.new_directory() / "peak"
    expected = server.value("SELECT count(*) FROM pg_class")

    result, peak = run_watched(pgcairn.command("backup", "--type=full", "--start-fast", "--jobs=2"),
                               report)
    assert result.returncode == OK, result.stderr
    assert peak <= MEMORY_LIMIT_MIB

    restored = workshop.cluster()
    result, peak = run_watched(
        pgcairn.command("restore", "--to", restored.data, "--jobs=2"), report)
    assert result.returncode == OK, result.stderr
    assert peak <= MEMORY_LIMIT_MIB
    verify_backup(restored.data)
    restored.start_restored()
    assert restored.value("SELECT count(*) FROM pg_class") == expected
    assert len(list(restored.data.glob("base/*/30000*"))) > 25000


@pytest.mark.parametrize("limit", [32, 48])
def test_max_memory_is_obeyed(many_relations, workshop, limit):
    _, pgcairn = many_relations
    report = workshop.new_directory() / "peak"
    pgcairn.write_config(general={"max-memory": f"{limit}MiB"})
    result, peak = run_watched(pgcairn.command("backup", "--type=full", "--start-fast"), report)
    assert result.returncode == OK, result.stderr
    assert peak <= limit
    target = workshop.new_directory() / "data"
    result, peak = run_watched(pgcairn.command("restore", "--to", target), report)
    assert result.returncode == OK, result.stderr
    assert peak <= limit
    result, peak = run_watched(pgcairn.command("verify", "-j", "4"), report)
    assert result.returncode == OK, result.stderr
    assert peak <= limit
