"""Servers whose repository is in a bucket, and what tests of that do all the time."""

from support.compare import digest, verify_backup
from support.process import wait_until


class Site:
    """A running server that archives into a bucket."""

    def __init__(self, workshop, bucket, endpoint=None, cluster_name="main", general=None, section=None, **initdb):
        self.workshop, self.bucket = workshop, bucket
        self.cluster = workshop.cluster().initdb(**{"wal_segsize": 1, **initdb})
        self.endpoint = endpoint
        self.general = {"spool-path": workshop.directory / f"{self.cluster.directory.name}-spool",
                        **(general or {})}
        self.more = section or {}
        self.pgcairn = workshop.pgcairn(self.cluster, name=f"{self.cluster.directory.name}-repo",
                                        cluster_name=cluster_name, repository=self.section(endpoint),
                                        general=self.general)
        self.cluster.archive_with(self.pgcairn)
        self.cluster.start()
        self.cluster.make_role()
        self.pgcairn.init()

    def section(self, endpoint):
        return self.bucket.section(endpoint, **self.more)

    def lead_through(self, endpoint):
        """The same bucket by another way, for everything that is started from now on."""
        self.pgcairn.write_config(repository=self.section(endpoint), general=self.general)

    def fill(self, rows=20000):
        self.cluster.sql("CREATE TABLE IF NOT EXISTS t (round int, n int, body text)")
        self.cluster.sql("INSERT INTO t SELECT coalesce((SELECT max(round) FROM t), 0) + 1, n, "
                         "md5(n::text || random()::text) FROM generate_series(1, %s) n", rows)
        self.cluster.sql("CHECKPOINT")

    def rest(self):
        """Until nothing is left to archive, nor runs on: pushing ahead goes on for a while, and takes what is new."""
        # After three failures an archiver sleeps for a minute.
        wait_until("all is archived", self.cluster.is_all_archived, 120)
        wait_until("no push is left", lambda: not self.pgcairn.wal_processes())

    def push(self, name, *arguments, **options):
        """One segment of pg_wal, as archive_command does it."""
        return self.pgcairn.push(f"pg_wal/{name}", *arguments, cwd=self.cluster.data, **options)

    def stored_segments(self):
        """Names of whole segments in the bucket."""
        names = [name.rsplit("/", 1)[-1] for name in self.bucket.objects() if "/w/" in name]
        return sorted(name for name in names if len(name) == 24)

    def check_restores(self, expected, *arguments):
        """Into an empty directory, looked at by pg_verifybackup, started, and every table compared."""
        restored = self.workshop.restore(self.pgcairn, *arguments)
        verify_backup(restored.data)
        restored.start_restored()
        assert digest(restored) == expected
        self.workshop.discard(restored)
