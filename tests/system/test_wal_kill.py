"""push and get, killed at every single system call they make.

strace counts the calls of one undisturbed run, then one run for each of them gets a signal just
before that call. Whatever the moment: what has a final name is whole, and trying again works.
"""

import collections
import hashlib
import os
import shutil

import pytest

from support.cluster import make_directory, remove_tree
from support.inject import KILLED, Call, first_thread, handles_signals, injecting, tracing
from support.process import run

SEGMENT_SIZE = 1 << 20


class Bench:
    """A data directory with one segment, and a repository that can be put back to how it was."""

    def __init__(self, workshop):
        cluster, self.pgcairn = workshop.archiving_server(wal_segsize=1)
        cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 5000) AS n")
        cluster.archive_all()
        cluster.stop()
        objects = [path for path in self.pgcairn.objects("c/main/w/*/00000001/*/*")
                   if len(path.name) == 24]
        self.object = max(objects, key=lambda path: path.stat().st_size)
        self.timeline = self.object.parents[1]
        self.data = make_directory(workshop.directory / "data")
        for below in ("global", "pg_wal"):
            make_directory(self.data / below)
        shutil.copy(cluster.data / "global/pg_control", self.data / "global/pg_control")
        self.target = self.data / "pg_wal/RECOVERYXLOG"
        self.segment = self.data / "pg_wal" / self.object.name
        self.give_away()
        self.get()
        self.content = self.target.read_bytes()
        self.target.rename(self.segment)
        self.environment = {"PGCAIRN_CONFIG": self.pgcairn.config}
        self.trace = workshop.directory / "trace"

    def give_away(self):
        if os.geteuid() == 0:
            for path in [self.data, *self.data.rglob("*")]:
                shutil.chown(path, "postgres", "postgres")

    def get(self):
        self.pgcairn.get(self.object.name, self.target)

    def run(self, command, *words):
        return run(*words, self.pgcairn.programs.wal, *command, cwd=self.data, env=self.environment)

    def calls(self, command):
        """Every call of an undisturbed run, without those of the watchdog's thread, which sleeps."""
        result = self.run(command, *tracing(self.trace))
        assert result.returncode == 0, result.stderr
        return first_thread(self.trace)

    def disturb(self, command, signal, name, count):
        call = Call(name, count, "")
        return self.run(command, *injecting(self.trace, signal, call)).returncode

    def leftovers(self):
        return [path for path in [*self.timeline.glob("**/.*"),
                                  *self.data.glob("pg_wal/*.pgcairn")]]

    def forget_object(self):
        remove_tree(self.timeline)

    def check_object(self):
        """Absent or whole: an object ends with the SHA-256 of all that comes before it."""
        if self.object.exists():
            content = self.object.read_bytes()
            assert hashlib.sha256(content[:-32]).digest() == content[-32:]
            return True
        return False

    def check_target(self):
        if self.target.exists():
            assert self.target.read_bytes() == self.content
            return True
        return False


@pytest.fixture(scope="module")
def bench(module_workshop):
    return Bench(module_workshop)


def push(bench):
    return ("push", f"pg_wal/{bench.object.name}")


def get(bench):
    assert bench.run(push(bench)).returncode == 0
    return ("get", bench.object.name, "pg_wal/RECOVERYXLOG")


def split_at_start(calls):
    """Calls of the dynamic linker, and calls from where SIGTERM is caught on, both without arguments."""
    first = handles_signals(calls) - 1
    pairs = [(name, count) for name, count, _ in calls]
    return pairs[1:first], pairs[first:]


def test_push_killed_at_any_call_leaves_nothing_or_the_whole_segment(bench):
    bench.forget_object()
    before, started = split_at_start(bench.calls(push(bench)))
    outcomes = collections.Counter()
    for name, count in before + started:
        bench.forget_object()
        status = bench.disturb(push(bench), "KILL", name, count)
        assert status in (KILLED, 0), f"{name} {count}"
        present = bench.check_object()
        assert present or status == KILLED
        outcomes[status, present] += 1
        again = bench.run(push(bench))
        assert again.returncode == 0, f"{name} {count}: {again.stderr}"
        assert bench.check_object()
    bench.get()
    assert bench.check_target()
    bench.target.unlink()
    # Both sides of the moment at which the segment gets its name were seen.
    assert outcomes[KILLED, False] > 20 and outcomes[KILLED, True] > 2, outcomes


def test_push_ended_by_sigterm_at_any_call_exits_tidily(bench):
    bench.forget_object()
    _, started = split_at_start(bench.calls(push(bench)))
    outcomes = collections.Counter()
    for name, count in started[1:]:
        bench.forget_object()
        status = bench.disturb(push(bench), "TERM", name, count)
        assert status in (0, 1), f"{name} {count}"
        assert bench.check_object() or status == 1
        assert not bench.leftovers(), f"{name} {count}"
        outcomes[status] += 1
    assert outcomes[0] > 2 and outcomes[1] > 20, outcomes
    assert bench.run(push(bench)).returncode == 0


def test_get_killed_at_any_call_leaves_nothing_or_the_whole_segment(bench):
    command = get(bench)
    before, started = split_at_start(bench.calls(command))
    outcomes = collections.Counter()
    for name, count in before + started:
        bench.target.unlink(missing_ok=True)
        status = bench.disturb(command, "KILL", name, count)
        assert status in (KILLED, 0), f"{name} {count}"
        present = bench.check_target()
        assert present or status == KILLED
        outcomes[status, present] += 1
    assert outcomes[KILLED, False] > 20 and outcomes[KILLED, True] > 0, outcomes
    for path in bench.leftovers():
        path.unlink()
    bench.get()
    assert bench.check_target()


def test_get_ended_by_sigterm_at_any_call_never_says_absent(bench):
    command = get(bench)
    _, started = split_at_start(bench.calls(command))
    outcomes = collections.Counter()
    for name, count in started[1:]:
        bench.target.unlink(missing_ok=True)
        status = bench.disturb(command, "TERM", name, count)
        assert status in (0, 143), f"{name} {count}"
        assert bench.check_target() == (status == 0)
        assert not bench.leftovers(), f"{name} {count}"
        outcomes[status] += 1
    assert outcomes[0] > 2 and outcomes[143] > 20, outcomes
