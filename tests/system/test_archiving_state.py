"""check and info say within a minute that archiving falls behind: since when, how much, how long the disk lasts."""

import psycopg2
import pytest

from support.cluster import PORT, quoted
from support.disk import MIB, SmallDisk
from support.pgcairn import FAILED, OK, last_object
from support.process import wait_until


@pytest.fixture(scope="module")
def served(module_workshop):
    cluster, pgcairn = module_workshop.archiving_server("origin", wal_segsize=1)
    pgcairn.backup()
    return cluster, pgcairn


def result(pgcairn, name, expect=None):
    report = pgcairn.json("check", "--no-switch", expect=expect)
    found = [entry for entry in report["results"] if entry["name"] == name]
    return found[0] if found else None


def archiving(pgcairn):
    return pgcairn.info()["archiving"]


def fill(cluster, segments):
    for _ in range(segments):
        cluster.sql("CREATE TABLE IF NOT EXISTS filler (n int)")
        cluster.sql("INSERT INTO filler SELECT generate_series(1, 1000)")
        cluster.switch_wal()


def test_all_is_well(served):
    cluster, pgcairn = served
    fill(cluster, 1)
    cluster.archive_all()
    assert result(pgcairn, "archiving", expect=OK)["status"] == "OK"
    state = archiving(pgcairn)
    assert state["state"] == "up-to-date"
    assert state["waiting"] == 0
    assert not state["waiting_is_guess"]
    assert state["last_archived"]
    assert state["pg_wal_bytes"] > 0
    assert state["free_bytes"] > 0
    assert "archiving: up to date" in pgcairn.run("info").stdout.splitlines()[1]
    assert pgcairn.json("info", "--offline")["clusters"][0]["archiving"] is None


def test_check_waits_for_the_segment_that_its_switch_ended(served):
    """Also where the switch is the last thing that there is room for: a restore point and it take 128 bytes."""
    cluster, pgcairn = served
    with cluster.filled_segment(128):
        report = pgcairn.json("check", "--timeout=20")
    assert {entry["name"]: entry["status"] for entry in report["results"]}["wal-arrival"] == "OK"


def test_whether_push_takes_along_what_is_ready_is_said(served):
    _, pgcairn = served
    spool = pgcairn.directory / "spool"
    for general, status, words in (({"spool-path": spool}, "OK", "the first push makes"),
                                   ({"spool-path": pgcairn.config}, "WARNING", "is no directory")):
        pgcairn.write_config(general=general)
        said = result(pgcairn, "batches")
        assert said["status"] == status
        assert words in said["text"]
    pgcairn.write_config()
    assert result(pgcairn, "batches")["status"] == "OK"


def test_a_failing_command_is_red_at_once(served):
    cluster, pgcairn = served
    cluster.configure(archive_command="'false'")
    cluster.reload()
    fill(cluster, 5)
    wait_until("the archiver failed", lambda: archiving(pgcairn)["state"] == "failing")
    state = archiving(pgcairn)
    assert state["waiting"] >= 5
    assert state["waiting_bytes"] >= 5 << 20
    assert state["since"]
    assert state["last_failed"]
    assert state["bytes_per_second"] > 0
    assert state["disk_lasts_seconds"] > 0
    entry = result(pgcairn, "archiving", expect=FAILED)
    assert entry["status"] == "FAILED"
    for words in ("FAILING since", "wait", "it failed", "the disk lasts about"):
        assert words in entry["text"]
    assert "archiving: FAILING since" in pgcairn.run("info").stdout

    cluster.configure(archive_command=quoted(pgcairn.archive_command()))
    cluster.reload()
    cluster.archive_all()
    wait_until("it is green again", lambda: archiving(pgcairn)["state"] == "up-to-date")


def test_a_command_that_hangs_is_red_within_a_minute(served):
    cluster, pgcairn = served
    hanging = cluster.directory / "hanging"
    hanging.touch()
    cluster.configure(archive_command=quoted(f"while test -e {hanging}; do sleep 0.2; done; false"))
    cluster.reload()
    fill(cluster, 3)
    assert archiving(pgcairn)["state"] in ("up-to-date", "behind")

    def is_red():
        """Within a minute by the server's clock, however late we ask."""
        is_late = cluster.value("SELECT clock_timestamp() - min(modification) > interval '1 min' "
                                "FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'")
        red = archiving(pgcairn)["state"] == "behind"
        assert red or not is_late
        return red

    wait_until("it is red", is_red, 120)
    assert "BEHIND since" in result(pgcairn, "archiving", expect=FAILED)["text"]
    hanging.unlink()
    cluster.configure(archive_command=quoted(pgcairn.archive_command()))
    cluster.reload()
    cluster.archive_all()


def test_a_role_that_may_not_look_still_sees_that_it_fails(served):
    cluster, pgcairn = served
    for function in ("pg_ls_archive_statusdir", "pg_ls_waldir"):
        cluster.sql(f"REVOKE EXECUTE ON FUNCTION pg_catalog.{function}() FROM pgcairn")
    assert archiving(pgcairn)["waiting_is_guess"]
    cluster.configure(archive_command="'false'")
    cluster.reload()
    fill(cluster, 3)
    wait_until("the archiver failed", lambda: archiving(pgcairn)["state"] == "failing")
    state = archiving(pgcairn)
    assert state["waiting"] >= 2
    assert state["pg_wal_bytes"] is None
    cluster.configure(archive_command=quoted(pgcairn.archive_command()))
    cluster.reload()
    cluster.archive_all()
    cluster.make_role()


def test_a_slot_that_holds_wal_back_is_named(served):
    cluster, pgcairn = served
    cluster.sql("SELECT pg_create_physical_replication_slot('forgotten', true)")
    assert any(slot["name"] == "forgotten" and not slot["active"]
               for slot in archiving(pgcairn)["slots"])
    assert result(pgcairn, "slots") is None, "a little is no news"
    cluster.sql("SELECT pg_drop_replication_slot('forgotten')")


def test_a_server_that_is_down_is_said_and_info_goes_on(served):
    cluster, pgcairn = served
    cluster.stop()
    try:
        info = pgcairn.info()
        assert info["archiving"]["state"] == "unknown"
        assert info["recoverable"]["possible"]
        assert "archiving: not known" in pgcairn.run("info").stdout
    finally:
        cluster.start()


def start_on(disk, cluster):
    result = disk.run(cluster.bin / "pg_ctl", "-D", cluster.data, "-w", "-l", cluster.log,
                      "-o", f"-k {cluster.directory} -p {PORT}", "start", timeout=90)
    assert result.returncode == 0, cluster.log_tail()


def fill_until_it_breaks(cluster):
    """Commits rows one after another; how many the server acknowledged."""
    cluster.sql("CREATE TABLE rows (n int, filler text)")
    acknowledged = 0
    with pytest.raises(psycopg2.Error):
        for n in range(1, 1000):
            cluster.sql("INSERT INTO rows SELECT %s, repeat(md5(s::text), 12) FROM generate_series(1, 500) s", n)
            acknowledged = n
    return acknowledged


def test_a_full_pg_wal_is_foretold_and_survived(workshop):
    """Archiving fails until pg_wal's disk is full and the server breaks down; then it works again."""
    cluster, pgcairn = workshop.archiving_server("full", wal_segsize=1,
                                                 settings={"max_wal_size": "4MB", "min_wal_size": "2MB"})
    pgcairn.backup()
    cluster.stop()
    disk = SmallDisk(workshop.new_directory("wal-disk"), free_bytes=24 * MIB)
    try:
        assert disk.run("mv", cluster.data / "pg_wal", disk.directory / "pg_wal").returncode == 0
        (cluster.data / "pg_wal").symlink_to(disk.directory / "pg_wal")
        start_on(disk, cluster)
        cluster.configure(archive_command="'false'")
        cluster.reload()
        fill(cluster, 5)
        wait_until("the archiver failed", lambda: archiving(pgcairn)["state"] == "failing")
        report = disk.run(*pgcairn.command("check", "--no-switch", "--output=json"))
        said = next(entry for entry in last_object(report.stdout)["results"] if entry["name"] == "archiving")
        assert said["status"] == "FAILED"
        assert "the disk lasts about" in said["text"]
        acknowledged = fill_until_it_breaks(cluster)
        assert "No space left on device" in cluster.log.read_text(encoding="utf-8", errors="replace")

        cluster.destroy()
        cluster.configure(archive_command=quoted(pgcairn.archive_command()))
        disk.grow()
        start_on(disk, cluster)
        assert cluster.value("SELECT count(DISTINCT n) FROM rows") >= acknowledged > 0
        name = cluster.switch_wal()  # pg_wal cannot be looked into from here
        wait_until(f"{name} is archived", lambda: cluster.value(
            "SELECT last_archived_wal >= %s FROM pg_stat_archiver", name))
        assert pgcairn.info()["recoverable"]["gaps"] == 0
    finally:
        cluster.destroy()
        disk.close()
