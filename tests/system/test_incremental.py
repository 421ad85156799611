"""Backups that store only what changed: each is whole, restores by itself, and needs no other."""

import os
import signal

import pytest

from support.cluster import ROOT
from support.compare import check_checksums, check_tables, digest, verify_backup
from support.memory import run_watched
from support.pgcairn import OK
from support.process import must, wait_until

READER = ROOT / "tools" / "pgcairn-reader.py"


def incremental(pgcairn, *arguments, **options):
    return pgcairn.json("backup", "--start-fast", *arguments, **options)


def fill(server):
    server.sql("CREATE TABLE t AS SELECT n AS id, md5(n::text) AS body, 0 AS changed"
               "  FROM generate_series(1, 60000) n")
    server.sql("ALTER TABLE t ADD PRIMARY KEY (id)")
    server.sql("CREATE TABLE quiet AS SELECT n, repeat(md5(n::text), 20) AS body"
               "  FROM generate_series(1, 8000) n")
    server.sql("CHECKPOINT")


def check_restored(workshop, pgcairn, label, expected):
    restored = workshop.restore(pgcairn, "--set", label, "--type=immediate",
                                "--target-action=promote")
    verify_backup(restored.data)
    restored.start_restored()
    restored.wait_promoted()
    assert digest(restored) == expected
    check_tables(restored)
    restored.stop()
    check_checksums(restored.data)
    workshop.discard(restored)


def changes(server, step):
    """Scattered and local changes, growth, truncation, files that come and go."""
    server.sql("UPDATE t SET changed = changed + 1 WHERE id %% 97 = %s", step)
    server.sql("INSERT INTO t SELECT 60000 + %s * 1000 + n, 'new', 0 FROM generate_series(1, 500) n",
               step)
    if step == 1:
        server.sql("CREATE TABLE fresh AS SELECT n FROM generate_series(1, 3000) n")
    elif step == 2:
        server.sql("TRUNCATE fresh")
        server.sql("CREATE TABLE other AS SELECT n FROM generate_series(1, 9000) n")
    elif step == 3:
        server.sql("DROP TABLE fresh")
        server.sql("DELETE FROM other WHERE n > 4000")
        server.sql("VACUUM other")
        server.sql("VACUUM FULL t")
    server.sql("CHECKPOINT")


def test_every_incremental_restores_by_itself(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    fill(server)
    backups = [(pgcairn.backup(), digest(server))]
    for step in (1, 2, 3):
        changes(server, step)
        expected = digest(server)
        made = incremental(pgcairn)
        assert made["type"] == "incr"
        assert made["label"].endswith("I")
        assert made["parent"] == backups[-1][0]["bid"]
        assert made["parent_label"] == backups[-1][0]["label"]
        assert made["pages_compared"] > made["pages_changed"] > 0
        if step < 3:
            assert made["stored_bytes"] < backups[0][0]["stored_bytes"] * 0.6
        backups.append((made, expected))

    for made, expected in backups:
        check_restored(workshop, pgcairn, made["label"], expected)
    listed = {backup["label"]: backup for backup in pgcairn.backups()}
    assert [listed[made["label"]]["type"] for made, _ in backups] == ["full"] + 3 * ["incr"]
    assert "compared with" in pgcairn.run("info", "--set", backups[-1][0]["label"]).stdout


def test_nothing_changed_stores_next_to_nothing(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    fill(server)
    pgcairn.backup()
    incremental(pgcairn)
    made = incremental(pgcairn)
    # pg_control, backup_label, the server's manifest, one page of this and that.
    assert made["pages_stored"] < 60
    assert made["stored_bytes"] < 200_000
    assert made["map_bytes"] < 40_000


def test_the_default_is_full_where_there_is_no_parent_and_says_why(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    server.sql("CHECKPOINT")
    made = incremental(pgcairn)
    assert made["type"] == "full" and made["label"].endswith("F")
    assert made["why_full"] == "there is no backup yet"
    assert "parent" not in made or made["parent"] is None
    assert incremental(pgcairn)["type"] == "incr"
    assert incremental(pgcairn, "--type=full")["type"] == "full"


def test_a_differential_is_compared_with_the_newest_full(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    fill(server)
    full = pgcairn.backup()
    changes(server, 1)
    incremental(pgcairn)
    changes(server, 2)
    expected = digest(server)
    made = incremental(pgcairn, "--type=diff")
    assert made["type"] == "diff" and made["label"].endswith("D")
    assert made["parent"] == full["bid"]
    check_restored(workshop, pgcairn, made["label"], expected)


def test_the_python_reader_restores_an_incremental(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    fill(server)
    pgcairn.backup()
    changes(server, 1)
    incremental(pgcairn)
    changes(server, 2)
    made = incremental(pgcairn)
    target = workshop.new_directory() / "data"
    must("/usr/bin/python3", READER, pgcairn.repository, "restore", made["label"], target)
    verify_backup(target)


def test_a_pack_that_is_gone_is_stored_anew(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    fill(server)
    full = pgcairn.backup()
    server.sql("CHECKPOINT")
    expected = digest(server)
    packs = pgcairn.objects(f"c/main/b/{full['bid']}/p/*/*")
    assert packs
    os.unlink(packs[0])
    made = incremental(pgcairn)
    assert made["type"] == "incr"
    assert made["packs_lost"] >= 1
    check_restored(workshop, pgcairn, made["label"], expected)


@pytest.mark.parametrize("kind", ["full", "incr"])
def test_a_killed_backup_is_salvaged(workshop, kind):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    # Random bytes: more than one pack of them, so that one is durable when the backup is killed.
    server.sql("CREATE EXTENSION pgcrypto")
    fill(server)
    if kind == "incr":
        pgcairn.backup()
    server.sql("CREATE TABLE noise AS SELECT gen_random_bytes(1000) AS b FROM generate_series(1, 180000)")
    server.sql("CHECKPOINT")
    expected = digest(server)
    before = len(pgcairn.objects("c/main/b/*/fate"))
    backup = pgcairn.start("backup", f"--type={kind}", "--start-fast", "--max-rate=20MB")
    attempts = pgcairn.repository

    def durable_packs():
        unfinished = [path for path in attempts.glob("c/main/b/*") if not (path / "fate").exists()]
        return [pack for path in unfinished for pack in path.glob("p/*/*")
                if not pack.name.startswith(".")]

    wait_until("a pack of the backup", durable_packs)
    backup.send_signal(signal.SIGKILL)
    backup.wait()
    assert len(pgcairn.objects("c/main/b/*/fate")) == before

    made = incremental(pgcairn, f"--type={kind}")
    assert made["type"] == kind
    assert made["pages_salvaged"] > 5000
    check_restored(workshop, pgcairn, made["label"], expected)


def test_memory_of_an_incremental_stays_below_64_mib_with_30000_files(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    server.script("SELECT format('CREATE TABLE f%s (n int)', n) FROM generate_series(1, 10000) n \\gexec\n")
    oid = server.value("SELECT oid FROM pg_database WHERE datname = 'postgres'")
    server.stop()
    # Files of their own names: the server sends whatever lies in its directories.
    for number in range(20000):
        (server.data / "base" / str(oid) / f"x{number}").write_bytes(b"%d" % number)
    server.start()
    pgcairn.backup()
    server.sql("INSERT INTO f77 SELECT n FROM generate_series(1, 50000) n")
    server.sql("CHECKPOINT")
    report = workshop.new_directory() / "peak"
    for limit, options in ((64, ()), (40, ("--max-memory=40MiB",))):
        result, peak = run_watched(
            pgcairn.command("backup", "--type=incr", "--start-fast", "--jobs=2", *options), report)
        assert result.returncode == OK, result.stderr
        assert peak <= limit
    made = incremental(pgcairn)
    assert made["type"] == "incr"
    assert made["file_count"] > 30000
    assert made["pages_stored"] < 2000
