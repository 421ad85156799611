"""How often programs are killed at random under load, and from which seed.

PGCAIRN_KILL_ROUNDS says how often in each of those tests (default: as many as make check has time for),
PGCAIRN_KILL_SEED repeats a run as far as chance is ours. pytest's -rP shows the figures of each test.
"""

import os
import random

SEED = os.environ.get("PGCAIRN_KILL_SEED") or str(random.randrange(1 << 32))


def kill_rounds(default):
    return int(os.environ.get("PGCAIRN_KILL_ROUNDS") or default)


def chance_of(test):
    """Another sequence for each test, or round, of one seed, which a failure shows."""
    print(f"{test}: PGCAIRN_KILL_SEED={SEED}")
    return random.Random(f"{SEED} {test}")


def report(test, **figures):
    print(f"{test}: PGCAIRN_KILL_SEED={SEED}, "
          + ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in figures.items()))
