"""At which system calls a program is ended, and what it may answer."""

import collections
import itertools
import os

from support.inject import KILLED, TERMINATED, handles_signals
from support.pgcairn import INTERRUPTED, OK

# PGCAIRN_TEST_SHORT=1: fewer points, where another version of the server is tested beside one that
# has them all (tests/matrix).
SHORT = os.environ.get("PGCAIRN_TEST_SHORT", "0") not in ("", "0")

# What backup says when it is told to end after its commit.
NOT_WAITED_FOR = "is copied but not restorable yet"

# The allocator and the thread library make these, as often as they like: no points to aim at.
UNSTEADY = {"brk", "mmap", "munmap", "mprotect", "madvise", "futex", "rseq", "set_robust_list",
            "rt_sigprocmask", "sched_yield", "clock_nanosleep", "restart_syscall"}

# How many there are depends on how the server's data comes in.
FROM_THE_SERVER = {"poll", "recvfrom"}


class Candidates:
    """Calls that come in two undisturbed runs, after signals are handled."""

    def __init__(self, traces):
        self.before = collections.Counter()
        reached = []
        self.calls = []
        for threads in traces:
            most = collections.Counter()
            for number, calls in enumerate(threads.values()):
                start = handles_signals(calls) if number == 0 else 0
                for call in calls[:start]:
                    self.before[call.name] = max(self.before[call.name], call.count)
                for call in calls[start:]:
                    most[call.name] = max(most[call.name], call.count)
            reached.append(most)
        self.limit = {name: min(most[name] for most in reached) for name in reached[0]}
        for name in FROM_THE_SERVER & self.limit.keys():
            self.limit[name] = self.limit[name] * 3 // 4
        for number, calls in enumerate(traces[-1].values()):
            self.calls += [call for call in calls[handles_signals(calls) if number == 0 else 0:]
                           if self.is_steady(call)]

    def is_steady(self, call):
        return (call.name not in UNSTEADY
                and self.before[call.name] < call.count <= self.limit.get(call.name, 0))

    def choose(self, chance, points, of_each_kind=True):
        """Points: some calls of each kind, and some at random."""
        kinds = collections.defaultdict(set)
        for call in self.calls:
            kinds[call.name].add(call._replace(arguments=""))
        chosen = []
        for calls in map(sorted, kinds.values() if of_each_kind else ()):
            chosen += dict.fromkeys([calls[0], calls[len(calls) // 2], calls[-1]])
        drawn = (chance.choice(self.calls)._replace(arguments="") for _ in itertools.count())
        chosen += itertools.islice(drawn, points)
        return Points(chosen, drawn, chance.randrange(2))


class Points:
    """Calls at which a program is to be ended, each with its signal.

    A run may end before it makes a call so often: what it asks of the server, and what it looks for, depends on
    what has come by then. Three quarters of what was chosen must be hit; until then more are drawn, to thrice as many.
    """

    def __init__(self, chosen, drawn, first):
        self.calls = itertools.chain(chosen, itertools.islice(drawn, 2 * len(chosen)))
        self.planned = len(chosen)
        self.first = first
        self.tried = self.hits = 0

    def are_enough(self):
        return self.hits >= 0.75 * self.planned

    def __iter__(self):
        for call in self.calls:
            if self.tried >= self.planned and self.are_enough():
                return
            self.tried += 1
            yield call, ("KILL", "TERM")[(self.tried + self.first) % 2]


def check_status(result, signal, hit, where):
    """Killed by the signal, or told so, or done; a second SIGTERM, to a second thread, kills."""
    allowed = (KILLED, OK) if signal == "KILL" else (INTERRUPTED, TERMINATED, OK)
    assert result.returncode in allowed, f"{where}: {result.returncode}\n{result.stderr}"
    assert hit or result.returncode == OK, where
    if result.returncode == INTERRUPTED:
        assert "interrupted by" in result.stderr or NOT_WAITED_FOR in result.stderr, where


def report(title, outcomes):
    print(f"{title}: " + ", ".join(f"{number} {' '.join(map(str, what))}"
                                   for what, number in sorted(outcomes.items(), key=str)))
