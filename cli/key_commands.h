/* The subcommands of `pgcairn key`; key_command.c chooses. */
#ifndef PGCAIRN_CLI_KEY_COMMANDS_H
#define PGCAIRN_CLI_KEY_COMMANDS_H

#include "cli/commands.h"

CommandMain key_generate_command, key_list_command, key_add_command, key_remove_command,
    key_rotate_command, key_verify_command;

#endif
