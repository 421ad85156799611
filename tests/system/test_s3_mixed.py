"""Everything at once on one bucket, with faults on the way: two backups, two pushers, a collector, restores.

PGCAIRN_TEST_SECONDS says for how long (default 12). At the end nothing may be lost: every backup that is listed
restores, and the newest state comes back exactly.
"""

import collections
import os
import random
import threading
import time

from support.cluster import remove_tree
from support.compare import check_tables, digest, verify_backup
from support.pgcairn import NOT_FOUND, OK, REFUSED
from support.process import explain, run, wait_until
from support.s3_site import Site

SECONDS = float(os.environ.get("PGCAIRN_TEST_SECONDS", "12"))
SEED = int(os.environ.get("PGCAIRN_TEST_SEED", random.randrange(1 << 32)))
RATES = {"slow_down": 4, "internal": 4, "close": 3, "lost": 4, "cut": 4, "delay": 10, "delay_ms": 100}
BALANCED = ("SELECT (SELECT sum(abalance) FROM pgbench_accounts) = "
            "(SELECT coalesce(sum(delta), 0) FROM pgbench_history)")


class Actors:
    """Loops of one command each, until the time is up; what came of every round."""

    def __init__(self, site):
        self.site = site
        self.until = time.monotonic() + SECONDS
        self.outcomes = collections.Counter()
        self.failures = []
        self.threads = []
        self.names = iter(range(1, 1 << 30))

    def add(self, name, action, pause=0.0):
        def loop():
            chance = random.Random(f"{SEED} {name}")
            while time.monotonic() < self.until:
                try:
                    outcome = action(chance)
                except BaseException as error:  # pylint: disable=broad-exception-caught
                    self.failures.append(f"{name}: {error!r}")
                    return
                self.outcomes[name, outcome] += 1
                time.sleep(pause)

        thread = threading.Thread(target=loop, name=name)
        self.threads.append(thread)
        thread.start()

    def finish(self):
        for thread in self.threads:
            thread.join()
        print(f"seed {SEED}: " + ", ".join(f"{number} {name} {outcome}" for (name, outcome), number
                                           in sorted(self.outcomes.items(), key=str)))
        assert not self.failures, "\n".join(self.failures)

    def command(self, *arguments, allowed=(OK,)):
        words = self.site.pgcairn.command(*arguments)
        result = run(*words, timeout=600)
        if result.returncode not in allowed:
            self.failures.append(explain(words, result))
        return result.returncode

    # -- what they do

    def load(self, chance):
        self.site.cluster.pgbench("-n", "-t", "300", "-c", "2", f"--random-seed={chance.randrange(1 << 30)}")
        self.site.cluster.switch_wal()
        return OK

    def push(self, chance):
        """The second pusher: what the archiver pushes or has pushed already, in any order."""
        status = self.site.cluster.data / "pg_wal/archive_status"
        names = [path.stem for path in status.glob("*.*") if len(path.stem) == 24]
        if not names:
            return "idle"
        name = chance.choice(sorted(names)[-6:])
        result = self.site.push(name, "--no-batch", expect=None)
        if result.returncode != OK and (self.site.cluster.data / "pg_wal" / name).exists():
            self.failures.append(f"push of {name}: {result.stderr}")
        return result.returncode

    def backup(self, chance):
        kind = chance.choice(("full", "incr", "incr", "incr"))
        return kind, self.command("backup", f"--type={kind}", "--start-fast", "--wal-timeout=120")

    def collect(self, _chance):
        self.command("expire", "--retention=last 2", allowed=(OK, NOT_FOUND))
        return self.command("collect", "--grace=0s", "--force", allowed=(OK, NOT_FOUND))

    def restore(self, _chance):
        """Of the newest backup there is, alone: its own WAL must do. It may expire under our hands: that is said."""
        directory = self.site.workshop.directory / f"passing{next(self.names)}"
        code = self.command("restore", "--to", directory / "data", "--type=none", "--as=clone", "--force",
                            allowed=(OK, NOT_FOUND, REFUSED))
        if code == OK:
            verify_backup(directory / "data")
            restored = self.site.workshop.cluster(directory.name)
            try:
                restored.start()
                assert restored.value(BALANCED), "a restored cluster does not add up"
            finally:
                self.site.workshop.discard(restored)
        remove_tree(directory)
        return code


def restores_and_adds_up(site, label):
    restored = site.workshop.restore(site.pgcairn, "--set", label, "--type=immediate", "--target-action=promote")
    verify_backup(restored.data)
    restored.start_restored()
    restored.wait_promoted()
    assert restored.value(BALANCED)
    check_tables(restored)
    site.workshop.discard(restored)


def test_everything_at_once(workshop, bucket):
    proxy = bucket.faults()
    site = Site(workshop, bucket, endpoint=proxy.endpoint)
    cluster = site.cluster
    cluster.pgbench("-i", "-q", "-s", "1")
    site.pgcairn.backup()
    proxy.set(**RATES)

    actors = Actors(site)
    actors.add("load", actors.load)
    actors.add("push", actors.push, pause=0.2)
    actors.add("backup one", actors.backup)
    actors.add("backup two", actors.backup)
    actors.add("collect", actors.collect, pause=0.5)
    actors.add("restore", actors.restore)
    actors.finish()

    requests = proxy.requests()
    print(f"{len(requests)} requests, {sum(r.status >= 500 or r.status < 0 for r in requests)} of them in vain")
    proxy.quiet()
    expected = digest(cluster)
    name = cluster.switch_wal()
    wait_until(f"{name} is archived", lambda: cluster.has_archived(name), 180)
    report = site.pgcairn.json("verify")
    assert report["finding_count"] == 0 and report["good_backups"] == report["backups"], report
    for backup in site.pgcairn.backups("wal-complete"):
        restores_and_adds_up(site, backup["label"])
    site.check_restores(expected)
    proxy.set(**RATES)
    site.check_restores(expected)
