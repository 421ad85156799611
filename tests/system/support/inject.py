"""strace as the hand that sends a signal just before a chosen system call."""

import collections
import re

KILLED, TERMINATED = -9, -15

Call = collections.namedtuple("Call", "name count arguments")


def trace_calls(path, thread=None):
    """Calls in a trace, each with how many of its name that thread has made so far.

    strace counts for each thread; without one, those of the thread that began are given.
    """
    counts = collections.Counter()
    with open(path, encoding="utf-8", errors="replace") as trace:
        for line in trace:
            thread = thread or line.split()[0]
            match = re.match(rf"{thread} +(\w+)\((.*)", line)
            if match:
                name, arguments = match.groups()
                counts[name] += 1
                yield Call(name, counts[name], arguments)


def tracing(path, calls="all"):
    """The words before a command whose calls are to be written to a file."""
    return ["strace", "-f", "-qq", "-o", path, "-e", f"trace={calls}"]


def injecting(path, signal, name, count):
    """The words before a command that gets a signal at the call, in whatever thread comes to it."""
    return [*tracing(path, name), "-e", f"inject={name}:signal={signal}:when={count}"]
