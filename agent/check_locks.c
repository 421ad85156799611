/*
 * Object lock: is what the newest backup needs locked for as long as lock-days promise, and what of
 * backups that are kept for longer than that? With a bounded number of requests: a sample of the
 * newest backup (backup_locks_sample), and the fates of the oldest others.
 */
#include "agent/check_steps.h"
#include "agent/expire.h"
#include "common/timestamp.h"
#include "repository/backup_locks.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NAME "object-lock"
/* Locks are extended before the fate is stored, and many of them take their time. */
#define SLACK_US (INT64_C(6) * 3600 * 1000000)

enum { OLD_LIMIT = 16, TERMS_SIZE = 160 };

static const char REMEDY[] =
    "give the host that backs up s3:GetObjectRetention and s3:PutObjectRetention, or run `pgcairn "
    "repo renew` on the host that collects, or take a full backup (docs/object-stores.md)";

/* When it was committed, by the storage's clock where that tells. */
static int64_t
committed_us(const CatalogBackup *backup)
{
    return backup->stored_us != 0 ? backup->stored_us : backup->fate->stopped_us;
}

static void
format_time(char text[TIMESTAMP_TEXT_SIZE], int64_t time_us)
{
    if (time_us == 0)
        snprintf(text, TIMESTAMP_TEXT_SIZE, "never (there is no lock)");
    else
        timestamp_format(text, time_us / 1000000 * 1000000);
}

/* How long the policy keeps a backup for its age alone, in days; 0: it counts, and nobody knows. */
static int64_t
policy_days(const RetentionPolicy *policy, int64_t now_us)
{
    static const int DAYS[] = {
        [RETAIN_DAILY] = 1, [RETAIN_WEEKLY] = 7, [RETAIN_MONTHLY] = 31, [RETAIN_YEARLY] = 366};
    int64_t longest = 0;
    for (size_t i = 0; i < policy->count; i++) {
        const RetentionRule *rule = &policy->rules[i];
        int64_t days = 0;
        if (rule->kind == RETAIN_PITR || rule->kind == RETAIN_FULL_TIME)
            days = (now_us - retention_window_start(rule, now_us)) / LOCK_DAY_US;
        else if (rule->kind >= RETAIN_DAILY && rule->kind <= RETAIN_YEARLY)
            days = (int64_t)rule->count * DAYS[rule->kind];
        longest = days > longest ? days : longest;
    }
    return longest;
}

/* ", retention keeps 30 days ..." where locks do not last as long by themselves. */
static void
format_retention(const CheckRun *run, const StorageLockTerms *terms, int64_t now_us, char *text,
                 size_t size)
{
    RetentionPolicy policy;
    CairnError ignored = {0};
    const char *configured = expire_policy_text(run->options->cluster, run->options->repository);
    text[0] = '\0';
    if (!retention_policy_parse(configured, &policy, &ignored))
        return; /* which has a line of its own */
    const int64_t days = policy_days(&policy, now_us);
    if (policy.count == 0)
        snprintf(text, size,
                 "; without a policy backups are kept for longer than locks last: "
                 "`pgcairn repo renew`, daily, on the host that collects keeps them "
                 "locked");
    else if (days > terms->days)
        snprintf(text, size,
                 "; retention keeps backups for %" PRId64 " days, longer than locks last: `pgcairn "
                 "repo renew`, daily, on the host that collects keeps them locked",
                 days);
}

/* The oldest backups that nobody expired, whose own locks have run out by now. */
static bool
look_at_old(const CheckRun *run, const Catalog *catalog, const CatalogBackup *newest,
            int64_t now_us, const char **unlocked_out, CairnError *err)
{
    Storage *storage = repository_storage(run->repository);
    size_t asked = 0;
    *unlocked_out = NULL;
    for (size_t i = 0; i < catalog->count && asked < OLD_LIMIT && *unlocked_out == NULL; i++) {
        const CatalogBackup *backup = &catalog->backups[i];
        char name[STORAGE_NAME_LIMIT];
        StorageLock lock;
        if (backup->presence != BACKUP_COMMITTED || backup == newest)
            continue;
        snprintf(name, sizeof name, "c/%s/b/%s/fate", run->options->cluster->name,
                 backup->bid.text);
        if (!storage_ensure_lock(storage, name, 0, &lock, err))
            return false;
        asked++;
        if (lock.until_us < now_us)
            *unlocked_out = backup->fate->label;
    }
    return true;
}

/* False: a result was added. *until_out: the earliest end of a lock. */
static bool
check_newest(CheckRun *run, const CatalogBackup *newest, const StorageLockTerms *terms, char *text,
             size_t size, int64_t *until_out)
{
    CairnError err = {0};
    ObjectLockCounts counts;
    uint64_t inherited;
    char until[TIMESTAMP_TEXT_SIZE], wanted[TIMESTAMP_TEXT_SIZE];
    const int64_t wanted_us = committed_us(newest) + terms->days * LOCK_DAY_US;
    if (!backup_locks_sample(run->repository, newest->fate, &counts, &inherited, &err)) {
        check_add_error(run, NAME, CHECK_FAILED, &err);
        return false;
    }
    if (object_locks_unproven(&counts) > 0) {
        check_add(run, NAME, CHECK_FAILED,
                  "the locks of %" PRIu64 " of the %" PRIu64
                  " objects of backup %s that were asked are not as they should be: %.1000s; %s",
                  object_locks_unproven(&counts), object_locks_all(&counts), newest->fate->label,
                  counts.failed > 0 ? counts.failure.message : "some are missing",
                  counts.failure.kind == CAIRN_MISMATCH ? counts.failure.hint : REMEDY);
        return false;
    }
    format_time(until, counts.earliest_us);
    format_time(wanted, wanted_us);
    if (counts.earliest_us < wanted_us - SLACK_US) {
        check_add(run, NAME, CHECK_FAILED,
                  "backup %s needs '%s', which is locked until %s; lock-days = %d promise %s; %s",
                  newest->fate->label, counts.earliest, until, terms->days, wanted, REMEDY);
        return false;
    }
    snprintf(text, size,
             "; what %s needs is locked until %s at least (%" PRIu64 " of %" PRIu64
             " inherited packs asked, from the oldest to the newest)",
             newest->fate->label, until,
             inherited < BACKUP_LOCKS_SAMPLE ? inherited : (uint64_t)BACKUP_LOCKS_SAMPLE,
             inherited);
    *until_out = counts.earliest_us;
    return true;
}

void
check_locks(CheckRun *run, const Catalog *catalog, const CatalogBackup *newest)
{
    const StorageLockTerms terms = storage_lock_terms(repository_storage(run->repository));
    const Clock *clock = run->options->world->clock;
    const int64_t now_us = clock->wall_us(clock);
    char newest_text[512] = "", retention[512], text[TERMS_SIZE];
    const char *unlocked;
    int64_t until_us = now_us;
    CairnError err = {0};
    if (terms.mode == NULL)
        return;
    if (newest != NULL &&
        !check_newest(run, newest, &terms, newest_text, sizeof newest_text, &until_us))
        return;
    snprintf(text, sizeof text,
             "%s: new objects for %d days, renewed for a new backup when fewer than %d are left",
             terms.mode, terms.days + terms.refresh_days, terms.days);
    format_retention(run, &terms, now_us, retention, sizeof retention);
    if (!look_at_old(run, catalog, newest, now_us, &unlocked, &err)) {
        check_add_error(run, NAME, CHECK_FAILED, &err);
        return;
    }
    /* It lasted as long as promised, and no backup came after it. */
    if (unlocked == NULL && until_us < now_us)
        unlocked = newest->fate->label;
    if (unlocked != NULL)
        check_add(run, NAME, CHECK_WARNING,
                  "backup %s is kept and its lock has run out: run `pgcairn repo renew`, daily, on "
                  "the host that collects, or raise lock-days; %s%s%s",
                  unlocked, text, newest_text, retention);
    else
        check_add(run, NAME, CHECK_OK, "%s%s%s", text, newest_text, retention);
}
