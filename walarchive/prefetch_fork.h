/*
 * Leaving a process behind in the background, under a server that must not notice.
 *
 * The child keeps nothing of the server's: it has a session of its own, no standard streams (the
 * log collector ends only when nobody holds its pipe), and no descriptors but the named ones.
 * Threads: call it while the process has one.
 */
#ifndef PGCAIRN_WALARCHIVE_PREFETCH_FORK_H
#define PGCAIRN_WALARCHIVE_PREFETCH_FORK_H

#include "common/world.h"

#include <stdbool.h>
#include <stddef.h>

/* False where the orphan would become a child of the postmaster (which is process 1 of its
 * container): one that is killed there counts as a crashed backend and restarts the server. */
bool prefetch_may_fork(const World *world, int pgdata_fd);

/* True in the child, which must end by _exit with 0 or 1. kept: descriptors that stay open. */
bool prefetch_fork(const int *kept, size_t count);

#endif
