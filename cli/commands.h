/*
 * The commands of both programs: each takes its own argv (argv[0] is its name) and returns the exit
 * code. Errors are printed here, at the top, and nowhere else.
 */
#ifndef PGCAIRN_CLI_COMMANDS_H
#define PGCAIRN_CLI_COMMANDS_H

#include "common/world.h"

typedef int CommandMain(const World *world, int argc, char **argv);

CommandMain command_init, command_check, command_doctor, command_backup, command_info,
    command_restore, command_adopt, command_verify, command_version, command_expire, command_keep,
    command_release, command_collect, command_targets;

/* push, get and their aliases; for `pgcairn-wal` and `pgcairn wal`. */
CommandMain wal_command;
/* The same where argv[0] itself is `archive-push` or `archive-get`. */
CommandMain wal_command_alias;

#endif
