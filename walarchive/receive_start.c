/* Where a receiver begins, and what a gap is. */
#include "walarchive/receive_intern.h"

#include "common/log.h"
#include "postgres/basebackup.h"
#include "postgres/timeline.h"
#include "postgres/wal_slot.h"
#include "repository/wal_archive.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static uint64_t
segment_start(const Receive *receive, uint64_t lsn)
{
    return lsn - lsn % receive->incarnation.wal_segment_size;
}

/* -- histories -- */

/* A repository that does not answer is no reason not to stream: then it is fetched once more. */
static bool
has_history(const Receive *receive, uint32_t timeline)
{
    char name[WAL_FILE_NAME_LIMIT];
    bool present = false;
    CairnError ignored = {0};

    snprintf(name, sizeof name, "%08" PRIX32 ".history", timeline);
    return wal_store_has(receive->store, name, &present, &ignored) && present;
}

bool
receive_fetch_history(Receive *receive, uint32_t timeline, TimelineHistory *path_out,
                      CairnError *err)
{
    size_t size = 0;
    SCOPED_MEMORY char *text = timeline_history_ask(receive->connection, timeline, &size, err);
    SCOPED_MEMORY TimelineHistory *path = malloc(sizeof *path);

    if (path == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (text == NULL || !timeline_history_parse(timeline, text, size, path, err)) {
        err->sqlstate[0] = '\0'; /* a missing history is no removed WAL, which has the same one */
        return cairn_error_wrap(err, "history of timeline %" PRIu32, timeline);
    }
    if (!receive_spool_put_history(&receive->spool, timeline, text, size, err))
        return false;
    log_debug("%08" PRIX32 ".history was fetched", timeline);
    if (path_out != NULL)
        *path_out = *path;
    return true;
}

/* The path of the server's timeline. What the repository lacks of it is fetched; an old history
   that the server has lost itself is none that its recoveries need. */
static bool
read_path(Receive *receive, uint32_t timeline, TimelineHistory *path, CairnError *err)
{
    timeline_history_root(timeline, path);
    if (timeline == 1)
        return true;
    if (!receive_fetch_history(receive, timeline, path, err)) {
        /* PostgreSQL asks for no history of the oldest timeline that an archive knows. */
        if (err->kind != CAIRN_IO)
            return false;
        cairn_error_clear(err);
        log_warn("the server has no %08" PRIX32 ".history", timeline);
        return true;
    }
    for (size_t i = 0; i + 1 < path->stretch_count; i++) {
        const uint32_t parent = path->stretches[i].timeline;
        if (parent != 1 && !has_history(receive, parent) &&
            !receive_fetch_history(receive, parent, NULL, err)) {
            log_debug("%s", err->message);
            cairn_error_clear(err);
        }
    }
    return true;
}

/* -- what there is -- */

static bool
is_later(const Position *a, const Position *b)
{
    return a->timeline != b->timeline ? a->timeline > b->timeline : a->lsn > b->lsn;
}

/* The end of the newest thing in the spool. Parts count with their first byte: what of them is
   whole is seen when they are begun. */
static void
newest_in_spool(const Receive *receive, const ReceiveFile *files, size_t count, Position *newest)
{
    for (size_t i = 0; i < count; i++) {
        if (files[i].kind == RECEIVE_HISTORY)
            continue;
        const uint64_t segment = files[i].segment + (files[i].kind == RECEIVE_SEGMENT ? 1 : 0);
        const Position end = {files[i].timeline, segment * receive->incarnation.wal_segment_size};
        if (is_later(&end, newest))
            *newest = end;
    }
}

static bool
is_in_spool(const ReceiveFile *files, size_t count, uint32_t timeline, uint64_t segment)
{
    for (size_t i = 0; i < count; i++) {
        if (files[i].kind == RECEIVE_SEGMENT && files[i].timeline == timeline &&
            files[i].segment == segment)
            return true;
    }
    return false;
}

/* The first segment at or after `segment` that neither has. */
static uint64_t
first_missing(const WalRun *runs, size_t run_count, const ReceiveFile *files, size_t file_count,
              uint32_t timeline, uint64_t segment)
{
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t i = 0; i < run_count; i++) {
            if (segment >= runs[i].first_segment && segment <= runs[i].last_segment) {
                segment = runs[i].last_segment + 1;
                moved = true;
            }
        }
        if (is_in_spool(files, file_count, timeline, segment)) {
            segment++;
            moved = true;
        }
    }
    return segment;
}

/* Where something before `newest` is missing that the slot still holds, its beginning: on the
   newest timeline, or on one that it comes from. */
static bool
find_hole(Receive *receive, const WalSlot *slot, const TimelineHistory *path,
          const ReceiveFile *files, size_t file_count, Position *newest, CairnError *err)
{
    const uint32_t segment_size = receive->incarnation.wal_segment_size;
    uint64_t segment = wal_segment_of(slot->restart_lsn, segment_size);
    bool held = false;

    for (size_t i = 0; i < path->stretch_count; i++) {
        const TimelineStretch *stretch = &path->stretches[i];
        held = held || stretch->timeline == slot->restart_timeline;
        if (!held)
            continue;
        if (stretch->timeline > newest->timeline)
            return true;
        const bool last = stretch->timeline == newest->timeline;
        /* The segment of a switch point is whole on the timeline that follows only. */
        const uint64_t end = wal_segment_of(last ? newest->lsn : stretch->end_lsn, segment_size);
        const uint64_t first = wal_segment_of(stretch->start_lsn, segment_size);
        SCOPED_MEMORY WalRun *runs = NULL;
        size_t run_count = 0;
        if (!wal_store_coverage(receive->store, stretch->timeline, &runs, &run_count, err))
            return false;
        segment = first_missing(runs, run_count, files, file_count, stretch->timeline,
                                segment > first ? segment : first);
        if (segment < end) {
            *newest = (Position){stretch->timeline, segment * segment_size};
            return true;
        }
        segment = end;
    }
    return true;
}

/* The end of the newest thing that is stored or in the spool; timeline 0: nothing is. Where
   something before it is missing that the slot still holds, its beginning. */
static bool
find_newest(Receive *receive, const WalSlot *slot, const TimelineHistory *path,
            Position *newest_out, CairnError *err)
{
    const uint32_t segment_size = receive->incarnation.wal_segment_size;
    SCOPED_MEMORY ReceiveFile *files = NULL;
    SCOPED_MEMORY uint32_t *timelines = NULL;
    SCOPED_MEMORY WalRun *runs = NULL;
    size_t file_count = 0, timeline_count = 0, run_count = 0;
    Position newest = {0};

    if (!receive_spool_list(&receive->spool, &files, &file_count, err) ||
        !wal_store_timelines(receive->store, &timelines, &timeline_count, err))
        return false;
    newest_in_spool(receive, files, file_count, &newest);
    for (size_t i = timeline_count; i-- > 0 && run_count == 0;) {
        free(take(&runs));
        if (!wal_store_coverage(receive->store, timelines[i], &runs, &run_count, err))
            return false;
        if (run_count == 0)
            continue;
        const Position end = {timelines[i], (runs[run_count - 1].last_segment + 1) * segment_size};
        if (is_later(&end, &newest))
            newest = end;
        if (newest.timeline != timelines[i])
            run_count = 0;
        else
            break;
    }
    if (newest.timeline != 0 && slot->reserved &&
        !find_hole(receive, slot, path, files, file_count, &newest, err))
        return false;
    *newest_out = newest;
    return true;
}

/* -- the server's side -- */

static bool
server_position(Receive *receive, Position *position_out, CairnError *err)
{
    SCOPED_RESULT result =
        connection_query(receive->connection, "IDENTIFY_SYSTEM", NULL,
                         (QueryShape){.columns = 4, .min_rows = 1, .max_rows = 1}, err);
    uint64_t system_id;

    if (result == NULL ||
        !identify_system(receive->connection, &system_id, &position_out->timeline, err))
        return false;
    if (!lsn_parse(PQgetvalue(result, 0, 2), &position_out->lsn))
        return cairn_error(err, CAIRN_UNSUPPORTED, "IDENTIFY_SYSTEM: answer not understood");
    return true;
}

static bool
read_slot(Receive *receive, WalSlot *slot, CairnError *err)
{
    const ReceiveOptions *options = receive->options;

    *slot = (WalSlot){0};
    if (options->slot == NULL)
        return true;
    if (!wal_slot_read(receive->connection, options->slot, slot, err))
        return false;
    if (!slot->exists && options->create_slot) {
        if (!wal_slot_create(receive->connection, options->slot, err) ||
            !wal_slot_read(receive->connection, options->slot, slot, err))
            return false;
        log_info("replication slot '%s' was created", options->slot);
    }
    if (slot->exists)
        return true;
    cairn_error(err, CAIRN_NOT_FOUND, "the server has no replication slot '%s'", options->slot);
    return cairn_error_hint(
        err, "--create-slot makes it; if it was there before, it was dropped (a promoted standby "
             "has none of its primary's), and WAL may be missing: that is checked");
}

/* lost_slot: NULL, or one that holds nothing any more. */
static bool
refuse_gap(const char *why, uint64_t from_lsn, uint64_t to_lsn, const char *lost_slot,
           CairnError *err)
{
    char from[LSN_TEXT_SIZE];
    char to[LSN_TEXT_SIZE];

    lsn_format(from, from_lsn);
    lsn_format(to, to_lsn);
    cairn_error(err, CAIRN_REFUSED, "WAL from %s to %s is missing: %s", from, to, why);
    if (lost_slot != NULL) {
        cairn_error_wrap(err, "slot '%s' holds no WAL any more (max_slot_wal_keep_size)",
                         lost_slot);
        return cairn_error_hint(
            err,
            "--drop-slot removes it, --create-slot makes a new one. A standby's pg_wal or another "
            "archive may still have what is missing: `pgcairn-wal push` stores it from there; "
            "otherwise --accept-gap begins behind the gap: take a backup then");
    }
    return cairn_error_hint(
        err,
        "a standby's pg_wal or another archive may still have it: `pgcairn-wal push` stores it "
        "from there; otherwise --accept-gap begins behind the gap, and the backup after it "
        "(`pgcairn backup`) is the first from which recovery goes on");
}

static void
accept_gap(const Receive *receive, Position *position, uint64_t to_lsn, uint32_t timeline)
{
    char from[LSN_TEXT_SIZE];
    char to[LSN_TEXT_SIZE];

    lsn_format(from, position->lsn);
    lsn_format(to, to_lsn);
    log_warn("WAL from %s to %s is lost (--accept-gap): take a backup now, recovery does not pass "
             "this hole",
             from, to);
    *position = (Position){.timeline = timeline, .lsn = segment_start(receive, to_lsn)};
}

/* -- the decision -- */

static bool
choose(Receive *receive, const Position *server, const TimelineHistory *path, Position *start,
       CairnError *err)
{
    WalSlot slot;

    if (!read_slot(receive, &slot, err) || !find_newest(receive, &slot, path, start, err))
        return false;
    /*
     * A slot that begins behind what we have was made anew. We ask for what follows ours all the
     * same: the server tells when that is gone.
     */
    if (start->timeline != 0)
        return true;
    *start = slot.reserved
                 ? (Position){slot.restart_timeline, segment_start(receive, slot.restart_lsn)}
                 : (Position){server->timeline, segment_start(receive, server->lsn)};
    return true;
}

/* A position that lies on the server's path, or on an ancestor's own way after the fork: then the
   path goes on at the fork. */
static bool
place_on_path(Receive *receive, const TimelineHistory *path, Position *start, CairnError *err)
{
    for (size_t i = 0; i < path->stretch_count; i++) {
        const TimelineStretch *stretch = &path->stretches[i];
        if (stretch->timeline != start->timeline)
            continue;
        if (start->lsn <= stretch->end_lsn)
            return true;
        const TimelineStretch *next = &path->stretches[i + 1];
        log_info("timeline %" PRIu32 " was left for timeline %" PRIu32
                 " before the end of what is stored of it",
                 stretch->timeline, next->timeline);
        *start = (Position){next->timeline, segment_start(receive, next->start_lsn)};
        return true;
    }
    cairn_error(err, CAIRN_MISMATCH,
                "what is stored ends on timeline %" PRIu32
                ", which is not in the history of this server (timeline %" PRIu32 ")",
                start->timeline, path->timeline);
    return cairn_error_hint(
        err,
        "this server was left behind by a failover, or another one archives as this cluster: "
        "point conninfo to the server that is on timeline %" PRIu32
        ", or give this one a place of its own (pgcairn adopt)",
        start->timeline);
}

/* A standby that lags, perhaps the second host of conninfo: it catches up. */
static bool
check_not_ahead(const Position *start, const Position *server, CairnError *err)
{
    char ours[LSN_TEXT_SIZE];
    char theirs[LSN_TEXT_SIZE];

    if (start->timeline != server->timeline || start->lsn <= server->lsn)
        return true;
    lsn_format(ours, start->lsn);
    lsn_format(theirs, server->lsn);
    return cairn_error(err, CAIRN_UNAVAILABLE, "the server is at %s, behind what was received (%s)",
                       theirs, ours);
}

bool
receive_open_part(Receive *receive, Position start, CairnError *err)
{
    const uint32_t segment_size = receive->incarnation.wal_segment_size;
    ReceiveSpool *spool = &receive->spool;
    uint64_t segment = wal_segment_of(start.lsn, segment_size);

    if (!receive_spool_leave(spool, err))
        return false;
    archiver_open_part(receive, start.timeline, segment);
    if (!receive_spool_begin(spool, start.timeline, segment, err))
        return false;
    /* Full, only its name was not given any more: nobody may take it for one that is left. */
    while (spool->size == segment_size) {
        if (!receive_spool_finish(spool, err))
            return false;
        archiver_tell(receive, (Position){start.timeline, ++segment * segment_size}, true);
        archiver_open_part(receive, start.timeline, segment);
        if (!receive_spool_begin(spool, start.timeline, segment, err))
            return false;
    }
    receive->at = (Position){start.timeline, segment * segment_size + spool->size};
    archiver_begin_timeline(receive, receive->at);
    return true;
}

bool
receive_find_start(Receive *receive, CairnError *err)
{
    Position server = {0};
    Position start = receive->at;
    SCOPED_MEMORY TimelineHistory *path = malloc(sizeof *path);

    if (path == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!server_position(receive, &server, err) ||
        !read_path(receive, server.timeline, path, err) ||
        (start.timeline == 0 && !choose(receive, &server, path, &start, err)))
        return false;
    /*
     * Where a part ends is known when it is begun, and that end too must lie on the server's path:
     * it may lie beyond the switch point of a failover. Such a part is left, the next timeline's
     * begins; each round goes to a later timeline, so it ends.
     */
    for (;;) {
        if (!place_on_path(receive, path, &start, err) || !check_not_ahead(&start, &server, err))
            return false;
        if (receive->spool.part_fd >= 0 && start.timeline == receive->at.timeline &&
            start.lsn == receive->at.lsn)
            return true; /* the part that is begun goes on */
        if (!receive_open_part(receive, start, err))
            return false;
        start = receive->at;
    }
}

bool
receive_judge_removed(Receive *receive, CairnError *err)
{
    char why[CAIRN_ERROR_MESSAGE_SIZE];
    Position server = {0};
    WalSlot slot = {0};
    Position start = receive->at;
    CairnError look = {0};

    snprintf(why, sizeof why, "%s", err->message);
    if (!server_position(receive, &server, &look) ||
        (receive->options->slot != NULL &&
         !wal_slot_read(receive->connection, receive->options->slot, &slot, &look)))
        return false; /* the first error tells more */
    /* What a slot holds is there; without one only what is being written is certain. */
    const bool held = slot.reserved && slot.restart_lsn > start.lsn;
    const uint64_t to_lsn = segment_start(receive, held ? slot.restart_lsn : server.lsn);
    const uint32_t timeline = held ? slot.restart_timeline : server.timeline;
    cairn_error_clear(err);
    /* An invalidated slot says nothing of its own, or, up to 17, what we confirmed since. */
    if (!receive->options->accept_gap || to_lsn <= start.lsn)
        return refuse_gap(why, start.lsn, to_lsn,
                          slot.exists && !held ? receive->options->slot : NULL, err);
    accept_gap(receive, &start, to_lsn, timeline);
    return receive_open_part(receive, start, err);
}
