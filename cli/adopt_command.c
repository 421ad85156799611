#include "restore/adopt.h"

#include "cli/commands.h"
#include "cli/session.h"
#include "postgres/wal_name.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static json_t *
adopted_json(const char *pgdata, const Adopted *adopted)
{
    const Identity *identity = &adopted->identity;
    const bool silent = adopted->silent_timeline != 0;
    char lsn[LSN_TEXT_SIZE];
    lsn_format(lsn, adopted->silent_from_lsn);
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:o, s:s?}", "directory", pgdata, "role",
                     identity->role, "cluster", identity->cluster, "origin", identity->origin,
                     "waiting_history_files", (json_int_t)adopted->history_count, "silent_timeline",
                     silent ? json_integer(adopted->silent_timeline) : json_null(),
                     "silent_from_lsn", silent ? lsn : NULL);
}

static void
add_silent(const Adopted *adopted, ByteWriter *text)
{
    char lines[512];
    char lsn[LSN_TEXT_SIZE];

    if (adopted->silent_timeline == 0)
        return;
    lsn_format(lsn, adopted->silent_from_lsn);
    snprintf(lines, sizeof lines,
             "timeline %" PRIu32
             " began at %s while nothing was archived; its history file will be "
             "archived now,\nbut not all of its WAL since %s ever: no moment from there on can be "
             "restored before\nthere is a new backup\n",
             adopted->silent_timeline, lsn, lsn);
    byte_writer_bytes(text, lines, strlen(lines));
}

static bool
print_adopted(const char *pgdata, const Adopted *adopted, bool json, CairnError *err)
{
    if (json)
        return cli_print_json(adopted_json(pgdata, adopted), err);

    SCOPED_BYTES ByteWriter text = {0};
    const char *cluster = adopted->identity.cluster;
    char lines[1024];
    snprintf(lines, sizeof lines, "'%.200s' may archive as cluster '%s' now\n", pgdata, cluster);
    byte_writer_bytes(&text, lines, strlen(lines));
    add_silent(adopted, &text);
    snprintf(lines, sizeof lines,
             "next:\n"
             "  pg_ctl -D '%.200s' restart    # archive_mode takes effect at a restart\n"
             "  pgcairn check --cluster=%s\n"
             "  pgcairn backup --cluster=%s\n",
             pgdata, cluster, cluster);
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
    int code;
    Adopted adopted;
    if (!cli_parse(&help, &common, argc, argv, NULL, &code))
        return code;
    if (!cli_output_json(&common, &json, &err))
        return cli_failed(&err);
    if (pgdata == NULL || original == (as_cluster != NULL)) {
        cairn_error(&err, CAIRN_USAGE, "give -D DIR and one of --original, --as-cluster NAME");
        return cli_failed(&err);
    }
    if (!adopt_run(world, pgdata, as_cluster, &adopted, &err) ||
        !print_adopted(pgdata, &adopted, json, &err))
        return cli_failed(&err);
    return 0;
}
