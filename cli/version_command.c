#include "cli/commands.h"
#include "cli/session.h"
#include "repository/repository.h"

#include <stdio.h>

int
command_version(const World *world, int argc, char **argv)
{
    (void)world;
    const Option options[] = {{NULL, 0, OPTION_FLAG, NULL, NULL, NULL}};
    const CommandHelp help = {
        .name = "version",
        .synopsis = "pgcairn version",
        .summary = "Version of the program and of the repository format",
        .examples = "  pgcairn version --output=json\n",
        .options = options,
    };
    CairnError err = {0};
    CommonOptions common = {0};
    int code;
    bool json = false;
    if (!cli_parse(&help, &common, argc, argv, NULL, &code))
        return code;
    if (!cli_output_json(&common, &json, &err))
        return cli_failed(&err);
    if (!json) {
        printf("pgcairn %s (repository format %d)\n", PGCAIRN_VERSION, REPOSITORY_FORMAT);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    if (!cli_print_json(json_pack("{s:s, s:i}", "version", PGCAIRN_VERSION, "repository_format",
                                  REPOSITORY_FORMAT),
                        &err)) {
        return cli_failed(&err);
    }
    return 0;
}
