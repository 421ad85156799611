#include "agent/expire.h"

#include "common/timestamp.h"
#include "postgres/wal_name.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { AGE_TEXT_SIZE = 32 };

static void
format_second(char text[TIMESTAMP_TEXT_SIZE], int64_t time_us)
{
    timestamp_format(text, time_us - time_us % 1000000);
}

static void
print_decision(const ExpirePlan *plan, size_t index, ByteWriter *text)
{
    const RetentionBackup *backup = &plan->input.backups[index];
    const RetentionDecision *decision = &plan->plan->decisions[index];
    char stopped[TIMESTAMP_TEXT_SIZE] = "-";
    if (!backup->unreadable)
        format_second(stopped, backup->stopped_us);
    byte_writer_format(text, "  %-6s  %-28s %-22s  ", decision->keep ? "keep" : "EXPIRE",
                       backup->label != NULL ? backup->label : backup->bid.text, stopped);
    for (size_t i = 0; i < decision->reason_count; i++)
        byte_writer_format(text, "%s%s", i > 0 ? ", " : "", decision->reasons[i]);
    byte_writer_format(text, "%s\n", decision->isolated ? "; restores its own moment only" : "");
}

static void
print_window(const RetentionWindow *window, ByteWriter *text)
{
    char from[TIMESTAMP_TEXT_SIZE], to[TIMESTAMP_TEXT_SIZE] = "the end of its WAL";
    char from_lsn[LSN_TEXT_SIZE], to_lsn[LSN_TEXT_SIZE];
    format_second(from, window->from_us);
    if (window->to_us != 0)
        format_second(to, window->to_us);
    lsn_format(from_lsn, window->from_lsn);
    lsn_format(to_lsn, window->to_lsn);
    if (window->from_lsn == window->to_lsn)
        byte_writer_format(text, "  %s (%s, timeline %" PRIu32 ")\n", from, from_lsn,
                           window->timeline);
    else
        byte_writer_format(text, "  %s .. %s (%s .. %s, timeline %" PRIu32 ")\n", from, to,
                           from_lsn, to_lsn, window->timeline);
}

static void
print_anomalies(const RetentionPlan *plan, ByteWriter *text)
{
    for (size_t i = 0; i < plan->anomaly_count; i++) {
        const RetentionAnomaly *anomaly = &plan->anomalies[i];
        byte_writer_format(text, "%s (%s): %s\n", anomaly->accepted ? "accepted" : "FROZEN",
                           retention_anomaly_name(anomaly->kind), anomaly->text);
        if (!anomaly->accepted)
            byte_writer_format(text, "  %s\n", anomaly->remedy);
    }
}

/* What of an existing or foreseen backup's reasons belongs to a row of the table. */
static bool
has_reason(const RetentionForecastBackup *backup, const char *prefix)
{
    for (size_t i = 0; i < backup->reason_count; i++) {
        if (strncmp(backup->reasons[i], prefix, strlen(prefix)) == 0)
            return true;
    }
    return false;
}

static void
print_row(const RetentionForecast *forecast, const char *name, const char *prefix, ByteWriter *text)
{
    size_t count = 0;
    char oldest[TIMESTAMP_TEXT_SIZE] = "-", newest[TIMESTAMP_TEXT_SIZE] = "-";
    for (size_t i = 0; i < forecast->backup_count; i++) {
        const RetentionForecastBackup *backup = &forecast->backups[i];
        if (!has_reason(backup, prefix))
            continue;
        if (count++ == 0)
            format_second(oldest, backup->stopped_us);
        format_second(newest, backup->stopped_us);
    }
    if (count > 0)
        byte_writer_format(text, "  %-16s %6zu  %-22s  %s\n", name, count, oldest, newest);
}

static void
format_every(char text[AGE_TEXT_SIZE], int64_t duration_us)
{
    const int64_t minutes = duration_us / 60000000;
    if (minutes < 120)
        snprintf(text, AGE_TEXT_SIZE, "%" PRId64 " min", minutes);
    else if (minutes < 48 * 60)
        snprintf(text, AGE_TEXT_SIZE, "%" PRId64 " h", (minutes + 30) / 60);
    else
        snprintf(text, AGE_TEXT_SIZE, "%" PRId64 " days", (minutes + 12 * 60) / (24 * 60));
}

static void
print_rhythm(const RetentionForecast *forecast, ByteWriter *text)
{
    char every[AGE_TEXT_SIZE];
    if (forecast->cadence_us == 0) {
        byte_writer_format(text,
                           "if no backup is taken any more (there are too few to see a rhythm)");
        return;
    }
    format_every(every, forecast->cadence_us);
    byte_writer_format(text, "with a backup every %s", every);
    if (forecast->fulls_one_in > 1)
        byte_writer_format(text, ", one in %zu a full", forecast->fulls_one_in);
    if (forecast->capped)
        byte_writer_format(text, " (the last %d of them looked at)", RETENTION_FORECAST_LIMIT);
}

static void
print_forecast(const ExpirePlan *plan, const RetentionForecast *forecast, ByteWriter *text)
{
    char at[TIMESTAMP_TEXT_SIZE], from[TIMESTAMP_TEXT_SIZE];
    format_second(at, forecast->at_us);
    byte_writer_format(text, "\na year from now (%.10s), ", at);
    print_rhythm(forecast, text);
    byte_writer_format(text, ": %zu backups\n", forecast->backup_count);
    if (forecast->continuous_from_us != 0) {
        format_second(from, forecast->continuous_from_us);
        byte_writer_format(text, "  every moment since %s\n", from);
    }
    byte_writer_format(text, "  %-16s %6s  %-22s  %s\n", "RULE", "COUNT", "OLDEST", "NEWEST");
    for (size_t i = 0; i < plan->policy.count; i++) {
        const RetentionRule *rule = &plan->policy.rules[i];
        char name[RETENTION_RULE_TEXT_SIZE], prefix[RETENTION_RULE_TEXT_SIZE];
        retention_rule_format(rule, name);
        snprintf(prefix, sizeof prefix, "%s", name);
        /* Reasons of calendar rules name the day, not the number. */
        if (!retention_rule_is_continuous(rule) && rule->kind != RETAIN_MIN)
            prefix[strcspn(prefix, " ") + 1] = '\0';
        print_row(forecast, name, prefix, text);
    }
    print_row(forecast, "kept by hand", "kept by hand", text);
    print_row(forecast, "no policy", "no policy", text);
}

void
expire_format_text(const ExpirePlan *plan, const RetentionForecast *forecast, ByteWriter *text)
{
    const RetentionPlan *decided = plan->plan;
    char policy[RETENTION_TEXT_SIZE];
    retention_policy_format(&plan->policy, policy);
    byte_writer_format(text, "cluster %s, retention %s%s\n", plan->info->clusters[0].name, policy,
                       plan->policy.count == 0 ? ": nothing is ever deleted" : "");
    for (size_t i = 0; i < plan->input.backup_count; i++) {
        if (decided->decisions[i].live)
            print_decision(plan, i, text);
    }
    byte_writer_format(
        text, "%zu of %zu backups %s, %zu stay\n", decided->expire_count, decided->live_count,
        decided->frozen ? "would go, were expiry not frozen" : "go", decided->keep_count);
    if (decided->lost_count > 0)
        byte_writer_format(text, "\nmoments that can be restored now and could not be any more:\n");
    for (size_t i = 0; i < decided->lost_count; i++)
        print_window(&decided->lost[i], text);
    if (forecast != NULL)
        print_forecast(plan, forecast, text);
    if (decided->anomaly_count > 0)
        byte_writer_format(text, "\n");
    print_anomalies(decided, text);
}
