/* The family of WAL commands, of `pgcairn-wal` and of `pgcairn wal`: which one is meant. */
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/wal_settings.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    CommandMain *run;
} commands[] = {
    {"push", command_wal_push},
    {"get", command_wal_get},
    {"push-ahead", command_wal_push_ahead},
    {"serve", command_wal_serve},
    {"receive", command_wal_receive},
    {"repair", command_wal_repair},
    {"acknowledge-gap", command_wal_ack},
    {"skip", command_wal_skip},
    {"status", command_wal_status},
    {"archive-push", command_wal_push},
    {"archive-get", command_wal_get},
};

static void
print_usage(FILE *file)
{
    fprintf(file, "Move WAL between PostgreSQL and the repository.\n\n"
                  "Usage: pgcairn-wal push [options] %%p\n"
                  "       pgcairn-wal get [options] %%f %%p\n"
                  "       pgcairn wal receive [options]\n"
                  "       pgcairn-wal repair [options]\n"
                  "       pgcairn-wal acknowledge-gap [options] SEGMENT..SEGMENT\n"
                  "       pgcairn-wal status [options]\n"
                  "       pgcairn-wal skip --confirm [options] SEGMENT\n\n"
                  "`pgcairn-wal push --help` and so on say more.\n"
                  "archive-push and archive-get are the same commands.\n");
}

static CommandMain *
find_command(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(name, commands[i].name) == 0)
            return commands[i].run;
    }
    return NULL;
}

int
wal_command_alias(const World *world, int argc, char **argv)
{
    CommandMain *run = find_command(argv[0]);
    CAIRN_ASSERT(run != NULL);
    return run(world, argc, argv);
}

int
wal_command(const World *world, int argc, char **argv)
{
    options_command_first(argc, argv);
    /* So that one command line does for both programs. */
    if (argc > 1 && strcmp(argv[1], "wal") == 0) {
        argc--;
        argv++;
    }
    const char *name = argc > 1 ? argv[1] : "";
    CommandMain *run = find_command(name);

    if (run != NULL)
        return run(world, argc - 1, argv + 1);
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_usage(stdout);
        return WAL_EXIT_DONE;
    }
    /* Not 1: should this stand in a restore_command, it must not read as the end of WAL. */
    print_usage(stderr);
    return WAL_EXIT_TROUBLE;
}
