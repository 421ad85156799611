#include "agent/backup.h"

#include "agent/backup_stream.h"
#include "agent/name_capture.h"
#include "agent/server_silence.h"
#include "agent/timeline_keep.h"
#include "agent/wal_wait.h"
#include "common/cancel.h"
#include "common/log.h"
#include "common/scratch_file.h"
#include "common/timestamp.h"
#include "postgres/server_config.h"
#include "repository/backup_locks.h"
#include "repository/catalog.h"
#include "repository/incarnation.h"
#include "repository/parent_choice.h"
#include "repository/store_proof.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* Everything that one run holds, freed together. */
typedef struct {
    Repository *repository;
    const World *world;
    const BackupOptions *options;
    Arena *arena;
    Connection *server; /* plain SQL */
    ServerFacts facts;
    Incarnation incarnation;
    PageChecks *checks;
    BackupWriter *writer;
    Fate *parent;       /* chosen; NULL: none */
    char why_full[512]; /* "" unless it is full without having been asked to be */
    Fate *fate;
    int64_t start_ns;
    int lock_days;
    ObjectLockCounts locks;
} Run;

static void
run_free(Run *run)
{
    backup_writer_free(run->writer); /* before what its workers use */
    page_checks_free(run->checks);
    connection_close(run->server);
    fate_free(run->parent);
    fate_free(run->fate);
    arena_free(run->arena);
}

void
backup_report_free(BackupReport *report)
{
    if (report == NULL)
        return;
    fate_free(report->fate);
    free(report);
}

static double
seconds_since(const World *world, int64_t start_ns)
{
    return (double)(world->clock->monotonic_ns(world->clock) - start_ns) / 1e9;
}

/* The server's clock, so that labels and targets speak of one time; ours when it cannot be asked.
 */
static int64_t
server_time_us(Run *run)
{
    CairnError ignored = {0};
    SCOPED_MEMORY char *text = connection_query_text(
        run->server, "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint",
        NULL, &ignored);
    if (text != NULL)
        return strtoll(text, NULL, 10);
    return run->world->clock->wall_us(run->world->clock);
}

static bool
ask_server(Run *run, CairnError *err)
{
    const ClusterConfig *cluster = run->options->cluster;
    run->server = connection_open(cluster->conninfo, CONNECTION_SQL, "pgcairn backup", err);
    if (run->server == NULL || !server_facts_read(run->server, run->arena, &run->facts, err))
        return false;
    if (!run->facts.has_replication && !run->facts.is_superuser) {
        cairn_error(err, CAIRN_DENIED, "role '%s' may not take base backups: it lacks REPLICATION",
                    run->facts.user);
        return cairn_error_hint(err, "ALTER ROLE ... REPLICATION, or see `pgcairn init --print`");
    }
    if (run->facts.major < 16 && run->facts.in_place_tablespaces[0] != '\0') {
        cairn_error(
            err, CAIRN_REFUSED,
            "PostgreSQL 15 leaves in-place tablespaces (%s) out of a base backup without a word",
            run->facts.in_place_tablespaces);
        return cairn_error_hint(err, "move them with ALTER TABLESPACE or upgrade to 16 or later");
    }
    return true;
}

/* A backup of the wrong server under this cluster's name would be worse than none. */
static bool
check_incarnation(Run *run, CairnError *err)
{
    const char *cluster = run->options->cluster->name;
    if (incarnation_get(run->repository, cluster, run->facts.system_id, run->facts.major,
                        &run->incarnation, err))
        return true;
    if (err->kind != CAIRN_NOT_FOUND)
        return false;
    cairn_error_clear(err);
    cairn_error(err, CAIRN_MISMATCH,
                "cluster '%s' of this repository was never system %" PRIu64 " with PostgreSQL %d",
                cluster, run->facts.system_id, run->facts.major);
    return cairn_error_hint(
        err, "check conninfo; if this is the right server (new, or after pg_upgrade), run "
             "`pgcairn init` first");
}

static bool
choose_parent(Run *run, CairnError *err)
{
    const BackupOptions *options = run->options;
    char reason[PARENT_REASON_SIZE];
    if (options->type == BACKUP_TYPE_FULL)
        return true;
    if (!parent_choose(run->repository, options->cluster->name, run->facts.system_id,
                       run->facts.major, options->type == BACKUP_TYPE_DIFF, &run->parent, reason,
                       err))
        return false;
    if (run->parent == NULL)
        snprintf(run->why_full, sizeof run->why_full, "%s", reason);
    return true;
}

static bool
begin_writer(Run *run, CairnError *err)
{
    run->checks = page_checks_new();
    run->writer =
        backup_writer_begin(run->repository,
                            &(BackupWriterOptions){
                                .cluster = run->options->cluster->name,
                                .system_id = run->facts.system_id,
                                .major = run->facts.major,
                                .type = run->options->type == BACKUP_TYPE_DIFF ? "diff" : "incr",
                                .parent = run->parent,
                                .refresh_percent = run->options->refresh_percent,
                                .wal_floor_lsn = run->facts.redo_lsn,
                                .jobs = run->options->jobs,
                                .max_memory_bytes = run->options->max_memory_bytes,
                                .scratch_directory = scratch_file_directory(),
                                .check = page_checks_see,
                                .check_context = run->checks,
                            },
                            err);
    if (run->writer == NULL)
        return false;
    const char *why_full;
    run->fate->type = arena_strdup(run->fate->arena, backup_writer_type(run->writer, &why_full));
    if (why_full != NULL) {
        snprintf(run->why_full, sizeof run->why_full, "%.*s", (int)sizeof run->why_full - 1,
                 why_full);
        log_warn("taking a full backup: %s", why_full);
    }
    return true;
}

/* Configuration files outside the data directory: config/<n>, and config/index says what they are.
 */
typedef struct {
    Run *run;
    json_t *index;
    int count;
} ConfigCapture;

static bool
store_ours(BackupWriter *writer, const char *path, const void *content, size_t size,
           CairnError *err)
{
    uint64_t stored_size;
    uint32_t crc;
    return backup_writer_file_begin(writer, MAP_CLASS_OURS, path, 0600, err) &&
           backup_writer_data(writer, content, size, err) &&
           backup_writer_file_end(writer, &stored_size, &crc, err);
}

static bool
capture_config_file(void *context, const ServerConfigFile *file, CairnError *err)
{
    ConfigCapture *capture = context;
    char entry[64];
    snprintf(entry, sizeof entry, "config/%d", ++capture->count);
    json_array_append_new(capture->index, json_pack("{s:s, s:s, s:s}", "setting", file->setting,
                                                    "path", file->path, "entry", entry));
    return store_ours(capture->run->writer, entry, file->content, file->size, err);
}

static void
note_unreadable_config(void *context, const char *setting, const char *path, const char *why)
{
    ConfigCapture *capture = context;
    char text[2048];
    snprintf(text, sizeof text,
             "%s '%s' lies outside the data directory and is not in this backup: %s", setting, path,
             why);
    log_info("%s", text);
    fate_add_warning(capture->run->fate, text);
}

static bool
capture_config(Run *run, CairnError *err)
{
    ConfigCapture capture = {.run = run, .index = json_array()};
    bool captured = server_config_read(run->server, &run->facts, capture_config_file,
                                       note_unreadable_config, &capture, err);
    if (captured && capture.count > 0) {
        SCOPED_MEMORY char *text = json_dumps(capture.index, JSON_INDENT(1));
        captured = text != NULL ? store_ours(run->writer, "config/index", text, strlen(text), err)
                                : cairn_error(err, CAIRN_INTERNAL, "out of memory");
    }
    json_decref(capture.index);
    return captured;
}

static char
label_suffix(const Fate *fate)
{
    if (strcmp(fate->type, "full") == 0)
        return 'F';
    return strcmp(fate->type, "diff") == 0 ? 'D' : 'I';
}

/* Of whatever type: two labels that differ in their last letter only are soon mixed up. */
static bool
is_taken(const Catalog *catalog, const char *stem)
{
    for (size_t i = 0; i < catalog->count; i++) {
        const Fate *fate = catalog->backups[i].fate;
        if (fate != NULL && fate->committed && strncmp(fate->label, stem, strlen(stem)) == 0)
            return true;
    }
    return false;
}

/* 20261122-233140F: the start in UTC, and the type. Others may have begun in the same second:
 * several runs at once, a server whose clock went back. */
static bool
choose_label(Run *run, CairnError *err)
{
    Fate *fate = run->fate;
    char stem[TIMESTAMP_TEXT_SIZE];
    SCOPED(Catalog)
    catalog = catalog_read(run->repository, run->options->cluster->name, err);
    if (catalog == NULL)
        return false;
    int64_t at_us = fate->started_us;
    do {
        timestamp_format_label(stem, at_us);
        at_us += 1000000;
    } while (is_taken(catalog, stem));
    fate->label = arena_printf(fate->arena, "%s%c", stem, label_suffix(fate));
    return true;
}

static void
fill_fate(Run *run)
{
    Fate *fate = run->fate;
    fate->committed = true;
    fate->name = run->options->name != NULL ? arena_strdup(fate->arena, run->options->name) : NULL;
    fate->cluster = arena_strdup(fate->arena, run->options->cluster->name);
    fate->system_id = run->facts.system_id;
    fate->major = run->facts.major;
    fate->server_version = arena_strdup(fate->arena, run->facts.server_version);
    fate->wal_segment_size = run->incarnation.wal_segment_size;
    fate->data_checksums = run->facts.data_checksums;
    fate->started_us = server_time_us(run);
}

/* Before the commit: where it fails there is no backup that nobody could recover from. */
static bool
keep_history(Run *run, Connection *replication, CairnError *err)
{
    char lacking[TIMELINE_LACKING_SIZE];
    if (!timeline_keep(run->repository, run->options->cluster->name, &run->incarnation, replication,
                       run->fate->stop_timeline, lacking, err))
        return false;
    if (lacking[0] != '\0') {
        log_warn("%s", lacking);
        fate_add_warning(run->fate, lacking);
    }
    return true;
}

/* Between the first connection and this one there may have been a failover: what we know is of the
 * old primary then. */
static bool
check_same_server(const Run *run, uint32_t timeline, CairnError *err)
{
    if (run->facts.in_recovery || timeline == run->facts.timeline)
        return true;
    cairn_error(err, CAIRN_MISMATCH,
                "the server was on timeline %" PRIu32 " and is on %" PRIu32
                " now: there was a failover meanwhile",
                run->facts.timeline, timeline);
    return cairn_error_hint(err, "run the backup again");
}

static bool
receive(Run *run, CairnError *err)
{
    ServerSilence silence; /* for longer than the connection */
    SCOPED(Connection)
    replication = connection_open(run->options->cluster->conninfo, CONNECTION_REPLICATION,
                                  "pgcairn backup", err);
    uint64_t system_id;
    uint32_t timeline;
    if (replication == NULL || !identify_system(replication, &system_id, &timeline, err))
        return false;
    if (system_id != run->facts.system_id)
        return cairn_error(err, CAIRN_MISMATCH,
                           "two connections with the same conninfo reached two systems");

    BaseBackupOptions request = {
        .label = run->options->name != NULL ? run->options->name : run->fate->label,
        .fast_checkpoint = run->options->fast_checkpoint,
        .max_rate_kb = run->options->max_rate_kb,
        .progress = run->options->show_progress,
    };
    BackupStreamOptions stream = {
        .world = run->world,
        .writer = run->writer,
        .facts = &run->facts,
        .checks = run->checks,
        .scratch_directory = scratch_file_directory(),
        .show_progress = run->options->show_progress,
    };
    return check_same_server(run, timeline, err) &&
           server_silence_watch(&silence, run->options->cluster->conninfo,
                                run->options->server_timeout_s, run->server, replication, err) &&
           backup_stream_receive(replication, &request, &stream, run->fate, err) &&
           keep_history(run, replication, err);
}

/* The last thing that is written into the fate: a backup with locks that end too early is better
 * than none, as long as everybody is told. */
static void
note_short_locks(Run *run)
{
    const ObjectLockCounts *locks = &run->locks;
    char text[CAIRN_ERROR_MESSAGE_SIZE];
    if (object_locks_unproven(locks) == 0)
        return;
    snprintf(text, sizeof text,
             "when it was made, %" PRIu64 " of %" PRIu64 " older objects that it needs were not "
             "proven to stay locked for %d days: %.1500s",
             object_locks_unproven(locks), object_locks_all(locks), run->lock_days,
             locks->failed > 0 ? locks->failure.message : "they are not there");
    fate_add_warning(run->fate, text);
}

/* Everything is stored; what of it is older must stay locked as long as what is new. */
static bool
ensure_locks(Run *run, CairnError *err)
{
    run->lock_days = storage_lock_terms(repository_storage(run->repository)).days;
    if (run->lock_days == 0)
        return true;
    const int64_t age_us =
        (run->world->clock->monotonic_ns(run->world->clock) - run->start_ns) / 1000;
    if (!backup_locks_ensure(run->repository, run->fate, age_us, &run->locks, err))
        return cairn_error_wrap(err, "before the commit");
    log_info("object lock: %" PRIu64 " older objects asked, %" PRIu64 " renewed", run->locks.asked,
             run->locks.renewed);
    note_short_locks(run);
    return true;
}

static bool
copy(Run *run, CairnError *err)
{
    fill_fate(run);
    /* Names before the stream: what is dropped while it runs is known by name then. */
    if (!choose_label(run, err) || !capture_config(run, err) ||
        !name_capture(run->options->cluster->conninfo, run->server, run->writer, run->fate, err) ||
        !receive(run, err))
        return false;
    run->fate->stopped_us = server_time_us(run);
    /* From here on a signal waits until the commit is decided: between the two there is nothing to
     * gain. But where many locks are asked for, which may take minutes, it ends that. */
    return cancel_check(err) && backup_writer_finish_data(run->writer, run->fate, err) &&
           ensure_locks(run, err) && backup_writer_commit(run->writer, run->fate, err);
}

static void
cleanup_run(Run *run)
{
    run_free(run);
}

BackupReport *
backup_run(Repository *repository, const BackupOptions *options, CairnError *err)
{
    const World *world = repository_world(repository);
    int64_t start_ns = world->clock->monotonic_ns(world->clock);
    __attribute__((cleanup(cleanup_run))) Run run = {.repository = repository,
                                                     .world = world,
                                                     .options = options,
                                                     .arena = arena_new(),
                                                     .fate = fate_new(),
                                                     .start_ns = start_ns};
    SCOPED(BackupReport) report = calloc(1, sizeof *report);
    CAIRN_ASSERT(report != NULL);

    StoreProof proof;
    if (!store_proof_renew(repository, &proof, err) || !ask_server(&run, err) ||
        !check_incarnation(&run, err) || !choose_parent(&run, err) || !begin_writer(&run, err) ||
        !copy(&run, err))
        return NULL;
    report->counts = *backup_writer_counts(run.writer);
    report->lock_days = run.lock_days;
    report->locks = run.locks;
    memcpy(report->why_full, run.why_full, sizeof report->why_full);
    if (run.fate->parent.text[0] != '\0')
        report->parent_label = arena_strdup(run.fate->arena, run.parent->label);
    report->copy_seconds = seconds_since(world, start_ns);

    start_ns = world->clock->monotonic_ns(world->clock);
    if (!wal_wait(repository, options->cluster->name, &run.incarnation, run.fate,
                  options->wal_timeout_s, report, err))
        return NULL;
    report->wal_wait_seconds = seconds_since(world, start_ns);
    report->outcome = report->missing_wal_count > 0 ? BACKUP_COPIED : BACKUP_WAL_COMPLETE;
    if (run.fate->damaged)
        report->outcome = BACKUP_DAMAGED;
    report->fate = take(&run.fate);
    return take(&report);
}
