#include "agent/check_steps.h"

#include "postgres/basebackup.h"

#include <inttypes.h>
#include <string.h>

void
check_connection(CheckRun *run)
{
    CairnError err = {0};
    run->server =
        connection_open(run->options->cluster->conninfo, CONNECTION_SQL, "pgcairn check", &err);
    if (run->server == NULL) {
        check_add_error(run, "connection", CHECK_FAILED, &err);
        return;
    }
    check_add(run, "connection", CHECK_OK, "%s", "");
    run->facts_known = server_facts_read(run->server, run->report->arena, &run->facts, &err);
    if (!run->facts_known) {
        check_add_error(run, "version", CHECK_FAILED, &err);
        return;
    }
    check_add(run, "version", CHECK_OK, "PostgreSQL %s%s", run->facts.server_version,
              run->facts.in_recovery ? ", a standby" : "");
}

void
check_privileges(CheckRun *run)
{
    if (!run->facts_known)
        return;
    const ServerFacts *facts = &run->facts;
    static const char REMEDY[] = "`pgcairn init --print` shows the role's SQL";
    if (!facts->has_replication) {
        check_add(run, "privileges", CHECK_FAILED, "role %s lacks REPLICATION; %s", facts->user,
                  REMEDY);
    } else if (!facts->may_read_settings || !facts->may_switch_wal) {
        check_add(run, "privileges", CHECK_WARNING, "role %s lacks %s%s%s; %s", facts->user,
                  facts->may_switch_wal ? "" : "EXECUTE on pg_switch_wal",
                  facts->may_switch_wal || facts->may_read_settings ? "" : " and ",
                  facts->may_read_settings ? "" : "pg_read_all_settings", REMEDY);
    } else {
        check_add(run, "privileges", CHECK_OK, "role %s%s", facts->user,
                  facts->is_superuser ? " (a superuser: more than pgcairn needs)" : "");
    }
}

/* pg_hba.conf has lines of its own for replication, and the answer must come from the same server.
 */
void
check_replication(CheckRun *run)
{
    CairnError err = {0};
    if (!run->facts_known)
        return;
    SCOPED(Connection)
    walsender = connection_open(run->options->cluster->conninfo, CONNECTION_REPLICATION,
                                "pgcairn check", &err);
    uint64_t system_id = 0;
    uint32_t timeline = 0;
    if (walsender == NULL || !identify_system(walsender, &system_id, &timeline, &err)) {
        check_add_error(run, "replication-connection", CHECK_FAILED, &err);
    } else if (system_id != run->facts.system_id) {
        check_add(run, "replication-connection", CHECK_FAILED,
                  "it reaches another server (system %" PRIu64 ") than SQL does (%" PRIu64
                  "); name one host in conninfo",
                  system_id, run->facts.system_id);
    } else {
        check_add(run, "replication-connection", CHECK_OK, "%s", "");
    }
}

static void
check_full_page_writes(CheckRun *run)
{
    const ServerFacts *facts = &run->facts;
    if (strcmp(facts->full_page_writes, "on") == 0)
        check_add(run, "full_page_writes", CHECK_OK, "%s", "");
    else if (facts->in_recovery)
        check_add(run, "full_page_writes", CHECK_FAILED,
                  "it is off: a standby cannot be backed up; set it on on the primary");
    else
        check_add(run, "full_page_writes", CHECK_WARNING, "it is off; set it on");
}

void
check_settings(CheckRun *run)
{
    if (!run->facts_known)
        return;
    const ServerFacts *facts = &run->facts;
    if (strcmp(facts->wal_level, "minimal") == 0)
        check_add(run, "wal_level", CHECK_FAILED,
                  "it is minimal; set wal_level = replica and restart");
    else
        check_add(run, "wal_level", CHECK_OK, "%s", facts->wal_level);
    check_full_page_writes(run);
    if (facts->max_wal_senders < 2)
        check_add(run, "max_wal_senders", CHECK_FAILED, "it is %d; set at least 2 and restart",
                  facts->max_wal_senders);
    if (facts->data_checksums)
        check_add(run, "data_checksums", CHECK_OK, "%s", "");
    else
        check_add(run, "data_checksums", CHECK_WARNING,
                  "off: damaged pages are not noticed when they are backed up; see pg_checksums");
}

/* 15 leaves in-place tablespaces out of a base backup without a word. */
void
check_tablespaces(CheckRun *run)
{
    if (!run->facts_known || run->facts.in_place_tablespaces[0] == '\0')
        return;
    if (run->facts.major < 16)
        check_add(
            run, "tablespaces", CHECK_FAILED,
            "PostgreSQL 15 leaves in-place tablespaces out of backups: %s; move what is in them",
            run->facts.in_place_tablespaces);
    else
        check_add(run, "tablespaces", CHECK_OK, "in place: %s", run->facts.in_place_tablespaces);
}
