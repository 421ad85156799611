#include "agent/expire.h"
#include "agent/info.h"

#include "cli/commands.h"
#include "cli/session.h"
#include "common/log.h"

#include <string.h>

/* In the first cluster that has it; ambiguous within one cluster is refused, as everywhere. */
static const InfoBackup *
find_backup(const Info *info, const char *selector, CairnError *err)
{
    for (size_t i = 0; i < info->cluster_count; i++) {
        const InfoCluster *cluster = &info->clusters[i];
        cairn_error_clear(err);
        const CatalogBackup *found = catalog_find(cluster->catalog, selector, err);
        if (found != NULL)
            return &cluster->backups[found - cluster->catalog->backups];
        if (err->kind != CAIRN_NOT_FOUND)
            return NULL;
    }
    if (err->kind == CAIRN_OK)
        cairn_error(err, CAIRN_NOT_FOUND, "no backup '%s'", selector);
    return NULL;
}

static bool
print_backup(const Info *info, const char *selector, bool json, CairnError *err)
{
    const InfoBackup *backup = find_backup(info, selector, err);
    if (backup == NULL)
        return false;
    if (json)
        return cli_print_json(info_format_backup_json(backup), err);
    SCOPED_BYTES ByteWriter text = {0};
    info_format_backup(backup, &text);
    return cli_print_text(&text, err);
}

static bool
print_info(const Info *info, bool json, CairnError *err)
{
    if (json)
        return cli_print_json(info_format_json(info), err);
    SCOPED_BYTES ByteWriter text = {0};
    info_format_text(info, &text);
    return cli_print_text(&text, err);
}

/* Policies stand in the configuration, not in the repository: of clusters that are not configured
 * here nothing is said. A policy that does not read is shown as such: info is for bad nights. */
static void
show_retention(Info *info, const CliSession *session)
{
    for (size_t i = 0; i < info->cluster_count; i++) {
        CairnError err = {0};
        const ClusterConfig *cluster =
            config_cluster(session->config, info->clusters[i].name, &err);
        if (cluster == NULL)
            continue;
        RetentionPolicy policy;
        if (!retention_policy_parse(expire_policy_text(cluster, session->repository), &policy,
                                    &err)) {
            info_set_retention(info, i, err.message);
            continue;
        }
        expire_explain(info, i, &policy);
    }
}

static void
ask_cluster(const World *world, const ClusterConfig *config, Info *info, size_t index)
{
    CairnError err = {0};
    Archiving archiving;
    SCOPED(Connection)
    connection = connection_open(config->conninfo, CONNECTION_SQL, "pgcairn info", &err);
    const bool asked =
        connection != NULL && archiving_ask(connection, world, config, &archiving, &err);
    info_set_archiving(info, index, asked ? &archiving : NULL, asked ? NULL : err.message);
}

/* Info is for bad nights: a server that does not answer is said, and changes nothing else. Without
 * a conninfo libpq would ask whoever answers there. */
static void
show_archiving(const World *world, Info *info, const CliSession *session)
{
    for (size_t i = 0; i < info->cluster_count; i++) {
        CairnError err = {0};
        const ClusterConfig *cluster =
            config_cluster(session->config, info->clusters[i].name, &err);
        if (cluster != NULL && cluster->conninfo != NULL)
            ask_cluster(world, cluster, info, i);
    }
}

static void
show_overflow(const World *world, Info *info, const CliSession *session)
{
    for (size_t i = 0; session->global->overflow_path != NULL && i < info->cluster_count; i++)
        info_look_overflow(info, i, world, session->global->overflow_path, session->repository,
                           session->config);
}

typedef struct {
    const CommonOptions *common;
    const char *selector;
    bool offline;
    bool json;
} InfoRequest;

static bool
run_info(const World *world, CliSession *session, void *context, int *code_out, CairnError *err)
{
    const InfoRequest *request = context;
    SCOPED(Repository) repository = repository_open(world, session->repository, err);
    if (repository == NULL) {
        if (err->kind == CAIRN_NOT_FOUND && err->hint[0] == '\0')
            cairn_error_hint(err, "is it mounted? A new one is made by: pgcairn init");
        return false;
    }
    SCOPED(Info) info = info_read(repository, request->common->cluster, err);
    if (info == NULL)
        return false;
    for (size_t i = 0; i < info->cluster_count; i++) {
        if (info->clusters[i].history_warning != NULL)
            *code_out = cairn_error_exit_code(CAIRN_CORRUPT);
    }
    show_retention(info, session);
    show_overflow(world, info, session);
    if (!request->offline && request->selector == NULL)
        show_archiving(world, info, session);
    return request->selector != NULL ? print_backup(info, request->selector, request->json, err)
                                     : print_info(info, request->json, err);
}

int
command_info(const World *world, int argc, char **argv)
{
    const char *selector = NULL;
    bool offline = false;
    const Option options[] = {
        {"offline", 0, OPTION_FLAG, &offline, NULL, "do not ask the server how archiving is doing"},
        {"set", 0, OPTION_TEXT, &selector, "LABEL",
         "details of one backup: its label, id, or `latest`"},
        {NULL, 0, OPTION_FLAG, NULL, NULL, NULL},
    };
    const CommandHelp help = {
        .name = "info",
        .synopsis = "pgcairn info [options]",
        .summary =
            "What can be recovered: backups, WAL, holes; is archiving falling behind. Needs no "
            "server",
        .examples = "  pgcairn info\n  pgcairn info --set latest\n  pgcairn info --output=json\n",
        .options = options,
    };
    CairnError err = {0};
    CommonOptions common = {0};
    const char *argument = NULL;
    int code;
    if (!cli_parse(&help, &common, argc, argv, &argument, &code))
        return code;
    if (selector == NULL)
        selector = argument;
    InfoRequest request = {.common = &common, .selector = selector, .offline = offline};
    SCOPED_SESSION session = {0};
    if (!cli_output_json(&common, &request.json, &err) ||
        !cli_session_open(world, &common, false, &session, &err))
        return cli_failed(&err);
    return cli_each_repository(world, &session, request.json, run_info, &request);
}
