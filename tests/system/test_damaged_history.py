"""A history file that is there and tells nothing: named by all, and whatever does not hang on it goes on."""

import os
import shutil

import pytest

from support.compare import digest
from support.damage import flip_in_middle, truncate
from support.pgcairn import DAMAGED, OK, Pgcairn
from support.process import must, owner, wait_until


class Sample:
    """Two backups on timeline 1, one on timeline 2, a restore point after each; tests work on copies."""

    def __init__(self, shop):
        self.server, self.pgcairn = shop.archiving_server("sample", wal_segsize=1)
        self.programs = shop.programs
        self.server.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        self.labels = [self.pgcairn.backup()["label"] for _ in range(2)]
        self.expected = {}
        self.mark("first")
        self.server.stop()
        (self.server.data / "standby.signal").touch()
        self.server.start()
        self.server.promote()
        self.server.sql("INSERT INTO t VALUES (2)")
        self.labels.append(self.pgcairn.backup("--wal-timeout=60")["label"])
        self.mark("second")

    def mark(self, name):
        self.server.sql("SELECT pg_create_restore_point(%s)", name)
        self.expected[name] = digest(self.server)
        self.server.archive_all()

    def copy(self, shop):
        pgcairn = Pgcairn(self.programs, shop.directory / "copy", None)
        pgcairn.write_config(cluster={"retention": "last 1"})
        must("cp", "-a", self.pgcairn.repository, pgcairn.repository)
        return pgcairn


@pytest.fixture(scope="module")
def sample(module_workshop):
    return Sample(module_workshop)


def history(pgcairn, timeline=2):
    directory, = {path.parent.parent for path in pgcairn.objects("c/main/w/*/*/history")}
    return directory / f"{timeline:08X}" / "history"


def garbage(path, _other=None):
    """As somebody puts it there who may write."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"rubbish")
    for made in (path.parent, path):
        os.chown(made, *owner())


def timelines(pgcairn, **options):
    cluster, = pgcairn.json("info", **options)["clusters"]
    incarnation, = cluster["incarnations"]
    return {timeline["timeline"]: timeline for timeline in incarnation["timelines"]}, cluster


def content(pgcairn):
    return {path.relative_to(pgcairn.repository): path.read_bytes() for path in pgcairn.objects("c/main/w/**/*")}


def paused(restored):
    """Stands at its target, read-only."""
    restored.start()
    wait_until("recovery reaches its target", lambda: restored.recovery_state() == "paused", 120)
    return restored


@pytest.mark.parametrize("mutilate", [flip_in_middle, truncate, garbage])
def test_a_damaged_history_is_named_and_the_other_timeline_goes_on(sample, workshop, mutilate):
    pgcairn = sample.copy(workshop)
    path = history(pgcairn)
    name = str(path.relative_to(pgcairn.repository))
    shutil.copy(path, workshop.directory / "good")
    mutilate(path, None)

    known, cluster = timelines(pgcairn, expect=DAMAGED)
    assert known[1]["windows"] and known[1]["history_problem"] is None
    assert known[2]["windows"] and name in known[2]["history_problem"] and not known[2]["history_missing"]
    states = {backup["label"]: backup["state"] for backup in cluster["backups"]}
    assert states == dict(zip(sample.labels, ["wal-complete", "wal-complete", "copied"], strict=True))
    assert cluster["recoverable"]["possible"] and cluster["recoverable"]["timeline"] == 1
    text = pgcairn.run("info", expect=DAMAGED).stdout
    assert name in text and "timeline 2 (its history is damaged)" in text

    assert name in pgcairn.run("verify", "--quick", expect=DAMAGED).stdout
    assert "timeline 2: its history file is damaged" in pgcairn.run("targets", "--no-server", expect=None).stdout

    # Nothing that a backup may need goes while nobody knows what timeline 2 rests on.
    pgcairn.run("collect")  # what lies before all of them
    before = content(pgcairn)
    plan = pgcairn.json("expire", "--plan", expect=DAMAGED)
    assert [backup["decision"] for backup in plan["backups"]] == ["keep"] * 3
    assert all("00000002.history is damaged" in backup["reasons"] for backup in plan["backups"])
    assert name in pgcairn.run("expire", expect=DAMAGED).stderr
    assert content(pgcairn) == before

    refused = pgcairn.run("restore", "--to", workshop.directory / "no", expect=DAMAGED).stderr
    assert name in refused and "--target-timeline" in refused
    restored = workshop.restore(pgcairn, "--target-timeline=1", "--type=name", "--target=first")
    assert digest(paused(restored)) == sample.expected["first"]

    shutil.copy(workshop.directory / "good", path)
    restored.promote()  # now that it can be told which numbers of timelines are taken
    workshop.discard(restored)
    known, _ = timelines(pgcairn)
    assert known[2]["parent"] == 1 and known[2]["history_problem"] is None
    pgcairn.run("verify", expect=OK)  # ends the damage that the third backup was given
    assert len([1 for one in pgcairn.json("expire", "--plan")["backups"] if one["decision"] == "expire"]) == 2


def test_a_planted_history_keeps_no_named_target_from_being_reached(sample, workshop):
    pgcairn = sample.copy(workshop)
    path = history(pgcairn, 0xFF)
    name = str(path.relative_to(pgcairn.repository))
    garbage(path)

    known, cluster = timelines(pgcairn, expect=DAMAGED)
    assert known[2]["parent"] == 1 and known[0xFF]["history_problem"]
    assert [backup["state"] for backup in cluster["backups"]] == ["wal-complete"] * 3
    assert cluster["recoverable"]["timeline"] == 2

    # To the end of the archive: pgcairn-wal get could not tell it from a hole.
    refused = pgcairn.run("restore", "--target-timeline=2", "--to", workshop.directory / "no", expect=DAMAGED)
    assert name in refused.stderr
    named = ["--target-timeline=2", "--type=name", "--target=second"]
    assert name in pgcairn.run("restore", "--to", workshop.directory / "no", *named, "--target-action=promote",
                               expect=DAMAGED).stderr
    restored = workshop.restore(pgcairn, *named)
    assert digest(paused(restored)) == sample.expected["second"]

    path.unlink()
    path.parent.rmdir()
    restored.promote()
    workshop.discard(restored)
    timelines(pgcairn)


def test_check_names_a_damaged_history(workshop):
    server, pgcairn = workshop.archiving_server("server", wal_segsize=1)
    server.sql("CREATE TABLE t (n int)")
    server.archive_all()
    directory, = {path.parent.parent.parent for path in pgcairn.objects("c/main/w/*/*/*/*")}
    garbage(directory / "00000007" / "history")
    report = pgcairn.json("check", "--no-switch", expect=None)
    result, = [one for one in report["results"] if one["name"] == "histories"]
    assert result["status"] == "FAILED" and "00000007.history is damaged" in result["text"]
