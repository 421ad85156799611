"""WAL of a running server: its own archiver works off a backlog; a receiver follows a load."""

import contextlib
import os
import signal
import subprocess
import time

import tools
from machine import CommandFailed, busy_seconds, tree_cpu_seconds

BACKLOG_SEGMENTS = 64
RECEIVE_SECONDS = 20
DRAIN_SECONDS = 300


class Module(tools.PgcairnBatch):
    """Ours, as archive_library."""

    name = "pgcairn, module"

    def __init__(self, machine, cluster):
        super().__init__(machine, cluster)
        self.home = machine.work / "tools" / "pgcairn-module"
        self.repository, self.config = self.home / "repository", self.home / "pgcairn.conf"
        self.archive_command = f"{self.wal} push --config {self.config} %p"

    def archiving(self):
        return {"archive_library": str(self.machine.programs / "pgcairn_archive.so"),
                "archive_command": "", "pgcairn_archive.command": str(self.wal),
                "pgcairn_archive.config": str(self.config)}


class Batch(tools.PgcairnBatch):
    """Ours, as archive_command with a spool."""

    name = "pgcairn"

    def archiving(self):
        return {"archive_command": self.archive_command}


class PgBackRest(tools.PgBackRestAsyncPush):
    """As archive_command, with archive-async."""

    def archiving(self):
        return {"archive_command": self.archive_command}


def configure(cluster, settings):
    """Reloads the server with these; None takes one back."""
    for name, value in settings.items():
        quoted = None if value is None else value.replace("'", "''")
        cluster.sql(f"ALTER SYSTEM RESET {name}" if value is None
                    else f"ALTER SYSTEM SET {name} = '{quoted}'")
    cluster.sql("SELECT pg_reload_conf()")


def waiting(status):
    return sum(1 for name in os.listdir(status) if name.endswith(".ready") and len(name) == 30)


def make_backlog(cluster):
    """That many segments ready, and nobody who takes them."""
    status = cluster.data / "pg_wal" / "archive_status"
    configure(cluster, {"archive_command": "/bin/false"})
    time.sleep(1)
    while waiting(status) < BACKLOG_SEGMENTS:
        cluster.sql("CHECKPOINT")
        cluster.load(5)
    return status


def drain(status):
    """From the first segment that is taken to the last: (segments, seconds, CPU seconds of all)."""
    first = waiting(status)
    deadline = time.monotonic() + DRAIN_SECONDS
    while (left := waiting(status)) == first:
        if time.monotonic() > deadline:
            raise CommandFailed("the archiver takes nothing")
        time.sleep(0.002)
    begun, busy = time.monotonic(), busy_seconds()
    while waiting(status) > 0:
        if time.monotonic() > deadline:
            raise CommandFailed("the archiver does not come to an end")
        time.sleep(0.005)
    return left, time.monotonic() - begun, busy_seconds() - busy


def push_module(suites):
    """The server's own archiver works off 64 segments: module, command with a spool, pgBackRest."""
    cluster = suites.large()
    installed = suites.options.build / "module" / str(suites.options.pg) / "pgcairn_archive.so"
    suites.machine.install(installed)

    def body(tool, number):
        configure(cluster, {"archive_library": None})
        tool.prepare()
        status = make_backlog(cluster)
        suites.machine.wait_until_quiet()
        configure(cluster, tool.archiving())
        cluster.sql("SELECT pg_switch_wal()")
        try:
            segments, wall, cpu = drain(status)
        finally:
            configure(cluster, {"archive_library": None, "archive_command": "/bin/true"})
        suites.note(suite="push-module", tool=tool.name, round=number, wall=round(wall, 4),
                    cpu_tool=round(cpu, 3), cpu_server=0, calls=segments,
                    stored=tools.tree_bytes(tool.repository))

    suites.rounds([kind(suites.machine, cluster) for kind in (Module, Batch, PgBackRest)], body)


# -- receive


class Receiver(tools.Pgcairn):
    """Ours."""

    name = "pgcairn"

    def receive(self):
        return [self.program, "wal", "receive", "--config", self.config, "--slot", "bench",
                "--create-slot", "--spool-path", self.home / "spool"]


class PgReceivewal(tools.Tool):
    """PostgreSQL's own: lz4, a flush at the end of each segment, into a directory."""

    name = "pg_receivewal"

    def receive(self):
        words = [self.cluster.bin / "pg_receivewal", "-d", self.cluster.conninfo(), "-D",
                 self.repository, "--slot", "bench", "--no-password"]
        self.machine.run(*words, "--create-slot", "--if-not-exists")
        return [*words, "--compress=lz4"]


class Nobody(tools.Tool):
    """The load alone."""

    name = "nobody receives"


def transactions(output):
    for line in output.splitlines():
        if line.startswith("tps ="):
            return float(line.split()[2])
    raise CommandFailed(f"no rate in what pgbench said:\n{output}")


def behind(cluster):
    """Bytes that the receiver has not written; pg_receivewal flushes at a segment's end only."""
    text = cluster.sql("SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_flush_lsn(),"
                       " coalesce(write_lsn, '0/0'))), -1) FROM pg_stat_replication")
    return int(float(text))


def wait_for_receiver(cluster):
    deadline = time.monotonic() + 30
    while cluster.sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "0":
        if time.monotonic() > deadline:
            raise CommandFailed("the receiver does not stream")
        time.sleep(0.1)


def start_receiver(suites, tool):
    if isinstance(tool, Nobody):
        return None
    with open(tool.home / "log", "w", encoding="utf-8") as log:
        return subprocess.Popen(suites.machine.command(*tool.receive()), stdout=log, stderr=log)


def stop_receiver(process):
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=60)
    if process.poll() is None:
        process.kill()


def receive(suites):
    """A load of four clients while a receiver follows: its rate, the receiver's CPU, how far behind."""
    cluster = suites.large()

    def body(tool, number):
        tool.prepare()
        configure(cluster, {"archive_command": "/bin/true"})
        process = start_receiver(suites, tool)
        try:
            if process is not None:
                wait_for_receiver(cluster)
            cluster.sql("CHECKPOINT")
            suites.machine.wait_until_quiet()
            start = cluster.sql("SELECT pg_current_wal_lsn()")
            cpu = tree_cpu_seconds(process.pid) if process else 0
            output = suites.machine.run(cluster.bin / "pgbench", "-n", "-c", 4, "-T",
                                        RECEIVE_SECONDS, cluster.conninfo())
            ended = time.monotonic()
            left = behind(cluster) if process else 0
            while process and behind(cluster) > 0:
                if time.monotonic() - ended > 60:
                    raise CommandFailed("the receiver does not catch up")
                time.sleep(0.05)
            caught_up = time.monotonic() - ended
            cpu = tree_cpu_seconds(process.pid) - cpu if process else 0
            wal = int(float(cluster.sql(f"SELECT pg_current_wal_lsn() - '{start}'::pg_lsn")))
        finally:
            if process is not None:
                stop_receiver(process)
                cluster.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                            " WHERE slot_name = 'bench' AND NOT active")
        suites.note(suite="receive", tool=tool.name, round=number, tps=transactions(output),
                    seconds=RECEIVE_SECONDS, wal=wal, cpu=round(cpu, 3), left=left,
                    caught_up=round(caught_up, 3))

    suites.rounds([kind(suites.machine, cluster) for kind in (Receiver, PgReceivewal, Nobody)],
                  body)
