#include "agent/expire.h"

#include "repository/json.h"

static json_t *
reasons_json(const char *const *reasons, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, json_string(reasons[i]));
    return array;
}

static json_t *
decisions_json(const ExpirePlan *plan)
{
    json_t *array = json_array();
    for (size_t i = 0; i < plan->input.backup_count; i++) {
        const RetentionBackup *backup = &plan->input.backups[i];
        const RetentionDecision *decision = &plan->plan->decisions[i];
        if (!decision->live)
            continue;
        json_array_append_new(
            array, json_pack("{s:s, s:s?, s:b, s:o, s:s, s:b, s:b, s:o}", "id", backup->bid.text,
                             "label", backup->label, "full", backup->is_full, "stopped_at",
                             backup->unreadable ? json_null() : json_time(backup->stopped_us),
                             "decision", decision->keep ? "keep" : "expire", "counts",
                             decision->usable, "own_moment_only", decision->isolated, "reasons",
                             reasons_json(decision->reasons, decision->reason_count)));
    }
    return array;
}

static json_t *
windows_json(const RetentionPlan *plan)
{
    json_t *array = json_array();
    for (size_t i = 0; i < plan->lost_count; i++) {
        const RetentionWindow *window = &plan->lost[i];
        json_array_append_new(
            array, json_pack("{s:o, s:o, s:o, s:o, s:I}", "from", json_time(window->from_us), "to",
                             window->to_us != 0 ? json_time(window->to_us) : json_null(),
                             "from_lsn", json_lsn(window->from_lsn), "to_lsn",
                             json_lsn(window->to_lsn), "timeline", (json_int_t)window->timeline));
    }
    return array;
}

static json_t *
anomalies_json(const RetentionPlan *plan)
{
    json_t *array = json_array();
    for (size_t i = 0; i < plan->anomaly_count; i++) {
        const RetentionAnomaly *anomaly = &plan->anomalies[i];
        json_array_append_new(array, json_pack("{s:s, s:s, s:s, s:b}", "kind",
                                               retention_anomaly_name(anomaly->kind), "text",
                                               anomaly->text, "remedy", anomaly->remedy, "accepted",
                                               anomaly->accepted));
    }
    return array;
}

static json_t *
forecast_json(const RetentionForecast *forecast)
{
    json_t *backups = json_array();
    for (size_t i = 0; i < forecast->backup_count; i++) {
        const RetentionForecastBackup *backup = &forecast->backups[i];
        json_array_append_new(backups,
                              json_pack("{s:s?, s:b, s:b, s:o, s:o}", "label", backup->label,
                                        "full", backup->is_full, "taken", !backup->is_future,
                                        "stopped_at", json_time(backup->stopped_us), "reasons",
                                        reasons_json(backup->reasons, backup->reason_count)));
    }
    return json_pack(
        "{s:o, s:I, s:I, s:I, s:b, s:o, s:o}", "at", json_time(forecast->at_us), "cadence_s",
        (json_int_t)(forecast->cadence_us / 1000000), "one_full_in",
        (json_int_t)forecast->fulls_one_in, "taken_until_then", (json_int_t)forecast->taken_count,
        "capped", forecast->capped, "every_moment_since",
        forecast->continuous_from_us != 0 ? json_time(forecast->continuous_from_us) : json_null(),
        "backups", backups);
}

json_t *
expire_format_json(const ExpirePlan *plan, const RetentionForecast *forecast)
{
    char policy[RETENTION_TEXT_SIZE];
    retention_policy_format(&plan->policy, policy);
    return json_pack("{s:s, s:s, s:b, s:o, s:I, s:I, s:o, s:o, s:o}", "cluster",
                     plan->info->clusters[0].name, "retention", policy, "frozen",
                     plan->plan->frozen, "anomalies", anomalies_json(plan->plan), "keep_count",
                     (json_int_t)plan->plan->keep_count, "expire_count",
                     (json_int_t)plan->plan->expire_count, "backups", decisions_json(plan),
                     "lost_windows", windows_json(plan->plan), "forecast",
                     forecast != NULL ? forecast_json(forecast) : json_null());
}
