/*
 * Which of several repositories a restore reads from: the nearest, in configured order, that has
 * what is wanted. Where recovery goes on to the end of WAL, that is the one whose WAL goes
 * furthest.
 *
 * What is asked of each: a plan (restore/plan.h), and that every pack of its backup is there.
 * Nothing is written. Why one was passed over is logged.
 */
#ifndef PGCAIRN_CLI_RESTORE_CHOICE_H
#define PGCAIRN_CLI_RESTORE_CHOICE_H

#include "cli/session.h"
#include "restore/restore.h"

/* options: all but the repository. Returned owned: the chosen repository, open. Where none can, the
   first that could be opened: restoring from it says what is wrong. */
Repository *restore_choose(const World *world, const CliSession *session,
                           const RestoreOptions *options, CairnError *err) MUST_CHECK;

#endif
