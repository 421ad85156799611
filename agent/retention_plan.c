#include "agent/retention_plan.h"

#include "agent/retention_intern.h"

#include <stdlib.h>
#include <string.h>

static bool
is_usable(const RetentionBackup *backup)
{
    return !backup->expired && !backup->unreadable && backup->wal_complete && !backup->damaged;
}

size_t
retention_last_good(const RetentionInput *input)
{
    for (size_t i = input->backup_count; i-- > 0;) {
        if (is_usable(&input->backups[i]))
            return i;
    }
    return input->backup_count;
}

/*
 * What is damaged or lacks WAL counts for no rule. It stays all the same while it is younger than
 * the last good backup (it may be all there is of its time, and WAL may still come) or lies in a
 * window that some rule promises. So does one of a system that nobody knows, also where a person
 * released it or accepts that: that it lacks WAL is then only for want of that record.
 */
static void
decide_unusable(RetentionPlan *plan, size_t window_from, size_t last_good)
{
    const RetentionInput *input = plan->input;
    for (size_t i = 0; i < input->backup_count; i++) {
        const RetentionBackup *backup = &input->backups[i];
        const RetentionDecision *decision = &plan->decisions[i];
        if (!decision->live || decision->usable)
            continue;
        const char *state = backup->damaged ? "damaged" : "lacks WAL";
        if (backup->unreadable)
            retention_keep(plan, i, false, "unreadable, and so never touched");
        else if (!retention_knows_system(input, backup))
            retention_keep(plan, i, false, "its system's record is missing or unreadable");
        else if (last_good == input->backup_count || i > last_good)
            retention_keep(
                plan, i, false,
                arena_printf(plan->arena, "%s, younger than the last good backup", state));
        else if (i >= window_from)
            retention_keep(plan, i, false,
                           arena_printf(plan->arena, "%s, within the window", state));
        else if (!decision->keep)
            retention_give_reason(plan, i,
                                  arena_printf(plan->arena, "%s, counts for no rule", state));
    }
}

static void
decide_isolated(RetentionPlan *plan, size_t window_from)
{
    bool any_window = false;
    for (size_t k = 0; k < plan->input->policy->count; k++)
        any_window |= retention_rule_is_continuous(&plan->input->policy->rules[k]);
    /* Without such a rule nobody said that WAL may go: all of it since the oldest backup stays. */
    for (size_t i = 0; any_window && i < window_from && i < plan->input->backup_count; i++)
        plan->decisions[i].isolated = plan->decisions[i].keep;
}

static void
count_decisions(RetentionPlan *plan)
{
    for (size_t i = 0; i < plan->input->backup_count; i++) {
        RetentionDecision *decision = &plan->decisions[i];
        if (!decision->live)
            continue;
        plan->live_count++;
        if (decision->keep) {
            plan->keep_count++;
            continue;
        }
        plan->expire_count++;
        if (decision->reason_count == 0)
            retention_give_reason(plan, i, "no rule keeps it");
    }
}

void
retention_decide(RetentionPlan *plan)
{
    const RetentionInput *input = plan->input;
    plan->decisions = arena_alloc(plan->arena, (input->backup_count + 1) * sizeof *plan->decisions);
    for (size_t i = 0; i < input->backup_count; i++) {
        CAIRN_ASSERT(i == 0 ||
                     strcmp(input->backups[i - 1].bid.text, input->backups[i].bid.text) < 0);
        plan->decisions[i].live = !input->backups[i].expired;
        plan->decisions[i].usable = is_usable(&input->backups[i]);
    }
    for (size_t i = 0; i < input->policy->count; i++)
        retention_apply_rule(plan, &input->policy->rules[i]);

    const size_t last_good = retention_last_good(input);
    if (last_good < input->backup_count)
        retention_keep(plan, last_good, true, "last good backup");
    for (size_t i = 0; i < input->backup_count; i++) {
        if (!plan->decisions[i].live)
            continue;
        if (input->backups[i].kept)
            retention_keep(plan, i, false, "kept by hand");
        if (input->policy->count == 0)
            retention_keep(plan, i, false, "no policy");
    }
    retention_keep_unknown(plan);
    size_t window_from = 0;
    while (window_from < input->backup_count && !plan->decisions[window_from].in_window)
        window_from++;
    decide_unusable(plan, window_from, last_good);
    decide_isolated(plan, window_from);
    count_decisions(plan);
}

RetentionPlan *
retention_plan_make(const RetentionInput *input, unsigned accepted)
{
    RetentionPlan *plan = calloc(1, sizeof *plan);
    CAIRN_ASSERT(plan != NULL);
    plan->arena = arena_new();
    plan->input = input;
    retention_decide(plan);
    retention_find_anomalies(plan, accepted);
    retention_find_lost(plan);
    return plan;
}

void
retention_plan_free(RetentionPlan *plan)
{
    if (plan == NULL)
        return;
    arena_free(plan->arena);
    free(plan);
}
