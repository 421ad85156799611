"""What is measured against what: one method a suite, each complete in itself."""

import os
import pathlib
import re
import shutil

import tools
from machine import CommandFailed, tree_bytes
from pages import Pages
from server import Cluster

SEGMENTS = 64
MEMORY_RUNS = 2  # peaks hardly vary
FILES_RUNS = 2
CATALOG_PROGRAM = "test_expire_scale"
CHAIN = ("random", "local") * 3  # the changes before each of its incrementals


class Suites:
    """Suites share clusters; what a suite needs is made when it is first asked for."""

    def __init__(self, options, machine, note):
        self.options, self.machine, self.note = options, machine, note
        self.clusters = {}
        self.segments = None

    # -- clusters

    def cluster(self, name, recipe, fill, **settings):
        if name not in self.clusters:
            print(f"making or starting the cluster '{name}' ({recipe})", flush=True)
            cluster = Cluster(self.machine, name, self.options.pg, **settings)
            self.clusters[name] = cluster
            cluster.create(f"PostgreSQL {self.options.pg}, {recipe}\n", fill)
        return self.clusters[name]

    def large(self):
        scale, rows = self.options.scale, self.options.rows

        def fill(cluster):
            cluster.fill_pgbench(scale)
            cluster.fill_documents(rows)

        return self.cluster("large", f"pgbench scale {scale}, {rows} documents", fill)

    def small(self):
        return self.cluster("small", "pgbench scale 2", lambda cluster: cluster.fill_pgbench(2),
                            shared_buffers="128MB")

    def many(self):
        count = self.options.relations
        return self.cluster("many", f"{count} relations",
                            lambda cluster: cluster.fill_relations(count))

    def files_cluster(self):
        count = self.options.files
        return self.cluster("files", f"{count} files", lambda cluster: cluster.fill_files(count))

    def changing(self):
        """A copy of the large cluster as it was made, for one suite to change: drop() it then."""
        large = self.large()
        large.stop()
        cluster = Cluster(self.machine, "changing", self.options.pg)
        self.clusters["changing"] = cluster
        cluster.copy(large)
        large.start()
        return cluster

    def drop(self, name):
        cluster = self.clusters.pop(name)
        cluster.stop()
        shutil.rmtree(cluster.home)

    def stop(self):
        for cluster in self.clusters.values():
            cluster.stop()

    # -- rounds

    def rounds(self, chosen, body, before=None):
        """Every tool in every round, so that each round gives pairs; every other one backwards."""
        for number in range(self.options.pairs):
            if before:
                before(number)
            for tool in chosen if number % 2 == 0 else reversed(chosen):
                try:
                    body(tool, number)
                except (CommandFailed, RuntimeError, OSError) as error:
                    self.note(suite="failed", tool=tool.name, round=number, error=str(error))
        for tool in chosen:
            tool.remove()

    def backups(self, suite, cluster, kinds):
        def body(tool, number):
            tool.prepare()
            cluster.sql("CHECKPOINT")
            before = tree_bytes(tool.repository)
            measured = self.machine.measure([tool.backup()], server_pid=cluster.pid())
            self.note(suite=suite, tool=tool.name, round=number, **measured.row(),
                      stored=tree_bytes(tool.repository) - before)

        self.rounds([kind(self.machine, cluster) for kind in kinds], body)

    def full(self):
        """A full backup of the large cluster, two processes each."""
        self.backups("full", self.large(),
                     [tools.Pgcairn, tools.PgBackRest, tools.PgBasebackup, tools.Sink])

    def small_cluster(self):
        """A full backup of a cluster of 50 MB, where fixed times show."""
        self.backups("small", self.small(), [tools.Pgcairn, tools.PgBackRest, tools.PgBasebackup])

    def restore(self):
        """A full restore of the large cluster, every byte verified and flushed."""
        cluster = self.large()
        chosen = [kind(self.machine, cluster)
                  for kind in (tools.Pgcairn, tools.PgBackRest, tools.PgBasebackup)
                  if kind is not tools.PgBasebackup or shutil.which("lz4")]
        for tool in chosen:
            tool.prepare()
            self.machine.run("sh", "-c", tool.backup())
        self.restores("restore", chosen)

    def restores(self, suite, chosen):
        """Rounds of restores of the newest backups that the tools have."""
        target = self.machine.work / "restored"

        def body(tool, number):
            self.machine.directory(target, empty=True)
            measured = self.machine.measure([tool.restore(target)])
            self.note(suite=suite, tool=tool.name, round=number, **measured.row(),
                      stored=tree_bytes(target))
            if number == 0 and isinstance(tool, tools.Pgcairn):
                self.verify(tool.cluster, target)

        self.rounds(chosen, body)
        self.machine.directory(target, empty=True)

    def verify(self, cluster, target):
        """A restore that is fast and wrong is no restore. Not timed."""
        self.machine.run(cluster.bin / "pg_verifybackup", "--quiet", "--no-parse-wal", target)

    # -- incrementals

    def kinds_of_incrementals(self):
        """pg_basebackup has them since PostgreSQL 17; the bare protocol is the floor."""
        kinds = [tools.Pgcairn, tools.PgBackRest, tools.PgBasebackup, tools.Sink]
        return [kind for kind in kinds if kind is not tools.PgBasebackup or self.options.pg >= 17]

    def incrementals(self, suite, change):
        """A full backup by all; then rounds of a change and an incremental by all, each on the last."""
        cluster = self.changing()
        chosen = [kind(self.machine, cluster) for kind in self.kinds_of_incrementals()]
        for tool in chosen:
            tool.prepare()
            self.machine.run("sh", "-c", tool.backup())
        pages, changed = Pages(cluster.data, self.machine.work / "changed"), {}

        def before(number):
            cluster.archive_with("/bin/true")
            change(cluster, number)
            cluster.settle()
            changed.update(pages.look())

        def body(tool, number):
            tool.resume()
            cluster.settle()
            stored = tool.backup_bytes()
            measured = self.machine.measure([tool.incremental()], server_pid=cluster.pid())
            self.note(suite=suite, tool=tool.name, round=number, **measured.row(),
                      stored=tool.backup_bytes() - stored, **changed)
            if number == 0 and isinstance(tool, tools.Pgcairn):
                self.restore_and_verify(tool)

        self.rounds(chosen, body, before)
        self.drop("changing")

    def restore_and_verify(self, tool):
        target = self.machine.directory(self.machine.work / "restored", empty=True)
        self.machine.run("sh", "-c", tool.restore(target))
        self.verify(tool.cluster, target)
        self.machine.directory(target, empty=True)

    def incr_random(self):
        """An incremental after one row in a hundred was updated, all over the tables."""
        self.incrementals("incr-random", lambda cluster, number: cluster.change("random", number))

    def incr_local(self):
        """An incremental after one row in a hundred was updated, all in one place."""
        self.incrementals("incr-local", lambda cluster, number: cluster.change("local", number))

    def incr_nothing(self):
        """An incremental after nothing changed."""
        self.incrementals("incr-nothing", lambda cluster, number: None)

    def chain(self):
        """A restore of a full backup and six incrementals, beside one of a full of the same data."""
        cluster = self.changing()
        chosen = [kind(self.machine, cluster)
                  for kind in [tools.PgcairnFull, *self.kinds_of_incrementals()]
                  if kind is not tools.Sink]
        for tool in chosen[1:]:
            tool.prepare()
            self.machine.run("sh", "-c", tool.backup())
        for number, where in enumerate(CHAIN):
            cluster.archive_with("/bin/true")
            cluster.change(where, number)
            for tool in chosen[1:]:
                tool.resume()
                cluster.settle()
                self.machine.run("sh", "-c", tool.incremental())
        chosen[0].prepare()
        self.machine.run("sh", "-c", chosen[0].backup())
        self.restores("chain", chosen)
        self.drop("changing")

    # -- many files

    def files(self):
        """A million small files: full, an incremental after a hundredth changed, restore."""
        cluster = self.files_cluster()
        tool, floor = tools.Pgcairn(self.machine, cluster), tools.Sink(self.machine, cluster)
        target = self.machine.work / "restored"

        def note(operation, tool, number, line, server=True):
            stored = tool.backup_bytes()
            measured = self.machine.measure([line], server_pid=cluster.pid() if server else None)
            self.note(suite="files", operation=operation, tool=tool.name, round=number,
                      **measured.row(), stored=tool.backup_bytes() - stored)

        for number in range(min(FILES_RUNS, self.options.pairs)):
            floor.prepare()
            note("bare protocol", floor, number, floor.backup())
            tool.prepare()
            cluster.settle()
            note("full", tool, number, tool.backup())
            cluster.change_files(self.options.files, number)
            note("incremental", tool, number, tool.incremental())
            self.machine.directory(target, empty=True)
            note("restore", tool, number, tool.restore(target), server=False)
            if number == 0:
                self.verify(cluster, target)
            self.machine.directory(target, empty=True)
        tool.remove()

    # -- many backups

    def catalog(self):
        """info and expire --plan with ten thousand backups, ten million WAL names, in memory."""
        program = self.machine.install(self.options.build / "tests" / CATALOG_PROGRAM)
        for number in range(self.options.pairs):
            output = self.machine.run("sh", "-c", f"{program} 2>&1")
            found = re.search(r"info ([0-9.]+) s, expire --plan ([0-9.]+) s", output)
            if not found:
                raise CommandFailed(f"no figures in the output of {program}:\n{output}")
            for operation, seconds in zip(("info", "expire --plan"), found.groups()):
                self.note(suite="catalog", operation=operation, tool=tools.Pgcairn.name,
                          round=number, cpu=float(seconds))

    # -- WAL

    def segment_pool(self):
        """What looks like a data directory, with real segments of a load in its pg_wal."""
        pool = self.machine.work / "pool"
        if self.segments:
            return pool, self.segments
        cluster = self.large()
        self.machine.directory(pool, empty=True)
        for name in ("global", "pg_wal"):
            self.machine.directory(pool / name)
        for name in ("PG_VERSION", "global/pg_control"):
            shutil.copy(cluster.data / name, pool / name)
            self.machine.own(pool / name)
        keep = f"cp %p {pool}/pg_wal/%f"
        cluster.archive_with(keep)
        while len(names_in(pool)) < SEGMENTS + 2:
            cluster.sql("CHECKPOINT")  # images of whole pages follow, as in production
            cluster.load(5)
            cluster.wait_archived(keep)
        cluster.archive_with("/bin/true")
        self.segments = names_in(pool)[1:SEGMENTS + 1]  # the first one was cut short by a switch
        return pool, self.segments

    def wal_tools(self, cluster):
        return [kind(self.machine, cluster) for kind in (tools.Pgcairn, tools.PgBackRest, tools.Copy)]

    def push_all(self, tool, pool, names):
        lines = [tool.push(f"pg_wal/{name}") for name in names]
        return self.machine.measure(lines, directory=pool)

    def get_all(self, tool, pool, names):
        arrival = "pg_wal/RECOVERYXLOG"
        lines = [tool.get(name, arrival) for name in names]
        return self.machine.measure(lines, directory=pool, remove_first=arrival)

    def prepare_unarchived(self, tool):
        tool.prepare()
        tool.cluster.archive_with("/bin/true")

    def push(self):
        """64 real segments, one by one, as the archiver calls archive_command."""
        pool, names = self.segment_pool()

        def body(tool, number):
            self.prepare_unarchived(tool)
            before = tree_bytes(tool.repository)
            measured = self.push_all(tool, pool, names)
            self.note(suite="push", tool=tool.name, round=number, **measured.row(),
                      stored=tree_bytes(tool.repository) - before)

        self.rounds(self.wal_tools(self.large()), body)

    def push_batch(self):
        """The same segments, all of them ready: ours in a batch, pgBackRest's asynchronous push."""
        pool, names = self.segment_pool()
        status = self.machine.directory(pool / "pg_wal" / "archive_status")

        def body(tool, number):
            self.prepare_unarchived(tool)
            for name in names:
                (status / f"{name}.done").unlink(missing_ok=True)
                self.machine.write(status / f"{name}.ready", "")
            lines = [tool.push(f"pg_wal/{name}") for name in names]
            measured = self.machine.measure(lines, directory=pool, status=status)
            self.note(suite="push-batch", tool=tool.name, round=number, **measured.row(),
                      stored=tree_bytes(tool.repository))

        cluster = self.large()
        self.rounds([kind(self.machine, cluster)
                     for kind in (tools.PgcairnBatch, tools.PgBackRestAsync)], body)
        shutil.rmtree(status)

    def get(self):
        """The same segments back, one by one, as recovery calls restore_command."""
        pool, names = self.segment_pool()
        chosen = self.wal_tools(self.large())
        for tool in chosen:
            self.prepare_unarchived(tool)
            for name in names:
                self.machine.run("sh", "-c", f"cd {pool} && {tool.push(f'pg_wal/{name}')}")

        def body(tool, number):
            measured = self.get_all(tool, pool, names)
            self.note(suite="get", tool=tool.name, round=number, **measured.row(), stored=0)
            if number == 0:
                self.compare(pool, names[-1])

        self.rounds(chosen, body)

    def compare(self, pool, name):
        arrived, original = pool / "pg_wal" / "RECOVERYXLOG", pool / "pg_wal" / name
        if arrived.read_bytes() != original.read_bytes():
            raise CommandFailed(f"{name} came back changed")

    # -- memory

    def memory(self):
        """Our peak resident memory with default settings: much data, and many relations."""
        for label, cluster in (("large", self.large()), ("many", self.many())):
            tool = tools.Pgcairn(self.machine, cluster)
            for number in range(MEMORY_RUNS):
                tool.prepare()
                self.note_memory(f"backup of '{label}'", tool, number, self.machine.measure(
                    [tool.backup()], server_pid=cluster.pid()))
                target = self.machine.directory(self.machine.work / "restored", empty=True)
                self.note_memory(f"restore of '{label}'", tool, number,
                                 self.machine.measure([tool.restore(target)]))
                self.machine.directory(target, empty=True)
            tool.remove()
        self.memory_of_incrementals()
        self.memory_of_wal()

    def memory_of_incrementals(self):
        """Much data of which a hundredth of the rows changed, and many relations of which none did."""
        for label, cluster in (("large", self.changing()), ("many", self.many())):
            tool = tools.Pgcairn(self.machine, cluster)
            tool.prepare()
            self.machine.run("sh", "-c", tool.backup())
            for number in range(MEMORY_RUNS):
                if label == "large":
                    cluster.change("random", number)
                cluster.settle()
                self.note_memory(f"incremental of '{label}'", tool, number, self.machine.measure(
                    [tool.incremental()], server_pid=cluster.pid()))
            target = self.machine.directory(self.machine.work / "restored", empty=True)
            self.note_memory(f"restore of an incremental of '{label}'", tool, 0,
                             self.machine.measure([tool.restore(target)]))
            self.machine.directory(target, empty=True)
            tool.remove()
        self.drop("changing")

    def memory_of_wal(self):
        pool, names = self.segment_pool()
        tool = tools.Pgcairn(self.machine, self.large())
        self.prepare_unarchived(tool)
        self.note_memory("push", tool, 0, self.push_all(tool, pool, names))
        self.note_memory("get", tool, 0, self.get_all(tool, pool, names))
        tool.remove()

    def note_memory(self, operation, tool, number, measured):
        self.note(suite="memory", operation=operation, tool=tool.name, round=number,
                  **measured.row())


def names_in(pool):
    return sorted(name for name in os.listdir(pathlib.Path(pool) / "pg_wal") if len(name) == 24)


ALL = {"full": Suites.full, "small": Suites.small_cluster, "restore": Suites.restore,
       "push": Suites.push, "push-batch": Suites.push_batch, "get": Suites.get,
       "incr-random": Suites.incr_random, "incr-local": Suites.incr_local, "incr-nothing": Suites.incr_nothing,
       "chain": Suites.chain, "memory": Suites.memory, "files": Suites.files,
       "catalog": Suites.catalog}
