#include "agent/info.h"

#include "common/progress.h"
#include "common/timestamp.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { SHORT_ID_SIZE = 24, FAILURES_SHOWN = 10, SIZE_TEXT_SIZE = 32 };
enum { PROVEN_TEXT_SIZE = 96, GAPS_TEXT_SIZE = 96 };

/* "4 s", "12 min", "3 h 20 min", "2 d 4 h": two units are enough for a person. */
static void
format_duration(char text[SIZE_TEXT_SIZE], int64_t duration_us)
{
    const int64_t seconds = duration_us / 1000000;
    if (seconds < 120)
        snprintf(text, SIZE_TEXT_SIZE, "%" PRId64 " s", seconds);
    else if (seconds < 3600)
        snprintf(text, SIZE_TEXT_SIZE, "%" PRId64 " min", seconds / 60);
    else if (seconds < 48 * 3600)
        snprintf(text, SIZE_TEXT_SIZE, "%" PRId64 " h %" PRId64 " min", seconds / 3600,
                 seconds / 60 % 60);
    else
        snprintf(text, SIZE_TEXT_SIZE, "%" PRId64 " d %" PRId64 " h", seconds / 86400,
                 seconds / 3600 % 24);
}

/* "11m32s", for a time that somebody waited through. */
static void
format_rto(char text[SIZE_TEXT_SIZE], int64_t duration_us)
{
    const int64_t seconds = (duration_us + 999999) / 1000000;
    if (seconds < 60)
        snprintf(text, SIZE_TEXT_SIZE, "%" PRId64 "s", seconds);
    else if (seconds < 3600)
        snprintf(text, SIZE_TEXT_SIZE, "%" PRId64 "m%02" PRId64 "s", seconds / 60, seconds % 60);
    else
        snprintf(text, SIZE_TEXT_SIZE, "%" PRId64 "h%02" PRId64 "m", seconds / 3600,
                 seconds / 60 % 60);
}

/* Whole seconds: a table is no place for microseconds. */
static void
format_second(char text[TIMESTAMP_TEXT_SIZE], int64_t time_us)
{
    timestamp_format(text, time_us - time_us % 1000000);
}

/* "2026-11-20 03:00:00+00 (RTO 11m32s)" or "never". */
static void
format_proven(char text[PROVEN_TEXT_SIZE], const InfoRecoverable *recoverable)
{
    char time[TIMESTAMP_TEXT_SIZE];
    char rto[SIZE_TEXT_SIZE];
    snprintf(text, PROVEN_TEXT_SIZE, "never");
    if (recoverable->last_proven_us == 0)
        return;
    format_second(time, recoverable->last_proven_us);
    format_rto(rto, recoverable->last_rto_us);
    if (recoverable->last_rto_us != 0)
        snprintf(text, PROVEN_TEXT_SIZE, "%s (RTO %s)", time, rto);
    else
        snprintf(text, PROVEN_TEXT_SIZE, "%s", time);
}

static void
format_gaps(char text[GAPS_TEXT_SIZE], const InfoRecoverable *recoverable)
{
    char start[LSN_TEXT_SIZE];
    char end[LSN_TEXT_SIZE];
    lsn_format(start, recoverable->gap_start_lsn);
    lsn_format(end, recoverable->gap_end_lsn);
    if (recoverable->gap_count == 0)
        snprintf(text, GAPS_TEXT_SIZE, "no gaps");
    else if (recoverable->gap_count == 1)
        snprintf(text, GAPS_TEXT_SIZE, "1 gap: %s .. %s", start, end);
    else
        snprintf(text, GAPS_TEXT_SIZE, "%zu gaps, the first: %s .. %s", recoverable->gap_count,
                 start, end);
}

static void
print_recoverable(const InfoCluster *cluster, bool named, ByteWriter *text)
{
    const InfoRecoverable *recoverable = &cluster->recoverable;
    char from[TIMESTAMP_TEXT_SIZE];
    char to[TIMESTAMP_TEXT_SIZE];
    char proven[PROVEN_TEXT_SIZE];
    char rpo[SIZE_TEXT_SIZE];
    char gaps[GAPS_TEXT_SIZE];
    format_proven(proven, recoverable);
    format_gaps(gaps, recoverable);
    if (named)
        byte_writer_format(text, "%s: ", cluster->name);
    if (!recoverable->possible) {
        byte_writer_format(text, "recoverable: %s, last proven restore %s\n",
                           recoverable->unreadable
                               ? "unknown (the end of the WAL cannot be read, see below)"
                               : "nothing (no usable backup)",
                           proven);
        return;
    }
    format_second(from, recoverable->from_us);
    format_second(to, recoverable->to_us);
    format_duration(rpo, recoverable->rpo_us);
    byte_writer_format(text, "recoverable: %s .. %s (%s), RPO now %s, last proven restore %s\n",
                       from, to, gaps, rpo, proven);
    if (recoverable->older_count > 0)
        byte_writer_format(text, "and %zu older backup%s, each for its own moment\n",
                           recoverable->older_count, recoverable->older_count == 1 ? "" : "s");
}

/* Second line of all: what it says ends the recoverable line sooner or later. */
static void
print_archiving(const InfoCluster *cluster, bool named, ByteWriter *text)
{
    char line[ARCHIVING_TEXT_SIZE];
    if (!cluster->archiving_known && cluster->archiving_problem == NULL)
        return;
    if (named)
        byte_writer_format(text, "%s: ", cluster->name);
    if (!cluster->archiving_known) {
        byte_writer_format(text, "archiving: not known (%s)\n", cluster->archiving_problem);
        return;
    }
    archiving_format(&cluster->archiving, &cluster->archiving_verdict, line);
    byte_writer_format(text, "archiving: %s\n", line);
    if (archiving_format_slots(&cluster->archiving, line))
        byte_writer_format(text, "WARNING: %s\n", line);
}

static void
print_overflow(const InfoCluster *cluster, ByteWriter *text)
{
    const InfoOverflow *overflow = &cluster->overflow;
    char since[TIMESTAMP_TEXT_SIZE];
    char size[32];
    if (overflow->problem != NULL)
        byte_writer_format(text, "WARNING: overflow-path: not known what waits there (%s)\n",
                           overflow->problem);
    if (overflow->files > 0) {
        timestamp_format(since, overflow->oldest_us);
        format_bytes(size, overflow->bytes);
        byte_writer_format(
            text,
            "WARNING: %zu files of WAL (%s) are not off this host, since %s: they wait in "
            "overflow-path until the repository is back (`pgcairn wal status`)\n",
            overflow->files, size, since);
    }
    for (size_t i = 0; i < overflow->of_other_count; i++) {
        const InfoOverflowOther *other = &overflow->of_others[i];
        if (other->problem != NULL)
            byte_writer_format(text,
                               "WARNING: overflow-path: not known what waits there for repository "
                               "'%s' (%s)\n",
                               other->repository, other->problem);
        if (other->files == 0)
            continue;
        timestamp_format(since, other->oldest_us);
        format_bytes(size, other->bytes);
        byte_writer_format(
            text,
            "WARNING: %zu files of WAL (%s) are not in repository '%s', since %s: they wait in "
            "overflow-path until it is back (`pgcairn wal status --repository %s`)\n",
            other->files, size, other->repository, since, other->repository);
    }
    if (overflow->others_problem != NULL)
        byte_writer_format(text,
                           "WARNING: overflow-path: not known what waits in other directories "
                           "(%s)\n",
                           overflow->others_problem);
    if (overflow->others > 0)
        byte_writer_format(
            text,
            "WARNING: %zu files wait in other directories of overflow-path, which nothing ships "
            "(`pgcairn wal status`)\n",
            overflow->others);
}

static void
print_window(const InfoWindow *window, ByteWriter *text)
{
    char start[LSN_TEXT_SIZE];
    char end[LSN_TEXT_SIZE];
    char stored[SIZE_TEXT_SIZE];
    lsn_format(start, window->start_lsn);
    lsn_format(end, window->end_lsn);
    if (window->is_hole && window->is_expected) {
        byte_writer_format(text, "    gone  %s .. %s  by retention: %s .. %s\n", start, end,
                           window->first_segment, window->last_segment);
        return;
    }
    if (window->is_hole) {
        byte_writer_format(text, "    HOLE  %s .. %s  %" PRIu64 " missing: %s .. %s\n", start, end,
                           window->segment_count, window->first_segment, window->last_segment);
        if (window->acknowledged != NULL)
            byte_writer_format(text, "          %s\n", window->acknowledged);
        return;
    }
    format_bytes(stored, window->stored_bytes);
    byte_writer_format(text, "    wal   %s .. %s  %" PRIu64 " segment%s, %s stored: %s .. %s\n",
                       start, end, window->segment_count, window->segment_count == 1 ? "" : "s",
                       stored, window->first_segment, window->last_segment);
}

static void
print_incarnation(const InfoIncarnation *incarnation, ByteWriter *text)
{
    byte_writer_format(text, "\n  system %" PRIu64 ", PostgreSQL %d\n",
                       incarnation->incarnation.system_id, incarnation->incarnation.major);
    if (incarnation->timeline_count == 0)
        byte_writer_format(text, "    no WAL stored\n");
    for (size_t i = 0; i < incarnation->timeline_count; i++) {
        const InfoTimeline *timeline = &incarnation->timelines[i];
        char fork[LSN_TEXT_SIZE];
        lsn_format(fork, timeline->fork_lsn);
        if (timeline->parent != 0)
            byte_writer_format(text, "  timeline %" PRIu32 " (from %" PRIu32 " at %s)\n",
                               timeline->timeline, timeline->parent, fork);
        else
            byte_writer_format(text, "  timeline %" PRIu32 "%s\n", timeline->timeline,
                               timeline->history_problem != NULL ? " (its history is damaged)"
                               : timeline->history_missing       ? " (its history is not stored)"
                                                                 : "");
        for (size_t j = 0; j < timeline->window_count; j++)
            print_window(&timeline->windows[j], text);
    }
}

/* Sequence without its zeros, and enough of the random part: "12-3f9a01". */
static void
format_short_id(char id_text[SHORT_ID_SIZE], const BackupId *id)
{
    snprintf(id_text, SHORT_ID_SIZE, "%" PRIu64 "-%.6s", backup_id_sequence(id),
             strchr(id->text, '-') != NULL ? strchr(id->text, '-') + 1 : "");
}

static void
print_backup_row(const InfoBackup *entry, ByteWriter *text)
{
    char id[SHORT_ID_SIZE];
    format_short_id(id, &entry->backup->bid);
    const char *state = info_state_name(entry->state);
    const Fate *fate = entry->backup->fate;
    if (fate == NULL) {
        byte_writer_format(text, "  %-18s %-13s %-5s %s\n", "-", id, "-", state);
        return;
    }
    char started[TIMESTAMP_TEXT_SIZE];
    char stopped[TIMESTAMP_TEXT_SIZE];
    char start_lsn[LSN_TEXT_SIZE];
    char stop_lsn[LSN_TEXT_SIZE];
    char size[SIZE_TEXT_SIZE];
    char stored[SIZE_TEXT_SIZE];
    format_second(started, fate->started_us);
    format_second(stopped, fate->stopped_us);
    lsn_format(start_lsn, fate->start_lsn);
    lsn_format(stop_lsn, fate->stop_lsn);
    format_bytes(size, fate->size_bytes);
    format_bytes(stored, fate->stored_bytes);
    byte_writer_format(text,
                       "  %-18s %-13s %-5s %-12s %-22s %-22s %-12s %-12s %9s %9s %3" PRIu32 "%s\n",
                       fate->label, id, fate->type, state, started, stopped, start_lsn, stop_lsn,
                       size, stored, fate->stop_timeline, entry->backup->kept ? "  kept" : "");
}

static void
print_checksum_failures(const Fate *fate, size_t limit, ByteWriter *text)
{
    for (size_t i = 0; i < fate->checksum_failures_listed && i < limit; i++)
        byte_writer_format(text, "    checksum failure: %s block %" PRIu64 "\n",
                           fate->checksum_failures[i].path, fate->checksum_failures[i].block);
    const size_t shown =
        fate->checksum_failures_listed < limit ? fate->checksum_failures_listed : limit;
    if (fate->checksum_failure_count > shown)
        byte_writer_format(text, "    and %" PRIu64 " more\n",
                           fate->checksum_failure_count - shown);
}

static void
print_hole_warnings(const InfoIncarnation *incarnation, ByteWriter *text)
{
    for (size_t i = 0; i < incarnation->timeline_count; i++) {
        char warning[128];
        if (info_hole_warning(&incarnation->timelines[i], warning, sizeof warning))
            byte_writer_format(text, "  WARNING: %s\n", warning);
    }
}

static void
print_cluster(const InfoCluster *cluster, ByteWriter *text)
{
    byte_writer_format(text, "\ncluster %s\n", cluster->name);
    if (cluster->retention != NULL)
        byte_writer_format(text, "  retention: %s%s\n", cluster->retention,
                           strcmp(cluster->retention, "none") == 0 ? ": nothing is ever deleted"
                                                                   : "");
    for (size_t i = 0; i < cluster->warning_count; i++)
        byte_writer_format(text, "  WARNING: %s\n", cluster->warnings[i]);
    for (size_t i = 0; i < cluster->incarnation_count; i++)
        print_hole_warnings(&cluster->incarnations[i], text);
    for (size_t i = 0; i < cluster->incarnation_count; i++)
        print_incarnation(&cluster->incarnations[i], text);

    if (cluster->backup_count == 0) {
        byte_writer_format(text, "\n  no backups\n");
        return;
    }
    byte_writer_format(text, "\n  %-18s %-13s %-5s %-12s %-22s %-22s %-12s %-12s %9s %9s %3s\n",
                       "LABEL", "ID", "TYPE", "STATE", "STARTED", "STOPPED", "START LSN",
                       "STOP LSN", "SIZE", "STORED", "TL");
    for (size_t i = 0; i < cluster->backup_count; i++) {
        print_backup_row(&cluster->backups[i], text);
        if (cluster->backups[i].backup->fate != NULL)
            print_checksum_failures(cluster->backups[i].backup->fate, FAILURES_SHOWN, text);
    }
}

void
info_format_text(const Info *info, ByteWriter *text)
{
    if (info->cluster_count == 0)
        byte_writer_format(text,
                           "recoverable: nothing (no cluster is recorded; run: pgcairn init)\n");
    for (size_t i = 0; i < info->cluster_count; i++)
        print_recoverable(&info->clusters[i], info->cluster_count > 1, text);
    for (size_t i = 0; i < info->cluster_count; i++)
        print_archiving(&info->clusters[i], info->cluster_count > 1, text);
    for (size_t i = 0; i < info->cluster_count; i++)
        print_overflow(&info->clusters[i], text);
    byte_writer_format(text, "\nrepository %s, id %s%s%s%s\n", info->repository_name,
                       info->repository_id, info->repository_path != NULL ? ", " : "",
                       info->repository_path != NULL ? info->repository_path : "",
                       info->is_replica ? " (read-only replica)" : "");
    for (size_t i = 0; i < info->cluster_count; i++)
        print_cluster(&info->clusters[i], text);
}

static void
print_time(ByteWriter *text, const char *name, int64_t time_us)
{
    char time_text[TIMESTAMP_TEXT_SIZE];
    timestamp_format(time_text, time_us);
    byte_writer_format(text, "%-16s %s\n", name, time_text);
}

static void
print_position(ByteWriter *text, const char *name, uint64_t lsn, uint32_t timeline)
{
    char lsn_text[LSN_TEXT_SIZE];
    lsn_format(lsn_text, lsn);
    byte_writer_format(text, "%-16s %s, timeline %" PRIu32 "\n", name, lsn_text, timeline);
}

static void
print_size(ByteWriter *text, const char *name, uint64_t size_bytes)
{
    char size[SIZE_TEXT_SIZE];
    format_bytes(size, size_bytes);
    byte_writer_format(text, "%-16s %s (%" PRIu64 " bytes)\n", name, size, size_bytes);
}

void
info_format_backup(const InfoBackup *entry, ByteWriter *text)
{
    const Fate *fate = entry->backup->fate;
    if (fate != NULL)
        byte_writer_format(text, "%-16s %s\n", "label", fate->label);
    byte_writer_format(text, "%-16s %s\n%-16s %s\n", "id", entry->backup->bid.text, "state",
                       info_state_name(entry->state));
    if (fate == NULL)
        return;
    if (entry->path_unreadable)
        byte_writer_format(text, "%-16s %s: which WAL it needs is not known\n", "damaged",
                           entry->first_missing);
    else if (entry->system_unknown)
        byte_writer_format(text,
                           "%-16s the record of its system: whether its WAL is there is not "
                           "known\n",
                           "not read");
    else if (entry->missing_segments > 0)
        byte_writer_format(text, "%-16s %zu, first %s\n", "missing WAL", entry->missing_segments,
                           entry->first_missing);
    if (fate->name != NULL)
        byte_writer_format(text, "%-16s %s\n", "name", fate->name);
    byte_writer_format(text, "%-16s %s\n", "type", fate->type);
    if (fate->parent.text[0] != '\0')
        byte_writer_format(text, "%-16s %s\n", "compared with", fate->parent.text);
    byte_writer_format(text, "%-16s %s\n%-16s %" PRIu64 "\n", "cluster", fate->cluster, "system id",
                       fate->system_id);
    byte_writer_format(text, "%-16s PostgreSQL %s%s\n", "server", fate->server_version,
                       fate->from_standby ? ", a standby" : "");
    print_time(text, "started", fate->started_us);
    print_time(text, "stopped", fate->stopped_us);
    print_position(text, "start", fate->start_lsn, fate->start_timeline);
    print_position(text, "stop", fate->stop_lsn, fate->stop_timeline);
    print_size(text, "size", fate->size_bytes);
    print_size(text, "stored", fate->stored_bytes);
    byte_writer_format(text, "%-16s %" PRIu64 " in %" PRIu32 " pack%s\n", "files", fate->file_count,
                       fate->pack_count, fate->pack_count == 1 ? "" : "s");
    byte_writer_format(text, "%-16s %s\n%-16s %s\n", "data checksums",
                       fate->data_checksums ? "on" : "off", "kept",
                       entry->backup->kept ? "yes" : "no");
    if (entry->backup->released)
        byte_writer_format(text, "%-16s %s\n", "released", "yes: the policy decides");
    if (entry->backup->verified)
        print_time(text, "verified", entry->backup->verified_us);
    if (entry->backup->drilled)
        print_time(text, "drilled", entry->backup->drilled_us);
    for (size_t i = 0; i < fate->tablespace_count; i++)
        byte_writer_format(text, "%-16s %" PRIu32 " %s\n", "tablespace", fate->tablespaces[i].oid,
                           fate->tablespaces[i].path);
    for (size_t i = 0; i < fate->warning_count; i++)
        byte_writer_format(text, "%-16s %s\n", "warning", fate->warnings[i]);
    print_checksum_failures(fate, FATE_CHECKSUM_FAILURES_LISTED, text);
}
