/* pgcairn: the program for people and schedules. `pgcairn-wal` (pgcairn_wal.c) is PostgreSQL's. */
#include "cli/commands.h"
#include "cli/options.h"
#include "common/cancel.h"

#include <stdio.h>
#include <string.h>

enum { EXIT_USAGE = 2, NAME_LIMIT = 64 };

typedef struct {
    const char *name;
    CommandMain *run;
    const char *summary; /* NULL: another name for one that is listed */
} Command;

static const Command COMMANDS[] = {
    {"init", command_init, "make a repository, record a cluster; --print shows what to put where"},
    {"check", command_check, "would a backup work, does WAL arrive? One line a condition"},
    {"backup", command_backup, "take a backup"},
    {"info", command_info, "what can be recovered: backups, WAL, holes (also: list)"},
    {"verify", command_verify, "prove by reading that backups and WAL are whole"},
    {"expire", command_expire,
     "let go of what the retention policy does not keep; --plan shows it"},
    {"keep", command_keep, "hold a backup, whatever the policy says"},
    {"release", command_release, "hand a backup back to the policy"},
    {"collect", command_collect, "delete packs and WAL that no backup needs any more"},
    {"targets", command_targets,
     "which moments can be returned to; what lies just before an accident"},
    {"restore", command_restore,
     "put a backup into a directory, ready to recover to a point in time"},
    {"adopt", command_adopt, "let a restored clone archive under its own or the original's name"},
    {"key", command_key,
     "keys of an encrypted repository: generate, list, add, remove, rotate, verify"},
    {"repo", command_repo,
     "whole repositories: copy, promote, list, bring back what a bucket hides, extend its locks"},
    {"serve", command_serve, "the repository host's side of type = ssh; sshd starts it"},
    {"wal", wal_command, "push, get and friends: what PostgreSQL calls (also: pgcairn-wal)"},
    {"version", command_version, "version of the program"},
    {"list", command_info, NULL},
    {"doctor", command_doctor, NULL},
    {"archive-push", wal_command_alias, NULL},
    {"archive-get", wal_command_alias, NULL},
};

enum { COMMAND_COUNT = sizeof COMMANDS / sizeof COMMANDS[0] };

static void
print_help(FILE *out)
{
    fprintf(out, "pgcairn backs up PostgreSQL 15 to 18 and restores it to any point in time.\n\n"
                 "usage: pgcairn COMMAND [options]\n\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (COMMANDS[i].summary != NULL)
            fprintf(out, "  %-9s %s\n", COMMANDS[i].name, COMMANDS[i].summary);
    }
    fprintf(out, "\n`pgcairn help COMMAND` has options and examples.\n"
                 "Configuration: /etc/pgcairn/pgcairn.conf, PGCAIRN_* variables, options.\n"
                 "To begin: pgcairn init --print\n"
                 "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 refused, 5 damaged data,\n"
                 "6 server or storage out of reach, 7 no space, 130 interrupted.\n");
}

static const Command *
find_command(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(COMMANDS[i].name, name) == 0)
            return &COMMANDS[i];
    }
    return NULL;
}

/* Edits between two names (Levenshtein), one row at a time. */
static size_t
distance(const char *a, const char *b)
{
    size_t row[NAME_LIMIT + 1];
    const size_t b_size = strlen(b);
    for (size_t j = 0; j <= b_size; j++)
        row[j] = j;
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < b_size; j++) {
            const size_t replaced = diagonal + (a[i] != b[j] ? 1 : 0);
            diagonal = row[j + 1];
            const size_t shorter = row[j] < row[j + 1] ? row[j] : row[j + 1];
            row[j + 1] = shorter + 1 < replaced ? shorter + 1 : replaced;
        }
    }
    return row[b_size];
}

static int
unknown_command(const char *name)
{
    const char *nearest = NULL;
    size_t nearest_distance = 3; /* further away is another word */
    for (size_t i = 0; i < COMMAND_COUNT && strlen(name) < NAME_LIMIT; i++) {
        const size_t edits = distance(name, COMMANDS[i].name);
        if (edits < nearest_distance) {
            nearest = COMMANDS[i].name;
            nearest_distance = edits;
        }
    }
    fprintf(stderr, "ERROR: unknown command '%.100s'\n", name);
    if (nearest != NULL)
        fprintf(stderr, "HINT: did you mean `pgcairn %s`?\n", nearest);
    else
        fprintf(stderr, "HINT: `pgcairn --help` lists the commands\n");
    return EXIT_USAGE;
}

static int
run_help(const World *world, int argc, char **argv)
{
    if (argc < 2) {
        print_help(stdout);
        return 0;
    }
    const Command *command = find_command(argv[1]);
    if (command == NULL)
        return unknown_command(argv[1]);
    char *help_argv[] = {argv[1], (char[]){"--help"}, NULL};
    return command->run(world, 2, help_argv);
}

int
main(int argc, char **argv)
{
    const World *world = world_real();
    cancel_install();
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    options_command_first(argc, argv);
    const char *name = argv[1];
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return run_help(world, argc - 1, argv + 1);
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        char *version_argv[] = {(char[]){"version"}, NULL};
        return command_version(world, 1, version_argv);
    }
    const Command *command = find_command(name);
    if (command == NULL)
        return unknown_command(name);
    return command->run(world, argc - 1, argv + 1);
}
