#include "agent/init.h"

#include "agent/role_sql.h"
#include "postgres/server_facts.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool
check_encryption(const RepositoryConfig *config, CairnError *err)
{
    static const char CHOICES[] = "`encryption = none` stores what the server sends: whoever can "
                                  "read the repository can read the "
                                  "database. passphrase, key-file and sealed are reserved and not "
                                  "implemented yet: until they are, an "
                                  "encrypted file system below the repository is the way";
    if (config->encryption == NULL) {
        cairn_error(err, CAIRN_USAGE, "[repository %s]: encryption must be stated", config->name);
        return cairn_error_hint(err, "%s", CHOICES);
    }
    if (strcmp(config->encryption, "none") != 0) {
        cairn_error(err, CAIRN_UNSUPPORTED,
                    "[repository %s]: encryption = %s is not supported by this version",
                    config->name, config->encryption);
        return cairn_error_hint(err, "%s", CHOICES);
    }
    return true;
}

Repository *
init_repository(const World *world, const RepositoryConfig *config, bool *created_out,
                CairnError *err)
{
    if (!check_encryption(config, err))
        return NULL;
    Repository *repository = repository_open(world, config, err);
    if (repository != NULL) {
        *created_out = false;
        return repository;
    }
    if (err->kind != CAIRN_NOT_FOUND)
        return NULL;
    cairn_error_clear(err);

    const bool created = repository_init(world, config, err);
    /* Somebody may have been faster: then theirs is the one. */
    if (!created && err->kind != CAIRN_CONFLICT)
        return NULL;
    cairn_error_clear(err);
    repository = repository_open(world, config, err);
    if (repository != NULL)
        *created_out = created;
    return repository;
}

/* Several systems of one cluster are a history of upgrades and restores; a first meeting with a new
   one is as likely a wrong conninfo. */
static bool
refuse_stranger(Repository *repository, const char *cluster, const Incarnation *incarnation,
                CairnError *err)
{
    SCOPED_MEMORY Incarnation *known = calloc(INCARNATION_LIMIT, sizeof *known);
    if (known == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    size_t count = 0;
    if (!incarnation_list(repository, cluster, known, &count, err))
        return false;
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
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        if (!another_system && !refuse_stranger(repository, cluster, &incarnation, err))
            return false;
    }
    /* Also when it is there: a crash may have come before its sync. */
    if (!incarnation_record(repository, cluster, &incarnation, err))
        return false;
    *incarnation_out = incarnation;
    *existed_out = existed;
    return true;
}

static void PRINTF_LIKE(2, 3) print(ByteWriter *text, const char *format, ...)
{
    char line[4096];
    va_list args;
    va_start(args, format);
    const int size = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (size < 0 || (size_t)size >= sizeof line)
        text->failed = true;
    else
        byte_writer_bytes(text, line, (size_t)size);
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
    print(text, "# 1. The role.  As a superuser: psql -d postgres, then\n\n\\set role '%s'\n",
          user);
    byte_writer_bytes(text, role_sql, strlen(role_sql));
}

static void
print_hba(ByteWriter *text, const char *user, const char *host, const char *dbname)
{
    print(
        text,
        "\n# 2. pg_hba.conf (above broader lines), then: SELECT pg_reload_conf();\n"
        "#    Replication has lines of its own; \"all\" does not mean it.  The names of tables in "
        "every database are kept with each\n"
        "#    backup (for pgcairn targets); without that, \"%s\" is enough.\n\n",
        dbname);
    if (host == NULL || host[0] == '/' || host[0] == '\0') {
        print(text,
              "local  replication  %s  peer map=pgcairn\n"
              "local  all          %s  peer map=pgcairn\n"
              "\n#    pg_ident.conf: which system users may be this role\n\n"
              "pgcairn  postgres  %s\n"
              "pgcairn  root      %s\n",
              user, user, user, user);
    } else {
        print(text,
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
    print(text,
          "\n# 3. postgresql.conf, then restart the server (archive_mode and wal_level need it)\n\n"
          "wal_level = replica\n"
          "archive_mode = on\n"
          "archive_command = '\"%s\" push --config \"%s\"%s%s \"%%p\"'\n"
          "archive_timeout = 60s        # how much may be lost at most on a quiet server\n",
          options->wal_program, options->config_file,
          options->several_clusters ? " --cluster " : "",
          options->several_clusters ? options->cluster : "");
    print(
        text,
        "\n#    Or, in place of archive_command (PostgreSQL 16 refuses both), the archive module: "
        "it keeps one\n"
        "#    process for all segments, where archive_command starts one for each.\n\n"
        "#archive_library = 'pgcairn_archive'\n"
        "#pgcairn_archive.command = '%s'\n"
        "#pgcairn_archive.config = '%s'\n",
        options->wal_program, options->config_file);
    if (options->several_clusters)
        print(text, "#pgcairn_archive.cluster = '%s'\n", options->cluster);
}

static void
print_cron(ByteWriter *text, const InitPrintOptions *options, const char *system_user)
{
    print(text,
          "\n# 4. /etc/cron.d/pgcairn: a backup every night (or use the systemd timer)\n\n"
          "30 1 * * *  %s  \"%s\" backup --config \"%s\"%s%s\n",
          system_user, options->program, options->config_file,
          options->several_clusters ? " --cluster " : "",
          options->several_clusters ? options->cluster : "");
}

static void
print_config(ByteWriter *text, const InitPrintOptions *options, const char *user, const char *shown)
{
    print(text,
          "\n# 5. %s: the smallest one\n"
          "#    The repository belongs to the user that runs the server (archive_command runs as "
          "it), on another\n"
          "#    disk than the database, better on another host.\n\n"
          "[repository %s]\n"
          "path = %s\n"
          "# stated on purpose: who reads the repository reads the database\n"
          "encryption = none\n\n"
          "[cluster %s]\n",
          options->config_file, options->repository, options->repository_path, options->cluster);
    if (options->conninfo != NULL)
        print(text, "conninfo = %s\n", shown);
    else
        print(text, "conninfo = host=/run/postgresql user=%s\n", user);
    print(text, "\n# Then: pgcairn init && pgcairn check && pgcairn backup\n");
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
