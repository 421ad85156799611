#include "walarchive/receive_intern.h"

#include "common/bytes.h"
#include "common/cancel.h"
#include "common/log.h"
#include "postgres/basebackup.h"
#include "postgres/timeline.h"
#include "postgres/wal_slot.h"
#include "postgres/wal_stream.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

enum {
    STATUS_INTERVAL_MS = 10 * 1000,
    RETRY_FIRST_MS = 500,
    RETRY_LONGEST_MS = 30 * 1000,
    RETRY_SLICE_MS = 100,
};

/* Microseconds from 1970 to 2000, PostgreSQL's epoch. */
static const int64_t POSTGRES_EPOCH_US = INT64_C(946684800) * 1000000;

/* What one stream of one timeline keeps in mind. */
typedef struct {
    Receive *receive;
    WalStream *stream;
    int64_t report_at_ms;
    int64_t sync_at_ms; /* plain: when the spool is synced and that reported */
    WalStatus reported;
    bool paused;
} Session;

static int64_t
now_ms(const Receive *receive)
{
    return receive->world->clock->monotonic_ns(receive->world->clock) / 1000000;
}

/* -- reporting -- */

/* What the server may forget, and what a commit may count on. */
static uint64_t
flushed_lsn(Receive *receive)
{
    const ReceiveSpool *spool = &receive->spool;
    Archiver *archiver = &receive->archiver;
    const uint64_t start = receive->at.lsn - spool->size;
    uint64_t lsn = start + spool->synced;

    if (receive->options->synchronous) {
        pthread_mutex_lock(&archiver->lock);
        lsn = archiver->archived.timeline == receive->at.timeline ? archiver->archived.lsn : 0;
        pthread_mutex_unlock(&archiver->lock);
    }
    return lsn < receive->at.lsn ? lsn : receive->at.lsn;
}

/* Of WAL that nobody can see a commit, "apply" says nothing. */
static bool
report(Session *session, bool always, CairnError *err)
{
    Receive *receive = session->receive;
    const Clock *clock = receive->world->clock;
    WalStatus status = {.write_lsn = receive->at.lsn, .flush_lsn = flushed_lsn(receive)};

    if (!always && status.flush_lsn == session->reported.flush_lsn)
        return true;
    status.sent_us = clock->wall_us(clock) - POSTGRES_EPOCH_US;
    if (!wal_stream_report(session->stream, &status, err))
        return false;
    session->reported = status;
    session->report_at_ms = now_ms(receive) + STATUS_INTERVAL_MS;
    return true;
}

static bool
sync_and_report(Session *session, CairnError *err)
{
    session->sync_at_ms = now_ms(session->receive) + session->receive->options->tail_interval_ms;
    return receive_spool_sync(&session->receive->spool, err) && report(session, true, err);
}

/* -- data -- */

/* The segment is whole: synced and named, it is the archiver's; the next part begins. */
static bool
finish_segment(Session *session, CairnError *err)
{
    Receive *receive = session->receive;
    ReceiveSpool *spool = &receive->spool;
    const uint32_t timeline = spool->timeline;
    const uint64_t next = spool->segment + 1;

    if (!receive_spool_finish(spool, err) || !receive_spool_begin(spool, timeline, next, err))
        return false;
    archiver_tell(receive, receive->at, true);
    return report(session, false, err);
}

static bool
take_data(Session *session, const WalMessage *message, CairnError *err)
{
    Receive *receive = session->receive;
    const uint32_t segment_size = receive->incarnation.wal_segment_size;
    const uint8_t *data = message->data;

    CAIRN_ASSERT(message->start_lsn == receive->at.lsn);
    for (size_t left = message->size; left > 0;) {
        const size_t room = segment_size - receive->spool.size;
        const size_t size = left < room ? left : room;
        if (!receive_spool_write(&receive->spool, data, size, err))
            return false;
        receive->at.lsn += size;
        data += size;
        left -= size;
        if (size == room && !finish_segment(session, err))
            return false;
    }
    if (receive->spool.size > 0)
        archiver_tell(receive, receive->at, false);
    return true;
}

/* -- waiting -- */

static void
clear_notices(const Archiver *archiver)
{
    uint64_t ignored;

    if (read(archiver->notify_fd, &ignored, sizeof ignored) < 0 && errno != EAGAIN)
        log_debug("unable to read an eventfd: %s", strerror(errno));
}

/* False once archiving failed for good. *full_out: the spool has reached its limit. */
static bool
ask_archiver(Receive *receive, bool *full_out, CairnError *err)
{
    Archiver *archiver = &receive->archiver;

    pthread_mutex_lock(&archiver->lock);
    const bool failed = archiver->failed;
    if (failed)
        *err = archiver->error;
    *full_out = archiver->spool_bytes + 2 * (uint64_t)receive->incarnation.wal_segment_size >
                receive->options->spool_limit_bytes;
    pthread_mutex_unlock(&archiver->lock);
    return !failed;
}

static void
note_pause(Session *session, bool full)
{
    if (full && !session->paused)
        log_warn(
            "the spool '%s' is full (--spool-limit): nothing more is received or acknowledged; "
            "from here on WAL piles up on the server",
            session->receive->spool.path);
    else if (!full && session->paused)
        log_info("the spool has room again: receiving goes on");
    session->paused = full;
}

static int
wait_time_ms(const Session *session)
{
    const Receive *receive = session->receive;
    int64_t until = session->report_at_ms;

    if (receive->spool.synced < receive->spool.size) {
        if (receive->options->synchronous_spool)
            return 0; /* as soon as nothing more is there at once */
        if (session->sync_at_ms < until)
            until = session->sync_at_ms;
    }
    const int64_t left = until - now_ms(receive);
    return left < 0 ? 0 : (int)left;
}

/* What time, or the archiver, asks for. */
static bool
do_what_is_due(Session *session, bool idle, CairnError *err)
{
    const Receive *receive = session->receive;
    const int64_t now = now_ms(receive);
    const bool unsynced = receive->spool.synced < receive->spool.size;

    if (unsynced && ((idle && receive->options->synchronous_spool) || now >= session->sync_at_ms))
        return sync_and_report(session, err);
    return report(session, now >= session->report_at_ms, err);
}

/* -- one timeline -- */

static bool
follow(Session *session, const WalStreamEvent *event, CairnError *err)
{
    Receive *receive = session->receive;
    const uint32_t segment_size = receive->incarnation.wal_segment_size;
    char lsn[LSN_TEXT_SIZE];

    lsn_format(lsn, event->next_lsn);
    log_info("timeline %" PRIu32 " ended at %s: following timeline %" PRIu32, receive->at.timeline,
             lsn, event->next_timeline);
    /* The history is in the spool before anything of its timeline, and archived first. */
    if (!receive_fetch_history(receive, event->next_timeline, NULL, err) ||
        !receive_spool_leave(&receive->spool, err) ||
        !receive_spool_begin(&receive->spool, event->next_timeline, event->next_lsn / segment_size,
                             err))
        return false;
    receive->at = (Position){event->next_timeline,
                             event->next_lsn / segment_size * segment_size + receive->spool.size};
    archiver_begin_timeline(receive, receive->at);
    return true;
}

/* Until the timeline ends (*ended_out), or an error. */
static bool
receive_timeline(Session *session, bool *ended_out, CairnError *err)
{
    Receive *receive = session->receive;
    WalStreamEvent event;
    bool full;

    *ended_out = false;
    for (;;) {
        if (!cancel_check(err) || !ask_archiver(receive, &full, err))
            return false;
        note_pause(session, full);
        if (!wal_stream_next(session->stream, wait_time_ms(session), receive->archiver.notify_fd,
                             !full, &event, err))
            return false;
        switch (event.kind) {
        case WAL_STREAM_DATA:
            if (!take_data(session, &event.message, err))
                return false;
            break;
        case WAL_STREAM_KEEPALIVE:
            if (event.message.reply_requested && !sync_and_report(session, err))
                return false;
            break;
        case WAL_STREAM_END_OF_TIMELINE:
            *ended_out = true;
            return follow(session, &event, err);
        case WAL_STREAM_SERVER_STOPPED:
            return cairn_error(err, CAIRN_UNAVAILABLE, "the server shut down");
        case WAL_STREAM_NOTHING:
            clear_notices(&receive->archiver);
            break;
        }
        if (!do_what_is_due(session, event.kind == WAL_STREAM_NOTHING, err))
            return false;
    }
}

static WalStream *
start_stream(Receive *receive, CairnError *err)
{
    char lsn[LSN_TEXT_SIZE];
    const WalStreamStart start = {.slot = receive->options->slot,
                                  .start_lsn = receive->at.lsn,
                                  .timeline = receive->at.timeline};

    WalStream *stream = wal_stream_start(receive->connection, &start, err);
    lsn_format(lsn, receive->at.lsn);
    if (stream != NULL && !receive->announced)
        log_info("receiving from %s on timeline %" PRIu32 "%s%s", lsn, receive->at.timeline,
                 start.slot != NULL ? ", slot " : "", start.slot != NULL ? start.slot : "");
    receive->announced = stream != NULL;
    return stream;
}

/* The server hears at once that we go, and what is certain by now. */
static void
say_goodbye(Session *session)
{
    CairnError ignored = {0}; /* the slot is freed by the connection's end as well */

    if (!receive_spool_sync(&session->receive->spool, &ignored) ||
        !report(session, true, &ignored) || !wal_stream_end(session->stream, &ignored))
        log_debug("%s", ignored.message);
}

static bool
stream_once(Receive *receive, bool *ended, CairnError *err)
{
    SCOPED(WalStream) stream = start_stream(receive, err);

    if (stream == NULL)
        return false;
    Session session = {.receive = receive, .stream = stream};
    session.report_at_ms = session.sync_at_ms = now_ms(receive);
    const bool done = receive_timeline(&session, ended, err);
    if (!done && err->kind == CAIRN_CANCELLED)
        say_goodbye(&session);
    return done;
}

/* -- one connection -- */

static bool
check_server(Receive *receive, CairnError *err)
{
    uint64_t system_id;
    uint32_t timeline;
    const int major = connection_major(receive->connection);

    if (major < POSTGRES_MAJOR_MIN || major > POSTGRES_MAJOR_MAX) {
        return cairn_error(err, CAIRN_UNSUPPORTED, "PostgreSQL %d is not among %d to %d", major,
                           POSTGRES_MAJOR_MIN, POSTGRES_MAJOR_MAX);
    }
    if (!identify_system(receive->connection, &system_id, &timeline, err))
        return false;
    if (receive->store != NULL) {
        if (system_id == receive->incarnation.system_id && major == receive->incarnation.major)
            return true;
        cairn_error(err, CAIRN_MISMATCH,
                    "the server is system %" PRIu64 " of PostgreSQL %d now, it was system %" PRIu64
                    " of PostgreSQL %d",
                    system_id, major, receive->incarnation.system_id, receive->incarnation.major);
        return cairn_error_hint(err, "conninfo leads to another server: mend it; after pg_upgrade "
                                     "run `pgcairn init --another-system` and start again");
    }
    if (incarnation_get(receive->repository, receive->options->cluster->name, system_id, major,
                        &receive->incarnation, err))
        return true;
    if (err->kind != CAIRN_NOT_FOUND)
        return false;
    cairn_error_clear(err);
    cairn_error(err, CAIRN_MISMATCH,
                "this server is system %" PRIu64
                " of PostgreSQL %d, which the repository does not know as cluster '%s'",
                system_id, major, receive->options->cluster->name);
    return cairn_error_hint(err, "if it is the right one, run `pgcairn init`; otherwise conninfo "
                                 "leads to another server");
}

static bool
check_synchronous(Receive *receive, CairnError *err)
{
    const ReceiveOptions *options = receive->options;

    if (options->synchronous_spool && wal_stream_is_local(receive->connection)) {
        cairn_error(err, CAIRN_REFUSED,
                    "--synchronous-spool on the server's own host: one lost disk would take the "
                    "server and what it was told is safe");
        return cairn_error_hint(err, "--synchronous acknowledges what is in the repository; or run "
                                     "the receiver on another host");
    }
    if (!options->synchronous && !options->synchronous_spool)
        return true;
    SCOPED_MEMORY char *names =
        connection_query_text(receive->connection, "SHOW synchronous_standby_names", NULL, err);
    SCOPED_MEMORY char *commit =
        names != NULL
            ? connection_query_text(receive->connection, "SHOW synchronous_commit", NULL, err)
            : NULL;
    if (commit == NULL)
        return false;
    if (names[0] == '\0')
        log_warn("synchronous_standby_names is empty: no commit waits for this receiver");
    if (strcmp(commit, "remote_apply") == 0)
        log_warn("synchronous_commit is remote_apply, which waits for a standby that shows the "
                 "commit: a receiver never does");
    return true;
}

/* Once, when the first server said who it is. */
static bool
open_spool(Receive *receive, CairnError *err)
{
    const ReceiveOptions *options = receive->options;
    ReceiveFile *files = NULL;
    size_t count = 0;

    if (receive->store != NULL)
        return true;
    if (options->spool_limit_bytes < 4 * (uint64_t)receive->incarnation.wal_segment_size) {
        return cairn_error(err, CAIRN_USAGE,
                           "--spool-limit must leave room for 4 segments (%" PRIu64 " MiB)",
                           4 * (uint64_t)receive->incarnation.wal_segment_size >> 20);
    }
    if (!receive_spool_open(receive->world, options->spool_path, options->cluster->name,
                            &receive->incarnation, &receive->spool, err))
        return false;
    if (!receive_spool_list(&receive->spool, &files, &count, err))
        return false;
    for (size_t i = 0; i < count; i++)
        receive->archiver.spool_bytes += files[i].kind == RECEIVE_SEGMENT ? files[i].size : 0;
    free(files);
    receive->store =
        wal_store_open(receive->repository, options->cluster->name, &receive->incarnation, err);
    return receive->store != NULL && archiver_start(receive, err);
}

static bool
serve_connection(Receive *receive, CairnError *err)
{
    bool ended = true;

    receive->connection =
        connection_open(receive->conninfo, CONNECTION_REPLICATION, "pgcairn receive", err);
    if (receive->connection == NULL || !check_server(receive, err) ||
        !check_synchronous(receive, err) || !open_spool(receive, err) ||
        !receive_find_start(receive, err))
        return false;
    while (ended) {
        if (stream_once(receive, &ended, err))
            continue;
        if (!wal_stream_removed(err))
            return false;
        if (!receive_judge_removed(receive, err))
            return false;
        ended = true;
    }
    return true;
}

/* -- for ever -- */

static bool
is_passing(const CairnError *err)
{
    return err->kind == CAIRN_UNAVAILABLE;
}

/* Half of the time for sure, the other half by chance, so that many receivers do not come at once.
 */
static bool
pause_before_retry(Receive *receive, int64_t *pause_ms, const CairnError *trouble, CairnError *err)
{
    const Clock *clock = receive->world->clock;
    uint32_t chance = 0;

    *pause_ms = *pause_ms == 0                     ? RETRY_FIRST_MS
                : 2 * *pause_ms < RETRY_LONGEST_MS ? 2 * *pause_ms
                                                   : RETRY_LONGEST_MS;
    if (receive->world->random->fill(receive->world->random, &chance, sizeof chance) != 0)
        return cairn_error_errno(err, "unable to draw random bytes");
    const int64_t pause = *pause_ms / 2 + chance % (*pause_ms / 2);
    log_warn("%s; trying again in %" PRId64 " ms", trouble->message, pause);
    const int64_t until = now_ms(receive) + pause;
    while (now_ms(receive) < until) {
        if (!cancel_check(err))
            return false;
        clock->sleep_ms(clock, RETRY_SLICE_MS);
    }
    return cancel_check(err);
}

static bool
loop(Receive *receive, CairnError *err)
{
    const ReceiveOptions *options = receive->options;
    int64_t pause_ms = 0;

    for (;;) {
        CairnError trouble = {0};
        const uint64_t before = receive->at.lsn;
        if (receive->repository == NULL)
            receive->repository = repository_open(receive->world, options->repository, &trouble);
        if (receive->repository != NULL && serve_connection(receive, &trouble))
            return true;
        connection_close(take(&receive->connection));
        receive->announced = false;
        if (trouble.kind == CAIRN_OK || options->no_loop || !is_passing(&trouble)) {
            *err = trouble;
            return false;
        }
        if (receive->at.lsn != before)
            pause_ms = 0;
        if (!pause_before_retry(receive, &pause_ms, &trouble, err))
            return false;
    }
}

/* conninfo's own words, and then the name, which the last one decides. */
static char *
conninfo_with_name(const ReceiveOptions *options, CairnError *err)
{
    const char *conninfo = options->cluster->conninfo != NULL ? options->cluster->conninfo : "";
    const char *name = options->application_name;
    const bool is_uri = strncmp(conninfo, "postgres://", strlen("postgres://")) == 0 ||
                        strncmp(conninfo, "postgresql://", strlen("postgresql://")) == 0;
    char *text = NULL;

    if (name != NULL &&
        (name[0] == '\0' || strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                         "0123456789_-.") != strlen(name))) {
        cairn_error(err, CAIRN_USAGE, "--application-name takes letters, digits, _, - and .");
        return NULL;
    }
    const int size = name == NULL ? asprintf(&text, "%s", conninfo)
                     : is_uri     ? asprintf(&text, "%s%capplication_name=%s", conninfo,
                                         strchr(conninfo, '?') != NULL ? '&' : '?', name)
                                  : asprintf(&text, "%s application_name=%s", conninfo, name);
    if (size >= 0)
        return text;
    cairn_error(err, CAIRN_INTERNAL, "out of memory");
    return NULL;
}

static bool
init_archiver(Archiver *archiver, CairnError *err)
{
    pthread_condattr_t attributes;

    archiver->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (archiver->notify_fd < 0)
        return cairn_error_errno(err, "unable to make an eventfd");
    CAIRN_ASSERT(pthread_mutex_init(&archiver->lock, NULL) == 0);
    CAIRN_ASSERT(pthread_condattr_init(&attributes) == 0);
    CAIRN_ASSERT(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    CAIRN_ASSERT(pthread_cond_init(&archiver->wake, &attributes) == 0);
    pthread_condattr_destroy(&attributes);
    return true;
}

static void
release(Receive *receive)
{
    archiver_stop(receive);
    connection_close(receive->connection);
    receive_spool_close(&receive->spool);
    wal_store_close(receive->store);
    repository_close(receive->repository);
    close(receive->archiver.notify_fd);
    pthread_cond_destroy(&receive->archiver.wake);
    pthread_mutex_destroy(&receive->archiver.lock);
    free(receive->conninfo);
}

bool
receive_run(const World *world, const ReceiveOptions *options, CairnError *err)
{
    Receive receive = {.world = world,
                       .options = options,
                       .spool = {.directory_fd = -1, .part_fd = -1},
                       .conninfo = conninfo_with_name(options, err)};

    if (receive.conninfo == NULL)
        return false;
    if (options->slot != NULL && !wal_slot_name_check(options->slot, err)) {
        free(receive.conninfo);
        return false;
    }
    if (!init_archiver(&receive.archiver, err)) {
        free(receive.conninfo);
        return false;
    }
    bool done = loop(&receive, err);
    /* Whatever ended us: what has come is kept, and goes into the repository if it answers. */
    CairnError last = {0};
    if (!receive_spool_sync(&receive.spool, &last))
        log_error(&last);
    release(&receive);
    if (!done && err->kind == CAIRN_CANCELLED) {
        log_info("%s", err->message);
        cairn_error_clear(err);
        done = true;
    }
    return done;
}

bool
receive_drop_slot(const ReceiveOptions *options, CairnError *err)
{
    SCOPED(Connection)
    connection =
        connection_open(options->cluster->conninfo, CONNECTION_REPLICATION, "pgcairn receive", err);

    return connection != NULL && wal_slot_drop(connection, options->slot, err);
}
