/* `pgcairn key`: which subcommand is meant. */
#include "cli/key_commands.h"
#include "cli/options.h"

#include <stdio.h>
#include <string.h>

enum { EXIT_USAGE = 2 };

static const struct {
    const char *name;
    CommandMain *run;
} commands[] = {
    {"generate", key_generate_command}, {"list", key_list_command},
    {"add", key_add_command},           {"remove", key_remove_command},
    {"rotate", key_rotate_command},     {"verify", key_verify_command},
};

static void
print_usage(FILE *file)
{
    fprintf(file,
            "Keys of an encrypted repository: who can open it, and the proof.\n\n"
            "Usage: pgcairn key generate [--recipient] FILE\n"
            "       pgcairn key list [options]\n"
            "       pgcairn key add [options] SLOT\n"
            "       pgcairn key remove [options] SLOT\n"
            "       pgcairn key rotate [options]\n"
            "       pgcairn key verify [options]\n\n"
            "`pgcairn key add --help` and so on say more; docs/keys.md says which to choose.\n");
}

int
command_key(const World *world, int argc, char **argv)
{
    options_command_first(argc, argv);
    const char *name = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(name, commands[i].name) == 0)
            return commands[i].run(world, argc - 1, argv + 1);
    }
    const bool asked = strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0;
    print_usage(asked ? stdout : stderr);
    return asked ? 0 : EXIT_USAGE;
}
