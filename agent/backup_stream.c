#include "agent/backup_stream.h"

#include "agent/stream_order.h"
#include "common/log.h"
#include "postgres/control.h"
#include "postgres/manifest.h"
#include "postgres/wal_name.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { SMALL_FILE_LIMIT = 64 << 10 };

/* A small file that we need the content of, kept while it streams by. */
typedef struct {
    const char *path;
    bool seen;
    bool is_open;
    size_t size;
    char content[SMALL_FILE_LIMIT];
} SmallFile;

typedef struct {
    const BackupStreamOptions *options;
    Fate *fate;
    StreamOrder *order;
    ManifestReader *manifest;
    Progress *progress;
    Sha256 *manifest_sha;
    bool manifest_begun;
    bool in_file;
    char path[TAR_PATH_LIMIT + 1];
    SmallFile label;
    SmallFile control;
    bool member_after_control; /* of the main archive: pg_control must come last */
} Stream;

void
fate_add_warning(Fate *fate, const char *text)
{
    if (fate->warnings == NULL)
        fate->warnings = arena_alloc(fate->arena, FATE_WARNINGS_LISTED * sizeof *fate->warnings);
    if (fate->warning_count < FATE_WARNINGS_LISTED)
        fate->warnings[fate->warning_count++] = arena_strdup(fate->arena, text);
}

static bool
started(void *context, uint64_t start_lsn, uint32_t timeline, const Tablespace *tablespaces,
        size_t count, uint64_t total_bytes, CairnError *err)
{
    Stream *stream = context;
    Fate *fate = stream->fate;
    /* WAL is kept for us from there on. */
    if (start_lsn < stream->options->facts->redo_lsn) {
        cairn_error(err, CAIRN_MISMATCH,
                    "the backup starts before the last checkpoint of the server that was asked "
                    "first: it comes from another one");
        return cairn_error_hint(err, "conninfo should lead to one server; run the backup again");
    }
    fate->start_lsn = start_lsn;
    fate->start_timeline = timeline;
    fate->tablespaces = arena_alloc(fate->arena, (count + 1) * sizeof *fate->tablespaces);
    for (size_t i = 0; i < count; i++) {
        fate->tablespaces[i] = (FateTablespace){
            .oid = tablespaces[i].oid, .path = arena_strdup(fate->arena, tablespaces[i].path)};
    }
    fate->tablespace_count = count;
    if (fate->data_checksums)
        page_checks_enable(stream->options->checks, start_lsn);
    if (stream->options->show_progress)
        stream->progress = progress_new(stream->options->world, "backup", total_bytes);
    char lsn[LSN_TEXT_SIZE];
    lsn_format(lsn, start_lsn);
    log_info("backup %s starts at %s on timeline %u",
             backup_writer_id(stream->options->writer)->text, lsn, timeline);
    return true;
}

static void
open_small(SmallFile *file, const char *path)
{
    file->is_open = strcmp(file->path, path) == 0;
    if (file->is_open) {
        file->seen = true;
        file->size = 0;
    }
}

static bool
collect_small(SmallFile *file, const uint8_t *data, size_t size, CairnError *err)
{
    if (!file->is_open)
        return true;
    if (size > SMALL_FILE_LIMIT - 1 - file->size)
        return cairn_error(err, CAIRN_CORRUPT, "the server's '%s' is too large", file->path);
    memcpy(file->content + file->size, data, size);
    file->size += size;
    return true;
}

static bool
member(void *context, const TarMember *member, CairnError *err)
{
    Stream *stream = context;
    if (stream->control.seen)
        stream->member_after_control = true;
    switch (member->type) {
    case TAR_DIRECTORY:
        return backup_writer_directory(stream->options->writer, MAP_CLASS_CLUSTER, member->path,
                                       (member->mode & 0750) | 0700, err);
    case TAR_SYMLINK:
        return cairn_error(
            err, CAIRN_CORRUPT,
            "the server sent a symbolic link '%s' though it was asked for a tablespace map",
            member->path);
    case TAR_FILE:
        break;
    }
    snprintf(stream->path, sizeof stream->path, "%s", member->path);
    stream->in_file = true;
    open_small(&stream->label, member->path);
    open_small(&stream->control, member->path);
    return backup_writer_file_begin(stream->options->writer, MAP_CLASS_CLUSTER, member->path,
                                    (member->mode & 0640) | 0600, err);
}

static bool
data(void *context, const uint8_t *bytes, size_t size, CairnError *err)
{
    Stream *stream = context;
    progress_add(stream->progress, size);
    progress_draw(stream->progress);
    return collect_small(&stream->label, bytes, size, err) &&
           collect_small(&stream->control, bytes, size, err) &&
           backup_writer_data(stream->options->writer, bytes, size, err);
}

static bool
member_end(void *context, CairnError *err)
{
    Stream *stream = context;
    if (!stream->in_file)
        return true;
    stream->in_file = false;
    stream->label.is_open = stream->control.is_open = false;
    uint64_t size;
    uint32_t crc;
    return backup_writer_file_end(stream->options->writer, &size, &crc, err) &&
           stream_order_add(stream->order, stream->path, size, crc, err);
}

static bool
manifest(void *context, const uint8_t *bytes, size_t size, CairnError *err)
{
    Stream *stream = context;
    if (!stream->manifest_begun) {
        stream->manifest_begun = true;
        if (!backup_writer_file_begin(stream->options->writer, MAP_CLASS_OURS, "backup_manifest",
                                      0600, err))
            return false;
    }
    return manifest_reader_feed(stream->manifest, bytes, size, err) &&
           sha256_update(stream->manifest_sha, bytes, size, err) &&
           backup_writer_data(stream->options->writer, bytes, size, err);
}

static bool
manifest_file(void *context, const ManifestFile *file, CairnError *err)
{
    Stream *stream = context;
    return stream_order_check(stream->order, file, err);
}

static void
notice(void *context, const char *severity, const char *message)
{
    Stream *stream = context;
    if (strcmp(severity, "WARNING") != 0) {
        log_debug("server: %s: %s", severity, message);
        return;
    }
    log_warn("server: %s", message);
    fate_add_warning(stream->fate, message);
}

static bool
check_label(const Stream *stream, const BaseBackupResult *result, CairnError *err)
{
    Fate *fate = stream->fate;
    BackupLabel label;
    if (!stream->label.seen)
        return cairn_error(err, CAIRN_CORRUPT, "the server sent no backup_label");
    if (!backup_label_parse(stream->label.content, stream->label.size, &label, err))
        return false;
    if (label.start_lsn != result->start_lsn || label.start_timeline != result->start_timeline)
        return cairn_error(err, CAIRN_CORRUPT,
                           "backup_label and the server's answer name different starts");
    fate->from_standby = label.from_standby;
    fate->backup_label = arena_strndup(fate->arena, stream->label.content, stream->label.size);
    return true;
}

/* The server reads pg_control without the retry that other readers make (facts 8.1): a torn one is
 * found here. */
static bool
check_control(const Stream *stream, CairnError *err)
{
    if (!stream->control.seen || stream->member_after_control)
        return cairn_error(err, CAIRN_CORRUPT,
                           "the server did not send pg_control as the last file");
    ControlFile control;
    if (!control_parse(stream->control.content, stream->control.size, &control, err)) {
        cairn_error_hint(
            err, "the server may have read it while it was being written: run the backup again");
        return cairn_error_wrap(err, "pg_control as the server sent it");
    }
    if (control.system_id != stream->options->facts->system_id) {
        return cairn_error(err, CAIRN_MISMATCH,
                           "pg_control is of system %" PRIu64 ", the server said %" PRIu64,
                           control.system_id, stream->options->facts->system_id);
    }
    return true;
}

static bool
check_manifest(Stream *stream, const BaseBackupResult *result, CairnError *err)
{
    if (!stream->manifest_begun)
        return cairn_error(err, CAIRN_CORRUPT, "the server sent no backup manifest");
    uint64_t size;
    uint32_t crc;
    if (!manifest_reader_finish(stream->manifest, err) ||
        !stream_order_finish(stream->order, err) ||
        !backup_writer_file_end(stream->options->writer, &size, &crc, err))
        return false;

    uint64_t system_id = manifest_reader_system_id(stream->manifest);
    if (system_id != 0 && system_id != stream->options->facts->system_id)
        return cairn_error(err, CAIRN_MISMATCH, "the backup manifest is of another system");
    const ManifestWalRange *ranges;
    size_t count = manifest_reader_wal_ranges(stream->manifest, &ranges);
    if (count == 0 || ranges[count - 1].start_lsn != result->start_lsn ||
        ranges[0].end_lsn != result->stop_lsn)
        return cairn_error(err, CAIRN_CORRUPT,
                           "the backup manifest's WAL ranges are not this backup's");
    return sha256_finish(stream->manifest_sha, stream->fate->manifest_sha256, err);
}

static const BaseBackupCallbacks callbacks = {
    .started = started,
    .member = member,
    .data = data,
    .member_end = member_end,
    .manifest = manifest,
    .notice = notice,
};

/*
 * The server read a page that failed once more, and the verdict is its: what fails here alone may
 * be a torn page whose first half is still old or empty, which WAL replaces. Our own list says
 * which pages the server meant, for it names only five a file.
 */
static void
report_pages(Stream *stream, bool server_failed)
{
    Fate *fate = stream->fate;
    page_checks_report(stream->options->checks, fate);
    if (!server_failed && fate->checksum_failure_count > 0) {
        log_debug("%" PRIu64 " pages looked torn, the first in %s", fate->checksum_failure_count,
                  fate->checksum_failures[0].path);
        fate->checksum_failures_listed = 0;
        fate->checksum_failure_count = 0;
    }
}

static bool
receive(Stream *stream, Connection *connection, const BaseBackupOptions *request, CairnError *err)
{
    BaseBackupResult result = {0};
    bool received = basebackup_run(connection, request, &callbacks, stream, &result, err);
    progress_free(stream->progress);
    stream->progress = NULL;
    if (!received || !check_label(stream, &result, err) || !check_control(stream, err) ||
        !check_manifest(stream, &result, err))
        return false;

    Fate *fate = stream->fate;
    fate->stop_lsn = result.stop_lsn;
    fate->stop_timeline = result.stop_timeline;
    fate->damaged = result.checksum_error;
    report_pages(stream, result.checksum_error);
    return true;
}

bool
backup_stream_receive(Connection *connection, const BaseBackupOptions *request,
                      const BackupStreamOptions *options, Fate *fate, CairnError *err)
{
    SCOPED_MEMORY Stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    SCOPED(StreamOrder) order = stream_order_new(options->world, options->scratch_directory, err);
    if (order == NULL)
        return false;
    SCOPED(ManifestReader) reader = manifest_reader_new(manifest_file, stream, err);
    if (reader == NULL)
        return false;
    SCOPED(Sha256) manifest_sha = sha256_new(err);
    if (manifest_sha == NULL)
        return false;
    stream->options = options;
    stream->fate = fate;
    stream->order = order;
    stream->manifest = reader;
    stream->manifest_sha = manifest_sha;
    stream->label.path = "backup_label";
    stream->control.path = "global/pg_control";
    return receive(stream, connection, request, err);
}
