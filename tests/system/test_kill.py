"""backup and restore, killed at any system call: nothing half done is ever taken for whole.

The commit of a backup is killed before every single call. The rest of backup, and restore, are
killed and terminated at the first, middle and last call of each kind and at random ones:
PGCAIRN_KILL_POINTS says at how many, PGCAIRN_KILL_SEED repeats a run. PGCAIRN_TEST_SHORT=1 kills at
fewer, and at every third call of the commit, but at all around its very moment.
"""

import collections
import itertools
import os
import pathlib
import random
import re
import shutil
import tempfile

import pytest

from support.cluster import make_directory, pg_bin, remove_tree
from support.compare import verify_backup
from support.inject import injecting, read_threads, tracing, was_hit
from support.kill_points import FROM_THE_SERVER, NOT_WAITED_FOR, SHORT, UNSTEADY, Candidates, check_status, report
from support.pgcairn import INTERRUPTED, OK, REFUSED
from support.process import must, run, wait_until

POINTS = int(os.environ.get("PGCAIRN_KILL_POINTS", "8" if SHORT else "24"))
SEED = int(os.environ.get("PGCAIRN_KILL_SEED", random.randrange(1 << 32)))
LONG = POINTS >= 100
MARKER = ".pgcairn-restore-in-progress"
COMMITTED = ("wal-complete", "verified", "copied")


class Bench:
    """A small cluster that archives, and its repository."""

    def __init__(self, workshop):
        self.shop = workshop
        self.server, self.pgcairn = workshop.archiving_server(wal_segsize=1)
        self.server.sql("UPDATE pg_database SET datistemplate = false")
        for name in ("template0", "template1"):
            self.server.sql(f"DROP DATABASE {name}")
        self.server.sql("CREATE TABLE t AS SELECT n, md5(n::text) AS body "
                        "FROM generate_series(1, 5000) AS n")
        self.trace = workshop.new_directory() / "trace"
        self.attempts = self.pgcairn.repository / "c/main/b"

    def run(self, command, *words):
        return run(*words, *self.pgcairn.command(*command))

    def undisturbed(self, command, follow=True):
        """Each thread's calls of a run that nothing disturbs."""
        result = self.run(command, *tracing(self.trace, follow=follow))
        assert result.returncode == OK, result.stderr
        return read_threads(self.trace)

    def disturb(self, command, call, signal, follow=True):
        """Result of a run with the signal, and whether that came."""
        result = self.run(command, *injecting(self.trace, signal, call, follow))
        return result, was_hit(self.trace)

    # -- backups

    def committed(self):
        """Backups that info takes for whole, by id; there is nothing between these and none."""
        listed = self.pgcairn.backups()
        for backup in listed:
            assert backup["state"] in (*COMMITTED, "unfinished", "revoked"), backup
        return {backup["id"] for backup in listed if backup["state"] in COMMITTED}

    def attempt_names(self):
        return {path.name for path in self.attempts.iterdir()} if self.attempts.exists() else set()

    def temporary_files(self, attempt):
        """Not that of the intent: without one nobody can say whose an attempt was, so it stays."""
        return [path for path in (self.attempts / attempt).rglob(".*") if path.is_file()
                and not path.name.startswith(".intent")]

    def has_its_wal(self, backup):
        return any(known["id"] == backup for known in self.pgcairn.backups("wal-complete", "verified"))

    def restore_whole(self, backup):
        """A backup that is visible gives a whole data directory, as soon as its WAL is archived."""
        wait_until(f"{backup} has its WAL", lambda: self.has_its_wal(backup))
        target = self.shop.new_directory()
        restored = self.pgcairn.restore(target, "--set", backup, "--type=none", "--as=clone")
        verify_backup(restored.data)
        remove_tree(target)

    def examine(self):
        """Without any repair: the next backup works, and everything that is there is whole."""
        made = self.pgcairn.backup()
        committed = self.committed()
        assert made["bid"] in committed
        for attempt in self.attempt_names() - committed:
            # Packs stay: they are salvage, and then a collector's business.
            assert not self.temporary_files(attempt), "left by a dead attempt"
        self.pgcairn.run("verify")
        return made["bid"]

    def start_over(self):
        """One backup that stands alone, by id: after dead attempts it might rest on packs of theirs."""
        self.forget_backups_but(set())
        return {self.examine()}

    def forget_backups_but(self, kept):
        """Back to an earlier state, so that runs make the same calls again."""
        for name in self.attempt_names() - kept:
            remove_tree(self.attempts / name)


@pytest.fixture(scope="module")
def bench(module_workshop):
    print(f"PGCAIRN_KILL_POINTS={POINTS} PGCAIRN_KILL_SEED={SEED}")
    return Bench(module_workshop)


def backup(*more):
    return ("backup", "--type=full", "--start-fast", *more)


# -- backup


# What comes after a commit, collecting, is test_collect_kill.py's.
COMMITTING = backup("--jobs=1", "--no-expire")


def commit_calls(bench, kept):
    """Calls from the one that makes the refs' temporary file on, and which of them links the fate.

    Only the first thread: the others have ended by then. Two runs have to agree on the counts up to that one;
    what comes after it looks for WAL, as often as the archiver makes it.
    """
    phases = []
    for _ in range(2):
        (calls,) = bench.undisturbed(COMMITTING, follow=False).values()
        bench.forget_backups_but(kept)
        first = next(index for index, call in enumerate(calls)
                     if call.name == "openat" and '".refs.' in call.arguments)
        phases.append([call for call in calls[first:] if call.name not in UNSTEADY | FROM_THE_SERVER])
    same = [call for call in phases[1]
            if call[:2] in {other[:2] for other in phases[0]}]
    assert link_of(same) >= 0.95 * link_of(phases[1])
    return same, link_of(same)


def link_of(calls):
    return next(index for index, call in enumerate(calls)
                if call.name == "linkat" and '"fate"' in call.arguments)


def shape(directory):
    """What an attempt consists of, with what is random in names left out."""
    return tuple(sorted((re.sub(r"[0-9a-f]{16}", "#", str(path.relative_to(directory))),
                         path.stat().st_nlink, path.stat().st_size // 64)
                        for path in directory.rglob("*") if path.is_file()))


def test_backup_killed_at_any_call_of_its_commit_is_whole_or_not_there(bench):
    kept = bench.start_over()
    calls, link = commit_calls(bench, kept)
    outcomes = collections.Counter()
    shapes = set()
    killed = misplaced = 0
    for index, call in enumerate(calls):
        if SHORT and index % 3 != SEED % 3 and abs(index - link) > 3:
            continue
        killed += 1
        result, hit = bench.disturb(COMMITTING, call, "KILL", follow=False)
        check_status(result, "KILL", hit, call)
        (attempt,) = bench.attempt_names() - kept
        visible = bench.committed() - kept
        assert visible <= {attempt}
        assert visible or result.returncode != OK, call
        misplaced += bool(visible) != (index > link)
        outcomes["killed" if hit else "done", "visible" if visible else "not visible"] += 1
        # Most calls change nothing: each state that the disk can be left in is examined once.
        state = (bool(visible), shape(bench.attempts / attempt))
        if state not in shapes:
            shapes.add(state)
            if visible:
                bench.restore_whole(attempt)
            bench.examine()
        bench.forget_backups_but(kept)
    report(f"commit of backup, {killed} of {len(calls)} calls, {len(shapes)} states", outcomes)
    # A call whose count was off by one in a run was killed one call away from where it was meant.
    assert misplaced <= max(killed // 20, 1)
    assert outcomes["killed", "not visible"] > (10 if SHORT else 30), outcomes
    assert outcomes["killed", "visible"] > (3 if SHORT else 10), outcomes
    assert len(shapes) >= (4 if SHORT else 8)


def test_backup_terminated_during_its_commit_finishes_it(bench):
    """Once the last data is asked for nothing is gained by giving up."""
    kept = bench.start_over()
    calls, _ = commit_calls(bench, kept)
    for call in calls[:-1] if LONG else random.Random(SEED).sample(calls[:-1], 8):
        result, hit = bench.disturb(COMMITTING, call, "TERM", follow=False)
        assert len(bench.committed() - kept) == 1, call
        assert result.returncode == OK or (hit and NOT_WAITED_FOR in result.stderr), result.stderr
        bench.forget_backups_but(kept)


def test_backup_ended_at_any_moment_leaves_nothing_or_a_whole_one(bench):
    kept = bench.start_over()
    candidates = Candidates([bench.undisturbed(backup()) for _ in range(2)])
    known = bench.committed()
    outcomes = collections.Counter()
    points = candidates.choose(random.Random(SEED), POINTS, of_each_kind=not SHORT)
    for number, (call, signal) in enumerate(points):
        where = f"{signal} at {call.name} {call.count}"
        before = bench.attempt_names()
        result, hit = bench.disturb(backup(), call, signal)
        points.hits += hit
        check_status(result, signal, hit, where)
        committed = bench.committed()
        assert known <= committed, where
        new = committed - known
        assert len(new) == 1 or not new and result.returncode != OK, where
        if result.returncode == INTERRUPTED:
            assert bool(new) == (NOT_WAITED_FOR in result.stderr), where
        if result.returncode == INTERRUPTED and not new:
            for attempt in bench.attempt_names() - before:
                assert not bench.temporary_files(attempt), where
        outcomes["hit" if hit else "missed", result.returncode,
                 "visible" if new else "not visible"] += 1
        known = committed
        if new:
            bench.restore_whole(*new)
        if number % 8 == 7:
            bench.examine()
            known = bench.start_over()
    bench.examine()
    report(f"backup, {points.tried} points", outcomes)
    assert points.are_enough(), outcomes


# -- restore


class RestoreBench:
    """Restores of one backup, each into a directory that is not there yet."""

    def __init__(self, bench, root):
        self.bench = bench
        self.shop = bench.shop
        self.root = root
        self.names = (f"c{number}" for number in itertools.count(1))
        bench.examine()

    def command(self, cluster, *more):
        return ("restore", "--to", cluster.data, *more)

    def new_cluster(self):
        return self.shop.cluster(self.root / next(self.names))

    @staticmethod
    def is_visible(cluster):
        return (cluster.data / "global/pg_control").exists()

    @staticmethod
    def check_whole(cluster):
        """A directory with pg_control is all that was asked for, though its marker may be left."""
        options = [f"--ignore={MARKER}"] if (cluster.data / MARKER).exists() else []
        must(pg_bin() / "pg_verifybackup", *options, cluster.data)
        assert (cluster.data / "recovery.signal").exists()
        settings = (cluster.data / "postgresql.auto.conf").read_text(encoding="utf-8")
        assert "restore_command" in settings

    def check_refuses_to_start(self, cluster):
        assert cluster.start_result(seconds=5).returncode != 0
        assert not cluster.is_running()

    def again(self, cluster, *more):
        self.bench.pgcairn.run(*self.command(cluster, *more))
        assert not (cluster.data / MARKER).exists()
        self.check_whole(cluster)

    def starts(self, cluster):
        cluster.start_restored()
        assert cluster.value("SELECT count(*) FROM t") == 5000

    def undisturbed(self):
        cluster = self.new_cluster()
        threads = self.bench.undisturbed(self.command(cluster))
        self.shop.discard(cluster)
        return threads


def root_for_restores(scratch_root):
    """In memory, but for long runs: restore syncs a file system, whoever else writes there."""
    memory = pathlib.Path("/dev/shm")
    if LONG or not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 200 << 20:
        memory = scratch_root
    return make_directory(tempfile.mkdtemp(prefix="pgcairn-", dir=memory), mode=0o755)


@pytest.fixture(scope="module")
def restores(bench, scratch_root):
    root = root_for_restores(scratch_root)
    yield RestoreBench(bench, root)
    for cluster in bench.shop.clusters:
        cluster.destroy()
    remove_tree(root)


def check_ended_restore(restores, cluster, result, where):
    """What every end leaves; whether the restore was done."""
    visible = restores.is_visible(cluster)
    assert visible or result.returncode != OK, where
    assert not (visible and result.returncode == INTERRUPTED), where
    if visible:
        restores.check_whole(cluster)
    return visible


def test_restore_killed_at_any_call_of_its_end_is_whole_or_does_not_start(restores):
    calls = list(restores.undisturbed().values())[0]
    first = next(index for index, call in enumerate(calls)
                 if call.name == "openat" and ".pg_control.pgcairn" in call.arguments)
    outcomes = collections.Counter()
    tail = [call for call in calls[first:] if call.name not in UNSTEADY]
    for call in tail:
        cluster = restores.new_cluster()
        result, hit = restores.bench.disturb(restores.command(cluster), call, "KILL", follow=False)
        check_status(result, "KILL", hit, call)
        visible = check_ended_restore(restores, cluster, result, call)
        outcomes["killed" if hit else "done", "visible" if visible else "not visible"] += 1
        if not visible:
            restores.check_refuses_to_start(cluster)
            restores.again(cluster)
        elif (cluster.data / MARKER).exists():
            # Whole, so it is no longer restore's to overwrite; and the marker is in nobody's way.
            restores.bench.pgcairn.run(*restores.command(cluster), expect=REFUSED)
            if not outcomes["started", "with marker"]:
                outcomes["started", "with marker"] += 1
                restores.starts(cluster)
        restores.shop.discard(cluster)
    report(f"end of restore, {len(tail)} calls", outcomes)
    assert outcomes["killed", "not visible"] > 4 and outcomes["killed", "visible"] > 4, outcomes


def test_restore_ended_at_any_moment_never_looks_whole_and_can_be_repeated(restores):
    candidates = Candidates([restores.undisturbed() for _ in range(2)])
    outcomes = collections.Counter()
    points = candidates.choose(random.Random(SEED + 1), POINTS, of_each_kind=not SHORT)
    for number, (call, signal) in enumerate(points):
        where = f"{signal} at {call.name} {call.count}"
        cluster = restores.new_cluster()
        result, hit = restores.bench.disturb(restores.command(cluster), call, signal)
        points.hits += hit
        check_status(result, signal, hit, where)
        visible = check_ended_restore(restores, cluster, result, where)
        outcomes["hit" if hit else "missed", result.returncode,
                 "visible" if visible else "not visible"] += 1
        if not visible:
            if number % 5 == 0 and cluster.data.exists():
                restores.check_refuses_to_start(cluster)
            restores.again(cluster)
        if number % 25 == 0:
            restores.starts(cluster)
        restores.shop.discard(cluster)
    report(f"restore, {points.tried} points", outcomes)
    assert points.are_enough(), outcomes


def test_replacing_a_cluster_ended_at_any_moment_leaves_the_old_the_new_or_none(restores):
    """--as=original --force: old and new are whole where they are visible, and never mixed."""
    replace = ("--as=original", "--force")
    old = restores.new_cluster()
    restores.again(old)

    def make_old():
        cluster = restores.new_cluster()
        must("cp", "-a", old.data, cluster.data)
        return cluster

    traces = []
    for _ in range(2):
        cluster = make_old()
        traces.append(restores.bench.undisturbed(restores.command(cluster, *replace)))
        restores.shop.discard(cluster)
    outcomes = collections.Counter()
    points = Candidates(traces).choose(random.Random(SEED + 2), POINTS, of_each_kind=LONG)
    for call, signal in points:
        where = f"{signal} at {call.name} {call.count}"
        cluster = make_old()
        result, hit = restores.bench.disturb(restores.command(cluster, *replace), call, signal)
        points.hits += hit
        check_status(result, signal, hit, where)
        visible = restores.is_visible(cluster)
        is_new = visible and not (cluster.data / "pgcairn.identity").exists()
        assert is_new or result.returncode != OK, where
        if visible:
            restores.check_whole(cluster)
        outcomes["hit" if hit else "missed", result.returncode,
                 "new" if is_new else "old" if visible else "none"] += 1
        restores.again(cluster, *replace)
        restores.shop.discard(cluster)
    report(f"replacing a cluster, {points.tried} points", outcomes)
    assert points.are_enough(), outcomes
