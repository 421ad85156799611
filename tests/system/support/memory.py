"""How much memory a program took at its peak."""

import sys

from support.process import run

# A process inherits, through exec, the peak of whoever spawned it; so the program gets a small
# parent, which reports the peak of its only child.
WATCHER = """
import os, sys
report, *command = sys.argv[1:]
child = os.fork()
if child == 0:
    os.execv(command[0], command)
_, status, usage = os.wait4(child, 0)
with open(report, "w", encoding="ascii") as file:
    file.write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
"""

MIB = 1024 * 1024
FLOOR_MIB = 16  # what the watcher itself may take: nothing below can be told


def run_watched(command, report, **options):
    """The result of a command and its peak resident size in MiB."""
    result = run("/usr/bin/python3", "-IS", "-c", WATCHER, report, *command, **options)
    peak_kib = int(report.read_text(encoding="ascii"))
    print(f"{command[1]}: peak {peak_kib / 1024:.1f} MiB", file=sys.stderr)
    return result, peak_kib / 1024
