#include "walarchive/get.h"

#include "common/cancel.h"
#include "common/file.h"
#include "common/log.h"
#include "repository/wal_history.h"
#include "repository/wal_overflow.h"
#include "repository/wal_store.h"
#include "walarchive/data_directory.h"
#include "walarchive/get_places.h"
#include "walarchive/prefetch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#define TEMPORARY_SUFFIX ".pgcairn"

enum { TOKEN_DIGITS = 16, PAUSE_FIRST_MS = 100, PAUSE_LONGEST_MS = 2000 };

/* A leftover that no running get can own any more. */
static const int64_t LEFTOVER_AGE_US = INT64_C(3600) * 1000000;

/* Where the file goes: the directory of %p, its last component, and the temporary name. */
typedef struct {
    const World *world;
    int directory_fd;
    int fd;
    mode_t mode;
    bool standby; /* the file is for one */
    char name[NAME_MAX + 1];
    char temporary[NAME_MAX + 1];
} Target;

static bool
target_open(Target *target, const char *path, CairnError *err)
{
    const Disk *disk = target->world->disk;
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    char directory[PATH_MAX];

    if (name[0] == '\0' || strlen(name) > NAME_MAX - TOKEN_DIGITS - sizeof TEMPORARY_SUFFIX ||
        strlen(path) >= PATH_MAX)
        return cairn_error(err, CAIRN_USAGE, "'%s' is no path of a file", path);
    snprintf(target->name, sizeof target->name, "%s", name);
    if (slash == NULL)
        snprintf(directory, sizeof directory, ".");
    else
        snprintf(directory, sizeof directory, "%.*s", (int)(slash - path) + 1, path);
    target->directory_fd =
        disk->openat(disk, AT_FDCWD, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (target->directory_fd < 0)
        return cairn_error_errno(err, "unable to open '%s'", directory);
    return true;
}

/* A random name each time: a get that outlived a crashed server may still write to its own. */
static bool
target_create(Target *target, CairnError *err)
{
    const Disk *disk = target->world->disk;
    char token[TOKEN_DIGITS + 1];

    if (!random_token(target->world, token, err))
        return false;
    snprintf(target->temporary, sizeof target->temporary, "%.200s.%s" TEMPORARY_SUFFIX,
             target->name, token);
    target->fd = disk->openat(disk, target->directory_fd, target->temporary,
                              O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, target->mode);
    if (target->fd < 0)
        return cairn_error_errno(err, "unable to create '%s'", target->temporary);
    return true;
}

static void
target_abandon(Target *target)
{
    const Disk *disk = target->world->disk;

    if (target->fd >= 0)
        disk->close(disk, target->fd);
    target->fd = -1;
    if (target->temporary[0] != '\0')
        disk->unlinkat(disk, target->directory_fd, target->temporary, 0);
    target->temporary[0] = '\0';
}

/*
 * The name is PostgreSQL's scratch name, which it removed before it asked: replacing it is right.
 * No sync here: PostgreSQL itself syncs the file when it takes it over (durable_rename in
 * KeepFileRestoredFromArchive), and after a crash before that it removes the scratch file and asks
 * again.
 */
static bool
target_publish(Target *target, CairnError *err)
{
    const Disk *disk = target->world->disk;

    if (disk->close(disk, take_fd(&target->fd)) != 0)
        return cairn_error_errno(err, "unable to close '%s'", target->temporary);
    if (disk->renameat(disk, target->directory_fd, target->temporary, target->directory_fd,
                       target->name) != 0)
        return cairn_error_errno(err, "unable to rename '%s' to '%s'", target->temporary,
                                 target->name);
    target->temporary[0] = '\0';
    return true;
}

static bool
is_leftover(const char *name)
{
    const size_t tail = 1 + TOKEN_DIGITS + strlen(TEMPORARY_SUFFIX);
    const size_t size = strlen(name);

    return size > tail && name[size - tail] == '.' &&
           strcmp(name + size - strlen(TEMPORARY_SUFFIX), TEMPORARY_SUFFIX) == 0 &&
           strspn(name + size - tail + 1, "0123456789abcdef") == TOKEN_DIGITS;
}

/* Tidiness only, so that failures do not matter. */
static void
sweep_leftovers(const Target *target)
{
    const Disk *disk = target->world->disk;
    const int64_t limit_us = target->world->clock->wall_us(target->world->clock) - LEFTOVER_AGE_US;
    const int fd =
        disk->openat(disk, target->directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    DIR *directory = fd >= 0 ? disk->opendir(disk, fd) : NULL;
    const struct dirent *entry;
    struct stat status;

    if (directory == NULL) {
        if (fd >= 0)
            disk->close(disk, fd);
        return;
    }
    while ((entry = disk->readdir(disk, directory)) != NULL) {
        if (is_leftover(entry->d_name) &&
            disk->fstatat(disk, target->directory_fd, entry->d_name, &status,
                          AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(status.st_mode) && (int64_t)status.st_mtim.tv_sec * 1000000 < limit_us)
            disk->unlinkat(disk, target->directory_fd, entry->d_name, 0);
    }
    disk->closedir(disk, directory);
}

/* The restore that set recovery up has proven that the target lies before this hole. */
static bool
is_known_hole(const WalGet *get)
{
    enum { TIMELINE_DIGITS = 8, SEGMENT_DIGITS = 24 };
    return get->hole_after != NULL && strlen(get->hole_after) == SEGMENT_DIGITS &&
           strlen(get->file_name) == SEGMENT_DIGITS &&
           strcmp(get->file_name + TIMELINE_DIGITS, get->hole_after + TIMELINE_DIGITS) > 0;
}

/* The target lies in what is good of this segment, or before it. */
static bool
ends_known_wal(const WalGet *get)
{
    enum { TIMELINE_DIGITS = 8, SEGMENT_DIGITS = 24 };
    return get->hole_after != NULL && strlen(get->hole_after) == SEGMENT_DIGITS &&
           strlen(get->file_name) == SEGMENT_DIGITS &&
           strcmp(get->file_name + TIMELINE_DIGITS, get->hole_after + TIMELINE_DIGITS) == 0;
}

/* Absent from the repositories: is that the end of this history, or a hole in it? Each is asked,
   since one of them may have fallen behind. */
static WalGetResult
judge_absence(GetPlaces *places, const WalGet *get, CairnError *err)
{
    const char *file_name = get->file_name;

    for (size_t i = 0; i < places->count; i++) {
        WalStore *wal = get_places_store(places, i, err);
        WalSuccessor successor;

        if (wal == NULL)
            return WAL_GET_TROUBLE;
        if (!wal_store_successor(wal, file_name, &successor, err)) {
            if (!is_known_hole(get) || !wal_history_is_unreadable(err->kind))
                return WAL_GET_TROUBLE;
            cairn_error_clear(err); /* whatever it says, the target lies before it */
            continue;
        }
        if (!successor.found)
            continue;
        if (is_known_hole(get)) {
            cairn_error(err, CAIRN_NOT_FOUND,
                        "'%s' is missing from the archive; the recovery target lies before it",
                        file_name);
            return WAL_GET_ABSENT;
        }
        cairn_error(err, CAIRN_CORRUPT,
                    "'%s' is missing from the archive, although '%s' is stored: a hole in "
                    "the WAL",
                    file_name, successor.name);
        cairn_error_hint(
            err, "the server that wrote it may still have it to push, or it was removed; to end "
                 "recovery before the hole on purpose, set a recovery target");
        return WAL_GET_TROUBLE;
    }
    cairn_error(err, CAIRN_NOT_FOUND, "'%s' is not in the archive", file_name);
    return WAL_GET_ABSENT;
}

/* -- what push could not bring into the repository yet, on this host */

static WalOverflow *
open_overflow(const World *world, const WalGet *get, size_t index, uint64_t system_id, int major,
              CairnError *err)
{
    const WalOverflowPlace place = {.path = get->overflow_path,
                                    .repository = get->repositories[index],
                                    .cluster = get->cluster,
                                    .system_id = system_id,
                                    .major = major};
    return wal_overflow_open(world, &place, false, err);
}

static bool
is_unknown_to_one(const World *world, const WalGet *get, size_t index, uint64_t system_id,
                  int major, uint32_t segment_size, CairnError *err)
{
    bool later = false;

    SCOPED(WalOverflow) overflow = open_overflow(world, get, index, system_id, major, err);
    if (overflow == NULL) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err); /* nothing was ever put there */
        return true;
    }
    if (wal_overflow_fetch(overflow, get->file_name, -1, err))
        return cairn_error(err, CAIRN_UNAVAILABLE, "'%s' waits in overflow-path", get->file_name);
    if (err->kind != CAIRN_NOT_FOUND)
        return cairn_error_wrap(err, "'%s' is not in the archive yet", get->file_name);
    cairn_error_clear(err);
    if (!wal_overflow_has_later(overflow, segment_size, get->file_name, &later, err))
        return false;
    if (later)
        cairn_error(err, CAIRN_CORRUPT,
                    "'%s' is missing from the archive, although later WAL waits in overflow-path: "
                    "a hole in the WAL",
                    get->file_name);
    return !later;
}

/*
 * No repository has the whole file. True: nor does overflow-path know better. Else the file waits
 * there and cannot be delivered, or WAL behind it does: this is not the end. Never NOT_FOUND.
 */
static bool
is_unknown_to_overflow(const World *world, const WalGet *get, uint64_t system_id, int major,
                       uint32_t segment_size, CairnError *err)
{
    if (get->overflow_path == NULL || is_known_hole(get))
        return true;
    for (size_t i = 0; i < get->repository_count; i++) {
        if (!is_unknown_to_one(world, get, i, system_id, major, segment_size, err))
            return false;
    }
    return true;
}

/* -- from the repositories */

/* Where the most of a segment that was never finished is stored. */
static bool
find_longest(GetPlaces *places, const WalGet *get, size_t *index_out, CairnError *err)
{
    const uint32_t segment_size = places->control->wal_segment_size;
    uint32_t timeline, longest = 0;
    uint64_t number;

    *index_out = 0;
    if (places->count == 1 || !wal_segment_parse(get->file_name, segment_size, &timeline, &number))
        return true;
    for (size_t i = 0; i < places->count; i++) {
        WalStore *wal = get_places_store(places, i, err);
        WalSuccessor successor;
        WalUnfinished unfinished;

        if (wal == NULL || !wal_store_successor(wal, get->file_name, &successor, err) ||
            !wal_store_unfinished(wal, timeline, number, &unfinished, err))
            return false;
        /* What lies behind it in one repository makes its end in another no end. */
        if (successor.found && !is_known_hole(get) && !ends_known_wal(get))
            return cairn_error(err, CAIRN_NOT_FOUND, "'%s' has a successor", get->file_name);
        if (unfinished.broken && !ends_known_wal(get) && !is_known_hole(get)) {
            cairn_error(err, CAIRN_CORRUPT,
                        "repository '%s' has more of '%s' than can be read: later commits were "
                        "received",
                        places->places[i].config->name, get->file_name);
            return cairn_error_hint(err, "name another repository with --repository to recover to "
                                         "what that one has");
        }
        if (unfinished.found && unfinished.segment == number && unfinished.size > longest) {
            longest = unfinished.size;
            *index_out = i;
        }
    }
    return true;
}

static bool
fetch_unfinished(GetPlaces *places, const WalGet *get, Target *target, CairnError *err)
{
    const ControlFile *control = places->control;
    size_t index = 0;

    if (!find_longest(places, get, &index, err))
        return false;
    WalStore *wal = get_places_store(places, index, err);
    if (wal == NULL ||
        !wal_store_fetch_unfinished(wal, get->file_name, ends_known_wal(get), target->fd, err))
        return false;
    if (!is_unknown_to_overflow(target->world, get, control->system_id, control->major,
                                control->wal_segment_size, err))
        return false;
    log_info("'%s' was never finished: recovery gets what was received of it", get->file_name);
    return true;
}

/*
 * The whole file; else, at the end of the last timeline, what a receiver stored of the segment that
 * the server was writing, so that recovery reaches the last seconds too. A standby gets whole files
 * only: it waits for more, and takes what it was given once for all there is.
 */
static bool
fetch(GetPlaces *places, const WalGet *get, Target *target, CairnError *err)
{
    if (get_places_fetch(places, get->file_name, target->fd, err))
        return true;
    if (err->kind != CAIRN_NOT_FOUND || target->standby)
        return false;
    cairn_error_clear(err);
    if (fetch_unfinished(places, get, target, err))
        return true;
    if (wal_history_is_unreadable(err->kind) && is_known_hole(get)) {
        cairn_error_clear(err);
        return cairn_error(err, CAIRN_NOT_FOUND, "'%s' is not stored whole", get->file_name);
    }
    if (err->kind != CAIRN_NOT_FOUND)
        return false;
    /* It may have become whole between the two looks. */
    cairn_error_clear(err);
    return get_places_fetch(places, get->file_name, target->fd, err);
}

static WalGetResult
attempt(const World *world, const WalGet *get, const ControlFile *control, Target *target,
        CairnError *err)
{
    SCOPED_GET_PLACES places;

    get_places_init(&places, world, get->repositories, get->repository_count, get->cluster,
                    control);
    if (!target_create(target, err))
        return WAL_GET_TROUBLE;
    if (!fetch(&places, get, target, err)) {
        target_abandon(target);
        if (err->kind != CAIRN_NOT_FOUND)
            return WAL_GET_TROUBLE;
        cairn_error_clear(err);
        return judge_absence(&places, get, err);
    }
    if (!target_publish(target, err)) {
        target_abandon(target);
        return WAL_GET_TROUBLE;
    }
    return WAL_GET_DELIVERED;
}

/* Time heals an unreachable disk, a hole (pushes arrive late) and bad reads, but no wrong settings.
 */
static bool
is_worth_retrying(const CairnError *err)
{
    switch (err->kind) {
    case CAIRN_CANCELLED:
    case CAIRN_USAGE:
    case CAIRN_MISMATCH:
    case CAIRN_UNSUPPORTED:
    case CAIRN_REFUSED:
        return false;
    default:
        return true;
    }
}

static WalGetResult
attempt_until(const World *world, const WalGet *get, const ControlFile *control, Target *target,
              CairnError *err)
{
    const Clock *clock = world->clock;
    const int64_t limit_ns = clock->monotonic_ns(clock) + get->retry_ms * 1000000;
    int64_t pause_ms = PAUSE_FIRST_MS;

    for (;;) {
        const WalGetResult result = attempt(world, get, control, target, err);
        const int64_t left_ms = (limit_ns - clock->monotonic_ns(clock)) / 1000000;

        if (result != WAL_GET_TROUBLE || left_ms <= 0 || !is_worth_retrying(err))
            return result;
        log_debug("%s; trying again", err->message);
        cairn_error_clear(err);
        clock->sleep_ms(clock, pause_ms < left_ms ? pause_ms : left_ms);
        pause_ms = 2 * pause_ms < PAUSE_LONGEST_MS ? 2 * pause_ms : PAUSE_LONGEST_MS;
        if (!cancel_check(err))
            return WAL_GET_TROUBLE;
    }
}

/* A standby asks again, or streams; it must not die of a storage that blinks. */
static bool
is_standby(const World *world, int pgdata_fd)
{
    struct stat status;

    return world->disk->fstatat(world->disk, pgdata_fd, "standby.signal", &status, 0) == 0;
}

static mode_t
file_mode_of(const World *world, int pgdata_fd)
{
    struct stat status;

    /* As PostgreSQL does: group access to the files follows from that to the data directory. */
    if (world->disk->fstat(world->disk, pgdata_fd, &status) == 0 && (status.st_mode & S_IRGRP) != 0)
        return S_IRUSR | S_IWUSR | S_IRGRP;
    return S_IRUSR | S_IWUSR;
}

/* The spool is looked at before the repository, and only for segments. */
static bool
take_prefetched(const GetSpool *spool, const WalGet *get, const Target *target)
{
    return get_spool_take(spool, get->file_name, target->directory_fd, target->name);
}

/* What comes next can be fetched while this one is replayed. */
static void
fetch_ahead(const World *world, const WalGet *get, const Prefetch *prefetch, GetSpool *spool)
{
    if (spool->fd < 0) {
        get_spool_close(spool);
        get_spool_open(world, &prefetch->where, true, spool);
    }
    if (spool->fd < 0)
        return;
    get_spool_want_after(spool, get->file_name);
    prefetch_start(world, prefetch, spool);
}

static WalGetResult
get_segment(const World *world, const WalGet *get, const Prefetch *prefetch, Target *target,
            CairnError *err)
{
    GetSpool spool = {.world = world, .base_fd = -1, .fd = -1};
    WalGetResult result = WAL_GET_DELIVERED;

    if (prefetch->window > 0)
        get_spool_open(world, &prefetch->where, false, &spool);
    /* A recovery begins, and there is no spool yet: those behind this one are fetched beside it. A
       standby asks like this again and again at the end of WAL, where nothing is behind it. */
    const bool begins = prefetch->window > 0 && spool.fd < 0 && !target->standby;
    if (begins)
        fetch_ahead(world, get, prefetch, &spool);
    if (begins || !take_prefetched(&spool, get, target))
        result = attempt_until(world, get, prefetch->where.control, target, err);
    /* Else only after the answer is known. */
    if (prefetch->window > 0 && !begins && result == WAL_GET_DELIVERED)
        fetch_ahead(world, get, prefetch, &spool);
    get_spool_close(&spool);
    return result;
}

/* Every recovery begins with a history file, and ends with one. */
static void
sweep_spools(const World *world, const GetSpoolOptions *where)
{
    GetSpool spool;

    get_spool_open(world, where, false, &spool);
    get_spool_sweep(&spool);
    get_spool_close(&spool);
}

static bool
deliver_from_one(const World *world, const WalGet *get, size_t index, const ControlFile *control,
                 Target *target)
{
    CairnError err = {0};
    SCOPED(WalOverflow)
    overflow = open_overflow(world, get, index, control->system_id, control->major, &err);
    if (overflow == NULL)
        return false;
    const bool done = target_create(target, &err) &&
                      wal_overflow_fetch(overflow, get->file_name, target->fd, &err) &&
                      target_publish(target, &err);
    if (!done)
        target_abandon(target);
    return done;
}

/* It is what the server wrote; one that does not agree with its digest is not taken. */
static bool
deliver_overflowed(const World *world, const WalGet *get, const ControlFile *control,
                   Target *target)
{
    if (get->overflow_path == NULL)
        return false;
    for (size_t i = 0; i < get->repository_count; i++) {
        if (deliver_from_one(world, get, i, control, target))
            return true;
    }
    return false;
}

static WalGetResult
judge_by_overflow(const World *world, const WalGet *get, const ControlFile *control,
                  CairnError *err)
{
    CairnError other = {0};

    if (is_unknown_to_overflow(world, get, control->system_id, control->major,
                               control->wal_segment_size, &other))
        return WAL_GET_ABSENT;
    *err = other;
    return WAL_GET_TROUBLE;
}

WalGetResult
wal_get(const World *world, const WalGet *get, CairnError *err)
{
    Target target = {.world = world, .directory_fd = -1, .fd = -1};
    WalFileName file;
    ControlFile control;
    WalGetResult result;

    if (!wal_file_name_parse(get->file_name, &file, err))
        return WAL_GET_TROUBLE;
    SCOPED_FD pgdata_fd = data_directory_open(world, get->pgdata, get->path, err);
    if (pgdata_fd < 0 || !data_directory_control(world, pgdata_fd, &control, err) ||
        !target_open(&target, get->path, err))
        return WAL_GET_TROUBLE;
    SCOPED_FD directory_fd = target.directory_fd; /* closes it at the end */
    CAIRN_ASSERT(directory_fd >= 0);
    target.mode = file_mode_of(world, pgdata_fd);
    target.standby = is_standby(world, pgdata_fd);
    const Prefetch prefetch = {.where = {.repositories = get->repositories,
                                         .repository_count = get->repository_count,
                                         .cluster = get->cluster,
                                         .control = &control,
                                         .pgdata_fd = pgdata_fd,
                                         .file_mode = target.mode,
                                         .spool_path = get->spool_path},
                               .window = get->prefetch,
                               .jobs = get->jobs};
    if (file.kind == WAL_FILE_HISTORY) {
        sweep_leftovers(&target);
        sweep_spools(world, &prefetch.where);
    }
    if (deliver_overflowed(world, get, &control, &target))
        return WAL_GET_DELIVERED;
    if (file.kind == WAL_FILE_SEGMENT)
        result = get_segment(world, get, &prefetch, &target, err);
    else
        result = attempt_until(world, get, &control, &target, err);
    /* It may have come to overflow-path since the first look. */
    if ((result == WAL_GET_ABSENT || result == WAL_GET_TROUBLE) &&
        deliver_overflowed(world, get, &control, &target)) {
        cairn_error_clear(err);
        return WAL_GET_DELIVERED;
    }
    if (result == WAL_GET_ABSENT)
        result = judge_by_overflow(world, get, &control, err);
    if (result == WAL_GET_TROUBLE && file.kind == WAL_FILE_SEGMENT &&
        err->kind != CAIRN_CANCELLED && target.standby)
        return WAL_GET_BLIP;
    return result;
}
