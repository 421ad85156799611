"""A server whose archiver pushes in batches, and what the processes of push leave behind."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import signal

from support.cluster import make_directory, quoted, remove_tree
from support.process import has_ended, must, owner, run, wait_until

# kill -9 of the command would end the archiver for ten seconds; to the server it is a failure like others.
SURVIVING = "{} || exit 1"


class Batch:
    """A cluster with small segments, a repository, a spool, and the two programs between them."""

    def __init__(self, workshop, archiving=True, general=None, settings=None):
        self.workshop = workshop
        self.cluster = workshop.cluster().initdb(wal_segsize=1, settings=settings)
        self.spool = workshop.directory / f"{self.cluster.directory.name}-spool"
        self.general = {"spool-path": self.spool, **(general or {})}
        self.pgcairn = workshop.pgcairn(self.cluster, name=f"{self.cluster.directory.name}-repo",
                                        general=self.general)
        command = SURVIVING.format(
            self.pgcairn.archive_command().replace(" push ", " push --log-level debug ")) if archiving else "/bin/false"
        self.cluster.configure(archive_mode="on", archive_command=quoted(command))
        self.cluster.start()
        self.first = self.cluster.value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
        self.cluster.make_role()
        self.pgcairn.init()
        self.cluster.sql("CREATE TABLE load (round int, n int, text text)")
        self.rounds = 0

    # -- for tests that share one, while its server is stopped

    def keep(self):
        for path in self.kept():
            copy_tree(path, path.with_name(path.name + ".kept"))
        return self

    def restore(self):
        """Everything as it was kept, and an empty spool."""
        self.end_processes()
        self.pgcairn.write_config(general=self.general)
        remove_tree(self.spool)
        for path in self.kept():
            remove_tree(path)
            copy_tree(path.with_name(path.name + ".kept"), path)
        return self

    def kept(self):
        return self.cluster.data, self.pgcairn.repository

    # -- load

    def write(self, segments):
        """About so many segments of 1 MiB."""
        self.rounds += 1
        self.cluster.sql("INSERT INTO load SELECT %s, n, md5(n::text) FROM generate_series(1, %s) AS n",
                         self.rounds, segments * 10000)

    def ready(self):
        return sorted(path.stem for path in self.status().glob("*.ready"))

    def status(self):
        return self.cluster.data / "pg_wal/archive_status"

    # -- the programs

    def push(self, name, *arguments, expect=0):
        result = run(self.pgcairn.programs.wal, "push", "--config", self.pgcairn.config, *arguments,
                     f"pg_wal/{name}", cwd=self.cluster.data)
        assert result.returncode == expect, result.stderr
        return result.stderr

    def done(self, name):
        """As the server notes an answer of 0."""
        (self.status() / f"{name}.ready").rename(self.status() / f"{name}.done")

    def processes(self, command=None):
        """Ids of running programs that use this configuration: push, push-ahead, or both."""
        return self.pgcairn.wal_processes(command)

    @staticmethod
    def pushing(archiver):
        """Ids of what the archiver's shell runs, found before it ends: a search of all processes takes longer."""
        found = [archiver]
        for _ in "shell", "push":
            children = []
            for pid in found:
                with contextlib.suppress(OSError):
                    children += pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
            found = children
        return [int(pid) for pid in found if not has_ended(int(pid))]

    def archiver(self):
        return self.cluster.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver'")

    @contextlib.contextmanager
    def held_back(self):
        """The archiver does nothing meanwhile, and has a backlog then, however fast it is beside the load."""
        archiver = self.archiver()
        os.kill(archiver, signal.SIGSTOP)
        try:
            yield archiver
        finally:
            os.kill(archiver, signal.SIGCONT)

    def kill(self, pids):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def end_processes(self):
        """Also one that was being forked while we looked."""
        def none_left():
            found = self.processes()
            self.kill(found)
            return not found

        for _ in range(2):
            wait_until("no process of push is left", none_left)

    def wait_idle(self):
        """Also one that has been forked, and is a push as yet by its command line."""
        wait_until("nothing is pushed ahead any more", lambda: not self.processes())

    # -- what is where

    def records(self, suffix=".ok"):
        return sorted(path.name.removesuffix(suffix) for path in self.spool.glob(f"*/*{suffix}"))

    def record(self, name, suffix=".ok"):
        path, = self.spool.glob(f"*/{name}{suffix}")
        return path

    def stored(self):
        """Names of whole segments in the repository; each ends with the SHA-256 of what comes before."""
        names = []
        for path in self.pgcairn.objects("c/main/w/*/00000001/*/*"):
            if len(path.name) == 24:
                content = path.read_bytes()
                assert hashlib.sha256(content[:-32]).digest() == content[-32:], path
                names.append(path.name)
        return sorted(names)

    def object(self, name):
        path, = self.pgcairn.objects(f"c/main/w/*/00000001/*/{name}")
        return path

    def acknowledged(self):
        """Every segment that the server was told is safe: all up to the last one, in its order."""
        last = self.cluster.value("SELECT last_archived_wal FROM pg_stat_archiver")
        return names_between(self.first, last[:24]) if last else []

    def poison(self, name, content):
        """Something else in the place of a file of pg_wal, ready to be archived."""
        path = self.cluster.data / "pg_wal" / name
        path.write_bytes(content)
        (self.status() / f"{name}.ready").touch()
        for each in path, self.status() / f"{name}.ready":
            os.chown(each, *owner())
        return path


def copy_tree(path, target):
    """With owners, which shutil leaves behind."""
    must("cp", "-a", path, target, as_root=True)


def names_between(first, last):
    """Segments of 1 MiB of timeline 1, both ends included."""
    numbers = [int(name[8:16], 16) * 4096 + int(name[16:], 16) for name in (first, last)]
    return [f"00000001{n // 4096:08X}{n % 4096:08X}" for n in range(numbers[0], numbers[1] + 1)]


def second_directory(cluster, directory):
    """A copy of a data directory as far as push looks at one."""
    data = make_directory(directory)
    shutil.copytree(cluster.data / "global", data / "global")
    shutil.copytree(cluster.data / "pg_wal", data / "pg_wal")
    for path in [data, *data.rglob("*")]:
        os.chown(path, *owner())
    return data
