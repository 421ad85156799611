#include "agent/expire.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "repository/json.h"

#include <stdio.h>

static bool
hold(const World *world, const CommonOptions *common, const char *selector, bool kept,
     const char *reason, CairnError *err)
{
    bool json;
    char label[EXPIRE_LABEL_SIZE];
    SCOPED_SESSION session = {0};
    if (!cli_output_json(common, &json, err) ||
        !cli_session_open(world, common, true, &session, err) ||
        !cli_only_repository(&session, err))
        return false;
    SCOPED(Repository) repository = repository_open(world, session.repository, err);
    if (repository == NULL ||
        !expire_hold(repository, session.cluster->name, selector, kept, reason, label, err))
        return false;
    if (json)
        return cli_print_json(json_pack("{s:s, s:b}", "label", label, "kept", kept), err);
    printf(kept ? "backup %s is kept until `pgcairn release` hands it back\n"
                : "backup %s is no longer kept: the retention policy decides\n",
           label);
    return true;
}

static int
run(const World *world, int argc, char **argv, bool kept)
{
    const char *reason = "";
    const Option options[] = {
        {"reason", 0, OPTION_TEXT, &reason, "TEXT", "stored with the decision"},
        {0},
    };
    const CommandHelp command = {
        .name = kept ? "keep" : "release",
        .synopsis =
            kept ? "pgcairn keep LABEL [--reason TEXT]" : "pgcairn release LABEL [--reason TEXT]",
        .summary = kept ? "Hold a backup, whatever the retention policy says."
                        : "Hand a backup to the retention policy: it was kept, or looked odd and "
                          "is genuine.",
        .examples = kept ? "  pgcairn keep 20261122-233140F --reason 'audit of 2026'\n"
                           "  pgcairn keep latest\n"
                         : "  pgcairn release 20261122-233140F\n",
        .options = options,
    };
    CairnError err = {0};
    CommonOptions common = {0};
    const char *selector = NULL;
    int code;
    if (!cli_parse(&command, &common, argc, argv, &selector, &code))
        return code;
    if (selector == NULL) {
        cairn_error(&err, CAIRN_USAGE, "%s: which backup?", command.name);
        cairn_error_hint(&err, "usage: %s", command.synopsis);
        return cli_failed(&err);
    }
    return hold(world, &common, selector, kept, reason, &err) ? 0 : cli_failed(&err);
}

int
command_keep(const World *world, int argc, char **argv)
{
    return run(world, argc, argv, true);
}

int
command_release(const World *world, int argc, char **argv)
{
    return run(world, argc, argv, false);
}
