#include "postgres/basebackup.h"

#include "common/bytes.h"
#include "common/cancel.h"
#include "postgres/wal_name.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    LABEL_LIMIT = 1024,
    MAX_RATE_MIN_KB = 32,
    MAX_RATE_MAX_KB = 1024 * 1024,
    TABLESPACE_PREFIX_LIMIT = 32,
};

/* The stream as a machine: an archive or the manifest is open, or nothing is yet. */
typedef enum { STREAM_NOTHING, STREAM_TABLESPACE, STREAM_BASE, STREAM_MANIFEST } StreamPhase;

typedef struct {
    Connection *connection;
    const BaseBackupCallbacks *callbacks;
    void *context;
    TarParser *parser;
    StreamPhase phase;
    Tablespace *tablespaces;
    bool *tablespace_seen;
    size_t tablespace_count;
    uint64_t total_bytes;
    /* "pg_tblspc/<oid>/" in front of members of a tablespace's archive; size 0 in base.tar. */
    char path[TABLESPACE_PREFIX_LIMIT + TAR_PATH_LIMIT + 1];
    size_t prefix_size;
} BaseBackupStream;

static bool
parse_u64(const char *text, uint64_t maximum, uint64_t *value_out)
{
    if (text[0] < '0' || text[0] > '9')
        return false;
    char *end = NULL;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || value > maximum)
        return false;
    *value_out = value;
    return true;
}

bool
identify_system(Connection *connection, uint64_t *system_id_out, uint32_t *timeline_out,
                CairnError *err)
{
    SCOPED_RESULT result =
        connection_query(connection, "IDENTIFY_SYSTEM", NULL,
                         (QueryShape){.columns = 4, .min_rows = 1, .max_rows = 1}, err);
    if (result == NULL)
        return cairn_error_wrap(err, "IDENTIFY_SYSTEM");

    uint64_t system_id = 0;
    uint64_t timeline = 0;
    if (!parse_u64(PQgetvalue(result, 0, 0), UINT64_MAX, &system_id) ||
        !parse_u64(PQgetvalue(result, 0, 1), UINT32_MAX, &timeline) || timeline == 0) {
        return cairn_error(err, CAIRN_UNSUPPORTED, "IDENTIFY_SYSTEM: answer not understood");
    }
    *system_id_out = system_id;
    *timeline_out = (uint32_t)timeline;
    return true;
}

char *
timeline_history_ask(Connection *connection, uint32_t timeline, size_t *size_out, CairnError *err)
{
    char command[64];
    snprintf(command, sizeof command, "TIMELINE_HISTORY %" PRIu32, timeline);
    SCOPED_RESULT result = connection_query(
        connection, command, NULL, (QueryShape){.columns = 2, .min_rows = 1, .max_rows = 1}, err);
    if (result == NULL) {
        cairn_error_wrap(err, "%s", command);
        return NULL;
    }
    /* The bytes of the file, whatever type the server announces for them. */
    const int size = PQgetlength(result, 0, 1);
    char *text = calloc(1, (size_t)size + 1);
    if (text == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    memcpy(text, PQgetvalue(result, 0, 1), (size_t)size);
    *size_out = (size_t)size;
    return text;
}

static void
append_text(ByteWriter *text, const char *piece)
{
    byte_writer_bytes(text, piece, strlen(piece));
}

/* NUL-terminated. Replication commands know single-quoted strings only: quotes doubled, backslashes
 * plain. */
static bool
format_command(const BaseBackupOptions *options, ByteWriter *command, CairnError *err)
{
    if (strlen(options->label) > LABEL_LIMIT)
        return cairn_error(err, CAIRN_USAGE, "backup label is longer than %d bytes", LABEL_LIMIT);
    if (strpbrk(options->label, "\r\n") != NULL)
        return cairn_error(err, CAIRN_USAGE, "backup label has a line break");
    if (options->max_rate_kb != 0 &&
        (options->max_rate_kb < MAX_RATE_MIN_KB || options->max_rate_kb > MAX_RATE_MAX_KB)) {
        return cairn_error(err, CAIRN_USAGE, "max-rate %" PRIu32 " kB/s is not between %d and %d",
                           options->max_rate_kb, MAX_RATE_MIN_KB, MAX_RATE_MAX_KB);
    }

    append_text(command, "BASE_BACKUP (LABEL '");
    for (const char *next = options->label; *next != '\0'; next++) {
        if (*next == '\'')
            byte_writer_u8(command, '\'');
        byte_writer_u8(command, (uint8_t)*next);
    }
    append_text(command,
                options->fast_checkpoint ? "', CHECKPOINT 'fast'" : "', CHECKPOINT 'spread'");
    if (options->progress)
        append_text(command, ", PROGRESS");
    if (options->max_rate_kb != 0) {
        char rate[32];
        snprintf(rate, sizeof rate, ", MAX_RATE %" PRIu32, options->max_rate_kb);
        append_text(command, rate);
    }
    /* WAIT 0: our own archive is asked instead. VERIFY_CHECKSUMS said always: a false of an earlier
       backup would stick to the session. CRC32C: SHA-256 costs the walsender more than the whole
       stream. */
    append_text(command, ", WAIT 0, TABLESPACE_MAP, VERIFY_CHECKSUMS true, MANIFEST 'yes', "
                         "MANIFEST_CHECKSUMS 'CRC32C')");
    byte_writer_u8(command, '\0');
    return byte_writer_check(command, err);
}

/* A result with one row of LSN and timeline: the first and the last one of a backup. */
static bool
read_position(BaseBackupStream *stream, const char *what, uint64_t *lsn_out, uint32_t *timeline_out,
              CairnError *err)
{
    SCOPED_RESULT result = connection_next_result(stream->connection, err);
    if (result == NULL)
        return cairn_error_wrap(err, "%s", what);
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        return connection_result_error(stream->connection, result, what, err);

    uint64_t timeline = 0;
    uint64_t lsn = 0;
    if (PQntuples(result) != 1 || PQnfields(result) != 2 ||
        !lsn_parse(PQgetvalue(result, 0, 0), &lsn) ||
        !parse_u64(PQgetvalue(result, 0, 1), UINT32_MAX, &timeline) || lsn == 0 || timeline == 0) {
        return cairn_error(err, CAIRN_UNSUPPORTED, "%s: answer not understood", what);
    }
    *lsn_out = lsn;
    *timeline_out = (uint32_t)timeline;
    return true;
}

static bool
read_tablespace_row(const PGresult *result, int row, Tablespace *tablespace, CairnError *err)
{
    uint64_t oid = 0;
    const char *location = PQgetvalue(result, row, 1);
    if (!parse_u64(PQgetvalue(result, row, 0), UINT32_MAX, &oid) || oid == 0)
        return cairn_error(err, CAIRN_CORRUPT, "tablespace list: not an oid");
    if (location[0] == '\0' || strlen(location) >= sizeof tablespace->path)
        return cairn_error(err, CAIRN_CORRUPT, "tablespace %" PRIu64 " has no usable location",
                           oid);
    tablespace->oid = (uint32_t)oid;
    memcpy(tablespace->path, location, strlen(location) + 1);
    return true;
}

/* Rows of tablespaces, and of the data directory (oid NULL) exactly once. */
static bool
read_tablespace_rows(BaseBackupStream *stream, const PGresult *result, CairnError *err)
{
    const int rows = PQntuples(result);
    bool data_directory_seen = false;
    for (int row = 0; row < rows; row++) {
        uint64_t size_kb = 0;
        if (!PQgetisnull(result, row, 2) &&
            !parse_u64(PQgetvalue(result, row, 2), UINT64_MAX / 1024 / TABLESPACE_LIMIT,
                       &size_kb)) {
            return cairn_error(err, CAIRN_CORRUPT, "tablespace list: not a size");
        }
        stream->total_bytes += size_kb * 1024;
        if (PQgetisnull(result, row, 0)) {
            if (data_directory_seen)
                return cairn_error(err, CAIRN_CORRUPT, "tablespace list has two data directories");
            data_directory_seen = true;
            continue;
        }
        if (stream->tablespace_count + 1 >= (size_t)rows && !data_directory_seen)
            return cairn_error(err, CAIRN_CORRUPT, "tablespace list has no data directory");
        Tablespace *tablespace = &stream->tablespaces[stream->tablespace_count];
        if (!read_tablespace_row(result, row, tablespace, err))
            return false;
        for (size_t i = 0; i < stream->tablespace_count; i++) {
            if (stream->tablespaces[i].oid == tablespace->oid)
                return cairn_error(err, CAIRN_CORRUPT, "tablespace list names one twice");
        }
        stream->tablespace_count++;
    }
    if (!data_directory_seen)
        return cairn_error(err, CAIRN_CORRUPT, "tablespace list has no data directory");
    return true;
}

static bool
read_tablespaces(BaseBackupStream *stream, CairnError *err)
{
    SCOPED_RESULT result = connection_next_result(stream->connection, err);
    if (result == NULL)
        return cairn_error_wrap(err, "tablespace list");
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        return connection_result_error(stream->connection, result, "tablespace list", err);
    const int rows = PQntuples(result);
    if (PQnfields(result) != 3 || rows < 1)
        return cairn_error(err, CAIRN_UNSUPPORTED, "tablespace list: answer not understood");
    if (rows > TABLESPACE_LIMIT)
        return cairn_error(err, CAIRN_UNSUPPORTED, "more than %d tablespaces", TABLESPACE_LIMIT);

    stream->tablespaces = calloc((size_t)rows, sizeof *stream->tablespaces);
    stream->tablespace_seen = calloc((size_t)rows, sizeof *stream->tablespace_seen);
    if (stream->tablespaces == NULL || stream->tablespace_seen == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    return read_tablespace_rows(stream, result, err);
}

static bool
on_member(void *context, const TarMember *member, CairnError *err)
{
    BaseBackupStream *stream = context;
    /* We ask for a tablespace map, with which the server sends no links. */
    if (member->type == TAR_SYMLINK)
        return cairn_error(err, CAIRN_CORRUPT, "unexpected symbolic link '%s' in the stream",
                           member->path);
    if (stream->prefix_size == 0)
        return stream->callbacks->member(stream->context, member, err);

    const size_t size = strlen(member->path);
    if (stream->prefix_size + size > TAR_PATH_LIMIT)
        return cairn_error(err, CAIRN_CORRUPT, "path too long: '%s'", member->path);
    memcpy(stream->path + stream->prefix_size, member->path, size + 1);
    TarMember moved = *member;
    moved.path = stream->path;
    return stream->callbacks->member(stream->context, &moved, err);
}

static bool
on_data(void *context, const uint8_t *data, size_t size, CairnError *err)
{
    const BaseBackupStream *stream = context;
    return stream->callbacks->data(stream->context, data, size, err);
}

static bool
on_member_end(void *context, CairnError *err)
{
    const BaseBackupStream *stream = context;
    return stream->callbacks->member_end(stream->context, err);
}

static bool
finish_archive(BaseBackupStream *stream, CairnError *err)
{
    if (stream->phase != STREAM_TABLESPACE && stream->phase != STREAM_BASE)
        return true;
    return tar_parser_finish(stream->parser, err);
}

/* "<oid>.tar" of the list, once, before base.tar. */
static bool
begin_tablespace(BaseBackupStream *stream, const char *name, CairnError *err)
{
    const size_t digits = strspn(name, "0123456789");
    char oid_text[11];
    uint64_t oid = 0;
    if (digits == 0 || digits >= sizeof oid_text || strcmp(name + digits, ".tar") != 0)
        return cairn_error(err, CAIRN_CORRUPT, "unexpected archive name in the stream");
    memcpy(oid_text, name, digits);
    oid_text[digits] = '\0';
    if (!parse_u64(oid_text, UINT32_MAX, &oid))
        return cairn_error(err, CAIRN_CORRUPT, "unexpected archive name in the stream");

    for (size_t i = 0; i < stream->tablespace_count; i++) {
        if (stream->tablespaces[i].oid != oid)
            continue;
        if (stream->tablespace_seen[i])
            return cairn_error(err, CAIRN_CORRUPT, "archive '%s' came twice", name);
        stream->tablespace_seen[i] = true;
        stream->phase = STREAM_TABLESPACE;
        const int size =
            snprintf(stream->path, TABLESPACE_PREFIX_LIMIT, "pg_tblspc/%" PRIu64 "/", oid);
        stream->prefix_size = (size_t)size;
        return true;
    }
    return cairn_error(err, CAIRN_CORRUPT, "archive '%s' is of no tablespace", name);
}

static bool
all_tablespaces_seen(const BaseBackupStream *stream, CairnError *err)
{
    for (size_t i = 0; i < stream->tablespace_count; i++) {
        if (!stream->tablespace_seen[i]) {
            return cairn_error(err, CAIRN_CORRUPT, "no archive of tablespace %" PRIu32 " came",
                               stream->tablespaces[i].oid);
        }
    }
    return true;
}

/* Payload: name NUL, tablespace path NUL. */
static bool
begin_archive(BaseBackupStream *stream, const char *payload, size_t size, CairnError *err)
{
    const char *name_end = memchr(payload, '\0', size);
    if (name_end == NULL || size < 2 || payload[size - 1] != '\0' || name_end == payload + size - 1)
        return cairn_error(err, CAIRN_CORRUPT, "malformed archive header in the stream");
    if (stream->phase == STREAM_BASE || stream->phase == STREAM_MANIFEST)
        return cairn_error(err, CAIRN_CORRUPT, "an archive came after base.tar");
    if (!finish_archive(stream, err))
        return false;
    if (strcmp(payload, "base.tar") != 0)
        return begin_tablespace(stream, payload, err);

    stream->phase = STREAM_BASE;
    stream->prefix_size = 0;
    return all_tablespaces_seen(stream, err);
}

static bool
feed(BaseBackupStream *stream, const char *data, size_t size, CairnError *err)
{
    switch (stream->phase) {
    case STREAM_TABLESPACE:
    case STREAM_BASE:
        return tar_parser_feed(stream->parser, (const uint8_t *)data, size, err);
    case STREAM_MANIFEST:
        return stream->callbacks->manifest(stream->context, (const uint8_t *)data, size, err);
    case STREAM_NOTHING:
        break;
    }
    return cairn_error(err, CAIRN_CORRUPT, "data came before its archive's name");
}

static bool
begin_manifest(BaseBackupStream *stream, size_t size, CairnError *err)
{
    if (stream->phase != STREAM_BASE || size != 0)
        return cairn_error(err, CAIRN_CORRUPT, "the manifest came at the wrong place");
    if (!finish_archive(stream, err))
        return false;
    stream->phase = STREAM_MANIFEST;
    return true;
}

static bool
handle_message(BaseBackupStream *stream, const char *message, size_t size, CairnError *err)
{
    if (size == 0)
        return cairn_error(err, CAIRN_CORRUPT, "empty message in the stream");
    switch (message[0]) {
    case 'd':
        return feed(stream, message + 1, size - 1, err);
    case 'n':
        return begin_archive(stream, message + 1, size - 1, err);
    case 'm':
        return begin_manifest(stream, size - 1, err);
    case 'p':
        if (size != 1 + sizeof(uint64_t))
            return cairn_error(err, CAIRN_CORRUPT, "malformed progress message in the stream");
        return true; /* callers count what they are given */
    default:
        return cairn_error(err, CAIRN_CORRUPT, "unknown message type 0x%02x in the stream",
                           (unsigned char)message[0]);
    }
}

/*
 * The hot path: libpq's own buffer goes to the parser. Asynchronous, so that a signal is seen in a
 * silence. While the server keeps up, each message costs one system call: what has arrived is taken
 * without asking first whether something has.
 */
static bool
read_copy(BaseBackupStream *stream, CairnError *err)
{
    PGconn *libpq = connection_libpq(stream->connection);
    bool taken = false; /* what had arrived since the last message */
    for (;;) {
        if (!cancel_check(err))
            return false;
        char *message = NULL;
        const int size = PQgetCopyData(libpq, &message, 1);
        if (size > 0) {
            const bool handled = handle_message(stream, message, (size_t)size, err);
            PQfreemem(message);
            if (!handled)
                return false;
            taken = false;
        } else if (size == 0 && !taken) {
            taken = true;
            if (PQconsumeInput(libpq) == 0)
                return connection_wait_error(stream->connection, CONNECTION_WAIT_FAILED, err);
        } else if (size == 0) {
            const ConnectionWait waited = connection_wait(stream->connection, 0);
            if (waited != CONNECTION_WAIT_AGAIN)
                return connection_wait_error(stream->connection, waited, err);
        } else if (size == -1) {
            return true; /* whole, or an error that the next result tells */
        } else {
            return connection_result_error(stream->connection, NULL, "base backup stream", err);
        }
    }
}

static bool
open_copy(BaseBackupStream *stream, CairnError *err)
{
    SCOPED_RESULT result = connection_next_result(stream->connection, err);
    if (result == NULL)
        return cairn_error_wrap(err, "base backup");
    if (PQresultStatus(result) != PGRES_COPY_OUT) {
        if (PQresultStatus(result) == PGRES_FATAL_ERROR)
            return connection_result_error(stream->connection, result, "base backup", err);
        return cairn_error(err, CAIRN_UNSUPPORTED, "base backup: the server did not begin to copy");
    }
    return true;
}

/* CommandComplete, or XX001: pages with wrong checksums, of which everything else arrived. */
static bool
read_end(BaseBackupStream *stream, bool *checksum_error_out, CairnError *err)
{
    SCOPED_RESULT result = connection_next_result(stream->connection, err);
    if (result == NULL)
        return cairn_error_wrap(err, "end of base backup");
    bool checksum_error = false;
    if (PQresultStatus(result) != PGRES_COMMAND_OK) {
        const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        checksum_error = sqlstate != NULL && strcmp(sqlstate, "XX001") == 0;
        if (!checksum_error)
            return connection_result_error(stream->connection, result, "end of base backup", err);
    }
    /* Nothing else follows, and ReadyForQuery comes. */
    if (!connection_end_of_results(stream->connection, err))
        return cairn_error_wrap(err, "end of base backup");
    *checksum_error_out = checksum_error;
    return true;
}

static bool
run_stream(BaseBackupStream *stream, const char *command, BaseBackupResult *result, CairnError *err)
{
    PGconn *libpq = connection_libpq(stream->connection);
    if (libpq == NULL)
        return cairn_error(err, CAIRN_UNAVAILABLE, "the connection to the server is closed");
    if (!PQsendQuery(libpq, command))
        return connection_result_error(stream->connection, NULL, "base backup", err);

    /* The first answer waits for a checkpoint. */
    if (!read_position(stream, "start of base backup", &result->start_lsn, &result->start_timeline,
                       err) ||
        !read_tablespaces(stream, err) ||
        !stream->callbacks->started(stream->context, result->start_lsn, result->start_timeline,
                                    stream->tablespaces, stream->tablespace_count,
                                    stream->total_bytes, err) ||
        !open_copy(stream, err) || !read_copy(stream, err) ||
        !read_position(stream, "base backup", &result->stop_lsn, &result->stop_timeline, err)) {
        return false;
    }
    if (stream->phase != STREAM_MANIFEST)
        return cairn_error(err, CAIRN_CORRUPT, "the stream ended before the manifest");
    if (result->stop_lsn < result->start_lsn)
        return cairn_error(err, CAIRN_CORRUPT, "the backup ends before it starts");
    return read_end(stream, &result->checksum_error, err);
}

static void
on_notice(void *context, const PGresult *result)
{
    const BaseBackupStream *stream = context;
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    if (stream->callbacks->notice != NULL && severity != NULL && message != NULL)
        stream->callbacks->notice(stream->context, severity, message);
}

static void
ignore_notice(void *context, const PGresult *result)
{
    (void)context;
    (void)result;
}

bool
basebackup_run(Connection *connection, const BaseBackupOptions *options,
               const BaseBackupCallbacks *callbacks, void *context, BaseBackupResult *result_out,
               CairnError *err)
{
    SCOPED_BYTES ByteWriter command = {0};
    if (!format_command(options, &command, err))
        return false;
    static const TarCallbacks TAR_CALLBACKS = {on_member, on_data, on_member_end};
    BaseBackupStream stream = {
        .connection = connection, .callbacks = callbacks, .context = context};
    SCOPED(TarParser) parser = tar_parser_new(&TAR_CALLBACKS, &stream, err);
    if (parser == NULL)
        return false;
    stream.parser = parser;

    if (connection_libpq(connection) != NULL)
        PQsetNoticeReceiver(connection_libpq(connection), on_notice, &stream);
    BaseBackupResult result = {0};
    const bool done = run_stream(&stream, (const char *)command.data, &result, err);
    /* There is no resuming: what is left of a failed stream goes with its connection. */
    if (!done)
        connection_abandon(connection);
    else
        PQsetNoticeReceiver(connection_libpq(connection), ignore_notice, NULL);
    free(stream.tablespaces);
    free(stream.tablespace_seen);
    if (done)
        *result_out = result;
    return done;
}
