/* One stream of one timeline: what comes is written, what is durable is reported. */
#include "walarchive/receive_intern.h"

#include "common/cancel.h"
#include "common/log.h"
#include "postgres/wal_stream.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { STATUS_INTERVAL_MS = 10 * 1000, SYNC_AFTER_BYTES = 1 << 20 };

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
    int64_t paused_ms; /* since when */
    int64_t heard_ms;  /* when the server said something, or we would not listen */
    int64_t asked_ms;  /* since then, to say anything; 0: it was not */
} Session;

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
send_report(Session *session, bool always, bool ask, CairnError *err)
{
    Receive *receive = session->receive;
    const Clock *clock = receive->world->clock;
    WalStatus status = {
        .write_lsn = receive->at.lsn, .flush_lsn = flushed_lsn(receive), .reply_requested = ask};

    if (!always && status.flush_lsn == session->reported.flush_lsn)
        return true;
    status.sent_us = clock->wall_us(clock) - POSTGRES_EPOCH_US;
    if (!wal_stream_report(session->stream, &status, err))
        return false;
    session->reported = status;
    session->report_at_ms = receive_now_ms(receive) + STATUS_INTERVAL_MS;
    return true;
}

static bool
report(Session *session, bool always, CairnError *err)
{
    return send_report(session, always, false, err);
}

/*
 * The server's own sign of life comes every wal_sender_timeout / 2, which may be never. Keepalives
 * of TCP see a peer that is gone, but not a proxy that answers in its place. It is given up half of
 * the limit after it was asked, and not before: who stood still himself, with his virtual machine
 * perhaps, has heard nothing either.
 */
static bool
mind_silence(Session *session, const WalStreamEvent *event, CairnError *err)
{
    const int64_t now = receive_now_ms(session->receive);
    const int64_t limit = session->receive->options->server_timeout_ms;

    if (event->kind != WAL_STREAM_NOTHING || session->paused) {
        session->heard_ms = now;
        session->asked_ms = 0;
        return true;
    }
    if (session->asked_ms != 0 && now - session->asked_ms >= limit / 2) {
        return cairn_error(err, CAIRN_UNAVAILABLE,
                           "the server said nothing for %" PRId64 " s, though asked to",
                           (now - session->heard_ms) / 1000);
    }
    if (session->asked_ms != 0 || now - session->heard_ms < limit / 2)
        return true;
    session->asked_ms = now;
    return send_report(session, true, true, err);
}

static bool
sync_and_report(Session *session, CairnError *err)
{
    session->sync_at_ms =
        receive_now_ms(session->receive) + session->receive->options->tail_interval_ms;
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

    if (!receive_spool_finish(spool, err))
        return false;
    archiver_open_part(receive, timeline, next);
    /* The stream goes on at the next segment's first byte, so a part of it from a former run that
       began elsewhere must not be gone on with. */
    if (!receive_spool_begin_empty(spool, timeline, next, err))
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
        CAIRN_ASSERT(receive->at.lsn ==
                     receive->spool.segment * segment_size + receive->spool.size);
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

bool
receive_ask_archiver(Receive *receive, bool *full_out, CairnError *err)
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

/*
 * False: paused for so long that the connection is given up. A walsender that cannot send holds its
 * server up: one that is told to end (its slot exceeds max_slot_wal_keep_size) first sends a
 * message, and until somebody reads that, the checkpointer waits for it.
 */
static bool
note_pause(Session *session, bool full, CairnError *err)
{
    const Receive *receive = session->receive;
    const int64_t now = receive_now_ms(receive);

    if (!full || !session->paused)
        session->paused_ms = now;
    if (full && !session->paused)
        log_warn(
            "the spool '%s' is full (--spool-limit): nothing more is received or acknowledged; "
            "from here on WAL piles up on the server",
            session->receive->spool.path);
    else if (!full && session->paused)
        log_info("the spool has room again: receiving goes on");
    session->paused = full;
    return now - session->paused_ms < receive->options->server_timeout_ms ||
           cairn_error(err, CAIRN_UNAVAILABLE,
                       "the spool is still full: disconnected, so that the server need not wait");
}

static int
wait_time_ms(const Session *session)
{
    const Receive *receive = session->receive;
    int64_t until = session->report_at_ms;
    const int64_t limit = receive->options->server_timeout_ms;
    const int64_t minded =
        (session->asked_ms != 0 ? session->asked_ms : session->heard_ms) + limit / 2;

    if (minded < until)
        until = minded;
    if (receive->spool.synced < receive->spool.size) {
        if (receive->options->synchronous_spool)
            return 0; /* as soon as nothing more is there at once */
        if (session->sync_at_ms < until)
            until = session->sync_at_ms;
    }
    const int64_t left = until - receive_now_ms(receive);
    return left < 0 ? 0 : (int)left;
}

/* What time, or the archiver, asks for. */
static bool
do_what_is_due(Session *session, bool idle, CairnError *err)
{
    const Receive *receive = session->receive;
    const int64_t now = receive_now_ms(receive);
    const uint32_t unsynced = receive->spool.size - receive->spool.synced;
    /* Commits of a moment share a sync; a stream without a pause must not keep them waiting. */
    const bool wanted =
        receive->options->synchronous_spool && (idle || unsynced >= SYNC_AFTER_BYTES);

    if (unsynced > 0 && (wanted || now >= session->sync_at_ms))
        return sync_and_report(session, err);
    return report(session, now >= session->report_at_ms, err);
}

/* -- one timeline -- */

static bool
follow(Session *session, const WalStreamEvent *event, CairnError *err)
{
    Receive *receive = session->receive;
    char lsn[LSN_TEXT_SIZE];

    lsn_format(lsn, event->next_lsn);
    log_info("timeline %" PRIu32 " ended at %s: following timeline %" PRIu32, receive->at.timeline,
             lsn, event->next_timeline);
    /* The history is in the spool before anything of its timeline, and archived first. */
    return receive_fetch_history(receive, event->next_timeline, NULL, err) &&
           receive_open_part(receive, (Position){event->next_timeline, event->next_lsn}, err);
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
        if (!cancel_check(err) || !receive_ask_archiver(receive, &full, err))
            return false;
        if (!note_pause(session, full, err))
            return false;
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
        if (!mind_silence(session, &event, err) ||
            !do_what_is_due(session, event.kind == WAL_STREAM_NOTHING, err))
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
    /* From 18 on an invalidated slot cannot even be used. */
    if (stream == NULL && err->kind == CAIRN_REFUSED && strstr(err->message, "replication slot")) {
        cairn_error_wrap(err, "slot '%s' is lost (max_slot_wal_keep_size, or idle for too long)",
                         start.slot);
        cairn_error_hint(err, "--drop-slot removes it, --create-slot makes a new one; what is "
                              "missing then is checked");
    }
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

bool
receive_stream(Receive *receive, bool *ended, CairnError *err)
{
    SCOPED(WalStream) stream = start_stream(receive, err);

    if (stream == NULL)
        return false;
    Session session = {.receive = receive, .stream = stream};
    session.report_at_ms = session.sync_at_ms = session.heard_ms = receive_now_ms(receive);
    const bool done = receive_timeline(&session, ended, err);
    if (!done && err->kind == CAIRN_CANCELLED)
        say_goodbye(&session);
    return done;
}
