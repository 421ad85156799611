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
    command_release, command_collect, command_targets, command_key, command_repo, command_serve;

/* Of `pgcairn repo`, each in its own file. */
CommandMain command_repo_heal, command_repo_renew;

/* Each in its own file, and a row of the table in wal_command.c. */
CommandMain command_wal_push, command_wal_push_ahead, command_wal_get, command_wal_repair,
    command_wal_ack, command_wal_skip, command_wal_status, command_wal_serve;
/* Needs libpq: where it is missing, says which program has it. */
CommandMain command_wal_receive;

/* push, get and their aliases; for `pgcairn-wal` and `pgcairn wal`. */
CommandMain wal_command;
/* The same where argv[0] itself is `archive-push` or `archive-get`. */
CommandMain wal_command_alias;

#endif
