"""Retention: what expire --plan says is what expire does, the last good backup never goes, oddities freeze it."""

import os
import re
import shlex
import time

import pytest

from support.compare import verify_backup
from support.pgcairn import DAMAGED, NOT_FOUND, OK, REFUSED, USAGE, Pgcairn
from support.process import must, owner


class Sample:
    """Five backups of one server with WAL between them; tests work on copies of the repository."""

    def __init__(self, shop):
        self.server, self.pgcairn = shop.archiving_server("sample", wal_segsize=1)
        self.server.sql("CREATE TABLE t (n int)")
        self.labels, self.bids = [], []
        for number in range(5):
            made = self.pgcairn.backup()
            self.labels.append(made["label"])
            self.bids.append(made["bid"])
            self.server.sql("INSERT INTO t VALUES (%s)", number)
            self.server.archive_all()
        self.programs = shop.programs

    def copy(self, shop, **options):
        pgcairn = Pgcairn(self.programs, shop.directory / "copy", None)
        pgcairn.write_config(**options)
        must("cp", "-a", self.pgcairn.repository, pgcairn.repository)
        return pgcairn


@pytest.fixture(scope="module")
def sample(module_workshop):
    return Sample(module_workshop)


def ids(pgcairn, *states):
    return [backup["id"] for backup in pgcairn.backups(*states)]


def decided(plan, decision):
    return [backup["id"] for backup in plan["backups"] if backup["decision"] == decision]


def collect(pgcairn):
    """Condemns, then deletes: tests don't wait for the grace."""
    for _ in range(2):
        pgcairn.run("collect", "--grace=0s", "--force")


def tree(pgcairn):
    return {path.relative_to(pgcairn.repository): path.stat().st_size for path in pgcairn.objects()}


def test_expire_does_exactly_what_the_plan_says(sample, workshop):
    pgcairn = sample.copy(workshop, cluster={"retention": "last 2"})
    before = tree(pgcairn)
    plan = pgcairn.json("expire", "--plan")
    assert tree(pgcairn) == before, "a plan changes nothing"
    assert plan["retention"] == "last 2" and not plan["frozen"] and plan["anomalies"] == []
    assert decided(plan, "expire") == sample.bids[:3]
    assert decided(plan, "keep") == sample.bids[3:]
    assert plan["backups"][4]["reasons"] == ["last 2", "last good backup"]
    # The moments from the first backup up to the fourth.
    (lost,) = plan["lost_windows"]
    first, fourth = plan["backups"][0], plan["backups"][3]
    assert lost["from"] == first["stopped_at"] and lost["to"] == fourth["stopped_at"]
    assert [backup["taken"] for backup in plan["forecast"]["backups"]] == [False, False]

    done = pgcairn.json("expire")
    assert done["expired"] == sample.labels[:3] and done["expired_count"] == 3
    assert ids(pgcairn, "expired") == sample.bids[:3]
    assert ids(pgcairn, "wal-complete") == sample.bids[3:]
    assert pgcairn.json("expire")["expired_count"] == 0, "running again finds nothing"
    assert decided(pgcairn.json("expire", "--plan"), "expire") == []


def test_what_stays_restores_after_the_others_are_deleted(sample, workshop):
    pgcairn = sample.copy(workshop, cluster={"retention": "last 2"})
    first_pack = f"c/main/b/{sample.bids[0]}/p/000/00000000"
    pgcairn.run("expire")
    assert (pgcairn.repository / first_pack).exists(), "the grace is not over"
    collect(pgcairn)
    assert not (pgcairn.repository / first_pack).exists()
    assert (pgcairn.repository / f"c/main/b/{sample.bids[0]}/fate").exists(), "graves stay"

    info = pgcairn.info()
    assert info["recoverable"]["gaps"] == 0
    assert info["recoverable"]["from"] == [b for b in info["backups"]
                                           if b["id"] == sample.bids[3]][0]["stopped_at"]
    pgcairn.run("verify")
    restored = workshop.restore(pgcairn, "--set", sample.bids[3])
    verify_backup(restored.data)
    restored.start_restored()
    assert restored.value("SELECT array_agg(n ORDER BY n) FROM t") == [0, 1, 2, 3, 4]
    pgcairn.run("restore", "--to", workshop.new_directory() / "gone", "--set", sample.bids[0],
                expect=REFUSED)

    refused = pgcairn.run("expire", "--undo", sample.bids[0], expect=REFUSED)
    assert "cannot be taken back" in refused.stderr
    assert pgcairn.json("expire", "--undo") == {"undone_count": 0, "gone_count": 3}
    assert ids(pgcairn, "expired") == sample.bids[:3]


def test_undo_brings_back_what_is_not_deleted_yet(sample, workshop):
    pgcairn = sample.copy(workshop, cluster={"retention": "last 1"})
    pgcairn.run("expire", "--undo", expect=NOT_FOUND)
    pgcairn.run("expire")
    assert ids(pgcairn, "expired") == sample.bids[:4]
    pgcairn.run("expire", "--undo", sample.bids[1])
    assert ids(pgcairn, "wal-complete") == [sample.bids[1], sample.bids[4]]
    assert pgcairn.json("expire", "--undo") == {"undone_count": 3, "gone_count": 0}
    assert ids(pgcairn, "wal-complete") == sample.bids
    pgcairn.run("expire", "--undo", sample.bids[1], expect=REFUSED)
    collect(pgcairn)
    pgcairn.run("verify")
    restored = workshop.restore(pgcairn, "--set", sample.bids[0], "--type=immediate")
    restored.start_restored()
    assert restored.value("SELECT count(*) FROM t") == 0


def test_kept_backups_stay_for_their_own_moment_and_info_does_not_cry_wolf(sample, workshop):
    pgcairn = sample.copy(workshop, cluster={"retention": "last 1"})
    pgcairn.run("keep", sample.bids[1], "--reason", "before the upgrade")
    plan = pgcairn.json("expire", "--plan")
    assert plan["backups"][1]["reasons"] == ["kept by hand"]
    assert plan["backups"][1]["own_moment_only"] and not plan["backups"][4]["own_moment_only"]
    pgcairn.run("expire")
    collect(pgcairn)
    pgcairn.run("expire")  # knows that the kept one needs no WAL after it

    info = pgcairn.info()
    states = {backup["id"]: backup for backup in info["backups"]}
    assert states[sample.bids[1]]["kept"] and states[sample.bids[1]]["state"] == "wal-complete"
    (timeline,) = info["incarnations"][0]["timelines"]
    assert timeline["holes"] == [] and len(timeline["gone_by_retention"]) == 1
    assert info["warnings"] == []
    assert info["recoverable"]["from"] == states[sample.bids[4]]["stopped_at"]
    assert info["recoverable"]["older_backups"] == 1 and info["recoverable"]["gaps"] == 0
    text = pgcairn.run("info").stdout
    assert "and 1 older backup, each for its own moment" in text and "HOLE" not in text
    assert "retention: last 1" in text

    restored = workshop.restore(pgcairn, "--set", sample.bids[1], "--type=immediate")
    # PostgreSQL reads ahead of what it replays, into what retention let go.
    (gone,) = timeline["gone_by_retention"]
    missing, path = gone["first_segment"], restored.data / "pg_wal" / "scratch"
    assert "--hole-after=" in (restored.data / "postgresql.auto.conf").read_text()
    pgcairn.get(missing, path, "--retry-timeout=0", expect=126)
    pgcairn.get(missing, path, "--retry-timeout=0", f"--hole-after={missing}", expect=126)
    (before,) = timeline["windows"][:1]
    pgcairn.get(missing, path, "--retry-timeout=0", f"--hole-after={before['last_segment']}",
                expect=1)
    restored.start_restored()
    assert restored.value("SELECT array_agg(n) FROM t") == [0]

    pgcairn.run("release", sample.bids[1])
    assert decided(pgcairn.json("expire", "--plan"), "expire") == [sample.bids[1]]


def test_one_by_hand_but_never_the_last_good_or_a_kept_one(sample, workshop):
    pgcairn = sample.copy(workshop)
    pgcairn.run("keep", sample.bids[2])
    refused = pgcairn.run("expire", "--set", sample.bids[2], expect=REFUSED)
    assert "is kept by hand" in refused.stderr and f"pgcairn release {sample.labels[2]}" in refused.stderr
    refused = pgcairn.run("expire", "--set", "latest", expect=REFUSED)
    assert "is the last good one" in refused.stderr
    pgcairn.run("expire", "--set", sample.bids[0])
    refused = pgcairn.run("expire", "--set", sample.bids[0], expect=REFUSED)
    assert "is expired already" in refused.stderr
    refused = pgcairn.run("keep", sample.bids[0], expect=REFUSED)
    assert f"pgcairn expire --undo {sample.labels[0]}" in refused.stderr
    pgcairn.run("expire", "--set", "20000101-000000F", expect=NOT_FOUND)
    assert ids(pgcairn, "expired") == [sample.bids[0]]

    # The last good one is the newest usable: once the newest lacks WAL, it is the one before.
    segment = pgcairn.backups()[4]["start_lsn"]
    high, low = (int(part, 16) for part in segment.split("/"))
    name = f"00000001{high:08X}{low >> 20:08X}"
    (path,) = pgcairn.repository.glob(f"c/main/w/*/00000001/*/{name}")
    path.unlink()
    assert pgcairn.backups()[4]["state"] == "copied"
    refused = pgcairn.run("expire", "--set", sample.bids[3], expect=REFUSED)
    assert "is the last good one" in refused.stderr
    plan = pgcairn.json("expire", "--plan", "--retention=last 1")
    assert decided(plan, "keep") == sample.bids[2:]
    pgcairn.run("expire", "--set", sample.bids[4])


def test_without_a_policy_nothing_goes(sample, workshop):
    pgcairn = sample.copy(workshop)
    before = tree(pgcairn)
    assert "nothing is ever deleted" in pgcairn.run("expire").stdout
    assert pgcairn.json("expire", "--plan")["retention"] == "none"
    assert tree(pgcairn) == before
    assert "retention: none: nothing is ever deleted" in pgcairn.run("info").stdout


def test_policy_comes_from_option_environment_cluster_then_repository(sample, workshop):
    pgcairn = sample.copy(workshop, repository={"retention": "last 4"})

    def gone(*arguments, **options):
        return len(decided(pgcairn.json("expire", "--plan", *arguments, **options), "expire"))

    assert gone() == 1
    pgcairn.write_config(repository={"retention": "last 4"}, cluster={"retention": "last 3"})
    assert gone() == 2
    assert gone(env={"PGCAIRN_CLUSTER_RETENTION": "REDUNDANCY 2"}) == 3
    assert gone("--retention=last 1", env={"PGCAIRN_CLUSTER_RETENTION": "last 2"}) == 4
    assert gone("--retention=recovery window of 2 days") == 0
    assert gone("--retention=none") == 0
    pgcairn.write_config(repository={"retention": "last 4"}, cluster={"retention": "none"})
    assert gone() == 0


def test_a_policy_that_does_not_read_is_refused_with_its_position(sample, workshop):
    pgcairn = sample.copy(workshop, cluster={"retention": "pitr 14d; dayly 7"})
    for arguments in (("expire",), ("expire", "--plan")):
        refused = pgcairn.run(*arguments, expect=USAGE)
        assert "at position 11, not 'dayly'" in refused.stderr
    text = pgcairn.run("info").stdout
    assert "recoverable: 20" in text and "at position 11, not 'dayly'" in text
    pgcairn.run("expire", "--plan", "--accept=clocks", "--retention=last 1", expect=USAGE)
    pgcairn.run("expire", "--plan", "--undo", expect=USAGE)
    pgcairn.run("expire", sample.bids[0], expect=USAGE)


def expect_frozen(pgcairn, kind, text):
    """Nothing is marked; the plan says why and what helps; a person may accept."""
    before = tree(pgcairn)
    refused = pgcairn.run("expire", expect=REFUSED)
    assert "expiry is frozen, nothing was marked" in refused.stderr and text in refused.stderr
    assert tree(pgcairn) == before
    plan = pgcairn.run("expire", "--plan", expect=REFUSED).stdout
    assert f"FROZEN ({kind})" in plan and text in plan and f"--accept={kind}" in plan
    pgcairn.run("expire", "--accept=count", expect=REFUSED)
    plan = pgcairn.json("expire", "--plan", f"--accept=count,{kind}")
    assert not plan["frozen"] and plan["anomalies"][0]["accepted"]
    assert decided(plan, "expire")


def test_a_fate_that_vanished_freezes(sample, workshop):
    pgcairn = sample.copy(workshop, cluster={"retention": "last 1"})
    fate = pgcairn.repository / f"c/main/b/{sample.bids[2]}/fate"
    fate.rename(pgcairn.repository / "aside")
    expect_frozen(pgcairn, "fates", "fates that must be there are not")
    (pgcairn.repository / "aside").rename(fate)
    assert pgcairn.json("expire")["expired_count"] == 4


def test_a_fate_that_cannot_be_read_freezes_and_is_never_marked(sample, workshop):
    pgcairn = sample.copy(workshop, cluster={"retention": "last 1"})
    fate = pgcairn.repository / f"c/main/b/{sample.bids[2]}/fate"
    content = bytearray(fate.read_bytes())
    content[len(content) // 2] ^= 1
    fate.write_bytes(content)
    expect_frozen(pgcairn, "fates", "1 backup cannot be read")
    plan = pgcairn.json("expire", "--plan", "--accept=fates")
    assert sample.bids[2] in [b["id"] for b in plan["backups"] if b["decision"] == "keep"]


def test_a_clock_behind_the_storage_freezes(sample, workshop):
    pgcairn = sample.copy(workshop, cluster={"retention": "last 1"})
    segment = pgcairn.objects("c/main/w/*/00000001/*/*")[-1]
    ahead = time.time() + 3600
    os.utime(segment, (ahead, ahead))
    expect_frozen(pgcairn, "clock", "but the storage has an object of")


@pytest.mark.parametrize("damaged", [False, True], ids=["missing", "damaged"])
def test_a_backup_of_an_unknown_system_freezes(sample, workshop, damaged):
    pgcairn = sample.copy(workshop, cluster={"retention": "last 1"})
    (incarnation,) = pgcairn.objects("c/main/i/*")
    if damaged:
        incarnation.write_bytes(incarnation.read_bytes()[:-1])
    else:
        incarnation.unlink()
    label = pgcairn.backups()[0]["label"]
    assert f"backup {label} cannot be restored: the record of its system" in pgcairn.run("info").stdout
    assert "whether its WAL is there is not known" in pgcairn.run("info", "--set", label).stdout
    assert pgcairn.backups()[0]["first_missing"] is None
    refused = pgcairn.run("expire", expect=REFUSED)
    assert "expiry is frozen" in refused.stderr and "never was that system" in refused.stderr
    assert ids(pgcairn, "expired") == []


def test_backup_expires_afterwards_and_stands_when_that_is_frozen(workshop):
    _, pgcairn = workshop.archiving_server(wal_segsize=1)
    pgcairn.write_config(cluster={"retention": "last 2"})
    first = pgcairn.backup()
    assert first["expiry"]["expired"] == []
    pgcairn.backup("--no-expire")
    third = pgcairn.backup()
    assert third["expiry"]["expired"] == [first["label"]]
    assert ids(pgcairn, "expired") == [first["bid"]]
    checked = pgcairn.run("check").stdout
    assert "last 2: keeps 2 of 2 backups" in checked

    # What goes wrong with expiry goes wrong with it alone.
    fate = pgcairn.repository / f"c/main/b/{first['bid']}/fate"
    fate.rename(pgcairn.repository / "aside")
    result = pgcairn.run("backup", "--type=full", "--start-fast", expect=OK)
    assert "wal-complete" in result.stdout
    assert "the backup is made, but expiring old ones failed: expiry is frozen" in result.stderr
    assert "frozen" in pgcairn.backup()["expiry"]["error"]
    assert len(ids(pgcairn, "wal-complete")) == 4
    assert "expiry is frozen" in pgcairn.run("check").stdout

    # A policy that does not read is found before the server is asked for anything.
    pgcairn.write_config(cluster={"retention": "pitr"})
    pgcairn.run("backup", "--type=full", "--start-fast", expect=USAGE)
    assert len(ids(pgcairn, "wal-complete")) == 4


# -- rubbish that a host put there which may create and nothing else

STRANGER = "0000000042-00000000000000aa"


def put_rubbish(pgcairn, name):
    path = pgcairn.repository / "c/main" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"rubbish")
    for made in (path.parent, path):
        os.chown(made, *owner())
    return path


def test_a_record_of_a_system_that_is_rubbish_is_named_and_stops_nobody(sample, workshop):
    pgcairn = sample.copy(workshop, cluster={"retention": "last 2"})
    planned = pgcairn.json("expire", "--plan")
    path = put_rubbish(pgcairn, "i/00000000000000ff-15")
    name = str(path.relative_to(pgcairn.repository))
    assert name in pgcairn.run("info").stdout
    assert name in pgcairn.run("verify", "--quick", expect=DAMAGED).stdout
    assert decided(pgcairn.json("expire", "--plan", expect=DAMAGED), "expire") == decided(planned, "expire")
    assert name in pgcairn.run("expire", expect=DAMAGED).stderr
    collected = pgcairn.json("collect", "--grace=0s", "--force", expect=DAMAGED)
    assert collected["unreadable_record"] == name and collected["packs"] > 0 and collected["wal_files"] > 0
    path.unlink()
    assert pgcairn.json("collect")["unreadable_record"] is None
    report = pgcairn.json("verify")
    assert report["good_backups"] == 2 and report["finding_count"] == 0


@pytest.mark.parametrize("what", ["fate", "intent"])
def test_rubbish_that_may_be_a_backup_stops_the_collector_which_tells_the_way_out(sample, workshop, what):
    pgcairn = sample.copy(workshop, cluster={"retention": "last 2"})
    path = put_rubbish(pgcairn, f"b/{STRANGER}/{what}")
    name = str(path.relative_to(pgcairn.repository))
    before = set(tree(pgcairn))
    assert len(pgcairn.backups("wal-complete")) == 5  # info goes on
    assert name in pgcairn.run("verify", "--quick", expect=DAMAGED).stdout
    plan = pgcairn.json("expire", "--plan", expect=None)
    assert plan["frozen"] == (what == "fate")
    pgcairn.run("expire", "--accept=fates", expect=DAMAGED)
    stopped = pgcairn.run("collect", expect=DAMAGED)
    assert name in stopped.stderr
    assert before <= set(tree(pgcairn))
    for remove in re.findall(r"remove '([^']+)'", stopped.stderr):
        (pgcairn.repository / remove).unlink()
    way_out = shlex.split(re.search(r"`pgcairn (collect --revoke [^`]+)`", stopped.stderr).group(1))
    pgcairn.run(*way_out)
    collect(pgcairn)
    report = pgcairn.json("verify")
    assert report["good_backups"] == 2 and report["finding_count"] == 0


def test_a_pin_that_is_rubbish_stops_the_collector_which_tells_the_way_out(sample, workshop):
    pgcairn = sample.copy(workshop)
    put_rubbish(pgcairn, "pin/0123456789abcdef")
    stopped = pgcairn.run("collect", expect=DAMAGED)
    assert "c/main/pin/0123456789abcdef" in stopped.stderr and "--drop-pin 0123456789abcdef" in stopped.stderr
