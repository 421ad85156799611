"""strace as the hand that sends a signal just before a chosen system call."""

import collections
import re

KILLED, TERMINATED = -9, -15

Call = collections.namedtuple("Call", "name count arguments")

LINE = re.compile(r"(?:(\d+) +)?(\w+)\((.*)")


def tracing(path, calls="all", follow=True):
    """The words before a command whose calls are to be written to a file.

    Without follow only the thread that began is looked at, so that counts mean its calls alone.
    """
    return ["strace", *(["-f"] if follow else []), "-qq", "-o", path, "-e", f"trace={calls}"]


def injecting(path, signal, call, follow=True):
    """The words before a command that gets a signal at a call.

    strace counts for each thread; the first that comes to the count gets the signal.
    """
    return [*tracing(path, call.name, follow), "-e",
            f"inject={call.name}:signal={signal}:when={call.count}"]


def read_threads(path):
    """Calls of each thread in a trace, each call with how many of its name it made so far."""
    threads = collections.defaultdict(list)
    counts = collections.Counter()
    with open(path, encoding="utf-8", errors="replace") as trace:
        for line in trace:
            match = LINE.match(line)
            if match:
                thread, name, arguments = match.groups()
                counts[thread, name] += 1
                threads[thread].append(Call(name, counts[thread, name], arguments))
    return dict(threads)


def first_thread(path):
    """Calls of the thread that began."""
    return next(iter(read_threads(path).values()))


def was_hit(path):
    """Whether the trace shows that the signal came."""
    with open(path, encoding="utf-8", errors="replace") as trace:
        return any("--- SIG" in line or "+++ killed by" in line for line in trace)


def handles_signals(calls):
    """Index of the call from which on SIGTERM is caught."""
    return next(index for index, call in enumerate(calls)
                if call.name == "rt_sigaction" and call.arguments.startswith("SIGTERM")) + 1
