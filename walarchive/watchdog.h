/*
 * A time limit for what a process does. A command that PostgreSQL waits for must end: a hung
 * archive_command blocks archiving and the server's shutdown.
 *
 * At the limit the process gets a SIGTERM, which ends it tidily through common/cancel.h. If it is
 * still there some seconds later, or that long after any other signal that asked it to end, it sits
 * in a system call on a file system that does not answer, and ends at once with exit code 1. _exit
 * from a second thread kills the first one, which wakes even a wait on a hard NFS mount; a wait
 * that cannot be killed at all (a dying local disk) outlives this too.
 *
 * What has been achieved by then may be said before: watchdog_answer is the exit code at the end.
 *
 * A process that does one thing calls watchdog_start. One that serves calls watchdog_prepare, then
 * watchdog_arm and watchdog_disarm around each piece of work; what has expired once ends the
 * process, for cancellation is not taken back.
 */
#ifndef PGCAIRN_WALARCHIVE_WATCHDOG_H
#define PGCAIRN_WALARCHIVE_WATCHDOG_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

/* Once a process, after cancel_install. what: for the message; borrowed for ever. */
bool watchdog_start(int64_t limit_ms, const char *what, CairnError *err) MUST_CHECK;

/* Once a process, after cancel_install; nothing is limited yet. */
bool watchdog_prepare(CairnError *err) MUST_CHECK;
/* what: borrowed until disarmed. By one thread; armed at most once at a time. */
void watchdog_arm(int64_t limit_ms, const char *what);
void watchdog_disarm(void);

/* The exit code of giving up, 1 to begin with: for a file that is durable already, whatever hangs
   afterwards. */
void watchdog_answer(int exit_code);

/* True once a limit has passed: tells a time-out from a user's signal. */
bool watchdog_expired(void);

#endif
