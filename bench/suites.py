"""What is measured against what: one method a suite, each complete in itself."""

import os
import pathlib
import re
import shlex
import shutil
import sys
import time

import served
import tools
from machine import CommandFailed, tree_bytes, tree_cpu_seconds
from pages import Pages
from server import Cluster

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "services"))
import servers  # noqa: E402
from haproxy import FaultProxy  # noqa: E402

SEGMENTS = 64
S3_SEGMENTS = 256
S3_LATENCY_MS = 30
RECOVERY_LOAD_SECONDS = 30
MEMORY_RUNS = 2  # peaks hardly vary
FILES_RUNS = 2
CATALOG_PROGRAM = "test_expire_scale"
CHAIN = ("random", "local") * 3  # the changes before each of its incrementals


def calls_of_redo(log, walls):
    """How long redo took, and the seconds of each call within it: PostgreSQL asks before it and behind it, too."""
    begun = float(re.search(r"^([0-9.]+) LOG: +redo starts", log, re.MULTILINE).group(1))
    done = re.search(r"^([0-9.]+) LOG: +redo done at .* elapsed: ([0-9.]+) s", log, re.MULTILINE)
    calls = [tuple(map(float, line.split())) for line in walls.splitlines()]
    return float(done.group(2)), sorted(wall / 1e3 for wall, ended in calls
                                        if begun <= ended <= float(done.group(1)))


class Suites:
    """Suites share clusters; what a suite needs is made when it is first asked for."""

    def __init__(self, options, machine, note):
        self.options, self.machine, self.note = options, machine, note
        self.clusters = {}
        self.segments = None
        self.store = None

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
        if self.store is not None:
            self.store.stop()
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
            before = tool.stored_bytes()
            measured = self.machine.measure([tool.backup()], server_pid=cluster.pid())
            self.note(suite=suite, tool=tool.name, round=number, **measured.row(),
                      stored=tool.stored_bytes() - before)

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
        self.back_up_and_restore("restore", chosen)

    def back_up_and_restore(self, suite, chosen):
        for tool in chosen:
            tool.prepare()
            self.machine.run("sh", "-c", tool.backup())
        self.restores(suite, chosen)

    def restores(self, suite, chosen):
        """Rounds of restores of the newest backups that the tools have."""
        target, used = self.machine.work / "restored", self.machine.work / "used"

        def body(tool, number):
            self.set_aside(target, used)
            self.machine.directory(target)
            measured = self.machine.measure([tool.restore(target)])
            self.note(suite=suite, tool=tool.name, round=number, **measured.row(),
                      stored=tree_bytes(target))
            if number == 0 and isinstance(tool, tools.Pgcairn):
                self.verify(tool.cluster, target)

        self.rounds(chosen, body)
        for path in (target, used):
            self.machine.directory(path, empty=True)

    def set_aside(self, path, used):
        """Emptied, but not deleted: ext4 keeps off inodes that were deleted in the last minutes, and the search for
        others was seen to take four tenths of a restore's CPU time, now more, now less."""
        if not path.exists():
            return
        for directory, _, names in os.walk(path):
            for name in names:
                os.truncate(os.path.join(directory, name), 0)
        self.machine.directory(used)
        path.rename(used / str(len(os.listdir(used))))

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

    def make_pool(self, pool, cluster):
        """As much of a data directory as push and get look at, without WAL."""
        self.machine.directory(pool, empty=True)
        for name in ("global", "pg_wal"):
            self.machine.directory(pool / name)
        for name in ("PG_VERSION", "global/pg_control"):
            shutil.copy(cluster.data / name, pool / name)
            self.machine.own(pool / name)

    def segment_pool(self):
        """What looks like a data directory, with real segments of a load in its pg_wal."""
        pool = self.machine.work / "pool"
        if self.segments:
            return pool, self.segments
        cluster = self.large()
        self.make_pool(pool, cluster)
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
        self.pushes("push", self.wal_tools(self.large()))

    def pushes(self, suite, chosen):
        pool, names = self.segment_pool()

        def body(tool, number):
            self.prepare_unarchived(tool)
            before = tool.stored_bytes()
            measured = self.push_all(tool, pool, names)
            self.note(suite=suite, tool=tool.name, round=number, **measured.row(),
                      stored=tool.stored_bytes() - before)

        self.rounds(chosen, body)

    def push_batch(self):
        """The same segments, all of them ready: ours in a batch, pgBackRest's asynchronous push."""
        pool, names = self.segment_pool()
        status = self.machine.directory(pool / "pg_wal" / "archive_status")

        def body(tool, number):
            self.prepare_unarchived(tool)
            measured = self.push_ready(tool, pool, names, status)
            self.note(suite="push-batch", tool=tool.name, round=number, **measured.row(),
                      stored=tool.stored_bytes())

        cluster = self.large()
        self.rounds([kind(self.machine, cluster)
                     for kind in (tools.PgcairnBatch, tools.PgBackRestAsyncPush)], body)
        shutil.rmtree(status)

    def push_ready(self, tool, pool, names, status):
        """All are ready before the first call, and done one by one, as the server has it."""
        for name in names:
            (status / f"{name}.done").unlink(missing_ok=True)
            self.machine.write(status / f"{name}.ready", "")
        return self.machine.measure([tool.push(f"pg_wal/{name}") for name in names],
                                    directory=pool, status=status)

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

    def get_prefetch(self):
        """The same, fetched ahead: back to back, with 60 ms of replay between, and in a real recovery."""
        pool, names = self.segment_pool()
        self.machine.directory(pool / "base")
        large = self.large()
        chosen = [kind(self.machine, large) for kind in
                  (tools.PgcairnPrefetch, tools.Pgcairn, tools.PgBackRestAsync)]
        for tool in chosen:
            self.prepare_unarchived(tool)
            for name in names:
                self.machine.run("sh", "-c", f"cd {pool} && {tool.push(f'pg_wal/{name}')}")

        def body(tool, number):
            arrival = "pg_wal/RECOVERYXLOG"
            for operation, pause_ms in (("back to back", 0), ("every 60 ms", 60)):
                self.machine.run("sh", "-c", f"cd {pool} && {tool.begin_recovery()}")
                measured = self.machine.measure([tool.get(name, arrival) for name in names],
                                                directory=pool, remove_first=arrival,
                                                pause_ms=pause_ms).row()
                # Processes in the background are others to us: their CPU is not the call's.
                del measured["quiet"]
                self.note(suite="get-prefetch", operation=operation, tool=tool.name, round=number,
                          **measured, stored=0)
                if number == 0:
                    self.compare(pool, names[-1])

        self.rounds(chosen, body)
        self.recovery(chosen)

    def recovery(self, chosen):
        """A copy of the cluster replays a load; how long it waited for WAL, of all its replay."""
        large = self.large()
        for tool in chosen:
            self.prepare_unarchived(tool)  # it archives a little: that must not lie behind the load
        copy = Cluster(self.machine, "recovering", self.options.pg)
        self.machine.directory(copy.home, empty=True)
        kept = self.machine.work / "recovery-wal"
        self.make_pool(kept, large)
        keep = f"cp %p {kept}/pg_wal/%f"
        large.archive_with(keep)
        base = self.machine.work / "recovery-base"
        self.machine.run(large.bin / "pg_basebackup", "-d", large.conninfo(), "-D", base,
                         "-c", "fast", "-X", "none")
        large.load(RECOVERY_LOAD_SECONDS)
        large.archive_with("/bin/true")
        large.sql("SELECT pg_switch_wal()")
        names = names_in(kept)
        for tool in chosen:
            for name in names:
                self.machine.run("sh", "-c", f"cd {kept} && {tool.push(f'pg_wal/{name}')}")

        def body(tool, number):
            self.machine.directory(copy.home, empty=True)
            self.machine.run("cp", "-a", base, copy.data)
            walls = copy.home / "walls"
            with open(copy.data / "postgresql.conf", "a", encoding="utf-8") as conf:
                line = f"{self.machine.programs}/timed -a {walls} {shlex.quote(tool.get('%f', '%p'))}"
                line = line.replace("'", "''")
                conf.write(f"unix_socket_directories = '{copy.home}'\narchive_mode = off\n"
                           f"restore_command = '{line}'\n"
                           "log_line_prefix = '%n '\n")
            self.machine.write(copy.data / "recovery.signal", "")
            self.machine.wait_until_quiet()
            copy.start()
            while copy.sql("SELECT pg_is_in_recovery()") == "t":
                time.sleep(0.1)
            copy.stop()
            replayed, calls = calls_of_redo(copy.log.read_text(encoding="utf-8"),
                                            walls.read_text(encoding="utf-8"))
            self.note(suite="get-prefetch", operation="recovery", tool=tool.name, round=number,
                      wall=replayed, waited=round(sum(calls), 3), calls=len(calls),
                      share=round(sum(calls) / replayed, 4),
                      p50_ms=round(calls[len(calls) // 2] * 1e3, 2),
                      p99_ms=round(calls[int((len(calls) - 1) * 0.99)] * 1e3, 2))

        self.rounds(chosen, body)
        for path in (base, kept):
            self.machine.directory(path, empty=True)

    def compare(self, pool, name):
        arrived, original = pool / "pg_wal" / "RECOVERYXLOG", pool / "pg_wal" / name
        if arrived.read_bytes() != original.read_bytes():
            raise CommandFailed(f"{name} came back changed")

    # -- encrypted, and off the machine

    def encryption(self):
        """Ours encrypted beside ours plain: a full backup, a restore, 64 segments one by one."""
        large = self.large()
        kinds = [tools.PgcairnEncrypted, tools.Pgcairn]
        self.backups("encryption-full", large, kinds)
        self.back_up_and_restore("encryption-restore", [kind(self.machine, large) for kind in kinds])
        self.pushes("encryption-push", [kind(self.machine, large) for kind in kinds])

    def start_store(self):
        """Ceph's gateway on this machine, its objects in memory."""
        if self.store is None:
            self.store = servers.start("ceph", self.machine.work / "store")
        return self.store

    def store_cpu_seconds(self):
        return sum(tree_cpu_seconds(daemon.process.pid) for daemon in self.store.daemons)

    def beside_store(self, work):
        """A measurement's row, the server's CPU told apart: it is neither the tool's nor a stranger's."""
        before = self.store_cpu_seconds()
        row = work().row()
        cpu_store = self.store_cpu_seconds() - before
        others = max(0.0, row["cpu_other"] - cpu_store)
        return {**row, "cpu_other": round(others, 3), "cpu_store": round(cpu_store, 3),
                "quiet": others < 0.25 * row["wall"] + 0.05}

    def s3(self):
        """A full backup into Ceph on this machine, beside one on disk, and what Ceph takes for the same bytes."""
        large, store = self.large(), self.start_store()
        disk = tools.Pgcairn(self.machine, large)
        disk.prepare()
        self.machine.run("sh", "-c", disk.backup())
        files = self.machine.directory(self.machine.work / "s3-files", empty=True)
        self.machine.run("cp", "-r", f"{disk.repository}/.", files)
        chosen = [tools.PgcairnS3(self.machine, large, store), disk,
                  tools.S3Floor(self.machine, large, store, files)]

        def body(tool, number):
            tool.prepare()
            large.sql("CHECKPOINT")
            before = tool.stored_bytes()
            row = self.beside_store(lambda: self.machine.measure([tool.backup()], server_pid=large.pid()))
            self.note(suite="s3", tool=tool.name, round=number, **row, stored=tool.stored_bytes() - before)
            if number == 0 and tool is chosen[0]:
                self.restore_and_verify(tool)

        self.rounds(chosen, body)
        self.machine.directory(files, empty=True)

    def idle_segments(self):
        """A data directory with 256 segments of a server that has little to write: each was ended by a switch."""
        pool, cluster = self.machine.work / "idle-pool", self.large()
        self.make_pool(pool, cluster)
        keep = f"cp %p {pool}/pg_wal/%f"
        cluster.archive_with(keep)
        cluster.sql("CREATE TABLE IF NOT EXISTS little (n int, body text)")
        for _ in range(S3_SEGMENTS + 1):
            cluster.sql("INSERT INTO little SELECT n, md5(n::text) FROM generate_series(1, 300) n;"
                        "SELECT pg_switch_wal()")
        while len(names_in(pool)) < S3_SEGMENTS + 1:
            time.sleep(0.1)
        cluster.wait_archived(keep)
        cluster.archive_with("/bin/true")
        return pool, names_in(pool)[1:S3_SEGMENTS + 1]

    def s3_push(self):
        """256 segments into Ceph, 30 ms more for each request: one by one, and 16 at a time."""
        large, store = self.large(), self.start_store()
        pool, names = self.idle_segments()
        status = self.machine.directory(pool / "pg_wal" / "archive_status")
        proxy = FaultProxy(self.machine.work / "delay", store.plain_port, store.certificates.server)
        proxy.set(delay=100, delay_ms=S3_LATENCY_MS)
        chosen = [kind(self.machine, large, store, proxy.endpoint)
                  for kind in (tools.PgcairnS3Parallel, tools.PgcairnS3OneByOne)]

        def body(tool, number):
            self.prepare_unarchived(tool)
            proxy.forget()
            row = self.beside_store(lambda: self.push_ready(tool, pool, names, status))
            requests = len(proxy.requests())
            self.note(suite="s3-push", tool=tool.name, round=number, **row, requests=requests,
                      stored=tool.stored_bytes())
            missing = set(names) - {name.rsplit("/", 1)[-1] for name in store.client().list(tool.bucket)}
            if missing:
                raise CommandFailed(f"{len(missing)} segments are not in the bucket")

        try:
            self.rounds(chosen, body)
        finally:
            proxy.stop()
        shutil.rmtree(pool)

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
       "push": Suites.push, "push-batch": Suites.push_batch,
       "push-module": served.push_module, "receive": served.receive, "get": Suites.get,
       "get-prefetch": Suites.get_prefetch, "incr-random": Suites.incr_random,
       "incr-local": Suites.incr_local, "incr-nothing": Suites.incr_nothing,
       "chain": Suites.chain, "encryption": Suites.encryption, "s3": Suites.s3,
       "s3-push": Suites.s3_push, "memory": Suites.memory, "files": Suites.files,
       "catalog": Suites.catalog}
