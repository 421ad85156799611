#include "agent/expire.h"

#include "repository/mark.h"

#include <stdio.h>
#include <string.h>

const char *
expire_policy_text(const ClusterConfig *cluster, const RepositoryConfig *repository)
{
    return cluster->retention != NULL ? cluster->retention : repository->retention;
}

/* ---- what the repository holds, as the plan wants it ---- */

static RetentionBackup
describe_backup(const InfoBackup *entry)
{
    const CatalogBackup *stored = entry->backup;
    const Fate *fate = stored->fate;
    if (stored->presence == BACKUP_UNREADABLE)
        return (RetentionBackup){.bid = stored->bid, .unreadable = true};
    return (RetentionBackup){
        .bid = stored->bid,
        .label = fate->label,
        .is_full = strcmp(fate->type, "full") == 0,
        .expired = stored->presence == BACKUP_EXPIRED,
        .wal_complete = info_is_usable(entry),
        .damaged = stored->damaged,
        .kept = stored->kept,
        .released = stored->released,
        .system_id = fate->system_id,
        .major = fate->major,
        .timeline = fate->stop_timeline,
        .start_lsn = fate->start_lsn,
        .stop_lsn = fate->stop_lsn,
        .reach_lsn = entry->reach_lsn,
        .started_us = fate->started_us,
        .stopped_us = fate->stopped_us,
        .size_bytes = fate->size_bytes,
        .previous = fate->previous_bid,
    };
}

/* Backups that have a fate worth planning with; info's others are attempts. */
static bool
is_planned(const CatalogBackup *stored)
{
    return stored->presence != BACKUP_UNFINISHED && stored->presence != BACKUP_REVOKED;
}

static void
describe_backups(Arena *arena, const InfoCluster *cluster, RetentionInput *input)
{
    RetentionBackup *backups = arena_alloc(arena, (cluster->backup_count + 1) * sizeof *backups);
    for (size_t i = 0; i < cluster->backup_count; i++) {
        const CatalogBackup *stored = cluster->backups[i].backup;
        if (!is_planned(stored))
            continue;
        backups[input->backup_count++] = describe_backup(&cluster->backups[i]);
        if (stored->stored_us > input->newest_object_us)
            input->newest_object_us = stored->stored_us;
    }
    input->backups = backups;
}

static void
describe_timelines(Arena *arena, const InfoCluster *cluster, RetentionInput *input)
{
    size_t count = 0;
    for (size_t i = 0; i < cluster->incarnation_count; i++)
        count += cluster->incarnations[i].timeline_count;
    RetentionIncarnation *incarnations =
        arena_alloc(arena, (cluster->incarnation_count + 1) * sizeof *incarnations);
    RetentionTimeline *timelines = arena_alloc(arena, (count + 1) * sizeof *timelines);
    for (size_t i = 0; i < cluster->incarnation_count; i++) {
        const InfoIncarnation *from = &cluster->incarnations[i];
        const RetentionIncarnation to = {from->incarnation.system_id, from->incarnation.major};
        incarnations[input->incarnation_count++] = to;
        for (size_t k = 0; k < from->timeline_count; k++) {
            const InfoTimeline *timeline = &from->timelines[k];
            timelines[input->timeline_count++] = (RetentionTimeline){
                .system_id = to.system_id,
                .major = to.major,
                .timeline = timeline->timeline,
                .parent = timeline->parent,
                .fork_lsn = timeline->fork_lsn,
                .is_leaf = timeline->is_leaf,
                .unreadable = timeline->history_problem != NULL,
            };
            if (timeline->newest_us > input->newest_object_us)
                input->newest_object_us = timeline->newest_us;
        }
    }
    input->incarnations = incarnations;
    input->timelines = timelines;
}

static void
describe_input(Info *info, size_t cluster_index, const RetentionPolicy *policy,
               RetentionInput *input)
{
    *input = (RetentionInput){.policy = policy, .now_us = info->now_us};
    describe_backups(info->arena, &info->clusters[cluster_index], input);
    describe_timelines(info->arena, &info->clusters[cluster_index], input);
}

ExpirePlan *
expire_plan(Repository *repository, const char *cluster, const RetentionPolicy *policy,
            unsigned accepted, CairnError *err)
{
    SCOPED(ExpirePlan) plan = calloc(1, sizeof *plan);
    CAIRN_ASSERT(plan != NULL);
    plan->info = info_read(repository, cluster, err);
    if (plan->info == NULL)
        return NULL;
    plan->policy = *policy;
    describe_input(plan->info, 0, &plan->policy, &plan->input);
    plan->plan = retention_plan_make(&plan->input, accepted);
    return take(&plan);
}

void
expire_explain(Info *info, size_t cluster_index, const RetentionPolicy *policy)
{
    RetentionInput input = {0};
    const InfoCluster *cluster = &info->clusters[cluster_index];
    char text[RETENTION_TEXT_SIZE];
    retention_policy_format(policy, text);
    info_set_retention(info, cluster_index, text);
    describe_input(info, cluster_index, policy, &input);
    SCOPED(RetentionPlan) plan = retention_plan_make(&input, 0);
    size_t planned = 0;
    for (size_t i = 0; i < cluster->backup_count; i++) {
        if (is_planned(cluster->backups[i].backup))
            cluster->backups[i].own_moment_only = plan->decisions[planned++].isolated;
    }
    info_apply_retention(info, cluster_index);
}

void
expire_plan_free(ExpirePlan *plan)
{
    if (plan == NULL)
        return;
    retention_plan_free(plan->plan);
    info_free(plan->info);
    free(plan);
}

/* ---- carrying it out ---- */

static const char *
cluster_of(const ExpirePlan *plan)
{
    return plan->info->clusters[0].name;
}

/*
 * Marks one backup, if the marks below are still what the plan saw: a person may say keep while we
 * work. The number of a mark is taken once, so that of two decisions made at the same moment one
 * sees the other.
 */
static bool
mark_expired(Repository *repository, const char *cluster, const BackupId *bid, const char *reason,
             bool *marked_out, CairnError *err)
{
    for (;;) {
        MarkState state;
        if (!mark_read(repository, cluster, bid, &state, err))
            return false;
        *marked_out = false;
        if (state.kept || state.expired || state.pending)
            return true;
        if (mark_add_at(repository, cluster, bid, state.next, MARK_EXPIRE, reason, err)) {
            *marked_out = true;
            return true;
        }
        if (err->kind != CAIRN_CONFLICT)
            return false;
        cairn_error_clear(err);
    }
}

static bool
refuse_frozen(const RetentionPlan *plan, CairnError *err)
{
    for (size_t i = 0; i < plan->anomaly_count; i++) {
        if (plan->anomalies[i].accepted)
            continue;
        cairn_error(err, CAIRN_REFUSED, "expiry is frozen, nothing was marked: %s",
                    plan->anomalies[i].text);
        return cairn_error_hint(err, "%s", plan->anomalies[i].remedy);
    }
    return cairn_error(err, CAIRN_REFUSED, "expiry is frozen");
}

/* What stays, but only for its own moment. malloc'ed. */
static BackupId *
isolated_backups(const ExpirePlan *plan, size_t *count_out)
{
    BackupId *ids = calloc(plan->input.backup_count + 1, sizeof *ids);
    CAIRN_ASSERT(ids != NULL);
    size_t count = 0;
    for (size_t i = 0; i < plan->input.backup_count; i++) {
        if (plan->plan->decisions[i].isolated)
            ids[count++] = plan->input.backups[i].bid;
    }
    *count_out = count;
    return ids;
}

static bool
collect_after(Repository *repository, const ExpirePlan *plan, CollectReport *report_out,
              CairnError *err)
{
    size_t count;
    SCOPED_MEMORY BackupId *isolated = isolated_backups(plan, &count);
    const CollectOptions options = {.cluster = cluster_of(plan),
                                    .grace_s = -1,
                                    .without_pitr = isolated,
                                    .without_pitr_count = count};
    return collect_run(repository, &options, report_out, err);
}

bool
expire_run(Repository *repository, const ExpirePlan *plan, ExpireReport *report_out,
           CairnError *err)
{
    ExpireReport report = {0};
    if (plan->policy.count == 0) {
        *report_out = report;
        return true;
    }
    if (!repository_may_let_go(repository, err))
        return false;
    if (plan->plan->frozen)
        return refuse_frozen(plan->plan, err);
    char policy[RETENTION_TEXT_SIZE], reason[RETENTION_TEXT_SIZE + 16];
    retention_policy_format(&plan->policy, policy);
    snprintf(reason, sizeof reason, "retention %s", policy);
    for (size_t i = 0; i < plan->input.backup_count; i++) {
        const RetentionDecision *decision = &plan->plan->decisions[i];
        if (!decision->live || decision->keep)
            continue;
        bool marked;
        if (!mark_expired(repository, cluster_of(plan), &plan->input.backups[i].bid, reason,
                          &marked, err))
            return cairn_error_wrap(err, "%zu backups were marked", report.marked_count);
        report.marked_count += marked ? 1 : 0;
        report.spared_count += marked ? 0 : 1;
    }
    if (!collect_after(repository, plan, &report.collected, err))
        return cairn_error_wrap(err, "%zu backups were marked, but none collected",
                                report.marked_count);
    *report_out = report;
    return true;
}

bool
expire_one(Repository *repository, const ExpirePlan *plan, const char *selector, const char *reason,
           CairnError *err)
{
    if (!repository_may_let_go(repository, err))
        return false;
    const CatalogBackup *found = catalog_find(plan->info->clusters[0].catalog, selector, err);
    if (found == NULL)
        return false;
    const char *label = found->fate != NULL ? found->fate->label : found->bid.text;
    if (found->presence == BACKUP_EXPIRED)
        return cairn_error(err, CAIRN_REFUSED, "backup %s is expired already", label);
    if (found->presence != BACKUP_COMMITTED)
        return cairn_error(err, CAIRN_REFUSED, "%s is no backup: it was never finished", label);
    if (found->kept) {
        cairn_error(err, CAIRN_REFUSED, "backup %s is kept by hand", label);
        return cairn_error_hint(err, "`pgcairn release %s` lets it go", label);
    }
    const size_t last_good = retention_last_good(&plan->input);
    if (last_good < plan->input.backup_count &&
        backup_id_equal(&plan->input.backups[last_good].bid, &found->bid)) {
        cairn_error(err, CAIRN_REFUSED, "backup %s is the last good one", label);
        return cairn_error_hint(err, "take another first: pgcairn backup");
    }
    bool marked;
    if (!mark_expired(repository, cluster_of(plan), &found->bid, reason, &marked, err))
        return cairn_error_wrap(err, "backup %s", label);
    if (!marked)
        return cairn_error(err, CAIRN_REFUSED,
                           "backup %s was kept or expired by somebody else this moment", label);
    return true;
}

/* ---- taking it back, holding ---- */

static bool
undo_all(Repository *repository, const char *cluster, const Catalog *catalog, const char *reason,
         ExpireUndoReport *report, CairnError *err)
{
    for (size_t i = 0; i < catalog->count; i++) {
        const CatalogBackup *backup = &catalog->backups[i];
        if (backup->presence != BACKUP_EXPIRED)
            continue;
        if (collect_unexpire(repository, cluster, &backup->bid, reason, err)) {
            report->undone_count++;
        } else if (err->kind == CAIRN_REFUSED) {
            report->gone_count++;
            cairn_error_clear(err);
        } else {
            return cairn_error_wrap(err, "%zu were undone", report->undone_count);
        }
    }
    if (report->undone_count + report->gone_count == 0)
        return cairn_error(err, CAIRN_NOT_FOUND, "no backup of cluster '%s' is expired", cluster);
    return true;
}

bool
expire_undo(Repository *repository, const char *cluster, const char *selector, const char *reason,
            ExpireUndoReport *report_out, CairnError *err)
{
    ExpireUndoReport report = {0};
    if (!repository_may_let_go(repository, err))
        return false;
    SCOPED(Catalog) catalog = catalog_read(repository, cluster, err);
    if (catalog == NULL)
        return false;
    if (selector == NULL) {
        if (!undo_all(repository, cluster, catalog, reason, &report, err))
            return false;
    } else {
        const CatalogBackup *found = catalog_find(catalog, selector, err);
        if (found == NULL)
            return false;
        if (found->presence != BACKUP_EXPIRED)
            return cairn_error(err, CAIRN_REFUSED, "backup %s is not expired", selector);
        if (!collect_unexpire(repository, cluster, &found->bid, reason, err))
            return false;
        report.undone_count = 1;
    }
    *report_out = report;
    return true;
}

bool
expire_hold(Repository *repository, const char *cluster, const char *selector, bool kept,
            const char *reason, char *label_out, CairnError *err)
{
    if (!repository_may_let_go(repository, err))
        return false;
    SCOPED(Catalog) catalog = catalog_read(repository, cluster, err);
    if (catalog == NULL)
        return false;
    const CatalogBackup *found = catalog_find(catalog, selector, err);
    if (found == NULL)
        return false;
    const char *label = found->fate != NULL ? found->fate->label : found->bid.text;
    if (found->presence != BACKUP_COMMITTED && found->presence != BACKUP_EXPIRED)
        return cairn_error(err, CAIRN_REFUSED, "%s is no backup: it was never finished", selector);
    if (found->presence == BACKUP_COMMITTED &&
        !mark_add(repository, cluster, &found->bid, kept ? MARK_KEEP : MARK_RELEASE, reason, err))
        return false;
    /* An expiry may have come first while we wrote; its mark stands, and so does what it says. */
    MarkState state;
    if (!mark_read(repository, cluster, &found->bid, &state, err))
        return cairn_error_wrap(err, "backup %s", label);
    if (state.expired || state.pending) {
        cairn_error(err, CAIRN_REFUSED, "backup %s is expired", label);
        return cairn_error_hint(err,
                                "`pgcairn expire --undo %s` brings it back, unless it is being "
                                "deleted already",
                                label);
    }
    if (label_out != NULL)
        snprintf(label_out, EXPIRE_LABEL_SIZE, "%s", label);
    return true;
}
