/* Slots added and removed, a new epoch. */
#include "agent/keys.h"
#include "cli/key_commands.h"
#include "cli/session.h"

#include <stdio.h>

typedef struct {
    CommonOptions common;
    const char *slot; /* NULL: the command takes none */
    bool json;
} KeyArguments;

/* False: *exit_code_out is the answer. */
static bool
parse(const CommandHelp *help, bool wants_slot, int argc, char **argv, KeyArguments *arguments,
      int *exit_code_out)
{
    CairnError err = {0};
    if (!cli_parse(help, &arguments->common, argc, argv, wants_slot ? &arguments->slot : NULL,
                   exit_code_out))
        return false;
    if (wants_slot && arguments->slot == NULL)
        cairn_error(&err, CAIRN_USAGE, "%s: name the slot", help->name);
    else if (cli_output_json(&arguments->common, &arguments->json, &err))
        return true;
    *exit_code_out = cli_failed(&err);
    return false;
}

static int
report(const KeyArguments *arguments, const char *done, const char *text)
{
    CairnError err = {0};
    if (!arguments->json) {
        printf("%s\n", text);
        return 0;
    }
    json_t *json = json_pack("{s:s, s:s}", "slot", arguments->slot, "done", done);
    return cli_print_json(json, &err) ? 0 : cli_failed(&err);
}

int
key_add_command(const World *world, int argc, char **argv)
{
    KeyChoice choice = {0};
    const Option options[] = {
        {"key-file", 0, OPTION_TEXT, &choice.key_file, "FILE",
         "a key, made by key generate: for a host, or for a safe"},
        {"passphrase-file", 0, OPTION_TEXT, &choice.passphrase_file, "FILE",
         "a passphrase, the only line of a file of mode 0600"},
        {"passphrase-command", 0, OPTION_TEXT, &choice.passphrase_command, "COMMAND",
         "a passphrase that a command prints"},
        {"recipient", 0, OPTION_TEXT, &choice.recipient, "FILE",
         "a public key: its private one opens the slot, and need not be here"},
        {0},
    };
    const CommandHelp help = {
        .name = "key add",
        .synopsis = "pgcairn key add [options] SLOT",
        .summary = "Let another key open the repository",
        .examples = "  pgcairn key add escrow --passphrase-file /root/escrow.txt\n"
                    "  pgcairn key add db2 --key-file /etc/pgcairn/db2.key\n"
                    "  pgcairn key add safe --recipient safe.key.pub\n",
        .options = options,
    };
    CairnError err = {0};
    KeyArguments arguments = {0};
    SCOPED_SESSION session = {0};
    int code = 0;
    char text[256];
    if (!parse(&help, true, argc, argv, &arguments, &code))
        return code;
    if (!cli_session_open(world, &arguments.common, false, &session, &err) ||
        !cli_only_repository(&session, &err) ||
        !keys_add(world, session.repository, arguments.slot, &choice, &err))
        return cli_failed(&err);
    snprintf(text, sizeof text,
             "slot %s added\nnext: pgcairn key verify with that key proves that it opens what is "
             "stored",
             arguments.slot);
    return report(&arguments, "added", text);
}

int
key_remove_command(const World *world, int argc, char **argv)
{
    bool force = false;
    const Option options[] = {
        {"force", 0, OPTION_FLAG, &force, NULL,
         "even the slot that this host uses, or the last that is proven to open everything; never "
         "the "
         "last of all that do"},
        {0},
    };
    const CommandHelp help = {
        .name = "key remove",
        .synopsis = "pgcairn key remove [--force] SLOT",
        .summary = "Take a slot away: its key opens the repository no more",
        .examples = "  pgcairn key remove db1\n",
        .options = options,
    };
    CairnError err = {0};
    KeyArguments arguments = {0};
    SCOPED_SESSION session = {0};
    int code = 0;
    char text[512];
    if (!parse(&help, true, argc, argv, &arguments, &code))
        return code;
    if (!cli_session_open(world, &arguments.common, false, &session, &err) ||
        !cli_only_repository(&session, &err) ||
        !keys_remove(world, session.repository, arguments.slot, force, &err))
        return cli_failed(&err);
    snprintf(
        text, sizeof text,
        "slot %s removed\nWhoever opened it before, or has a copy of the repository with it, may "
        "know what it held: if its key\nis in wrong hands, only a new repository helps "
        "(docs/keys.md)",
        arguments.slot);
    return report(&arguments, "removed", text);
}

int
key_rotate_command(const World *world, int argc, char **argv)
{
    const CommandHelp help = {
        .name = "key rotate",
        .synopsis = "pgcairn key rotate [options]",
        .summary = "Write what is new under new keys; what is old stays readable",
        .examples = "  pgcairn key rotate\n",
    };
    CairnError err = {0};
    KeyArguments arguments = {0};
    SCOPED_SESSION session = {0};
    uint16_t epoch = 0;
    int code = 0;
    if (!parse(&help, false, argc, argv, &arguments, &code))
        return code;
    if (!cli_session_open(world, &arguments.common, false, &session, &err) ||
        !cli_only_repository(&session, &err) ||
        !keys_rotate(world, session.repository, &epoch, &err))
        return cli_failed(&err);
    if (arguments.json)
        return cli_print_json(json_pack("{s:i}", "epoch", (int)epoch), &err) ? 0 : cli_failed(&err);
    printf("epoch %u begins: programs that start from now on write under it; the same slots open "
           "it\nIt does not help against a key that leaked: then only a new repository does "
           "(docs/keys.md)\n",
           epoch);
    return 0;
}
