/*
 * Retention carried out: reads what there is, plans (retention_plan.h), marks what goes, collects.
 *
 * A mark is the decision and can be taken back (expire_undo) until a collector has begun to delete,
 * which it does after its grace. Nothing here deletes.
 *
 * Ownership: everything lives in the ExpirePlan. Errors: REFUSED when the plan is frozen or a
 * person asks for what must not be; then nothing is marked. Threads: one thread. Crash: marks
 * written so far stay; running again goes on.
 */
#ifndef PGCAIRN_AGENT_EXPIRE_H
#define PGCAIRN_AGENT_EXPIRE_H

#include "agent/info.h"
#include "agent/retention_plan.h"
#include "common/config.h"
#include "repository/collect.h"

typedef struct {
    Info *info; /* owned; of one cluster */
    RetentionPolicy policy;
    RetentionInput input;
    RetentionPlan *plan; /* owned */
} ExpirePlan;

/* The cluster's own policy, else the repository's, else NULL: what the configuration says. */
const char *expire_policy_text(const ClusterConfig *cluster, const RepositoryConfig *repository);

/* accepted: as in retention_plan_make. */
ExpirePlan *expire_plan(Repository *repository, const char *cluster, const RetentionPolicy *policy,
                        unsigned accepted, CairnError *err) MUST_CHECK;
/* Lets info say what a policy means for what it shows: which backups are kept for their own moment
 * alone, which WAL is missing because of that. The repository must be open still. */
void expire_explain(Info *info, size_t cluster_index, const RetentionPolicy *policy);
void expire_plan_free(ExpirePlan *plan);
SCOPED_TYPE(ExpirePlan, expire_plan_free);

typedef struct {
    size_t marked_count;
    size_t spared_count; /* kept by hand or expired by somebody else meanwhile */
    CollectReport collected;
} ExpireReport;

/* Exactly what the plan says. REFUSED while it is frozen. */
bool expire_run(Repository *repository, const ExpirePlan *plan, ExpireReport *report_out,
                CairnError *err) MUST_CHECK;

/* One backup by hand. REFUSED: it is kept, or the last good one. Nothing is collected. */
bool expire_one(Repository *repository, const ExpirePlan *plan, const char *selector,
                const char *reason, CairnError *err) MUST_CHECK;

typedef struct {
    size_t undone_count;
    size_t gone_count; /* being deleted, or deleted, already */
} ExpireUndoReport;

/* Takes expiry back; selector NULL: of all that is not being deleted yet. REFUSED: that one is;
 * NOT_FOUND: none is expired. */
bool expire_undo(Repository *repository, const char *cluster, const char *selector,
                 const char *reason, ExpireUndoReport *report_out, CairnError *err) MUST_CHECK;

/* Holds a backup until it is released (kept true), or hands it to the policy. REFUSED when it is
 * expired. label_out (may be NULL): of size EXPIRE_LABEL_SIZE. */
enum { EXPIRE_LABEL_SIZE = 64 };
bool expire_hold(Repository *repository, const char *cluster, const char *selector, bool kept,
                 const char *reason, char *label_out, CairnError *err) MUST_CHECK;

/* For people, and with everything as JSON (new reference). forecast NULL: none. */
void expire_format_text(const ExpirePlan *plan, const RetentionForecast *forecast,
                        ByteWriter *text);
json_t *expire_format_json(const ExpirePlan *plan, const RetentionForecast *forecast);

#endif
