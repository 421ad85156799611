/*
 * What became of a table's file.
 *
 * A table's file is known from the names that a backup kept; from there on WAL tells: a commit
 * lists the files that it takes away, and a transaction that gives a table another file (TRUNCATE,
 * VACUUM FULL, ALTER TABLE) makes the new one first. So a file is followed from commit to commit,
 * until one takes it away without a new one: that was the DROP.
 *
 * Where one transaction made several files it is not told which of them took whose place. A rewrite
 * makes the table's own before those of its indexes and its TOAST table, and TRUNCATE makes them in
 * the order in which the old ones were scheduled to go, which commits list backwards; both
 * candidates are followed then.
 */
#include "restore/targets_intern.h"

#include "common/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TRACKED_LIMIT = 2 * NAMED_LIMIT, CREATED_LIMIT = 1 << 16 };

typedef struct {
    uint32_t database;
    uint32_t relfilenode;
    size_t file; /* of the files asked for */
} Tracked;

typedef struct {
    uint32_t xid;
    uint32_t database;
    uint32_t relfilenode;
} Created;

typedef struct {
    TargetsSearch *search;
    const FollowRequest *request;
    Tracked *tracked;
    size_t tracked_count;
    Created *created; /* ring */
    size_t created_total;
    uint32_t truncating_xid; /* of the last TRUNCATE that WAL told as such */
    uint32_t truncated_oid;
} Follow;

static const Tracked *
find_tracked(const Follow *follow, uint32_t database, uint32_t relfilenode)
{
    for (size_t i = 0; i < follow->tracked_count; i++) {
        if (follow->tracked[i].database == database &&
            follow->tracked[i].relfilenode == relfilenode)
            return &follow->tracked[i];
    }
    return NULL;
}

static void
track(Follow *follow, uint32_t database, uint32_t relfilenode, size_t file)
{
    if (relfilenode == 0 || find_tracked(follow, database, relfilenode) != NULL)
        return;
    if (follow->tracked_count == TRACKED_LIMIT) {
        log_warn("more than %d files: what became of some is not looked at", TRACKED_LIMIT);
        return;
    }
    follow->tracked[follow->tracked_count++] =
        (Tracked){.database = database, .relfilenode = relfilenode, .file = file};
}

static bool
is_of_database(const Follow *follow, uint32_t database)
{
    for (size_t i = 0; i < follow->request->files->count; i++) {
        if (follow->request->files->files[i].database == database)
            return true;
    }
    return false;
}

static void
note_created(Follow *follow, const WalEvent *event)
{
    if (event->aborted || !is_of_database(follow, event->relation.database))
        return;
    follow->created[follow->created_total++ % CREATED_LIMIT] =
        (Created){.xid = event->xid,
                  .database = event->relation.database,
                  .relfilenode = event->relation.relfilenode};
}

/* The events of one commit record. */
typedef struct {
    const WalEvent *events;
    size_t count;
} Group;

static bool
goes_in(const Group *group, uint32_t database, uint32_t relfilenode)
{
    for (size_t i = 0; i < group->count; i++) {
        if (group->events[i].relation.database == database &&
            group->events[i].relation.relfilenode == relfilenode)
            return true;
    }
    return false;
}

enum { SURVIVORS_LIMIT = 4096 };

/* What the transaction made and kept, in the order of making. */
static size_t
list_survivors(const Follow *follow, const Group *group, uint32_t database,
               uint32_t survivors_out[SURVIVORS_LIMIT])
{
    const size_t total = follow->created_total;
    const size_t kept = total < CREATED_LIMIT ? total : CREATED_LIMIT;
    size_t count = 0;

    for (size_t i = total - kept; i < total && count < SURVIVORS_LIMIT; i++) {
        const Created *created = &follow->created[i % CREATED_LIMIT];
        if (created->xid == group->events[0].xid && created->database == database &&
            !goes_in(group, database, created->relfilenode))
            survivors_out[count++] = created->relfilenode;
    }
    return count;
}

static bool
knows_table(const NamedFiles *files, uint32_t database, uint32_t oid)
{
    for (size_t i = 0; files != NULL && i < files->count; i++) {
        if (files->files[i].database == database && files->files[i].oid == oid)
            return true;
    }
    return false;
}

static void
add_moment(Follow *follow, MomentKind kind, const WalEvent *event, size_t file,
           uint32_t relfilenode)
{
    const NamedFile *named = &follow->request->files->files[file];
    Targets *result = follow->search->result;
    /* Of one commit and table one moment, however many of its partitions went. */
    for (size_t i = result->count; i-- > 0;) {
        if (result->moments[i].lsn == event->lsn &&
            strcmp(result->moments[i].what, named->text) == 0)
            return;
    }
    Moment *moment = targets_add(follow->search);
    if (moment == NULL)
        return;
    moment->kind = kind;
    moment->lsn = event->lsn;
    moment->time_us = event->time_us;
    moment->xid = event->xid;
    moment->what = arena_strdup(result->arena, named->text);
    moment->database = named->database;
    moment->relfilenode = relfilenode;
}

static void
see_commit(Follow *follow, const Group *group)
{
    uint32_t survivors[SURVIVORS_LIMIT];

    for (size_t i = 0; i < group->count; i++) {
        const WalEvent *event = &group->events[i];
        const uint32_t database = event->relation.database;
        const uint32_t relfilenode = event->relation.relfilenode;
        const Tracked *tracked = find_tracked(follow, database, relfilenode);
        if (tracked == NULL)
            continue;
        const size_t file = tracked->file;
        const NamedFile *named = &follow->request->files->files[file];
        const size_t made = list_survivors(follow, group, database, survivors);
        const bool rewritten = made > 0 || event->kind == WAL_EVENT_RELATION_REWRITTEN ||
                               knows_table(follow->request->later, database, named->oid);
        const bool truncated = follow->truncating_xid == event->xid && event->xid != 0 &&
                               follow->truncated_oid == named->oid;
        add_moment(follow,
                   truncated   ? MOMENT_TRUNCATED
                   : rewritten ? MOMENT_REWRITTEN
                               : MOMENT_DROPPED,
                   event, file, relfilenode);
        if (!rewritten && !truncated)
            continue;
        const size_t scheduled = group->count - 1 - i;
        track(follow, database, event->new_relfilenode, file);
        track(follow, database, made > 0 ? survivors[0] : 0, file);
        track(follow, database, scheduled < made ? survivors[scheduled] : 0, file);
    }
}

/* Names of now: the commit that made one of the files, and took others away. */
static void
see_commit_backwards(Follow *follow, const Group *group)
{
    const size_t total = follow->created_total;
    const size_t kept = total < CREATED_LIMIT ? total : CREATED_LIMIT;

    for (size_t i = total - kept; i < total; i++) {
        const Created *created = &follow->created[i % CREATED_LIMIT];
        if (created->xid != group->events[0].xid)
            continue;
        const Tracked *tracked = find_tracked(follow, created->database, created->relfilenode);
        if (tracked != NULL)
            add_moment(follow, MOMENT_REWRITTEN, &group->events[0], tracked->file,
                       created->relfilenode);
    }
}

static void
see_database_drop(Follow *follow, const WalEvent *event)
{
    for (size_t i = 0; i < follow->request->files->count; i++) {
        if (follow->request->files->files[i].database == event->relation.database)
            add_moment(follow, MOMENT_DATABASE_DROPPED, event, i, 0);
    }
}

static bool
is_removal(const WalEvent *event)
{
    return event->kind == WAL_EVENT_RELATION_DROPPED || event->kind == WAL_EVENT_RELATION_REWRITTEN;
}

static bool
see_segment(void *context, const WalLedgerSegment *segment, bool *stop_io, CairnError *err)
{
    Follow *follow = context;
    const WalFacts *facts = segment->facts;
    (void)stop_io;
    (void)err;

    for (size_t i = 0; i < facts->event_count;) {
        const WalEvent *event = &facts->events[i];
        Group group = {.events = event, .count = 1};
        i++;
        if (event->lsn < follow->request->from_lsn || event->lsn >= follow->request->to_lsn)
            continue;
        if (event->kind == WAL_EVENT_RELATION_CREATED) {
            note_created(follow, event);
        } else if (event->kind == WAL_EVENT_TABLE_TRUNCATED) {
            follow->truncating_xid = event->xid;
            follow->truncated_oid = event->table_oid;
        } else if (event->kind == WAL_EVENT_DATABASE_DROPPED) {
            see_database_drop(follow, event);
        } else if (is_removal(event)) {
            while (i < facts->event_count && facts->events[i].lsn == event->lsn &&
                   is_removal(&facts->events[i])) {
                group.count++;
                i++;
            }
            if (follow->request->backwards)
                see_commit_backwards(follow, &group);
            else
                see_commit(follow, &group);
        }
    }
    return true;
}

static void
follow_free(Follow *follow)
{
    free(follow->tracked);
    free(follow->created);
}

bool
targets_follow(TargetsSearch *search, const FollowRequest *request, CairnError *err)
{
    __attribute__((cleanup(follow_free))) Follow follow = {.search = search, .request = request};
    Targets *result = search->result;
    follow.tracked = calloc(TRACKED_LIMIT, sizeof *follow.tracked);
    follow.created = calloc(CREATED_LIMIT, sizeof *follow.created);
    if (follow.tracked == NULL || follow.created == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (size_t i = 0; i < request->files->count; i++)
        track(&follow, request->files->files[i].database, request->files->files[i].relfilenode, i);
    const WalLedgerRange range = {.path = search->path,
                                  .from_lsn = request->from_lsn,
                                  .to_lsn = request->to_lsn,
                                  .with_unfinished = true};
    if (result->from_lsn == 0 || request->from_lsn < result->from_lsn)
        result->from_lsn = request->from_lsn;
    return wal_ledger_walk(search->ledger, &range, see_segment, &follow, err);
}
