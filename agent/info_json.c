#include "agent/info.h"

#include "common/timestamp.h"
#include "repository/json.h"

/* Every "o" below takes the reference; a NULL anywhere makes the whole NULL, which the caller sees
 * once. */

static json_t *
time_or_null(int64_t time_us)
{
    return time_us != 0 ? json_time(time_us) : json_null();
}

static json_t *
window_json(const InfoWindow *window)
{
    return json_pack("{s:s?, s:o, s:o, s:s, s:s, s:I, s:I}", "acknowledged", window->acknowledged,
                     "start_lsn", json_lsn(window->start_lsn), "end_lsn", json_lsn(window->end_lsn),
                     "first_segment", window->first_segment, "last_segment", window->last_segment,
                     "segment_count", (json_int_t)window->segment_count, "stored_bytes",
                     (json_int_t)window->stored_bytes);
}

static json_t *
windows_json(const InfoTimeline *timeline, bool holes, bool expected)
{
    json_t *array = json_array();
    for (size_t i = 0; i < timeline->window_count; i++) {
        if (timeline->windows[i].is_hole == holes && timeline->windows[i].is_expected == expected)
            json_array_append_new(array, window_json(&timeline->windows[i]));
    }
    return array;
}

static json_t *
timelines_json(const InfoIncarnation *incarnation)
{
    json_t *array = json_array();
    for (size_t i = 0; i < incarnation->timeline_count; i++) {
        const InfoTimeline *timeline = &incarnation->timelines[i];
        const bool forked = timeline->parent != 0;
        json_array_append_new(
            array, json_pack("{s:I, s:o, s:o, s:b, s:b, s:s?, s:o, s:o, s:o}", "timeline",
                             (json_int_t)timeline->timeline, "parent",
                             forked ? json_integer(timeline->parent) : json_null(), "fork_lsn",
                             forked ? json_lsn(timeline->fork_lsn) : json_null(), "is_leaf",
                             timeline->is_leaf, "history_missing", timeline->history_missing,
                             "history_problem", timeline->history_problem, "windows",
                             windows_json(timeline, false, false), "holes",
                             windows_json(timeline, true, false), "gone_by_retention",
                             windows_json(timeline, true, true)));
    }
    return array;
}

static json_t *
incarnations_json(const InfoCluster *cluster)
{
    json_t *array = json_array();
    for (size_t i = 0; i < cluster->incarnation_count; i++) {
        const InfoIncarnation *entry = &cluster->incarnations[i];
        const Incarnation *incarnation = &entry->incarnation;
        json_array_append_new(array, json_pack("{s:o, s:i, s:I, s:b, s:o, s:o}", "system_id",
                                               json_u64_text(incarnation->system_id), "major",
                                               incarnation->major, "wal_segment_size",
                                               (json_int_t)incarnation->wal_segment_size,
                                               "data_checksums", incarnation->data_checksums,
                                               "recorded_at", time_or_null(incarnation->created_us),
                                               "timelines", timelines_json(entry)));
    }
    return array;
}

static json_t *
recoverable_json(const InfoRecoverable *recoverable)
{
    json_t *proven = time_or_null(recoverable->last_proven_us);
    json_t *rto = recoverable->last_rto_us != 0 ? json_real((double)recoverable->last_rto_us / 1e6)
                                                : json_null();
    const bool gaps = recoverable->gap_count > 0;
    if (!recoverable->possible)
        return json_pack("{s:b, s:o, s:o}", "possible", 0, "last_proven_restore", proven,
                         "rto_seconds", rto);
    return json_pack("{s:b, s:o, s:o, s:o, s:o, s:I, s:I, s:o, s:o, s:f, s:o, s:o, s:I}",
                     "possible", 1, "from", json_time(recoverable->from_us), "from_lsn",
                     json_lsn(recoverable->from_lsn), "to", json_time(recoverable->to_us), "to_lsn",
                     json_lsn(recoverable->to_lsn), "timeline", (json_int_t)recoverable->timeline,
                     "gaps", (json_int_t)recoverable->gap_count, "first_gap_start_lsn",
                     gaps ? json_lsn(recoverable->gap_start_lsn) : json_null(), "first_gap_end_lsn",
                     gaps ? json_lsn(recoverable->gap_end_lsn) : json_null(), "rpo_seconds",
                     (double)recoverable->rpo_us / 1e6, "last_proven_restore", proven,
                     "rto_seconds", rto, "older_backups", (json_int_t)recoverable->older_count);
}

static json_t *
checksum_failures_json(const Fate *fate)
{
    json_t *array = json_array();
    for (size_t i = 0; i < fate->checksum_failures_listed; i++)
        json_array_append_new(array,
                              json_pack("{s:s, s:I}", "path", fate->checksum_failures[i].path,
                                        "block", (json_int_t)fate->checksum_failures[i].block));
    return array;
}

static json_t *
tablespaces_json(const Fate *fate)
{
    json_t *array = json_array();
    for (size_t i = 0; i < fate->tablespace_count; i++)
        json_array_append_new(array,
                              json_pack("{s:I, s:s}", "oid", (json_int_t)fate->tablespaces[i].oid,
                                        "path", fate->tablespaces[i].path));
    return array;
}

static json_t *
texts_json(const char *const *texts, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, json_string(texts[i]));
    return array;
}

static json_t *
fate_json(const Fate *fate)
{
    return json_pack("{s:s, s:s?, s:s, s:s?, s:s, s:o, s:i, s:s, s:b, s:o, s:I, s:o, s:I, s:I, "
                     "s:o, s:o, s:b, s:I, s:I, s:I, s:I,"
                     " s:I, s:o, s:o, s:o}",
                     "label", fate->label, "name", fate->name, "type", fate->type, "parent",
                     fate->parent.text[0] != '\0' ? fate->parent.text : NULL, "cluster",
                     fate->cluster, "system_id", json_u64_text(fate->system_id), "major",
                     fate->major, "server_version", fate->server_version, "from_standby",
                     fate->from_standby, "start_lsn", json_lsn(fate->start_lsn), "start_timeline",
                     (json_int_t)fate->start_timeline, "stop_lsn", json_lsn(fate->stop_lsn),
                     "stop_timeline", (json_int_t)fate->stop_timeline, "wal_segment_size",
                     (json_int_t)fate->wal_segment_size, "started_at", json_time(fate->started_us),
                     "stopped_at", json_time(fate->stopped_us), "data_checksums",
                     fate->data_checksums, "file_count", (json_int_t)fate->file_count, "size_bytes",
                     (json_int_t)fate->size_bytes, "stored_bytes", (json_int_t)fate->stored_bytes,
                     "pack_count", (json_int_t)fate->pack_count, "checksum_failure_count",
                     (json_int_t)fate->checksum_failure_count, "checksum_failures",
                     checksum_failures_json(fate), "tablespaces", tablespaces_json(fate),
                     "warnings", texts_json(fate->warnings, fate->warning_count));
}

json_t *
info_format_backup_json(const InfoBackup *entry)
{
    const CatalogBackup *backup = entry->backup;
    json_t *json = json_pack(
        "{s:s, s:s, s:b, s:b, s:b, s:b, s:b, s:b, s:b, s:o, s:o, s:I, s:o}", "id", backup->bid.text,
        "state", info_state_name(entry->state), "kept", backup->kept, "own_moment_only",
        entry->own_moment_only, "released", backup->released, "scrubbed", backup->scrubbed,
        "verified", backup->verified, "drilled", backup->drilled, "failed", backup->failed,
        "verified_at", time_or_null(backup->verified ? backup->verified_us : 0), "drilled_at",
        time_or_null(backup->drilled ? backup->drilled_us : 0), "missing_segments",
        (json_int_t)entry->missing_segments, "first_missing",
        entry->first_missing[0] != '\0' ? json_string(entry->first_missing) : json_null());
    if (json != NULL && backup->fate != NULL) {
        SCOPED_JSON json_t *fate = fate_json(backup->fate);
        if (fate == NULL || json_object_update(json, fate) != 0) {
            json_decref(json);
            return NULL;
        }
    }
    return json;
}

static json_t *
warnings_json(const InfoCluster *cluster)
{
    json_t *array = texts_json(cluster->warnings, cluster->warning_count);
    for (size_t i = 0; i < cluster->incarnation_count; i++) {
        const InfoIncarnation *incarnation = &cluster->incarnations[i];
        for (size_t k = 0; k < incarnation->timeline_count; k++) {
            char warning[128];
            if (info_hole_warning(&incarnation->timelines[k], warning, sizeof warning))
                json_array_append_new(array, json_string(warning));
        }
    }
    return array;
}

static json_t *
cluster_archiving_json(const InfoCluster *cluster)
{
    if (cluster->archiving_known)
        return archiving_json(&cluster->archiving, &cluster->archiving_verdict);
    if (cluster->archiving_problem == NULL)
        return json_null();
    return json_pack("{s:s, s:s}", "state", "unknown", "problem", cluster->archiving_problem);
}

static json_t *
overflow_of_others_json(const InfoOverflow *overflow)
{
    json_t *array = json_array();
    for (size_t i = 0; i < overflow->of_other_count; i++) {
        const InfoOverflowOther *other = &overflow->of_others[i];
        char since[TIMESTAMP_TEXT_SIZE];
        if (other->oldest_us != 0)
            timestamp_format(since, other->oldest_us);
        json_array_append_new(array, json_pack("{s:s, s:s?, s:I, s:I, s:s?}", "repository",
                                               other->repository, "problem", other->problem,
                                               "files_not_off_host", (json_int_t)other->files,
                                               "bytes_not_off_host", (json_int_t)other->bytes,
                                               "since", other->oldest_us != 0 ? since : NULL));
    }
    return array;
}

static json_t *
overflow_json(const InfoOverflow *overflow)
{
    char since[TIMESTAMP_TEXT_SIZE];
    if (!overflow->asked)
        return json_null();
    if (overflow->problem != NULL)
        return json_pack("{s:s, s:o, s:s?}", "problem", overflow->problem, "of_other_repositories",
                         overflow_of_others_json(overflow), "files_elsewhere_problem",
                         overflow->others_problem);
    if (overflow->oldest_us != 0)
        timestamp_format(since, overflow->oldest_us);
    return json_pack("{s:I, s:I, s:s?, s:o, s:I, s:s?}", "files_not_off_host",
                     (json_int_t)overflow->files, "bytes_not_off_host", (json_int_t)overflow->bytes,
                     "since", overflow->oldest_us != 0 ? since : NULL, "of_other_repositories",
                     overflow_of_others_json(overflow), "files_elsewhere",
                     (json_int_t)overflow->others, "files_elsewhere_problem",
                     overflow->others_problem);
}

static json_t *
cluster_json(const InfoCluster *cluster)
{
    json_t *backups = json_array();
    for (size_t i = 0; i < cluster->backup_count; i++)
        json_array_append_new(backups, info_format_backup_json(&cluster->backups[i]));
    return json_pack(
        "{s:s, s:s?, s:o, s:o, s:o, s:o, s:o, s:o}", "name", cluster->name, "retention",
        cluster->retention, "recoverable", recoverable_json(&cluster->recoverable), "archiving",
        cluster_archiving_json(cluster), "overflow", overflow_json(&cluster->overflow), "warnings",
        warnings_json(cluster), "incarnations", incarnations_json(cluster), "backups", backups);
}

json_t *
info_format_json(const Info *info)
{
    json_t *clusters = json_array();
    for (size_t i = 0; i < info->cluster_count; i++)
        json_array_append_new(clusters, cluster_json(&info->clusters[i]));
    return json_pack("{s:s, s:o, s:{s:s, s:s, s:s?, s:b}, s:o}", "version", PGCAIRN_VERSION,
                     "read_at", json_time(info->now_us), "repository", "id", info->repository_id,
                     "name", info->repository_name, "path", info->repository_path, "replica",
                     info->is_replica, "clusters", clusters);
}
