"""Objects of every kind, damaged in every way: verify names each, restore never gets past one it needs."""

import shutil

import pytest

from support import damage
from support.compare import verify_backup
from support.pgcairn import DAMAGED, NOT_FOUND, OK, REFUSED, USAGE, Pgcairn
from support.process import must, owner

# One object a kind, and another to swap its content with. {first} and {second} are backups,
# {needed} the WAL segment that the first one starts in.
KINDS = {
    "intent": ("c/main/b/{first}/intent", "c/main/b/{second}/intent"),
    "pack": ("c/main/b/{first}/p/000/00000000", "c/main/b/{second}/p/000/00000000"),
    "map pack": ("c/main/b/{first}/m/00000000", "c/main/b/{second}/m/00000000"),
    "refs": ("c/main/b/{first}/refs", "c/main/b/{second}/refs"),
    "fate": ("c/main/b/{first}/fate", "c/main/b/{second}/fate"),
    "WAL segment": ("c/main/w/*/00000001/*/{needed}", "c/main/w/*/00000001/*/{other_segment}"),
    "backup history": ("c/main/w/*/00000001/*/{needed}.*.backup", "c/main/w/*/00000001/*/{second_start}.*.backup"),
    "timeline history": ("c/main/w/*/00000002/history", "c/main/w/*/00000001/*/{needed}"),
    "incarnation": ("c/main/i/*", "c/main/b/{first}/refs"),
}

# What a restore of the first backup to its own end has to read.
NEEDED_BY_RESTORE = ("pack", "map pack", "fate", "WAL segment", "incarnation")


class Sample:
    """A repository with two backups, WAL of two timelines, and copies of it to damage."""

    def __init__(self, shop):
        server, self.pgcairn = shop.archiving_server("sample", wal_segsize=1)
        server.sql("CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 3000) n")
        first = self.pgcairn.backup("--label", "first")
        server.archive_all()
        second = self.pgcairn.backup("--label", "second")

        def segment(lsn):
            return server.value("SELECT pg_walfile_name(%s::pg_lsn)", lsn)

        self.label = first["label"]
        self.names = {"first": first["bid"], "second": second["bid"],
                      "needed": segment(first["start_lsn"]),
                      "second_start": segment(second["start_lsn"])}
        self.names["other_segment"] = self.names["second_start"]
        # An own promotion makes timeline 2.
        server.stop()
        must("touch", server.data / "standby.signal")
        server.start()
        server.promote()
        server.sql("INSERT INTO t VALUES (0, 'on timeline 2')")
        server.archive_all()
        server.stop()
        self.programs = shop.programs

    def copy(self, shop):
        pgcairn = Pgcairn(self.programs, shop.directory / "copy", None)
        must("cp", "-a", self.pgcairn.repository, pgcairn.repository)
        return pgcairn

    def find(self, pgcairn, kind):
        for pattern in KINDS[kind]:
            (path,) = pgcairn.repository.glob(pattern.format(**self.names))
            yield path


@pytest.fixture(scope="module")
def sample(module_workshop):
    return Sample(module_workshop)


def restore_first(sample, pgcairn, target, expect):
    return pgcairn.run("restore", "--to", target, "--set", sample.label, "--type=immediate",
                       "--target-timeline=1", expect=expect)


def test_undamaged_sample_verifies(sample, workshop):
    pgcairn = sample.copy(workshop)
    report = pgcairn.json("verify")
    assert report["findings"] == []
    assert report["good_backups"] == 2


# These may be absent: an attempt without a fate never was a backup, and nothing asks for the others.
MAY_BE_ABSENT = ("intent", "fate", "backup history")

CASES = [(kind, mutilate) for kind in KINDS for mutilate in damage.DAMAGES
         if not (mutilate is damage.remove and kind in MAY_BE_ABSENT)]


@pytest.mark.parametrize("kind, mutilate", CASES, ids=lambda value: getattr(value, "__name__", value))
def test_verify_names_the_damaged_object(sample, workshop, kind, mutilate):
    pgcairn = sample.copy(workshop)
    victim, other = sample.find(pgcairn, kind)
    mutilate(victim, other)

    report = pgcairn.json("verify", expect=DAMAGED)

    objects = {finding["object"] for finding in report["findings"]}
    if mutilate is damage.remove:
        file_name = "00000002.history" if kind == "timeline history" else victim.name
        assert objects & {str(victim.relative_to(pgcairn.repository)), file_name}
    else:
        assert str(victim.relative_to(pgcairn.repository)) in objects


@pytest.mark.parametrize("mutilate", damage.DAMAGES, ids=lambda function: function.__name__)
@pytest.mark.parametrize("kind", NEEDED_BY_RESTORE)
def test_restore_stops_at_damage_and_works_once_it_is_mended(sample, workshop, kind, mutilate):
    pgcairn = sample.copy(workshop)
    victim, other = sample.find(pgcairn, kind)
    mutilate(victim, other)
    target = workshop.new_directory() / "data"

    result = restore_first(sample, pgcairn, target, expect=None)

    # Its label is in the fate: without that, nothing is known by that name.
    nameless = kind == "fate" or mutilate is damage.remove
    allowed = (DAMAGED, REFUSED, NOT_FOUND) if nameless else (DAMAGED, REFUSED)
    assert result.returncode in allowed, result.stderr
    assert "ERROR" in result.stderr
    assert not (target / "global/pg_control").exists()

    (good,) = [path for path in sample.find(sample.pgcairn, kind)][:1]
    for broken in (victim, other):
        source = sample.pgcairn.repository / broken.relative_to(pgcairn.repository)
        shutil.copy(source, broken)
        shutil.chown(broken, *owner())
    assert good.read_bytes() == victim.read_bytes()
    restore_first(sample, pgcairn, target, expect=OK)
    verify_backup(target)


def test_a_backup_without_its_whole_wal_is_not_called_good(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    server.sql("CREATE TABLE t (n int)")
    made = pgcairn.backup()
    segment = server.value("SELECT pg_walfile_name(%s)", made["start_lsn"])
    (path,) = pgcairn.objects(f"**/{segment}")
    damage.truncate(path, path)

    report = pgcairn.json("verify", expect=DAMAGED)

    assert report["good_backups"] == 0
    assert report["damaged_backups"] == [made["label"]]
    assert made["label"] in [finding["backups"] for finding in report["findings"]]
    assert [backup["state"] for backup in pgcairn.backups()] == ["damaged"]


def states(pgcairn):
    return {backup["label"]: backup["state"] for backup in pgcairn.backups()}


def test_samples_prove_a_backup_within_as_many_runs_as_slices(sample, workshop):
    pgcairn = sample.copy(workshop)
    victim, _ = sample.find(pgcairn, "pack")
    scopes = set()
    for _ in range(3):
        assert states(pgcairn)[sample.label] == "wal-complete"
        scopes.add(pgcairn.json("verify", "--sample=1/3")["scope"])
    assert scopes == {"sample 1/3", "sample 2/3", "sample 3/3"}
    assert states(pgcairn)[sample.label] == "verified"

    # Found within three more runs, and once; mended, it is proven again within another three.
    damage.flip(victim, 300)
    codes = [pgcairn.run("verify", "--sample=1/3", expect=None).returncode for _ in range(3)]
    assert sorted(codes) == [OK, OK, DAMAGED]
    assert states(pgcairn)[sample.label] == "damaged"
    damage.flip(victim, 300)
    assert pgcairn.json("verify", "--quick")["damaged_backups"] == [sample.label]
    for _ in range(3):
        pgcairn.run("verify", "--sample=1/3")
    assert states(pgcairn)[sample.label] == "verified"


def test_verify_says_which_moments_a_lost_segment_cuts_off(workshop):
    server, pgcairn = workshop.archiving_server(wal_segsize=1)
    server.sql("CREATE TABLE t (n int)")
    first = pgcairn.backup()
    server.sql("INSERT INTO t VALUES (1)")
    server.archive_all()
    before = server.value("SELECT now()")
    lost = server.value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    server.sql("INSERT INTO t VALUES (2)")
    server.archive_all()
    server.sql("INSERT INTO t VALUES (3)")
    server.archive_all()
    second = pgcairn.backup()
    (path,) = pgcairn.objects(f"**/{lost}")
    path.unlink()

    (finding,) = pgcairn.json("verify", expect=DAMAGED)["findings"]

    assert (finding["problem"], finding["object"], finding["backups"]) == ("missing", lost, "")
    moments = finding["moments"]
    assert moments["backups"] == first["label"]
    assert moments["next_backup"] == second["label"]
    assert moments["to_lsn"] == second["stop_lsn"]
    assert moments["from"] < str(before)
    text = pgcairn.run("verify", "--quick", expect=DAMAGED).stdout
    assert f"recovery from {first['label']} on timeline 1 ends at {moments['from_lsn']}" in text
    # Both by themselves are whole.
    assert set(states(pgcairn).values()) == {"verified"}


@pytest.mark.parametrize("wrong", ["7", "2/7", "1/1", "1/33", "1/x", "1/7 "])
def test_impossible_samples_are_refused(sample, workshop, wrong):
    sample.copy(workshop).run("verify", f"--sample={wrong}", expect=USAGE)
