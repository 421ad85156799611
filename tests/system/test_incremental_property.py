"""Random work, and an incremental after each part of it: every one gives exactly what the server sent.

The truth is taken down by a proxy between pgcairn and the server, in Python and from the protocol
alone (support/recording_proxy.py). PGCAIRN_PROPERTY_SEED repeats a run; PGCAIRN_PROPERTY_CLUSTERS
(default 1) clusters of each kind, with PGCAIRN_PROPERTY_BACKUPS (default 10) incrementals, or half of
that without page checksums.
"""

import concurrent.futures
import dataclasses
import itertools
import os
import random
import sys
import threading

import pytest

from support.cluster import ROOT
from support.compare import after_restore, check_checksums, check_tables, digest, verify_backup
from support.compare_stream import check_bytes, check_manifest
from support.pgcairn import REFUSED
from support.process import must
from support.workload import Workload

sys.path.insert(0, str(ROOT / "tests/support"))
# pylint: disable-next=wrong-import-position
from recording_proxy import RecordingProxy  # noqa: E402

SEED = int(os.environ.get("PGCAIRN_PROPERTY_SEED", random.randrange(1 << 32)))
CLUSTERS = int(os.environ.get("PGCAIRN_PROPERTY_CLUSTERS", "1"))
BACKUPS = int(os.environ.get("PGCAIRN_PROPERTY_BACKUPS", "10"))
STEPS = 4  # of the workload between two backups
READER = ROOT / "tools" / "pgcairn-reader.py"


# -- one cluster and its backups


@dataclasses.dataclass
class Backup:
    """What one backup was, and what stood in the tables at a moment after it."""

    made: dict
    recording: object
    mark: str
    digest: dict

    def __str__(self):
        return f"seed {SEED}, backup {self.made['label']} ({self.mark})"


class Story:
    """One cluster whose backups go through the proxy."""

    def __init__(self, shop, chance, checksums):
        self.shop = shop
        self.chance = chance
        self.server, self.pgcairn = shop.archiving_server(wal_segsize=1, checksums=checksums)
        self.checksums = checksums
        directory = shop.new_directory(mode=0o755)
        self.proxy = RecordingProxy(directory, self.server.directory / ".s.PGSQL.5432")
        self.pgcairn.conninfo = f"host={directory} port=5432 user=pgcairn dbname=postgres"
        self.pgcairn.write_config()
        self.work = Workload(self.server, chance, shop.new_directory)
        self.work.begin()
        self.backups = []
        self.marks = itertools.count()

    def back_up(self, kind):
        """Some while transactions run and files come and go."""
        busy = self.chance.random() < 0.5
        stop = threading.Event()

        def churn():
            while not stop.is_set():
                self.server.pgbench("-n", "-t", "30")
                self.server.sql("CREATE TABLE churn AS SELECT * FROM pgbench_tellers; DROP TABLE churn")

        thread = threading.Thread(target=churn)
        if busy:
            thread.start()
        try:
            made = self.pgcairn.json("backup", f"--type={kind}", "--start-fast")
        finally:
            stop.set()
            if busy:
                thread.join()
        assert made["type"] == kind and made["state"] == "wal-complete", made
        self.backups.append(Backup(made, self.proxy.take(), *self.mark(next(self.marks))))

    def mark(self, number):
        """A transaction after the backup, then rest."""
        self.server.sql("CREATE TABLE IF NOT EXISTS marks (n int)")
        self.server.sql("INSERT INTO marks SELECT %s FROM generate_series(1, 100)", number)
        self.server.sql("UPDATE pgbench_tellers SET tbalance = %s WHERE tid %% 3 = 0", number)
        name = f"after backup {number}"
        self.server.sql("SELECT pg_create_restore_point(%s)", name)
        # The server does not flush a restore point; a crash that comes next would take it away.
        self.server.sql("SELECT pg_switch_wal()")
        return name, digest(self.server)

    def restore(self, backup, *arguments):
        maps = []
        for oid in backup.recording.tablespaces():
            maps += ["--tablespace-map", f"{oid}={self.shop.new_directory()}"]
        return self.shop.restore(self.pgcairn, "--set", backup.made["bid"], *arguments, *maps)

    def check_directory(self, restored, backup):
        """Before the first start."""
        check_bytes(restored.data, backup.recording, backup)
        check_manifest(restored.data, backup.recording, backup)
        verify_backup(restored.data)

    def check(self, backup):
        """The directory, then recovery past the backup, then what PostgreSQL's own checkers say."""
        restored = self.restore(backup, "--type=name", "--target", backup.mark,
                                "--target-action=promote")
        self.check_directory(restored, backup)
        restored.start_restored()
        restored.wait_promoted()
        assert digest(restored) == after_restore(backup.digest), backup
        check_tables(restored)
        restored.stop()
        if self.checksums:
            check_checksums(restored.data)
        self.shop.discard(restored)

    def check_restored_bytes(self, backup):
        restored = self.restore(backup, "--type=immediate")
        self.check_directory(restored, backup)
        self.shop.discard(restored)

    def check_reader(self, backup):
        """The reader that knows only docs/format.md gives the same."""
        target = self.shop.new_directory() / "data"
        maps = []
        for oid in backup.recording.tablespaces():
            maps += ["--tablespace-map", f"{oid}={self.shop.new_directory()}"]
        must("/usr/bin/python3", READER, self.pgcairn.repository, "restore", backup.made["bid"],
             target, *maps)
        check_bytes(target, backup.recording, f"the reader, {backup}")
        verify_backup(target)

    def expire(self, going):
        """In random order, deleted at once or at the end; what is left."""
        for backup in self.chance.sample(going, len(going)):
            self.pgcairn.run("expire", "--set", backup.made["bid"])
            if self.chance.random() < 0.3:
                self.collect()
        self.collect()
        self.pgcairn.run("verify")
        for backup in going[:2]:
            self.pgcairn.run("restore", "--to", self.shop.new_directory() / "data", "--set",
                             backup.made["bid"], expect=REFUSED)
        return [backup for backup in self.backups if backup not in going]

    def collect(self):
        """The first condemns, the second deletes: no waiting for the grace."""
        for _ in range(2):
            self.pgcairn.run("collect", "--grace=0s", "--force")


def in_parallel(check, backups):
    """Two at a time: most of a check is waiting for a server to start and to stop."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for checked in [pool.submit(check, backup) for backup in backups]:
            checked.result()


def packs(story):
    return story.pgcairn.objects("c/main/b/*/p/*/*")


def check_expiry(story):
    """Whatever goes, the others are what they were, and the next one works on what is left."""
    chance = story.chance
    going = chance.sample(story.backups[:-1], chance.randrange(len(story.backups) // 3,
                                                               len(story.backups) - 1))
    print(f"expired {[story.backups.index(backup) for backup in going]}")
    story.backups = story.expire(going)
    in_parallel(story.check_restored_bytes, story.backups)

    # Not a page of the user's tables is where it was: now old packs can go as a whole.
    story.work.rewrite_everything()
    story.back_up("incr")
    story.server.archive_all()
    in_parallel(story.check, [chance.choice(story.backups[:-1]), story.backups[-1]])
    before = packs(story)
    (newest,) = story.backups = story.expire(story.backups[:-1])
    assert set(packs(story)) < set(before)
    story.check_restored_bytes(newest)


@pytest.mark.parametrize("number", range(CLUSTERS))
@pytest.mark.parametrize("checksums", [True, False], ids=["checksums", "no checksums"])
def test_every_incremental_gives_what_the_server_sent(workshop, checksums, number):
    seed = f"{SEED} {checksums} {number}"
    print(f"PGCAIRN_PROPERTY_SEED={SEED} PGCAIRN_PROPERTY_CLUSTERS={CLUSTERS} "
          f"PGCAIRN_PROPERTY_BACKUPS={BACKUPS}")
    story = Story(workshop, random.Random(seed), checksums)
    story.back_up("full")
    for _ in range(BACKUPS if checksums else (BACKUPS + 1) // 2):
        for _ in range(STEPS):
            story.work.step()
        story.back_up("incr")
    story.server.archive_all()
    print(f"work: {dict(story.work.done)}")
    print(f"pages changed of those compared: "
          f"{[(b.made['pages_changed'], b.made['pages_compared']) for b in story.backups[1:]]}")
    story.pgcairn.run("verify")
    in_parallel(story.check, story.backups)
    story.check_reader(story.chance.choice(story.backups[1:]))
    check_expiry(story)
    story.proxy.close()
