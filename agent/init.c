#include "agent/init.h"

#include "agent/role_sql.h"
#include "common/log.h"
#include "postgres/server_facts.h"
#include "repository/store_proof.h"
#include "storage/connect.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Before anything is in it: what cannot be relied on is refused. */
static bool
probe_store(const World *world, const RepositoryConfig *config, StoreProof *proof_out,
            CairnError *err)
{
    SCOPED(Storage) storage = storage_connect(world, config, true, err);
    *proof_out = (StoreProof){0};
    if (storage == NULL)
        return false;
    if (!storage_needs_probe(storage))
        return true;
    proof_out->at_us = world->clock->wall_us(world->clock);
    return storage_probe(storage, &proof_out->probe, err) &&
           store_probe_verdict(&proof_out->probe, err);
}

/* So that the first backup need not ask once more; it does when this is not there. */
static void
record_proof(Repository *repository, const StoreProof *proof)
{
    CairnError err = {0};
    if (proof->at_us != 0 && !store_proof_record(repository, proof, &err))
        log_info("what the store was seen to do is not on record: %s", err.message);
}

Repository *
init_repository(const World *world, const RepositoryConfig *config, bool *created_out,
                CairnError *err)
{
    Repository *repository = repository_open(world, config, err);
    if (repository != NULL) {
        *created_out = false;
        return repository;
    }
    if (err->kind != CAIRN_NOT_FOUND)
        return NULL;
    cairn_error_clear(err);

    StoreProof proof;
    if (!probe_store(world, config, &proof, err))
        return NULL;
    const bool created = repository_init(world, config, err);
    /* Somebody may have been faster: then theirs is the one. */
    if (!created && err->kind != CAIRN_CONFLICT)
        return NULL;
    cairn_error_clear(err);
    repository = repository_open(world, config, err);
    if (repository == NULL)
        return NULL;
    *created_out = created;
    record_proof(repository, &proof);
    return repository;
}

/* Those whose records can be read, oldest first, and what of the others. */
typedef struct {
    Incarnation list[INCARNATION_LIMIT];
    size_t count;
    IncarnationTrouble trouble;
} KnownSystems;

static KnownSystems *
read_known(Repository *repository, const char *cluster, CairnError *err)
{
    SCOPED_MEMORY KnownSystems *systems = calloc(1, sizeof *systems);
    if (systems == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    if (!incarnation_list(repository, cluster, systems->list, &systems->count, &systems->trouble,
                          err))
        return NULL;
    return take(&systems);
}

/* Several systems of one cluster are a history of upgrades and restores; a first meeting with a new
   one is as likely a wrong conninfo. */
static bool
refuse_stranger(const KnownSystems *systems, const char *cluster, const Incarnation *incarnation,
                CairnError *err)
{
    const Incarnation *known = systems->list;
    const size_t count = systems->count;
    if (count == 0 && systems->trouble.count > 0) {
        *err = systems->trouble.problem;
        cairn_error_wrap(err, "cluster '%s' has been another system than this server", cluster);
        return cairn_error_hint(
            err,
            "nobody can tell which: %s; after pg_upgrade or a new initdb of the same cluster: "
            "pgcairn init --another-system",
            incarnation_remedy(&systems->trouble.problem));
    }
    if (count == 0)
        return true;
    cairn_error(err, CAIRN_REFUSED,
                "cluster '%s' is known as system %" PRIu64
                " (PostgreSQL %d), but this server is system "
                "%" PRIu64 " (PostgreSQL %d)",
                cluster, known[count - 1].system_id, known[count - 1].major, incarnation->system_id,
                incarnation->major);
    return cairn_error_hint(
        err, "if it is another server, give it a cluster name of its own; after pg_upgrade or "
             "a new initdb of the same cluster: pgcairn init --another-system");
}

bool
init_cluster(Repository *repository, const char *cluster, Connection *server, bool another_system,
             Incarnation *incarnation_out, bool *existed_out, CairnError *err)
{
    SCOPED(Arena) arena = arena_new();
    ServerFacts facts;
    if (!server_facts_read(server, arena, &facts, err))
        return false;
    const Incarnation incarnation = {.system_id = facts.system_id,
                                     .major = facts.major,
                                     .wal_segment_size = facts.wal_segment_size,
                                     .data_checksums = facts.data_checksums};
    Incarnation known;
    const bool existed =
        incarnation_get(repository, cluster, facts.system_id, facts.major, &known, err);
    if (!existed) {
        if (err->kind == CAIRN_CORRUPT)
            cairn_error_hint(err, "it is the record of this very server: bring it back from a "
                                  "copy, or, if nobody here made it, remove it on the repository "
                                  "host; then run init again");
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
    }
    SCOPED_MEMORY KnownSystems *systems = read_known(repository, cluster, err);
    if (systems == NULL)
        return false;
    incarnation_warn(&systems->trouble);
    if (!existed && !another_system && !refuse_stranger(systems, cluster, &incarnation, err))
        return false;
    /* Also when it is there: a crash may have come before its sync. */
    if (!incarnation_record(repository, cluster, &incarnation, err))
        return false;
    *incarnation_out = incarnation;
    *existed_out = existed;
    return true;
}

/* What the conninfo says of user and host. Strings are malloc'ed or NULL. */
typedef struct {
    char *user;
    char *host;
    char *dbname;
} ConninfoParts;

static ConninfoParts
conninfo_parts(const char *conninfo)
{
    ConninfoParts parts = {0};
    PQconninfoOption *options = conninfo != NULL ? PQconninfoParse(conninfo, NULL) : NULL;
    for (PQconninfoOption *option = options; option != NULL && option->keyword != NULL; option++) {
        if (option->val == NULL)
            continue;
        if (strcmp(option->keyword, "user") == 0)
            parts.user = strdup(option->val);
        else if (strcmp(option->keyword, "host") == 0)
            parts.host = strdup(option->val);
        else if (strcmp(option->keyword, "dbname") == 0)
            parts.dbname = strdup(option->val);
    }
    PQconninfoFree(options);
    return parts;
}

/* In single quotes for psql's \set and a shell; both double or break out differently, so neither
 * may be inside. */
static bool
quotable(const char *text)
{
    return strpbrk(text, "'\\\"\n\r%") == NULL;
}

static void
print_role(ByteWriter *text, const char *user)
{
    byte_writer_format(
        text, "# 1. The role.  As a superuser: psql -d postgres, then\n\n\\set role '%s'\n", user);
    byte_writer_bytes(text, role_sql, strlen(role_sql));
}

static void
print_hba(ByteWriter *text, const char *user, const char *host, const char *dbname)
{
    byte_writer_format(
        text,
        "\n# 2. pg_hba.conf (above broader lines), then: SELECT pg_reload_conf();\n"
        "#    Replication has lines of its own; \"all\" does not mean it.  The names of tables in "
        "every database are kept with each\n"
        "#    backup (for pgcairn targets); without that, \"%s\" is enough.\n\n",
        dbname);
    if (host == NULL || host[0] == '/' || host[0] == '\0') {
        byte_writer_format(text,
                           "local  replication  %s  peer map=pgcairn\n"
                           "local  all          %s  peer map=pgcairn\n"
                           "\n#    pg_ident.conf: which system users may be this role\n\n"
                           "pgcairn  postgres  %s\n"
                           "pgcairn  root      %s\n",
                           user, user, user, user);
    } else {
        byte_writer_format(
            text,
            "hostssl  replication  %s  <address of this host>/32  scram-sha-256\n"
            "hostssl  all          %s  <address of this host>/32  scram-sha-256\n"
            "\n#    The password goes into ~/.pgpass of the user that runs pgcairn (mode 0600), "
            "never into a "
            "command line:\n\n%s:*:*:%s:<password>\n",
            user, user, host, user);
    }
}

static void
print_settings(ByteWriter *text, const InitPrintOptions *options)
{
    byte_writer_format(
        text,
        "\n# 3. postgresql.conf, then restart the server (archive_mode and wal_level need it)\n\n"
        "wal_level = replica\n"
        "archive_mode = on\n"
        "archive_command = '\"%s\" push --config \"%s\"%s%s \"%%p\"'\n"
        "archive_timeout = 60s        # how much may be lost at most on a quiet server\n",
        options->wal_program, options->config_file, options->several_clusters ? " --cluster " : "",
        options->several_clusters ? options->cluster : "");
    byte_writer_format(
        text,
        "\n#    Or, in place of archive_command (PostgreSQL 16 refuses both), the archive module: "
        "it keeps one\n"
        "#    process for all segments, where archive_command starts one for each.\n\n"
        "#archive_library = 'pgcairn_archive'\n"
        "#pgcairn_archive.command = '%s'\n"
        "#pgcairn_archive.config = '%s'\n",
        options->wal_program, options->config_file);
    if (options->several_clusters)
        byte_writer_format(text, "#pgcairn_archive.cluster = '%s'\n", options->cluster);
}

static void
print_cron(ByteWriter *text, const InitPrintOptions *options, const char *system_user)
{
    byte_writer_format(
        text,
        "\n# 4. /etc/cron.d/pgcairn: a backup every night (or use the systemd timer)\n\n"
        "30 1 * * *  %s  \"%s\" backup --config \"%s\"%s%s\n",
        system_user, options->program, options->config_file,
        options->several_clusters ? " --cluster " : "",
        options->several_clusters ? options->cluster : "");
}

/* The other way to keep the repository: on a host that this one cannot make delete anything. */
static void
print_repository_host(ByteWriter *text, const InitPrintOptions *options)
{
    const char *host = options->repository_host;
    byte_writer_format(
        text,
        "\n# 6. %s (docs/repository-host.md)\n"
        "#    As the user that runs the server: ssh-keygen -t ed25519; connect once by hand, so "
        "that "
        "known_hosts has the host.\n"
        "#    On the repository host, in authorized_keys of the user that owns the repository, "
        "one line "
        "for each database host:\n\n"
        "command=\"pgcairn serve --stdio --create-only --cluster %s\",restrict ssh-ed25519 "
        "<public key "
        "of this host>\n\n"
        "#    and there: pgcairn init --no-server; pgcairn expire and pgcairn collect every "
        "night.\n",
        host != NULL
            ? "The repository host"
            : "Better than a directory here: a repository host, reached by ssh, from which a "
              "stolen database host\n#    can delete nothing",
        options->cluster);
    if (host == NULL)
        byte_writer_format(
            text, "#    Here, in place of path: type = ssh, host = pgcairn@<repository host>\n");
}

static void
print_config(ByteWriter *text, const InitPrintOptions *options, const char *user, const char *shown)
{
    byte_writer_format(
        text,
        "\n# 5. %s: the smallest one\n"
        "#    The repository belongs to the user that runs the server (archive_command runs as "
        "it), on another\n"
        "#    disk than the database, better on another host.\n\n"
        "[repository %s]\n"
        "%s%s\n"
        "# Stated on purpose, one of (docs/keys.md helps to choose):\n"
        "# none: who reads the repository reads the database\n"
        "encryption = none\n"
        "# a key in a file, made by: pgcairn key generate /etc/pgcairn/main.key\n"
        "#encryption = key-file\n"
        "#key-file = /etc/pgcairn/main.key\n"
        "# a passphrase; with a key-file beside it that file is used day by day\n"
        "#encryption = passphrase\n"
        "#passphrase-file = /etc/pgcairn/passphrase\n"
        "# sealed: this host writes what only the holder of a private key reads\n"
        "#encryption = sealed\n"
        "#key-file = /etc/pgcairn/host.key\n"
        "#recipients = /etc/pgcairn/recipients\n\n"
        "[cluster %s]\n",
        options->config_file, options->repository,
        options->repository_host != NULL ? "type = ssh\nhost = " : "path = ",
        options->repository_host != NULL ? options->repository_host : options->repository_path,
        options->cluster);
    if (options->conninfo != NULL)
        byte_writer_format(text, "conninfo = %s\n", shown);
    else
        byte_writer_format(text, "conninfo = host=/run/postgresql user=%s\n", user);
}

bool
init_print(const InitPrintOptions *options, ByteWriter *text, CairnError *err)
{
    ConninfoParts parts = conninfo_parts(options->conninfo);
    const char *user = parts.user != NULL ? parts.user : "pgcairn";
    const char *dbname = parts.dbname != NULL ? parts.dbname : "postgres";
    SCOPED_MEMORY char *shown = connection_conninfo_redacted(options->conninfo);
    const bool printable = quotable(user) && quotable(options->wal_program) &&
                           quotable(options->program) && quotable(options->config_file);
    if (printable) {
        print_role(text, user);
        print_hba(text, user, parts.host, dbname);
        print_settings(text, options);
        print_cron(text, options, "postgres");
        print_config(text, options, user, shown != NULL ? shown : "");
        print_repository_host(text, options);
        byte_writer_format(text, "\n# Then: pgcairn init && pgcairn check && pgcairn backup\n");
    }
    free(parts.user);
    free(parts.host);
    free(parts.dbname);
    if (!printable)
        return cairn_error(
            err, CAIRN_UNSUPPORTED,
            "user, program or configuration path has quotes, backslashes or percent signs");
    return byte_writer_check(text, err);
}
