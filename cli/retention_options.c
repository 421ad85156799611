#include "cli/retention_options.h"

#include "common/progress.h"
#include "common/timestamp.h"
#include "repository/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool
cli_retention_policy(const char *text, const CliSession *session, RetentionPolicy *policy_out,
                     CairnError *err)
{
    if (text == NULL)
        text = expire_policy_text(session->cluster, session->repository);
    return retention_policy_parse(text, policy_out, err);
}

static bool
accept_names(const char *names, unsigned *accepted, CairnError *err)
{
    while (*names != '\0') {
        char name[32];
        RetentionAnomalyKind kind;
        const size_t size = strcspn(names, ",");
        snprintf(name, sizeof name, "%.*s", size < sizeof name ? (int)size : 0, names);
        if (!retention_anomaly_parse(name, &kind)) {
            cairn_error(err, CAIRN_USAGE, "--accept: '%.*s' is no oddity",
                        size < 40 ? (int)size : 40, names);
            return cairn_error_hint(
                err, "it takes clock, order, incarnation, size, rate, fates or count, as named by "
                     "`pgcairn expire --plan`");
        }
        *accepted |= 1U << kind;
        names += size + (names[size] == ',' ? 1 : 0);
    }
    return true;
}

bool
cli_retention_accepted(const OptionList *list, unsigned *accepted_out, CairnError *err)
{
    unsigned accepted = 0;
    for (size_t i = 0; i < list->count; i++) {
        if (!accept_names(list->values[i], &accepted, err))
            return false;
    }
    *accepted_out = accepted;
    return true;
}

void
cli_expire_report_text(const ExpirePlan *plan, const ExpireReport *report, ByteWriter *text)
{
    const CollectReport *collected = &report->collected;
    char policy[RETENTION_TEXT_SIZE], bytes[32], until[TIMESTAMP_TEXT_SIZE];
    retention_policy_format(&plan->policy, policy);
    byte_writer_format(text, "expired %zu of %zu backups by retention %s\n", report->marked_count,
                       plan->plan->live_count, policy);
    for (size_t i = 0; i < plan->input.backup_count; i++) {
        const RetentionDecision *decision = &plan->plan->decisions[i];
        if (decision->live && !decision->keep)
            byte_writer_format(text, "  %s  %s\n", plan->input.backups[i].label,
                               decision->reasons[0]);
    }
    if (report->spared_count > 0)
        byte_writer_format(text, "  %zu of them were kept or expired by somebody else meanwhile\n",
                           report->spared_count);
    format_bytes(bytes, collected->bytes);
    byte_writer_format(text, "deleted %" PRIu64 " packs and %" PRIu64 " WAL files, %s\n",
                       collected->packs + collected->map_packs, collected->wal_files, bytes);
    if (collected->waiting) {
        format_bytes(bytes, collected->waiting_bytes);
        timestamp_format(until,
                         collected->waiting_until_us - collected->waiting_until_us % 1000000);
        byte_writer_format(
            text,
            "%" PRIu64 " packs, %s, can go after %s by the next run; until then `pgcairn expire "
            "--undo` brings them back\n",
            collected->waiting_packs, bytes, until);
    }
}

json_t *
cli_expire_report_json(const ExpirePlan *plan, const ExpireReport *report)
{
    const CollectReport *collected = &report->collected;
    char policy[RETENTION_TEXT_SIZE];
    retention_policy_format(&plan->policy, policy);
    json_t *labels = json_array();
    for (size_t i = 0; i < plan->input.backup_count; i++) {
        const RetentionDecision *decision = &plan->plan->decisions[i];
        if (decision->live && !decision->keep)
            json_array_append_new(labels, json_string(plan->input.backups[i].label));
    }
    return json_pack(
        "{s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "retention", policy, "expired",
        labels, "expired_count", (json_int_t)report->marked_count, "spared_count",
        (json_int_t)report->spared_count, "keep_count", (json_int_t)plan->plan->keep_count,
        "deleted_packs", (json_int_t)(collected->packs + collected->map_packs), "deleted_wal_files",
        (json_int_t)collected->wal_files, "deleted_bytes", (json_int_t)collected->bytes,
        "waiting_packs", (json_int_t)collected->waiting_packs, "waiting_until",
        collected->waiting ? json_time(collected->waiting_until_us) : json_null());
}
