#include "agent/check.h"

#include "agent/check_steps.h"
#include "agent/expire.h"
#include "common/plain_text.h"
#include "common/progress.h"
#include "common/timestamp.h"
#include "repository/store_proof.h"
#include "storage/connect.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { CHECK_TEXT_LIMIT = CAIRN_ERROR_MESSAGE_SIZE + CAIRN_ERROR_HINT_SIZE + 8 };

#define FREE_SPACE_WARNING_BYTES (UINT64_C(1) << 30)
#define FREE_SPACE_FAILED_BYTES (UINT64_C(64) << 20)
#define BACKUP_AGE_WARNING_US (INT64_C(8) * 24 * 3600 * 1000000)

void
check_add(CheckRun *run, const char *name, CheckStatus status, const char *format, ...)
{
    char foreign[CHECK_TEXT_LIMIT];
    char text[CHECK_TEXT_LIMIT];
    va_list args;
    va_start(args, format);
    vsnprintf(foreign, sizeof foreign, format, args);
    va_end(args);
    plain_text(text, sizeof text, foreign, "\n");

    CheckReport *report = run->report;
    CAIRN_ASSERT(report->count < CHECK_RESULTS_LIMIT);
    CheckResult *result = &report->results[report->count++];
    *result = (CheckResult){name, status, arena_strdup(report->arena, text)};
    if (run->options->report != NULL)
        run->options->report(run->options->context, result);
}

void
check_add_error(CheckRun *run, const char *name, CheckStatus status, CairnError *err)
{
    if (err->hint[0] != '\0')
        check_add(run, name, status, "%s; %s", err->message, err->hint);
    else
        check_add(run, name, status, "%s", err->message);
    cairn_error_clear(err);
}

static void
check_configuration(CheckRun *run)
{
    const CheckOptions *options = run->options;
    SCOPED_MEMORY char *conninfo = connection_conninfo_redacted(options->cluster->conninfo);
    check_add(run, "configuration", CHECK_OK, "%s, cluster %s, repository %s, conninfo %s",
              options->config_file != NULL ? options->config_file : "environment",
              options->cluster->name, options->repository->name, conninfo != NULL ? conninfo : "?");
}

static void
check_repository(CheckRun *run)
{
    CairnError err = {0};
    run->repository = repository_open(run->options->world, run->options->repository, &err);
    if (run->repository == NULL) {
        if (err.kind == CAIRN_NOT_FOUND && err.hint[0] == '\0')
            cairn_error_hint(&err, "is it mounted? A new one is made by: pgcairn init");
        check_add_error(run, "repository", CHECK_FAILED, &err);
        return;
    }
    char id[2 * REPOSITORY_ID_SIZE + 1];
    hex_encode(id, repository_id(run->repository), REPOSITORY_ID_SIZE);
    char place[STORAGE_PLACE_TEXT_SIZE];
    storage_place_text(run->options->repository, place);
    check_add(run, "repository", CHECK_OK, "%s, id %s%s", place, id,
              storage_is_create_only(repository_storage(run->repository))
                  ? "; create-only: expire and collect run on the repository host"
                  : "");
}

/* A writer that is abandoned: create-if-absent storage keeps nothing of it. */
static bool
probe_write(CheckRun *run, CairnError *err)
{
    char token[17];
    char name[STORAGE_NAME_LIMIT];
    if (!random_token(run->options->world, token, err))
        return false;
    /* Where a connection that is for this cluster alone may write. */
    snprintf(name, sizeof name, "c/%s/check-%s", run->options->cluster->name, token);
    SCOPED(StorageWriter) writer = storage_create(repository_storage(run->repository), name, err);
    return writer != NULL && storage_write(writer, token, sizeof token, err);
}

static void
check_writable(CheckRun *run)
{
    CairnError err = {0};
    if (run->repository == NULL)
        return;
    if (!probe_write(run, &err))
        check_add_error(run, "repository-writable", CHECK_FAILED, &err);
    else
        check_add(run, "repository-writable", CHECK_OK, "%s", "");
}

/* What an object store was seen to do, and when; probed anew after a day. */
static void
check_store(CheckRun *run)
{
    CairnError err = {0};
    StoreProof proof;
    char at[TIMESTAMP_TEXT_SIZE];
    if (run->repository == NULL || !storage_needs_probe(repository_storage(run->repository)))
        return;
    if (!store_proof_renew(run->repository, &proof, &err)) {
        check_add_error(run, "object-store", CHECK_FAILED, &err);
        return;
    }
    const bool exclusive = storage_creates_exclusively(repository_storage(run->repository));
    const bool damaged = proof.probe.digest_check == STORAGE_FEATURE_FAILS;
    timestamp_format(at, proof.at_us / 1000000 * 1000000);
    check_add(run, "object-store", damaged ? CHECK_WARNING : CHECK_OK, "%s %s%s%s",
              exclusive ? "conditional create proven by race at"
                        : "single-writer mode (writers = one): one host may write, and dead "
                          "attempts are not revoked; reading and listing proven at",
              at, proof.probe.object_lock == STORAGE_FEATURE_HOLDS ? ", object lock read back" : "",
              damaged ? "; it stores bodies that differ from their digest: damage on the way is "
                        "found when reading only"
                      : "");
}

/* The newest committed and undamaged backup, or NULL. */
static const CatalogBackup *
newest_good(const Catalog *catalog)
{
    for (size_t i = catalog->count; i > 0; i--) {
        const CatalogBackup *backup = &catalog->backups[i - 1];
        if (backup->presence == BACKUP_COMMITTED && !backup->damaged && !backup->fate->damaged)
            return backup;
    }
    return NULL;
}

static void
check_free_space(CheckRun *run, const CatalogBackup *newest)
{
    CairnError err = {0};
    uint64_t free_bytes = 0;
    if (!storage_free_space(repository_storage(run->repository), &free_bytes, &err)) {
        check_add_error(run, "free-space", CHECK_WARNING, &err);
        return;
    }
    if (free_bytes == UINT64_MAX) {
        check_add(run, "free-space", CHECK_OK, "the object store tells no limit");
        return;
    }
    char free_text[32];
    char need_text[32];
    format_bytes(free_text, free_bytes);
    const uint64_t need_bytes = newest != NULL ? newest->fate->stored_bytes : 0;
    format_bytes(need_text, need_bytes);
    if (free_bytes < FREE_SPACE_FAILED_BYTES)
        check_add(run, "free-space", CHECK_FAILED, "%s: archiving is about to stop; make room",
                  free_text);
    else if (free_bytes < need_bytes)
        check_add(run, "free-space", CHECK_WARNING,
                  "%s, the newest backup took %s: another may not fit", free_text, need_text);
    else if (free_bytes < FREE_SPACE_WARNING_BYTES)
        check_add(run, "free-space", CHECK_WARNING, "%s: make room", free_text);
    else
        check_add(run, "free-space", CHECK_OK, "%s", free_text);
}

static void
check_backups(CheckRun *run, const CatalogBackup *newest)
{
    const Clock *clock = run->options->world->clock;
    if (newest == NULL) {
        check_add(run, "backups", CHECK_WARNING, "there is no good one yet; run: pgcairn backup");
        return;
    }
    const int64_t age_us = clock->wall_us(clock) - newest->fate->stopped_us;
    check_add(run, "backups", age_us > BACKUP_AGE_WARNING_US ? CHECK_WARNING : CHECK_OK,
              "newest is %s, %.1f hours old%s", newest->fate->label, (double)age_us / 3600e6,
              age_us > BACKUP_AGE_WARNING_US ? "; is the schedule running?" : "");
}

static void
check_contents(CheckRun *run)
{
    CairnError err = {0};
    if (run->repository == NULL)
        return;
    SCOPED(Catalog) catalog = catalog_read(run->repository, run->options->cluster->name, &err);
    const CatalogBackup *newest = catalog != NULL ? newest_good(catalog) : NULL;
    check_free_space(run, newest);
    if (catalog == NULL)
        check_add_error(run, "backups", CHECK_FAILED, &err);
    else
        check_backups(run, newest);
    if (catalog != NULL)
        check_locks(run, catalog, newest);
}

static void
check_plan(CheckRun *run, const RetentionPolicy *policy)
{
    CairnError err = {0};
    char text[RETENTION_TEXT_SIZE];
    retention_policy_format(policy, text);
    SCOPED(ExpirePlan)
    plan = expire_plan(run->repository, run->options->cluster->name, policy, 0, &err);
    if (plan == NULL && err.kind == CAIRN_NOT_FOUND) {
        check_add(run, "retention", CHECK_OK, "%s", text); /* there is nothing yet */
    } else if (plan == NULL) {
        check_add_error(run, "retention", CHECK_FAILED, &err);
    } else if (plan->plan->frozen) {
        const RetentionAnomaly *anomaly = &plan->plan->anomalies[0];
        check_add(run, "retention", CHECK_WARNING, "%s, but expiry is frozen: %s; %s", text,
                  anomaly->text, anomaly->remedy);
    } else {
        check_add(run, "retention", CHECK_OK, "%s: keeps %zu of %zu backups", text,
                  plan->plan->keep_count, plan->plan->live_count);
    }
}

static void
check_retention(CheckRun *run)
{
    CairnError err = {0};
    RetentionPolicy policy;
    const char *text = expire_policy_text(run->options->cluster, run->options->repository);
    if (!retention_policy_parse(text, &policy, &err))
        check_add_error(run, "retention", CHECK_FAILED, &err);
    else if (policy.count == 0)
        check_add(run, "retention", CHECK_WARNING,
                  "no policy: nothing is ever deleted, the repository grows");
    else if (run->repository != NULL)
        check_plan(run, &policy);
}

static void
check_identity(CheckRun *run)
{
    CairnError err = {0};
    if (run->repository == NULL || !run->facts_known)
        return;
    if (incarnation_get(run->repository, run->options->cluster->name, run->facts.system_id,
                        run->facts.major, &run->incarnation, &err)) {
        run->incarnation_known = true;
        check_add(run, "identity", CHECK_OK, "system %" PRIu64 ", PostgreSQL %d",
                  run->facts.system_id, run->facts.major);
    } else if (err.kind == CAIRN_NOT_FOUND) {
        check_add(run, "identity", CHECK_FAILED,
                  "the repository does not know system %" PRIu64
                  " (PostgreSQL %d) as cluster '%s'; if "
                  "this is the right server, run: pgcairn init",
                  run->facts.system_id, run->facts.major, run->options->cluster->name);
    } else {
        check_add_error(run, "identity", CHECK_FAILED, &err);
    }
}

CheckReport *
check_run(const CheckOptions *options)
{
    CheckReport *report = calloc(1, sizeof *report);
    CAIRN_ASSERT(report != NULL);
    report->arena = arena_new();
    CheckRun run = {.options = options, .report = report};

    check_configuration(&run);
    check_repository(&run);
    check_encryption(&run);
    check_writable(&run);
    check_store(&run);
    check_connection(&run);
    check_privileges(&run);
    check_replication(&run);
    check_identity(&run);
    check_settings(&run);
    check_tablespaces(&run);
    check_archiving(&run);
    check_overflow(&run);
    check_batches(&run);
    check_wal_arrival(&run);
    /* Behind it: what had failed before the repository was made, say, has just been caught up on.
     */
    check_archiving_state(&run);
    check_other_repositories(&run);
    check_contents(&run);
    check_histories(&run);
    check_retention(&run);

    connection_close(run.server);
    repository_close(run.repository);
    return report;
}

void
check_report_free(CheckReport *report)
{
    if (report == NULL)
        return;
    arena_free(report->arena);
    free(report);
}

CheckStatus
check_worst(const CheckReport *report)
{
    CheckStatus worst = CHECK_OK;
    for (size_t i = 0; i < report->count; i++) {
        if (report->results[i].status > worst)
            worst = report->results[i].status;
    }
    return worst;
}

const char *
check_status_name(CheckStatus status)
{
    static const char *const NAMES[] = {"OK", "WARNING", "FAILED"};
    CAIRN_ASSERT((size_t)status < sizeof NAMES / sizeof NAMES[0]);
    return NAMES[status];
}
