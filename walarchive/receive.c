#include "walarchive/receive_intern.h"

#include "common/cancel.h"
#include "common/log.h"
#include "postgres/basebackup.h"
#include "postgres/wal_slot.h"
#include "postgres/wal_stream.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

enum {
    RETRY_FIRST_MS = 500,
    RETRY_LONGEST_MS = 30 * 1000,
    RETRY_SLICE_MS = 100,
};

int64_t
receive_now_ms(const Receive *receive)
{
    return receive->world->clock->monotonic_ns(receive->world->clock) / 1000000;
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

/* A crash may have torn any of them; from here on what is in a part is WAL. One that is full gets
   the name that it was not given any more. */
static bool
look_at_part(Receive *receive, const ReceiveFile *file, CairnError *err)
{
    ReceiveSpool *spool = &receive->spool;

    if (!receive_spool_begin(spool, file->timeline, file->segment, err))
        return false;
    if (spool->size < receive->incarnation.wal_segment_size)
        return receive_spool_leave(spool, err);
    receive->archiver.spool_bytes += spool->size;
    return receive_spool_finish(spool, err);
}

static bool
try_open_spool(Receive *receive, CairnError *err)
{
    const ReceiveOptions *options = receive->options;
    ReceiveFile *files = NULL;
    size_t count = 0;

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
    bool good = true;
    for (size_t i = 0; i < count && good; i++) {
        receive->archiver.spool_bytes += files[i].kind == RECEIVE_SEGMENT ? files[i].size : 0;
        good = files[i].kind != RECEIVE_PART || look_at_part(receive, &files[i], err);
    }
    free(files);
    if (!good)
        return false;
    receive->store =
        wal_store_open(receive->repository, options->cluster->name, &receive->incarnation, err);
    return receive->store != NULL && archiver_start(receive, err);
}

/* Once, when the first server said who it is. What fails is tried again from the beginning, but for
   a sync, which is final. */
static bool
open_spool(Receive *receive, CairnError *err)
{
    if (receive->store != NULL)
        return true;
    if (receive->spool.failed)
        return receive_spool_sync(&receive->spool, err);
    if (try_open_spool(receive, err))
        return true;
    wal_store_close(take(&receive->store));
    receive_spool_close(&receive->spool);
    receive->archiver.spool_bytes = 0;
    return false;
}

/*
 * The server does not answer, perhaps never will: what a former run received of it and had no time
 * to store must not wait for it.
 */
static void
store_what_waits(Receive *receive)
{
    const ReceiveOptions *options = receive->options;
    Incarnation known[INCARNATION_LIMIT];
    IncarnationTrouble unread;
    size_t count = 0;
    bool exists = false;
    CairnError trouble = {0};

    if (receive->store != NULL || !incarnation_list(receive->repository, options->cluster->name,
                                                    known, &count, &unread, &trouble))
        return;
    /* The newest that has a spool here: its record's date is what its maker says. */
    while (count > 0 && !exists) {
        if (!receive_spool_exists(receive->world, options->spool_path, options->cluster->name,
                                  &known[--count], &exists, &trouble))
            return;
    }
    if (!exists)
        return;
    receive->incarnation = known[count];
    /* Behind everything: each part is one that nobody writes. */
    receive->archiver.part = receive->archiver.archived = (Position){.timeline = UINT32_MAX};
    if (open_spool(receive, &trouble))
        log_info("what waits in '%s' is stored meanwhile", receive->spool.path);
    else
        log_warn("%s", trouble.message);
}

/* A connection that nothing is read from is worse than none (note_pause in receive_session.c). */
static bool
has_room(Receive *receive, CairnError *err)
{
    bool full = false;

    if (receive->store == NULL)
        return true;
    if (!receive_ask_archiver(receive, &full, err))
        return false;
    return !full || cairn_error(err, CAIRN_UNAVAILABLE,
                                "the spool '%s' is full and the repository takes nothing",
                                receive->spool.path);
}

static bool
serve_connection(Receive *receive, CairnError *err)
{
    bool ended = true;

    receive->connection =
        connection_open(receive->conninfo, CONNECTION_REPLICATION, "pgcairn receive", err);
    if (receive->connection == NULL && err->kind == CAIRN_UNAVAILABLE)
        store_what_waits(receive);
    if (receive->connection == NULL || !check_server(receive, err) ||
        !check_synchronous(receive, err) || !open_spool(receive, err) ||
        !receive_find_start(receive, err))
        return false;
    while (ended) {
        if (receive_stream(receive, &ended, err))
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
    const int64_t until = receive_now_ms(receive) + pause;
    while (receive_now_ms(receive) < until) {
        if (!cancel_check(err))
            return false;
        clock->sleep_ms(clock, RETRY_SLICE_MS);
    }
    return cancel_check(err);
}

/* What is stored there is known of all that are required, or waits in the spool. */
static const RepositoryConfig *
first_required(const ReceiveOptions *options)
{
    for (size_t i = 0; i < options->repository_count; i++) {
        if (repository_is_required(options->repositories[i]))
            return options->repositories[i];
    }
    return options->repositories[0];
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
            receive->repository =
                repository_open(receive->world, first_required(options), &trouble);
        if (receive->repository != NULL && has_room(receive, &trouble) &&
            serve_connection(receive, &trouble))
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
                       .spool = {.directory_fd = -1, .lock_fd = -1, .part_fd = -1},
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
    if (receive.spool.failed)
        archiver_forget_part(&receive);
    else if (!receive_spool_sync(&receive.spool, &last)) {
        log_error(&last);
        archiver_forget_part(&receive);
    }
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
