/*
 * What the files of the retention plan share: retention_plan.c decides, retention_rules.c
 * knows the rules,
 * retention_anomaly.c looks for what is odd, retention_forecast.c looks ahead. Nobody else includes
 * this.
 */
#ifndef PGCAIRN_AGENT_RETENTION_INTERN_H
#define PGCAIRN_AGENT_RETENTION_INTERN_H

#include "agent/retention_plan.h"

/* retention_rules.c. What a rule keeps, it gives a reason each. */
void retention_apply_rule(RetentionPlan *plan, const RetentionRule *rule);
/* reason: borrowed, as long-lived as the plan. */
void retention_keep(RetentionPlan *plan, size_t index, bool in_window, const char *reason);
void retention_give_reason(RetentionPlan *plan, size_t index, const char *reason);

/* Keeps what a timeline may need whose history is unreadable. */
void retention_keep_unknown(RetentionPlan *plan);

/* Is its system one whose record was read? Else whether its WAL is there nobody can tell. */
bool retention_knows_system(const RetentionInput *input, const RetentionBackup *backup);
/* Does recovery along this timeline's history (NULL: not known, so not) pass the backup's stop? */
bool retention_lies_on_path(const RetentionInput *input, const RetentionBackup *backup,
                            const RetentionTimeline *leaf);
/* Of the backup's incarnation; NULL when its history is not known. */
const RetentionTimeline *retention_find_timeline(const RetentionInput *input,
                                                 const RetentionBackup *like, uint32_t timeline);

/* Decisions alone: no anomalies, no windows. */
void retention_decide(RetentionPlan *plan);
/* Fills plan->anomalies and plan->frozen; plan is decided. */
void retention_find_anomalies(RetentionPlan *plan, unsigned accepted);
/* Fills plan->lost. */
void retention_find_lost(RetentionPlan *plan);

#endif
