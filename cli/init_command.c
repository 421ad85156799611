#include "agent/init.h"

#include "cli/commands.h"
#include "cli/session.h"
#include "common/log.h"
#include "storage/connect.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    bool print;
    bool server; /* --no-server */
    bool another_system;
} InitOptions;

/* This program and its neighbour, by absolute path: what archive_command needs. */
static bool
find_programs(char program[PATH_MAX], char wal_program[PATH_MAX], CairnError *err)
{
    const ssize_t size = readlink("/proc/self/exe", program, PATH_MAX - 1);
    if (size < 0)
        return cairn_error_errno(err, "unable to find this program's own path");
    program[size] = '\0';
    const char *slash = strrchr(program, '/');
    const int directory_size = slash != NULL ? (int)(slash - program) : 0;
    if (snprintf(wal_program, PATH_MAX, "%.*s/pgcairn-wal", directory_size, program) >= PATH_MAX)
        return cairn_error(err, CAIRN_UNSUPPORTED, "this program's path is too long");
    return true;
}

/* Where the configuration is, or will be. */
static bool
find_config_path(const CommonOptions *common, const GlobalConfig *global, char path[PATH_MAX],
                 CairnError *err)
{
    const char *named = global != NULL && global->file != NULL ? global->file : common->config;
    if (named == NULL)
        named = getenv("PGCAIRN_CONFIG");
    if (named == NULL)
        named = CONFIG_DEFAULT_PATH;
    char directory[PATH_MAX] = "";
    if (named[0] != '/' && getcwd(directory, sizeof directory) == NULL)
        return cairn_error_errno(err, "unable to find the current directory");
    const int size =
        snprintf(path, PATH_MAX, "%s%s%s", directory, named[0] != '/' ? "/" : "", named);
    if (size >= PATH_MAX)
        return cairn_error(err, CAIRN_UNSUPPORTED, "path of the configuration is too long");
    return true;
}

/* Needs no configuration: whoever asks may not have one yet. What does not load is left out, and
 * said. */
static bool
print_setup(const World *world, const CommonOptions *common, CairnError *err)
{
    SCOPED_SESSION session = {0};
    CairnError config_err = {0};
    const bool configured = cli_session_open(world, common, true, &session, &config_err);
    if (!configured)
        log_info("printed without a configuration (%s)", config_err.message);

    char program[PATH_MAX];
    char wal_program[PATH_MAX];
    char config_path[PATH_MAX];
    if (!find_programs(program, wal_program, err) ||
        !find_config_path(common, configured ? session.global : NULL, config_path, err)) {
        return false;
    }
    const InitPrintOptions options = {
        .program = program,
        .wal_program = wal_program,
        .config_file = config_path,
        .cluster = configured                ? session.cluster->name
                   : common->cluster != NULL ? common->cluster
                                             : "main",
        .conninfo = configured ? session.cluster->conninfo : NULL,
        .repository = configured ? session.repository->name : "main",
        .repository_path = configured && session.repository->path != NULL ? session.repository->path
                                                                          : "/var/lib/pgcairn",
        .repository_host = configured ? session.repository->ssh.host : NULL,
        .several_clusters = configured && config_cluster_count(session.config) > 1,
    };
    SCOPED_BYTES ByteWriter text = {0};
    return init_print(&options, &text, err) && cli_print_text(&text, err);
}

typedef struct {
    bool repository_created;
    bool cluster_recorded; /* false with --no-server */
    bool cluster_existed;
    Incarnation incarnation;
    char repository_id[2 * REPOSITORY_ID_SIZE + 1];
    Encryption encryption;
    char key_slot[CLUSTER_NAME_LIMIT + 1]; /* that this host opens it with; "": not encrypted */
} InitResult;

/* For a person who has not decided yet: what each choice protects from and costs. */
static void
explain_encryption(const CliSession *session)
{
    if (session->repository->encryption != NULL || !isatty(STDERR_FILENO))
        return;
    fprintf(
        stderr,
        "Encryption is decided once, when the repository is made. In section [repository %s]:\n\n"
        "  encryption = none\n"
        "      Whoever can read the storage, or a copy of it, can read the database.\n\n"
        "  encryption = key-file          (made by: pgcairn key generate FILE)\n"
        "  key-file = FILE\n"
        "      A stolen disk or bucket says nothing. Whoever breaks into this host can read all\n"
        "      backups, as it can read the database. Lose the key and you lose the backups.\n\n"
        "  encryption = passphrase\n"
        "  passphrase-file = FILE         (or passphrase-command = COMMAND)\n"
        "      The same, and it can be kept in a head or on paper. Costs half a second each time:\n"
        "      name a key-file beside it for the daily work.\n\n"
        "  encryption = sealed\n"
        "  key-file = FILE                (of this host: opens lists and maps, not data)\n"
        "  recipients = FILE              (public keys: pgcairn key generate --recipient, "
        "elsewhere)\n"
        "      Whoever breaks into this host cannot read old backups: only the holder of a "
        "private\n"
        "      key can, on the machine where you restore.\n\n",
        session->repository->name);
}

static bool
run_steps(const World *world, const CliSession *session, const InitOptions *options,
          InitResult *result, CairnError *err)
{
    SCOPED(Repository)
    repository = init_repository(world, session->repository, &result->repository_created, err);
    if (repository == NULL)
        return false;
    hex_encode(result->repository_id, repository_id(repository), REPOSITORY_ID_SIZE);
    result->encryption = repository_encryption(repository);
    snprintf(result->key_slot, sizeof result->key_slot, "%s", repository_key_slot(repository));
    if (!options->server)
        return true;
    SCOPED(Connection)
    server = connection_open(session->cluster->conninfo, CONNECTION_SQL, "pgcairn init", err);
    if (server == NULL ||
        !init_cluster(repository, session->cluster->name, server, options->another_system,
                      &result->incarnation, &result->cluster_existed, err)) {
        /* The repository stands; saying so spares a search. */
        if (result->repository_created)
            log_info("repository '%s' was made", session->repository->name);
        return false;
    }
    result->cluster_recorded = true;
    return true;
}

static json_t *
result_json(const CliSession *session, const InitResult *result)
{
    char system_id[24];
    snprintf(system_id, sizeof system_id, "%" PRIu64, result->incarnation.system_id);
    return json_pack("{s:s, s:s, s:b, s:s, s:s?, s:o}", "repository", session->repository->name,
                     "repository_id", result->repository_id, "repository_created",
                     result->repository_created, "encryption", encryption_name(result->encryption),
                     "key_slot", result->key_slot[0] != '\0' ? result->key_slot : NULL, "cluster",
                     result->cluster_recorded
                         ? json_pack("{s:s, s:s, s:i, s:b}", "name", session->cluster->name,
                                     "system_id", system_id, "major", result->incarnation.major,
                                     "existed", result->cluster_existed)
                         : json_null());
}

/* Said when it can still be done in peace. */
static void
print_keys(const CliSession *session, const InitResult *result)
{
    const KeyConfig *keys = &session->repository->keys;
    if (result->encryption == ENCRYPTION_NONE)
        return;
    printf("encryption: %s, opened by slot %s\n", encryption_name(result->encryption),
           result->key_slot);
    if (result->encryption == ENCRYPTION_SEALED)
        printf(
            "Only the private keys of '%s' read pages and WAL. They are nowhere here: make sure "
            "that they are\nsomewhere, twice, and after the first backup run `pgcairn key verify "
            "--key-file FILE` where they are.\n",
            keys->recipients);
    else
        printf(
            "Lose %s and every backup is lost. Keep a copy off this machine now, or let a second "
            "key open it:\n  pgcairn key add escrow --passphrase-file FILE\nand after the first "
            "backup prove it: pgcairn key verify --passphrase-file FILE\n",
            keys->key_file != NULL ? keys->key_file : "the passphrase");
}

static void
print_result(const CliSession *session, const InitResult *result)
{
    char place[STORAGE_PLACE_TEXT_SIZE];
    storage_place_text(session->repository, place);
    printf("repository %s: %s (%s, id %s)\n", session->repository->name,
           result->repository_created ? "created" : "exists already", place, result->repository_id);
    if (result->repository_created)
        print_keys(session, result);
    if (!result->cluster_recorded)
        return;
    printf("cluster %s: system %" PRIu64 ", PostgreSQL %d %s\n", session->cluster->name,
           result->incarnation.system_id, result->incarnation.major,
           result->cluster_existed ? "is known already" : "recorded");
    if (!result->cluster_existed)
        printf("next: pgcairn init --print shows the archive_command; then pgcairn check\n");
}

typedef struct {
    const InitOptions *options;
    bool json;
} InitRequest;

static bool
init_in(const World *world, CliSession *session, void *context, int *code_out, CairnError *err)
{
    const InitRequest *request = context;
    InitResult result = {0};
    (void)code_out;
    explain_encryption(session);
    if (!run_steps(world, session, request->options, &result, err))
        return false;
    if (!request->json)
        print_result(session, &result);
    return !request->json || cli_print_json(result_json(session, &result), err);
}

static int
run_init(const World *world, const CommonOptions *common, const InitOptions *options)
{
    CairnError err = {0};
    InitRequest request = {.options = options};
    SCOPED_SESSION session = {0};
    if (!cli_output_json(common, &request.json, &err) ||
        !cli_session_open(world, common, options->server, &session, &err))
        return cli_failed(&err);
    return cli_each_repository(world, &session, request.json, init_in, &request);
}

int
command_init(const World *world, int argc, char **argv)
{
    InitOptions init = {.server = true};
    const Option options[] = {
        {"print", 0, OPTION_FLAG, &init.print, NULL,
         "print role SQL, pg_hba.conf, postgresql.conf, cron and configuration lines; change "
         "nothing"},
        {"server", 0, OPTION_FLAG, &init.server, NULL, "--no-server: make the repository only"},
        {"another-system", 0, OPTION_FLAG, &init.another_system, NULL,
         "the cluster is a new system now: after pg_upgrade or initdb"},
        {NULL, 0, OPTION_FLAG, NULL, NULL, NULL},
    };
    const CommandHelp help = {
        .name = "init",
        .synopsis = "pgcairn init [options]",
        .summary = "Make the repository and record the cluster; may be repeated",
        .examples = "  pgcairn init --print\n  pgcairn init\n  pgcairn init --no-server\n",
        .options = options,
    };
    CairnError err = {0};
    CommonOptions common = {0};
    int code;
    if (!cli_parse(&help, &common, argc, argv, NULL, &code))
        return code;
    if (!init.print)
        return run_init(world, &common, &init);
    return print_setup(world, &common, &err) ? 0 : cli_failed(&err);
}
