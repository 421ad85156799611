#include "restore/adopt.h"

#include "cli/commands.h"
#include "cli/session.h"

#include <stdio.h>
#include <string.h>

static bool
print_adopted(const char *pgdata, const Identity *identity, bool json, CairnError *err)
{
    if (json) {
        return cli_print_json(json_pack("{s:s, s:s, s:s, s:s}", "directory", pgdata, "role",
                                        identity->role, "cluster", identity->cluster, "origin",
                                        identity->origin),
                              err);
    }
    SCOPED_BYTES ByteWriter text = {0};
    char lines[512];
    snprintf(lines, sizeof lines,
             "'%.200s' may archive as cluster '%s' now\n"
             "next:\n"
             "  # archive_mode takes effect at a restart\n"
             "  pgcairn check --cluster=%s\n",
             pgdata, identity->cluster, identity->cluster);
    byte_writer_bytes(&text, lines, strlen(lines));
    return cli_print_text(&text, err);
}

int
command_adopt(const World *world, int argc, char **argv)
{
    const char *pgdata = NULL;
    const char *as_cluster = NULL;
    bool original = false;
    bool json = false;
    const Option options[] = {
        {"pgdata", 'D', OPTION_TEXT, &pgdata, "DIR", "the restored data directory"},
        {"original", 0, OPTION_FLAG, &original, NULL, "it takes the original's place"},
        {"as-cluster", 0, OPTION_TEXT, &as_cluster, "NAME", "it gets a place of its own"},
        {NULL, 0, OPTION_FLAG, NULL, NULL, NULL},
    };
    const CommandHelp help = {
        .name = "adopt",
        .synopsis = "pgcairn adopt -D DIR --original | --as-cluster NAME",
        .summary = "Let a restored copy archive: in the original's place, or in one of its own",
        .examples = "  pgcairn adopt -D /srv/copy --as-cluster staging\n",
        .options = options,
    };
    CairnError err = {0};
    CommonOptions common = {0};
    size_t positional_count = 0;
    Identity identity;
    if (!options_parse(&help, &common, argc, argv, NULL, 0, &positional_count, &err) ||
        (!common.help && !cli_output_json(&common, &json, &err)))
        return cli_failed(&err);
    if (common.help) {
        options_print_help(&help);
        return 0;
    }
    if (pgdata == NULL || original == (as_cluster != NULL)) {
        cairn_error(&err, CAIRN_USAGE, "give -D DIR and one of --original, --as-cluster NAME");
        return cli_failed(&err);
    }
    if (!adopt_run(world, pgdata, as_cluster, &identity, &err) ||
        !print_adopted(pgdata, &identity, json, &err))
        return cli_failed(&err);
    return 0;
}
