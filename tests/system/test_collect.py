"""collect against a real server: what expired goes, what is kept restores, nothing else is touched."""

import os
import pathlib
import shutil
import signal

import pytest

from support.pgcairn import OK, REFUSED, USAGE
from support.process import run, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
AT_ONCE = ("--grace", "0s", "--force")


@pytest.fixture(scope="module")
def mark(scratch_root):
    """Adds a mark to a backup, as retention would."""
    build = ROOT / os.environ.get("BUILD", "build/release")
    program = scratch_root / "mark-backup"
    shutil.copy(build / "tests/mark-backup", program)

    def add(pgcairn, backup, kind, expect=OK):
        result = run(program, pgcairn.repository, "main", backup, kind)
        assert result.returncode == expect, result.stderr
    return add


@pytest.fixture
def site(workshop):
    """A server with two backups: `old`, then rows, then `new`."""
    cluster, pgcairn = workshop.archiving_server("site")
    cluster.sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 20000) g")
    old = pgcairn.backup()["label"]
    for _ in range(3):
        cluster.sql("INSERT INTO t SELECT g FROM generate_series(1, 20000) g")
        cluster.switch_wal()
    new = pgcairn.backup()["label"]
    cluster.archive_all()
    return cluster, pgcairn, old, new


def segments(pgcairn):
    return [path for path in pgcairn.objects("c/main/w/**/*")
            if len(path.name) == 24]


def check_good(workshop, cluster, pgcairn, backup):
    """All that is left verifies, and this backup restores and recovers to the end."""
    report = pgcairn.json("verify")
    assert report["finding_count"] == 0 and report["good_backups"] == report["backups"]
    restored = workshop.restore(pgcairn, "--set", backup)
    restored.start_restored()
    assert restored.value("SELECT count(*) FROM t") == cluster.value("SELECT count(*) FROM t")
    workshop.discard(restored)


def test_an_expired_backup_goes_with_its_wal_and_the_other_restores(workshop, site, mark):
    cluster, pgcairn, old, new = site
    early = len(segments(pgcairn))
    first = pgcairn.json("collect", *AT_ONCE)
    assert first["packs"] == 0 and not first["waiting"]
    before = segments(pgcairn)
    assert first["wal_files"] >= early - len(before) > 0, "WAL before the first backup is nobody's"

    mark(pgcairn, old, "expire")
    dry = pgcairn.json("collect", "--dry-run", *AT_ONCE)
    assert dry["packs"] > 0 and dry["wal_files"] > 0 and dry["dry_run"]
    assert segments(pgcairn) == before

    waiting = pgcairn.json("collect")
    assert waiting["waiting"] and waiting["packs"] == 0
    mark(pgcairn, old, "unexpire")
    mark(pgcairn, old, "expire")

    done = pgcairn.json("collect", *AT_ONCE)
    assert done["backups"] == 1 and not done["waiting"]
    for count in ("packs", "map_packs", "wal_files", "bytes"):
        assert done[count] == dry[count]
    assert len(segments(pgcairn)) < len(before)
    mark(pgcairn, old, "unexpire", expect=REFUSED)
    check_good(workshop, cluster, pgcairn, new)
    text = pgcairn.run("collect").stdout
    assert text.startswith("nothing was deleted")
    assert len(text.splitlines()) == 1


def test_a_killed_backup_is_cleared_away(workshop, site):
    cluster, pgcairn, _, new = site
    kept = len(pgcairn.objects("c/main/b/**/p/**/*"))
    cluster.sql("CREATE TABLE bulk AS SELECT g, md5(g::text) FROM generate_series(1, 800000) g")
    victim = pgcairn.start("backup", "--type=full", "--start-fast", "--max-rate", "2MB")
    wait_until("the attempt begins",
               lambda: len(list(pgcairn.repository.glob("c/main/b/*/intent"))) > 2)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    pgcairn.json("collect", *AT_ONCE)
    assert len(pgcairn.objects("c/main/b/**/p/**/*")) == kept
    cluster.sql("DROP TABLE bulk")
    check_good(workshop, cluster, pgcairn, new)


def test_a_short_grace_needs_force(site):
    _, pgcairn, _, _ = site
    refused = pgcairn.run("collect", "--grace", "0s", expect=REFUSED)
    assert "--force" in refused.stderr
    pgcairn.run("collect", "--grace", "1w", expect=USAGE)
    pgcairn.run("collect", "--grace", "48h")


def test_collect_beside_a_backup_and_a_restore(workshop, site, mark):
    """Both under way at a low rate, while what they need expires and collectors run."""
    cluster, pgcairn, old, _ = site
    backup = pgcairn.start("backup", "--type=full", "--start-fast", "--max-rate", "4MB",
                           "--output=json")
    wait_until("the attempt begins",
               lambda: len(list(pgcairn.repository.glob("c/main/b/*/intent"))) > 2)
    backup.send_signal(signal.SIGSTOP)
    mark(pgcairn, old, "expire")
    pgcairn.json("collect", *AT_ONCE)
    assert backup.poll() is None
    backup.send_signal(signal.SIGCONT)
    while backup.poll() is None:
        pgcairn.json("collect", *AT_ONCE)
    assert backup.wait() == OK
    check_good(workshop, cluster, pgcairn, "latest")
