"""Fixtures of the system tests. Everything made here is ended and removed again, also after failures."""

import itertools
import os
import shutil
import signal
import tempfile

import pytest

from support.cluster import ROOT, Cluster, make_directory, remove_tree
from support.object_store import Bucket, running_server
from support.pgcairn import Pgcairn, Programs
from support.process import must
from support.receiver import Receiver

SHARED_MEMORY = "/dev/shm"
SHARED_MEMORY_NEEDED_BYTES = 6 << 30


ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def end_tidily(_number, _frame):
    """Only once: timeout(1) signals the group too, and fixtures that are taken down want their time."""
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def pytest_configure():
    """SIGTERM, from timeout(1) or a CI that gives up, ends a run as Ctrl-C does: fixtures are taken down."""
    for number in ENDING_SIGNALS:
        signal.signal(number, end_tidily)


def scratch_parent():
    """PGCAIRN_TEST_SCRATCH, else memory where there is plenty: half the tests' time goes into real fsyncs."""
    if os.environ.get("PGCAIRN_TEST_SCRATCH"):
        return os.environ["PGCAIRN_TEST_SCRATCH"]
    try:
        memory = os.statvfs(SHARED_MEMORY)
    except OSError:
        return "/var/tmp"
    roomy = memory.f_bavail * memory.f_frsize >= SHARED_MEMORY_NEEDED_BYTES
    return SHARED_MEMORY if roomy and not memory.f_flag & os.ST_NOEXEC else "/var/tmp"


@pytest.fixture(scope="session")
def scratch_root():
    """Short, since sockets live below; reachable for the server's user."""
    root = make_directory(tempfile.mkdtemp(prefix="pgcairn-", dir=scratch_parent()), mode=0o755)
    yield root
    remove_tree(root)


@pytest.fixture(scope="session")
def programs(scratch_root):
    """The programs under test, copied: the server's user may be barred from the build tree."""
    build = ROOT / os.environ.get("BUILD", "build/release")
    directory = make_directory(scratch_root / "bin", mode=0o755)
    for name in ("pgcairn", "pgcairn-wal", "pgcairn_s3.so"):
        assert (build / name).exists(), f"{build / name} is missing: make all"
        shutil.copy(build / name, directory / name)
    return Programs(directory / "pgcairn", directory / "pgcairn-wal")


class Workshop:
    """Makes clusters and repositories in one directory and takes them apart again."""

    def __init__(self, directory, programs):
        self.directory = make_directory(directory, mode=0o755)
        self.programs = programs
        self.clusters = []
        self.names = (f"c{number}" for number in itertools.count(1))

    def new_directory(self, name=None, mode=0o700):
        return make_directory(self.directory / (name or next(self.names)), mode)

    def cluster(self, name=None, data=None):
        """A Cluster object only; its server is ended with the workshop."""
        cluster = Cluster(self.directory / (name or next(self.names)), data)
        self.clusters.append(cluster)
        return cluster

    def server(self, name=None, role=True, start=True, **initdb):
        """A running server with the least-privilege role."""
        cluster = self.cluster(name).initdb(**initdb)
        if start:
            cluster.start()
            if role:
                cluster.make_role()
        return cluster

    def pgcairn(self, cluster, name="pgcairn", **options):
        return Pgcairn(self.programs, self.directory / name, cluster, **options)

    def archiving_server(self, name=None, config=None, **initdb):
        """A running server that archives, its initialised repository, both ready for a backup."""
        cluster = self.cluster(name).initdb(**initdb)
        pgcairn = self.pgcairn(cluster, name=f"{name or cluster.directory.name}-repo", **(config or {}))
        cluster.archive_with(pgcairn)
        cluster.start()
        cluster.make_role()
        pgcairn.init()
        return cluster, pgcairn

    def standby(self, primary, name=None):
        """A running standby that streams from the primary."""
        cluster = self.cluster(name)
        must(cluster.bin / "pg_basebackup", "-d", primary.conninfo(), "-D", cluster.data, "-R",
             "-c", "fast", "-X", "stream")
        return cluster.start()

    def restore(self, pgcairn, *arguments, name=None, **options):
        """A restored directory, not started."""
        restored = pgcairn.restore(self.directory / (name or next(self.names)), *arguments,
                                   **options)
        self.clusters.append(restored)
        return restored

    def discard(self, cluster):
        """Ends and removes one cluster early, to save space."""
        cluster.destroy()
        remove_tree(cluster.directory)
        self.clusters.remove(cluster)

    def close(self):
        for cluster in self.clusters:
            cluster.destroy()
        remove_tree(self.directory)


workshop_names = (f"t{number}" for number in itertools.count(1))


@pytest.fixture
def workshop(scratch_root, programs):
    """A workshop for one test."""
    shop = Workshop(scratch_root / next(workshop_names), programs)
    yield shop
    shop.close()


@pytest.fixture(scope="module")
def module_workshop(scratch_root, programs):
    """A workshop that the tests of a file share."""
    shop = Workshop(scratch_root / next(workshop_names), programs)
    yield shop
    shop.close()


@pytest.fixture(scope="session")
def s3_server(scratch_root):
    """An S3 server, started for the first test that asks."""
    yield from running_server(scratch_root)


@pytest.fixture
def bucket(s3_server, workshop):
    """An empty bucket for one test."""
    made = Bucket(s3_server, workshop.directory / "bucket")
    yield made
    made.close()


@pytest.fixture
def receivers(workshop):
    made = []

    def make(pgcairn, *options, name="spool", **more):
        receiver = Receiver(pgcairn, workshop.directory / name, *options, **more)
        made.append(receiver)
        return receiver

    yield make
    for receiver in made:
        receiver.close()
