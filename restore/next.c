/* What restore says when it is done: part of restore.h. */
#include "restore/restore.h"

#include "common/progress.h"
#include "common/timestamp.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool
stops_at_target(const RestorePlan *plan)
{
    return plan->setting != NULL;
}

/* What the transaction had locked until then stays locked: replay holds its locks. */
static bool
stops_inside_transaction(const RestorePlan *plan)
{
    const StopPoint *stop = &plan->stop;
    return stop->has_record && stop->before &&
           (stop->record.kind == WAL_RECORD_COMMIT || stop->record.kind == WAL_RECORD_ABORT);
}

static void
add_ending(const RestorePlan *plan, ByteWriter *text)
{
    if (plan->target.type == TARGET_DEFAULT) {
        byte_writer_format(text,
                           "  # it recovers to the end of the archive, then opens for writing\n");
    } else if (stops_at_target(plan) && plan->target.action == ACTION_PROMOTE) {
        byte_writer_format(text, "  # it recovers to the target, then opens for writing\n");
    } else if (stops_at_target(plan) && plan->target.action == ACTION_SHUTDOWN) {
        byte_writer_format(text,
                           "  # it recovers to the target, then stops; start it again to go on:\n"
                           "  # first remove recovery.signal, or set another target\n");
    } else if (stops_at_target(plan)) {
        byte_writer_format(
            text,
            "  # it recovers to the target and pauses, read-only; look around, then open it:\n"
            "  psql -d postgres -c 'SELECT pg_wal_replay_resume()'\n");
        if (plan->closed_by_damage)
            byte_writer_format(text,
                               "  # but first mend %08" PRIX32
                               ".history in the repository, which is damaged, or remove it: "
                               "until then the server cannot open\n",
                               plan->closed_by);
        else if (plan->closed_by != 0)
            byte_writer_format(text,
                               "  # but first store %08" PRIX32
                               ".history (pgcairn-wal push): without it the server "
                               "cannot open\n",
                               plan->closed_by);
        if (stops_inside_transaction(plan))
            byte_writer_format(
                text, "  # a query that hangs waits for the transaction that recovery stopped "
                      "inside (a DROP or\n"
                      "  # TRUNCATE holds its lock): open it, or restore with "
                      "--target-action=promote\n");
    }
}

void
restore_next_steps(const RestoreResult *result, ByteWriter *text)
{
    const RestorePlan *plan = result->plan;
    const char *directory = result->directory;

    if (result->dry_run) {
        byte_writer_format(text, "  # nothing was written; run the same without --dry-run\n");
        return;
    }
    if (geteuid() == 0)
        byte_writer_format(text, "  chown -R postgres: '%s'    # the files are root's now\n",
                           directory);
    if (result->made_up_hba)
        byte_writer_format(
            text, "  # the backup has no pg_hba.conf; a minimal one was written, see to it\n");
    if (plan->target.type == TARGET_STANDBY) {
        byte_writer_format(text,
                           "  # say where the primary is, in '%s/postgresql.auto.conf':\n"
                           "  #   primary_conninfo = 'host=... user=...'\n",
                           directory);
    }
    if (plan->target.type == TARGET_NONE && !result->wal_laid)
        byte_writer_format(
            text, "  # put the WAL from the backup's start to its stop into pg_wal first\n");
    if (result->original_here) {
        byte_writer_format(
            text, "  # the original is on this host and has its port: give this one another\n");
        byte_writer_format(text, "  pg_ctl -D '%s' -o '-p PORT' start\n", directory);
    } else {
        byte_writer_format(text, "  pg_ctl -D '%s' start\n", directory);
    }
    add_ending(plan, text);
    if (result->as == RESTORE_AS_CLONE) {
        byte_writer_format(
            text,
            "  # it is a copy and archives nothing; to change that:\n"
            "  pgcairn adopt -D '%s' --as-cluster NAME    # a place of its own\n"
            "  pgcairn adopt -D '%s' --original           # it takes the original's place\n",
            directory, directory);
    }
}

static void
add_stop(const RestoreResult *result, ByteWriter *text)
{
    const RestorePlan *plan = result->plan;
    char stop[PLAN_STOP_TEXT_SIZE];
    char target[TARGET_TEXT_SIZE];
    char lsn[LSN_TEXT_SIZE];
    char commit[TIMESTAMP_TEXT_SIZE];

    if (plan->target.type == TARGET_STANDBY) {
        byte_writer_format(text, "recovery: as a standby, timeline latest\n");
        return;
    }
    if (plan->target.type == TARGET_NONE) {
        byte_writer_format(text, "recovery: none; consistent with the WAL of the backup\n");
        return;
    }
    plan_describe_stop(stop, plan);
    target_describe(target, &plan->target);
    lsn_format(lsn, plan->stop.end_lsn);
    byte_writer_format(text, "target: %s, timeline %" PRIu32 "\n", target, plan->timeline);
    byte_writer_format(text, "proven: recovery %s %s; everything before %s is replayed\n",
                       plan->target.type == TARGET_DEFAULT ? "ends" : "stops", stop, lsn);
    if (plan->stop.last_commit_us != 0) {
        timestamp_format(commit, plan->stop.last_commit_us);
        byte_writer_format(text, "newest time replayed: %s\n", commit);
    }
}

/* Commits in it are in the repository, and not in the restored cluster: nobody may learn that late.
 */
static void
add_tail(const RestoreResult *result, ByteWriter *text)
{
    const RestorePlan *plan = result->plan;
    const WalTail *tail = &result->tail;
    char from[LSN_TEXT_SIZE];
    char to[LSN_TEXT_SIZE];

    if (tail->laid) {
        lsn_format(from, tail->start_lsn);
        lsn_format(to, tail->stop.end_lsn);
        byte_writer_format(
            text,
            "included: the unfinished segment %s, laid into pg_wal; its records are valid from %s "
            "to %s\n",
            tail->name, from, to);
    } else if (result->kept[0] != '\0' &&
               (plan->stop.end_lsn <= result->kept_lsn || plan->target.type == TARGET_NONE)) {
        lsn_format(from, result->kept_lsn);
        byte_writer_format(text,
                           "NOT replayed: WAL from %s on is kept in the repository as %s%s%s%s\n",
                           from, result->kept, tail->obstacle[0] != '\0' ? " (" : "",
                           tail->obstacle, tail->obstacle[0] != '\0' ? ")" : "");
    }
}

void
restore_describe(const RestoreResult *result, ByteWriter *text)
{
    const Fate *backup = result->plan->backup->fate;
    char size[32];

    format_bytes(size, result->size_bytes);
    byte_writer_format(text, "%s backup %s as %s %s '%s': %s, %" PRIu64 " files",
                       result->dry_run ? "would restore" : "restored", backup->label,
                       restore_as_name(result->as), result->dry_run ? "into" : "in",
                       result->directory, size, result->file_count);
    if (!result->dry_run)
        byte_writer_format(text, ", %.1f s", (double)result->duration_us / 1e6);
    byte_writer_format(text, "\n");
    if (result->rescued_count > 0)
        byte_writer_format(text, "rescued %zu WAL files of the old cluster into the repository\n",
                           result->rescued_count);
    add_stop(result, text);
    add_tail(result, text);
    byte_writer_format(text, "next:\n");
    restore_next_steps(result, text);
}
