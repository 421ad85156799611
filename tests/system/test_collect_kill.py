"""Incrementals, expire and collect, killed at any system call: what is not expired stays whole.

kill -9 at calls of each kind and at random ones; PGCAIRN_KILL_POINTS says at how many random ones,
PGCAIRN_KILL_SEED repeats a run, PGCAIRN_KILL_ALL=1 kills at every single call.
"""

import collections
import os
import random
import re

import pytest

from support.cluster import remove_tree
from support.compare import verify_backup
from support.inject import injecting, read_threads, tracing, was_hit
from support.kill_points import SHORT, Candidates, check_status, report
from support.pgcairn import OK, Pgcairn
from support.process import must, run

POINTS = int(os.environ.get("PGCAIRN_KILL_POINTS", "2" if SHORT else "4"))
SEED = int(os.environ.get("PGCAIRN_KILL_SEED", random.randrange(1 << 32)))
ALL = os.environ.get("PGCAIRN_KILL_ALL", "0") != "0"

# What of the file system changes by these is what a crash may leave half done.
WRITING = {"linkat", "unlinkat", "fsync", "fdatasync", "syncfs", "mkdirat"}

COLLECT = ("collect", "--grace=0s", "--force")
INCREMENTAL = ("backup", "--type=incr", "--start-fast")


def tree(repository):
    """Names and sizes, with what is drawn at random left out."""
    return sorted((re.sub(r"(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])", "#",
                          str(path.relative_to(repository))), path.stat().st_size)
                  for path in repository.rglob("*") if path.is_file())


def points_of(traces):
    """Calls to be killed at: all there are, or those that change the disk and a sample of the others."""
    candidates = Candidates(traces)
    calls = list(dict.fromkeys(call._replace(arguments="") for call in candidates.calls))
    if ALL:
        return calls
    chance = random.Random(SEED)
    kinds = collections.defaultdict(list)
    for call in sorted(calls):
        kinds[call.name].append(call)
    chosen = []
    for name, same in kinds.items():
        if name in WRITING:
            chosen += [same[0], same[len(same) // 2], same[-1]]
    chosen += [chance.choice(same) for same in chance.sample(list(kinds.values()),
                                                            min(POINTS, len(kinds)))]
    chosen += chance.choices(calls, k=POINTS)
    return list(dict.fromkeys(chosen))


class Bench:
    """A small cluster, its repository with a full backup and four incrementals, and copies of that."""

    def __init__(self, shop):
        self.shop = shop
        self.server, self.pgcairn = shop.archiving_server("source", wal_segsize=1)
        self.server.sql("UPDATE pg_database SET datistemplate = false")
        for name in ("template0", "template1"):
            self.server.sql(f"DROP DATABASE {name}")
        self.server.sql("CREATE TABLE t AS SELECT n, repeat(md5(n::text), 8) AS body, 0 AS changed "
                        "FROM generate_series(1, 6000) n")
        self.server.sql("CHECKPOINT")
        self.made = [self.pgcairn.backup()]
        for number in range(1, 5):
            self.change(number)
            if number == 3:
                # Nothing is where it was, so that the packs of the second incremental can go as a whole.
                self.server.sql("VACUUM FULL")
            self.made.append(self.pgcairn.json(*INCREMENTAL))
        self.bids = [made["bid"] for made in self.made]
        self.server.archive_all()
        self.trace = shop.new_directory() / "trace"

    def change(self, number):
        """Pages all over the table, so that every backup holds some that the next ones refer to."""
        self.server.sql("UPDATE t SET changed = %s WHERE n %% 40 = %s", number, number)
        self.server.sql("CHECKPOINT")

    def copy(self, other):
        """A repository like another one, to be spoilt."""
        directory = self.shop.directory / "copy"
        if directory.exists():
            remove_tree(directory)
        copy = Pgcairn(self.shop.programs, directory, None)
        must("cp", "-a", other.repository, copy.repository)
        return copy

    # -- running

    def traced(self, pgcairn, command):
        result = run(*tracing(self.trace), *pgcairn.command(*command))
        assert result.returncode == OK, result.stderr
        return read_threads(self.trace)

    def kill(self, pgcairn, call, command):
        result = run(*injecting(self.trace, "KILL", call), *pgcairn.command(*command))
        hit = was_hit(self.trace)
        check_status(result, "KILL", hit, call)
        return result, hit

    # -- judging

    def check_whole(self, pgcairn, bids):
        """All that is there is verified in full, and these are restored."""
        pgcairn.run("verify")
        for bid in bids:
            target = self.shop.new_directory()
            restored = pgcairn.restore(target, "--set", bid, "--type=immediate", "--as=clone")
            verify_backup(restored.data)
            remove_tree(target)


def living(pgcairn):
    return [backup["id"] for backup in pgcairn.backups("copied", "wal-complete", "verified")]


@pytest.fixture(scope="module")
def bench(module_workshop):
    print(f"PGCAIRN_KILL_POINTS={POINTS} PGCAIRN_KILL_SEED={SEED} PGCAIRN_KILL_ALL={int(ALL)}")
    return Bench(module_workshop)


# -- backup --type=incr


def test_an_incremental_killed_at_any_call_is_whole_or_not_there_and_salvaged(bench):
    """What was durable when it died is not stored again by the next one."""
    bench.change(5)
    source = bench.pgcairn
    attempts = source.repository / "c/main/b"
    kept = set(bench.bids)

    def forget():
        for path in attempts.iterdir():
            if path.name not in kept:
                remove_tree(path)

    traces = []
    for _ in range(2):
        traces.append(bench.traced(source, INCREMENTAL))
        forget()
    outcomes = collections.Counter()
    shapes = set()
    points = points_of(traces)
    for call in points:
        where = f"killed at {call.name} {call.count}"
        result, hit = bench.kill(source, call, INCREMENTAL)
        new = {path.name for path in attempts.iterdir()} - kept
        visible = set(living(source)) - kept
        assert kept <= set(living(source)), where
        assert visible <= new and len(new) <= 1, where
        assert visible or result.returncode != OK, where
        durable = [pack for bid in new - visible for pack in attempts.glob(f"{bid}/p/*/*")
                   if not pack.name.startswith(".")]
        kind = "whole" if visible else "with packs" if durable else "without packs"
        outcomes["hit" if hit else "missed", kind] += 1
        # Most calls change nothing: each state that the repository can be left in is examined once.
        shape = tuple(tree(attempts))
        if shape not in shapes:
            shapes.add(shape)
            made = source.json(*INCREMENTAL)
            assert made["type"] == "incr" and made["state"] == "wal-complete", where
            if durable:
                assert made["pages_salvaged"] > 0, where
                outcomes["salvaged", ""] += 1
            elif not visible:
                assert made["pages_salvaged"] == 0, where
            bench.check_whole(source, [made["bid"], *visible])
        forget()
    report(f"incremental, {len(points)} points, {len(shapes)} states", outcomes)
    assert outcomes["hit", "without packs"] and outcomes["hit", "with packs"], outcomes
    assert outcomes["salvaged", ""], outcomes
    source.json(*INCREMENTAL)
    bench.check_whole(source, bench.bids)


# -- expire and collect


class Stage:
    """A command on a repository in a certain state, and where its undisturbed run leads to."""

    def __init__(self, bench, name, before, command, rest):
        self.bench = bench
        self.name = name
        self.command = command
        self.rest = rest
        self.before = Pgcairn(bench.shop.programs, bench.shop.directory / f"before {name}", None)
        must("cp", "-a", before.repository, self.before.repository)

    def traces(self):
        return [self.bench.traced(self.bench.copy(self.before), self.command) for _ in range(2)]


def finish(pgcairn, commands):
    for command in commands:
        pgcairn.run(*command)


def packs(pgcairn):
    return {str(path.relative_to(pgcairn.repository)) for path in pgcairn.objects("c/main/b/*/[pm]/*/*")
            if not path.name.startswith(".")}


def graves(pgcairn):
    return {str(path.relative_to(pgcairn.repository)) for path in pgcairn.objects("c/main/b/*/fate")}


@pytest.fixture(scope="module")
def stages(bench):
    """The first and one in the middle go; the maps of the others refer to what the first stored."""
    gone = [bench.bids[index] for index in (0, 2)]
    expires = [("expire", "--set", bid) for bid in gone]
    policy = ("expire", "--retention", "last 2")
    found = []
    work = Pgcairn(bench.shop.programs, bench.shop.directory / "work", None)
    must("cp", "-a", bench.pgcairn.repository, work.repository)
    found.append(Stage(bench, "expire", work, expires[0], [expires[1], COLLECT, COLLECT]))
    found.append(Stage(bench, "expire by policy", work, policy, [policy, COLLECT, COLLECT]))
    finish(work, expires)
    # Expiry has condemned; this deletes, and condemns what is left.
    found.append(Stage(bench, "collect", work, COLLECT, [COLLECT, COLLECT]))
    return {stage.name: stage for stage in found}


@pytest.mark.parametrize("name", ["expire", "expire by policy", "collect"])
def test_expiry_killed_at_any_call_harms_no_other_backup_and_can_be_repeated(bench, stages, name):
    stage = stages[name]
    whole = bench.copy(stage.before)
    finish(whole, [stage.command, *stage.rest])
    goal, stay, fates = packs(whole), set(living(whole)), graves(whole)
    assert goal < packs(stage.before) and 0 < len(stay) < len(bench.bids)

    outcomes = collections.Counter()
    shapes = set()
    chance = random.Random(SEED)
    points = points_of(stage.traces())
    for call in points:
        where = f"killed at {call.name} {call.count}"
        copy = bench.copy(stage.before)
        result, hit = bench.kill(copy, call, stage.command)
        outcomes["hit" if hit else "missed", result.returncode] += 1
        shape = tuple(tree(copy.repository))
        if shape in shapes:
            continue
        shapes.add(shape)
        now = living(copy)
        assert stay <= set(now) <= set(living(stage.before)), where
        bench.check_whole(copy, now)
        # The next run finishes, without any repair. An expire that was done is refused the second time.
        copy.run(*stage.command, expect=None)
        finish(copy, stage.rest)
        assert set(living(copy)) == stay, where
        assert packs(copy) == goal, where
        assert graves(copy) == fates, "fates are never deleted"
        bench.check_whole(copy, [chance.choice(sorted(stay))])
    report(f"{name}, {len(points)} points, {len(shapes)} states", outcomes)
    hits = sum(number for what, number in outcomes.items() if what[0] == "hit")
    assert hits >= 0.75 * len(points), outcomes
    assert len(shapes) >= 2
