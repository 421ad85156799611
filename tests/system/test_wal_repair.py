"""Holes in the WAL: found again by `wal repair`, or acknowledged, and never silent."""

import json
import os
import shutil

import pytest

from support.cluster import make_directory, pg_major
from support.pgcairn import DAMAGED, NOT_FOUND, OK, USAGE
from support.process import must, owner, run, wait_until

CONFLICT = 4
SEGMENT = 1 << 20


@pytest.fixture
def holed(workshop):
    """A server, its repository with a backup and ten segments after it, and the directory that keeps what is removed."""
    cluster, pgcairn = workshop.archiving_server("origin", wal_segsize=1)
    pgcairn.backup()
    for number in range(10):
        cluster.sql("CREATE TABLE t%s AS SELECT generate_series(1, 2000) AS n" % number)
        cluster.switch_wal()
    cluster.archive_all()
    return cluster, pgcairn, workshop.new_directory("kept")


def segments(pgcairn):
    return [path for path in pgcairn.objects("c/main/w/*/00000001/*/*") if len(path.name) == 24]


def plain_segment(pgcairn, cluster, name, directory):
    """The bytes of a segment as a directory of WAL would have them."""
    target = directory / name
    must(pgcairn.programs.wal, "get", "--config", pgcairn.config, "--prefetch", "0", "--pgdata",
         cluster.data, name, target)
    return target


def take_out(pgcairn, cluster, kept, *positions):
    """Removes segments from the repository; their names, and their bytes in `kept`."""
    paths = [segments(pgcairn)[position] for position in positions]
    for path in paths:
        plain_segment(pgcairn, cluster, path.name, kept)
        path.unlink()
    return [path.name for path in paths]


def holes(pgcairn):
    timeline, = pgcairn.info()["incarnations"][0]["timelines"]
    return timeline["holes"]


def repair(pgcairn, *arguments, expect=OK):
    result = run(*pgcairn.command("wal", "repair", *arguments, "--output=json"))
    assert result.returncode == expect, result.stderr + result.stdout
    return json.loads(result.stdout)


def restores(pgcairn, workshop, tables=10):
    restored = workshop.restore(pgcairn)
    restored.start_restored()
    restored.wait_promoted()
    count = restored.value("SELECT count(*) FROM pg_class WHERE relname ~ '^t[0-9]+$'")
    restored.stop()
    assert count == tables


def test_repair_finds_segments_and_says_from_where(holed, workshop):
    cluster, pgcairn, kept = holed
    assert repair(pgcairn)["files"] == []
    names = take_out(pgcairn, cluster, kept, 4, 5, 7)
    assert len(holes(pgcairn)) == 2
    report = repair(pgcairn, expect=NOT_FOUND)
    assert [file["name"] for file in report["files"]] == names
    assert not any(file["found"] for file in report["files"])

    looked = repair(pgcairn, "--dry-run", "--from", kept)
    assert looked["found"] == 3
    assert len(holes(pgcairn)) == 2, "a dry run stores nothing"

    away = kept / names[1]
    away.rename(kept / "away")
    report = repair(pgcairn, "--from", kept, expect=NOT_FOUND)
    assert [file["found"] for file in report["files"]] == [True, False, True]
    assert report["files"][0]["place"] == str(kept)
    assert [hole["first_segment"] for hole in holes(pgcairn)] == [names[1]]

    (kept / "away").rename(away)
    text = pgcairn.run("wal", "repair", "--from", kept).stdout
    assert f"stored  {names[1]}, from {kept}" in text
    assert not holes(pgcairn)
    restores(pgcairn, workshop)


def test_repair_looks_into_pg_wal_and_into_other_repositories(holed, workshop):
    cluster, pgcairn, kept = holed
    # Another repository has everything; the configured data directory has nothing of it.
    other = workshop.directory / "other"
    shutil.copytree(pgcairn.repository, other)
    for path in [other, *other.rglob("*")]:
        os.chown(path, *owner())
    names = take_out(pgcairn, cluster, kept, 4, 6)
    with open(pgcairn.config, "a", encoding="utf-8") as file:
        file.write(f"[repository other]\npath = {other}\nencryption = none\n")
    report = repair(pgcairn, "--repository", "main")
    assert {file["place"] for file in report["files"]} == {"repository other"}
    assert not report["problems"]

    # A node's data directory counts as its pg_wal.
    pgcairn.write_config()
    names = take_out(pgcairn, cluster, kept, 4)
    node = make_directory(workshop.directory / "node")
    shutil.copytree(kept, node / "pg_wal")
    for path in [node, *node.rglob("*")]:
        os.chown(path, *owner())
    pgcairn.write_config(cluster={"pgdata": node})
    report = repair(pgcairn)
    assert [(file["name"], file["place"]) for file in report["files"]] == [
        (names[0], str(node / "pg_wal"))]


def flip_record(path):
    content = bytearray(path.read_bytes())
    content[9000] ^= 1
    path.write_bytes(content)


def cut(path):
    os.truncate(path, SEGMENT // 2)


def zero_the_end(path):
    content = bytearray(path.read_bytes())
    content[16384:] = bytes(SEGMENT - 16384)
    path.write_bytes(content)


def link(path):
    shutil.move(path, path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


@pytest.mark.parametrize("damage", [flip_record, cut, zero_the_end, link])
def test_what_does_not_fit_is_refused_with_the_reason(holed, workshop, damage):
    cluster, pgcairn, kept = holed
    name, = take_out(pgcairn, cluster, kept, 5)
    bad = workshop.new_directory("bad")
    shutil.copy(kept / name, bad / name)
    damage(bad / name)
    for path in bad.iterdir():
        os.chown(path, *owner(), follow_symlinks=False)
    report = repair(pgcairn, "--from", bad, expect=NOT_FOUND)
    assert report["files"][0]["reason"].startswith(f"{bad}: ")
    assert len(holes(pgcairn)) == 1
    # The next place may have it whole.
    report = repair(pgcairn, "--from", bad, "--from", kept)
    assert report["files"][0]["place"] == str(kept)


def test_wal_of_another_server_or_place_is_refused(holed, workshop):
    cluster, pgcairn, kept = holed
    names = take_out(pgcairn, cluster, kept, 5)
    wrong = workshop.new_directory("wrong")
    neighbour = segments(pgcairn)[4].name
    plain_segment(pgcairn, cluster, neighbour, wrong).rename(wrong / names[0])
    report = repair(pgcairn, "--from", wrong, expect=NOT_FOUND)
    assert report["files"][0]["reason"]

    stranger, theirs = workshop.archiving_server("stranger", wal_segsize=1)
    for number in range(12):
        stranger.sql("CREATE TABLE s%s AS SELECT generate_series(1, 2000) AS n" % number)
        stranger.switch_wal()
    stranger.archive_all()
    if (wrong / names[0]).exists():
        (wrong / names[0]).unlink()
    plain_segment(theirs, stranger, names[0], wrong)
    report = repair(pgcairn, "--from", wrong, expect=NOT_FOUND)
    assert report["files"][0]["reason"]
    assert len(holes(pgcairn)) == 1


def test_a_place_that_is_not_there_is_said(holed):
    cluster, pgcairn, kept = holed
    take_out(pgcairn, cluster, kept, 5)
    report = repair(pgcairn, "--from", "/nonexistent", "--from", kept)
    assert len(report["problems"]) == 1
    assert "/nonexistent" in report["problems"][0]


def test_a_missing_history_file_is_repaired_first(workshop):
    cluster, pgcairn = workshop.archiving_server("origin", wal_segsize=1)
    pgcairn.backup()
    standby = workshop.standby(cluster)
    standby.archive_with(pgcairn)
    cluster.stop()
    standby.reload()
    standby.promote()
    standby.sql("CREATE TABLE after AS SELECT 1 AS n")
    standby.switch_wal()
    standby.archive_all()
    history, = pgcairn.objects("c/main/w/*/00000002/history")
    history.unlink()
    report = repair(pgcairn, "--from", standby.data)
    assert [file["name"] for file in report["files"]][0] == "00000002.history"
    assert pgcairn.objects("c/main/w/*/00000002/history")


def test_a_history_is_stored_only_where_everything_says_that_it_is_the_right_one(workshop):
    primary, pgcairn = workshop.archiving_server("origin", wal_segsize=1)
    pgcairn.backup()
    winner, loser = workshop.standby(primary), workshop.standby(primary)
    primary.sql("CREATE TABLE shared AS SELECT 1 AS n")
    primary.switch_wal()
    lsn = primary.value("SELECT pg_current_wal_flush_lsn()")
    for standby in winner, loser:
        wait_until("the standby has it", lambda at=standby: at.value(
            "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", lsn))
    # The same timeline number twice, from two places of one segment.
    loser.configure(archive_command="'/bin/false'")
    loser.reload()
    loser.promote()
    primary.sql("CREATE TABLE more AS SELECT generate_series(1, 2000) AS n")
    winner.archive_with(pgcairn)
    primary.stop()
    winner.reload()
    winner.promote()
    winner.sql("CREATE TABLE after AS SELECT 1 AS n")
    winner.switch_wal()
    winner.archive_all()
    stored, = pgcairn.objects("c/main/w/*/00000002/history")
    right = (winner.data / "pg_wal/00000002.history").read_bytes()
    wrong = (loser.data / "pg_wal/00000002.history").read_bytes()
    assert right != wrong
    stored.unlink()

    def refused(place, reason):
        report = repair(pgcairn, "--from", place, expect=NOT_FOUND)
        file = report["files"][0]
        assert file["name"] == "00000002.history" and not file["found"]
        assert reason in file["reason"]
        assert not stored.exists()

    refused(loser.data, "another server's history")
    refused(loser.data / "pg_wal", "another server's history")
    bare = workshop.new_directory("bare")
    write(bare / "00000002.history", right)
    refused(bare, "says whose it is")
    stranger = workshop.cluster("stranger").initdb(wal_segsize=1)
    write(stranger.data / "pg_wal/00000002.history", right)
    refused(stranger.data, "of another system")
    # One segment beside it proves that it is this system's.
    segment = sorted(path for path in (winner.data / "pg_wal").iterdir() if len(path.name) == 24)[0]
    write(bare / segment.name, segment.read_bytes())
    write(bare / "00000002.history", wrong)
    refused(bare, "another server's history")
    # Another switch on the same page: by its first record.
    timeline, lsn, reason = right.decode("ascii").split("\t")
    high, low = lsn.split("/")
    for moved in -0x100, 0x100:
        write(bare / "00000002.history",
              f"{timeline}\t{high}/{int(low, 16) + moved:X}\t{reason}".encode("ascii"))
        refused(bare, "server's history")
    write(bare / "00000002.history", right)
    assert repair(pgcairn, "--dry-run", "--from", bare)["files"][0]["found"]
    report = repair(pgcairn, "--from", loser.data, "--from", winner.data / "pg_wal")
    assert report["files"][0]["place"] == str(winner.data / "pg_wal")
    assert stored.exists()


def test_the_history_of_a_restored_server_is_proven_by_its_checkpoint(workshop):
    """Recovery that ends by itself writes a checkpoint where a promotion writes that it has ended."""
    primary, pgcairn = workshop.archiving_server("origin", wal_segsize=1)
    pgcairn.backup()
    primary.sql("CREATE TABLE more AS SELECT generate_series(1, 2000) AS n")
    primary.switch_wal()
    primary.archive_all()
    primary.stop()
    restored = workshop.restore(pgcairn)
    (restored.data / "pgcairn.identity").unlink()  # it goes on as the original
    restored.start_restored()
    restored.wait_promoted()
    restored.sql("CREATE TABLE after AS SELECT 1 AS n")
    name = restored.switch_wal()
    pgcairn.push(restored.data / "pg_wal/00000002.history")
    pgcairn.push(restored.data / "pg_wal" / name)
    history, = pgcairn.objects("c/main/w/*/00000002/history")
    history.unlink()
    report = repair(pgcairn, "--from", restored.data)
    assert report["files"][0]["found"] and history.exists(), report


def write(path, content):
    path.write_bytes(content)
    os.chown(path, *owner())


def test_an_acknowledged_hole_stays_a_hole(holed, workshop):
    cluster, pgcairn, kept = holed
    names = take_out(pgcairn, cluster, kept, 4, 5)
    run_ack = ["wal", "acknowledge-gap", "--reason", "the disk of that week burned"]
    pgcairn.run(*run_ack, f"{names[0]}..{names[1]}")
    hole, = holes(pgcairn)
    assert "the disk of that week burned" in hole["acknowledged"]
    warnings = pgcairn.info()["warnings"]
    assert any("1 hole in its WAL (1 acknowledged)" in warning for warning in warnings)
    text = pgcairn.run("info").stdout
    assert "HOLE" in text
    assert "acknowledge-gap by " in text
    (one,) = pgcairn.json("targets")["timelines"]
    assert [hole["acknowledged"] for hole in one["holes"]] == [True]
    assert "acknowledged" in pgcairn.run("targets").stdout
    assert pgcairn.info()["recoverable"]["gaps"] == 1

    report = repair(pgcairn, expect=NOT_FOUND)
    assert all(file["acknowledged"] for file in report["files"])
    # verify reads the decision as what it is.
    pgcairn.run("verify", "--output=json", expect=None)
    verified = pgcairn.json("verify", expect=None)
    assert "ack." not in str(verified)

    # And it may still be mended.
    repair(pgcairn, "--from", kept)
    assert not holes(pgcairn)
    restores(pgcairn, workshop)


def test_what_cannot_be_acknowledged_is_refused(holed):
    cluster, pgcairn, kept = holed
    stored = segments(pgcairn)[5].name
    pgcairn.run("wal", "acknowledge-gap", "--reason", "x", stored, expect=CONFLICT)
    name, = take_out(pgcairn, cluster, kept, 5)
    pgcairn.run("wal", "acknowledge-gap", name, expect=USAGE)
    pgcairn.run("wal", "acknowledge-gap", "--reason", "x", "nonsense", expect=USAGE)
    pgcairn.run("wal", "acknowledge-gap", "--reason", "x", "0/100001-0/200000", expect=USAGE)
    pgcairn.run("wal", "acknowledge-gap", "--reason", "x", "--timeline", "2", name, expect=USAGE)
    number = int(name[16:], 16)
    pgcairn.run("wal", "acknowledge-gap", "--reason", "by LSN",
                f"0/{number * SEGMENT:X}-0/{(number + 1) * SEGMENT:X}")
    hole, = holes(pgcairn)
    assert "by LSN" in hole["acknowledged"]


def test_nothing_is_acknowledged_of_a_system_that_may_not_be_meant(holed):
    """A decision is kept for ever, and a record that cannot be read may be that of the newest system."""
    cluster, pgcairn, kept = holed
    name, = take_out(pgcairn, cluster, kept, 5)
    record, = pgcairn.objects("c/main/i/*")
    system = str(int(record.name.split("-")[0], 16))
    rubbish = record.with_name(f"{1:016x}-15")
    rubbish.write_bytes(b"rubbish")
    command = ("wal", "acknowledge-gap", "--reason", "lost", name)
    try:
        refused = pgcairn.run(*command, expect=DAMAGED).stderr
        assert rubbish.name in refused and "--system ID" in refused
        # Another system's record, and no such system.
        pgcairn.run(*command, "--system", "4711", expect=NOT_FOUND)
        for odd in (f"-{2 ** 64 - int(system)}", f" {system}", f"+{system}", ""):
            pgcairn.run(*command, f"--system={odd}", expect=USAGE)
        refused = pgcairn.run(*command, "--system", "1", expect=DAMAGED).stderr
        assert rubbish.name in refused and "bring it back" in refused
        assert not holes(pgcairn)[0]["acknowledged"]
        # The same system under another major version is as likely the one.
        twin = record.with_name(record.name.replace(f"-{pg_major()}", "-18" if pg_major() != 18 else "-17"))
        twin.write_bytes(b"rubbish")
        refused = pgcairn.run(*command, "--system", system, expect=DAMAGED).stderr
        assert twin.name in refused
        twin.unlink()
        said = pgcairn.run(*command, "--system", system)
        assert "acknowledged" in said.stdout and rubbish.name in said.stderr
        assert "lost" in holes(pgcairn)[0]["acknowledged"]
    finally:
        rubbish.unlink()


def test_expire_and_collect_leave_acknowledgements(holed, workshop):
    cluster, pgcairn, kept = holed
    names = take_out(pgcairn, cluster, kept, 4)
    pgcairn.run("wal", "acknowledge-gap", "--reason", "lost", names[0])
    decision, = pgcairn.objects("c/main/w/*/00000001/*/ack.*")
    pgcairn.backup()
    pgcairn.write_config(cluster={"retention": "last 1"})
    pgcairn.run("expire")
    pgcairn.run("collect", "--grace", "0", expect=None)
    assert decision.exists()
    restored = workshop.restore(pgcairn)
    restored.configure(archive_mode="off")
    restored.start_restored()
    restored.wait_promoted()
    restored.stop()
