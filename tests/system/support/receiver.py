"""`pgcairn wal receive` as a process that tests start, watch and kill, and what it brought."""

import signal

from support.cluster import lsn_number, make_directory
from support.pgcairn import OK
from support.process import wait_until

LOAD_TABLE = "CREATE TABLE load (n bigint PRIMARY KEY, filler text)"


class Receiver:
    """A receiver process, started again and again with the same options."""

    def __init__(self, pgcairn, directory, *options, slot="receive"):
        self.pgcairn = pgcairn
        self.spool = make_directory(directory)
        self.log = self.spool.parent / f"{self.spool.name}.log"
        self.options = ["--spool-path", self.spool, "--tail-interval=1",
                        *(["--slot", slot, "--create-slot"] if slot else []), *options]
        self.process = None

    def start(self, *more):
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = self.pgcairn.start("wal", "receive", *self.options, *more, stderr=log)
        return self

    def output(self):
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def says(self, text, seconds=60):
        wait_until(f"the receiver says '{text}'", lambda: text in self.output(), seconds)
        return self

    def ends(self, seconds=60):
        """Its exit code."""
        return self.process.wait(timeout=seconds)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.ends()
        assert code == OK, self.output()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()


def server_with_receiver(workshop, receivers, *options, name=None, settings=None, **more):
    """A running server, an initialised repository, and a receiver that streams."""
    cluster = workshop.server(name, wal_segsize=1, settings=settings)
    pgcairn = workshop.pgcairn(cluster, name=f"{cluster.directory.name}-repo")
    pgcairn.init()
    receiver = receivers(pgcairn, *options, **more).start().says("receiving from")
    return cluster, pgcairn, receiver


def segments(pgcairn, timeline=1):
    return [path.name for path in pgcairn.objects(f"c/main/w/*/{timeline:08X}/*/*")
            if len(path.name) == 24]


def pieces(pgcairn):
    return [path.name for path in pgcairn.objects("c/main/w/*/*/*/*.tail.*")]


def fill(cluster, rows=3000):
    cluster.sql("INSERT INTO load SELECT (SELECT coalesce(max(n), 0) FROM load) + s, "
                "repeat('x', 300) FROM generate_series(1, %s) AS s", rows)


def is_gapless(names):
    numbers = [int(name[8:16], 16) * 4096 + int(name[16:], 16) for name in sorted(names)]
    return numbers == list(range(numbers[0], numbers[-1] + 1))


def flush_lsn(cluster):
    """What the server was told is safe: by a connection that may end already, and the next one beside it."""
    told = cluster.sql("SELECT max(flush_lsn) FROM pg_stat_replication WHERE application_name LIKE 'pgcairn%%'")[0][0]
    return lsn_number(told) if told else 0


def wait_gone(cluster):
    """A receiver that has ended is gone for the server, too, which may see it a moment later."""
    wait_until("no walsender is left", lambda: not cluster.value(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'"))


def wait_flushed(cluster):
    lsn = lsn_number(cluster.value("SELECT pg_current_wal_flush_lsn()"))
    wait_until("all WAL is acknowledged", lambda: flush_lsn(cluster) >= lsn)
    return lsn


def wait_stored(pgcairn, name):
    wait_until(f"{name} is stored", lambda: name in segments(pgcairn))


def pieces_reach(pgcairn, receiver, lsn):
    """A condition: info says that recovery reaches this position."""
    def reaches():
        recoverable = pgcairn.info()["recoverable"]
        return recoverable and lsn_number(recoverable["to_lsn"]) >= lsn
    assert receiver
    return reaches
