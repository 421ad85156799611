#include "walarchive/repair_places.h"

#include "common/directory.h"
#include "common/file.h"
#include "postgres/control.h"
#include "postgres/wal_page.h"
#include "repository/wal_overflow.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { COPY_SIZE = 256 << 10 };

static void
add_problem(RepairReport *report, const char *name, CairnError *err)
{
    if (report->problem_count < REPAIR_PLACES_LIMIT)
        report->problems[report->problem_count++] =
            arena_printf(report->arena, "%s: %s", name, err->message);
    cairn_error_clear(err);
}

static RepairPlace *
add_place(RepairPlaces *places, RepairReport *report, const char *name)
{
    RepairPlace *place = &places->places[places->count++];

    *place = (RepairPlace){.name = arena_strdup(report->arena, name), .fd = -1};
    report->places[report->place_count++] = place->name;
    return place;
}

/* pg_wal is often a symbolic link to another disk: followed here, as PostgreSQL does. */
static int
open_directory(const World *world, const char *path)
{
    return world->disk->openat(world->disk, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
}

/* The data directory that this is the pg_wal of; -1: of none. */
static int
data_directory_of(const World *world, int fd, const char *path)
{
    const Disk *disk = world->disk;
    struct stat ours, theirs;
    char above[PATH_MAX];

    /* By name: the ".." of a linked pg_wal is on the other disk. */
    if (snprintf(above, sizeof above, "%s/..", path) >= (int)sizeof above)
        return -1;
    const char *const candidates[] = {path, above};
    for (size_t i = 0; i < sizeof candidates / sizeof candidates[0]; i++) {
        SCOPED_FD data_fd = open_directory(world, candidates[i]);
        if (data_fd >= 0 && disk->fstat(disk, fd, &ours) == 0 &&
            disk->fstatat(disk, data_fd, "pg_wal", &theirs, 0) == 0 &&
            ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino)
            return take_fd(&data_fd);
    }
    return -1;
}

/* Of the first page of a segment; false for what cannot be read or is no page. */
static bool
segment_identity(const World *world, int directory_fd, const char *name, WalIdentity *identity_out)
{
    const Disk *disk = world->disk;
    uint8_t header[WAL_LONG_HEADER_SIZE];
    CairnError ignored = {0};
    struct stat status;
    SCOPED_FD fd =
        disk->openat(disk, directory_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);

    return fd >= 0 && disk->fstat(disk, fd, &status) == 0 && S_ISREG(status.st_mode) &&
           file_pread(world, fd, header, sizeof header, 0, name, &ignored) &&
           wal_identity_read(header, sizeof header, identity_out, &ignored);
}

/* One segment of the system at least, and none of another. */
static const char *
why_segments_do_not_prove(const World *world, int directory_fd, const Incarnation *wanted)
{
    SCOPED(Directory) directory = directory_open(world, directory_fd, ".", 0);
    const char *name;
    WalIdentity identity;
    WalFileName file;
    bool ours = false, others = false;

    while (!others && directory != NULL && (name = directory_next(directory)) != NULL) {
        CairnError ignored = {0};
        if (!wal_file_name_parse(name, &file, &ignored) || file.kind != WAL_FILE_SEGMENT ||
            !segment_identity(world, directory_fd, name, &identity))
            continue;
        if (identity.system_id == wanted->system_id && identity.major == wanted->major)
            ours = true;
        else
            others = true;
    }
    if (others)
        return "WAL of another system lies beside it";
    if (directory == NULL || !directory_complete(directory))
        return "unable to list the directory";
    return ours ? NULL : "neither global/pg_control nor a segment beside it says whose it is";
}

static const char *
why_unproven(const World *world, int fd, const char *path, const Incarnation *wanted)
{
    CairnError err = {0};
    ControlFile control;
    SCOPED_FD data_fd = data_directory_of(world, fd, path);

    if (data_fd < 0)
        return why_segments_do_not_prove(world, fd, wanted);
    if (!control_read(world, data_fd, &control, &err))
        return "global/pg_control beside it cannot be read";
    return control.system_id == wanted->system_id && control.major == wanted->major
               ? NULL
               : "global/pg_control beside it is of another system";
}

static void
open_directory_place(RepairPlaces *places, RepairReport *report, const char *path,
                     const Incarnation *wanted)
{
    char below[PATH_MAX];
    CairnError err = {0};
    int fd = -1;

    if (snprintf(below, sizeof below, "%s/pg_wal", path) < (int)sizeof below)
        fd = open_directory(places->world, below);
    if (fd < 0) {
        snprintf(below, sizeof below, "%s", path);
        fd = open_directory(places->world, path);
    }
    if (fd < 0) {
        cairn_error_errno(&err, "unable to open the directory");
        add_problem(report, path, &err);
        return;
    }
    RepairPlace *place = add_place(places, report, below);
    place->fd = fd;
    place->unproven = why_unproven(places->world, fd, path, wanted);
}

/* What waits there for this repository; its name says whose it is. */
static void
open_overflow_place(RepairPlaces *places, RepairReport *report, const RepairOptions *options,
                    const Incarnation *wanted)
{
    const WalOverflowPlace overflow = {.path = options->overflow_path,
                                       .repository = options->repository,
                                       .cluster = options->cluster,
                                       .system_id = wanted->system_id,
                                       .major = wanted->major};
    char below[WAL_OVERFLOW_DIRECTORY_SIZE];
    char path[PATH_MAX];
    CairnError err = {0};
    int fd = -1;

    if (wal_overflow_directory(&overflow, below, &err) &&
        snprintf(path, sizeof path, "%s/%s", options->overflow_path, below) < (int)sizeof path) {
        fd = open_directory(places->world, path);
        if (fd < 0 && errno == ENOENT)
            return; /* nothing was ever put there */
        if (fd < 0)
            cairn_error_errno(&err, "unable to open the directory");
    }
    if (fd < 0) {
        add_problem(report, "overflow-path", &err);
        return;
    }
    add_place(places, report, path)->fd = fd;
}

static void
open_repository_place(RepairPlaces *places, RepairReport *report, const RepairOptions *options,
                      const RepositoryConfig *config, const Incarnation *wanted)
{
    CairnError err = {0};
    Incarnation incarnation;
    char name[160];

    snprintf(name, sizeof name, "repository %.100s", config->name);
    SCOPED(Repository) repository = repository_open(places->world, config, &err);
    bool open =
        repository != NULL && incarnation_get(repository, options->cluster, wanted->system_id,
                                              wanted->major, &incarnation, &err);
    if (open && incarnation.wal_segment_size != wanted->wal_segment_size)
        open = cairn_error(&err, CAIRN_MISMATCH, "its segments have another size");
    if (!open) {
        add_problem(report, name, &err);
        return;
    }
    RepairPlace *place = add_place(places, report, name);
    place->incarnation = incarnation;
    place->repository = take(&repository);
    place->store = wal_store_open(place->repository, options->cluster, &place->incarnation, &err);
    CAIRN_ASSERT(place->store != NULL); /* the name is valid, and memory is there or we are gone */
}

bool
repair_places_open(const RepairOptions *options, const Incarnation *incarnation,
                   RepairReport *report, RepairPlaces *places_out, CairnError *err)
{
    *places_out = (RepairPlaces){.world = options->world};
    if (options->directory_count + options->other_count + (options->overflow_path != NULL) >
        REPAIR_PLACES_LIMIT)
        return cairn_error(err, CAIRN_USAGE, "more than %d places to look into",
                           (int)REPAIR_PLACES_LIMIT);
    report->place_count = report->problem_count = 0;
    for (size_t i = 0; i < options->directory_count; i++)
        open_directory_place(places_out, report, options->directories[i], incarnation);
    if (options->overflow_path != NULL)
        open_overflow_place(places_out, report, options, incarnation);
    for (size_t i = 0; i < options->other_count; i++)
        open_repository_place(places_out, report, options, options->others[i], incarnation);
    return true;
}

void
repair_places_close(RepairPlaces *places)
{
    for (size_t i = 0; i < places->count; i++) {
        RepairPlace *place = &places->places[i];
        if (place->fd >= 0)
            places->world->disk->close(places->world->disk, place->fd);
        wal_store_close(place->store);
        repository_close(place->repository);
    }
    places->count = 0;
}

static bool
copy_bytes(const World *world, int from_fd, uint64_t size, int to_fd, const char *name,
           CairnError *err)
{
    SCOPED_MEMORY uint8_t *data = malloc(COPY_SIZE);

    if (data == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (uint64_t at = 0; at < size;) {
        const size_t part = size - at < COPY_SIZE ? (size_t)(size - at) : COPY_SIZE;
        if (!file_pread(world, from_fd, data, part, at, name, err) ||
            !file_pwrite(world, to_fd, data, part, at, "scratch", err))
            return false;
        at += part;
    }
    return true;
}

static bool
copy_from_directory(const RepairPlaces *places, const RepairPlace *place, const char *file_name,
                    uint64_t size_limit, int scratch_fd, CairnError *err)
{
    const Disk *disk = places->world->disk;
    struct stat status;

    SCOPED_FD fd =
        disk->openat(disk, place->fd, file_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
    if (fd < 0 || disk->fstat(disk, fd, &status) != 0)
        return cairn_error_errno(err, "unable to open '%s'", file_name);
    if (!S_ISREG(status.st_mode) || status.st_size < 0 || (uint64_t)status.st_size > size_limit)
        return cairn_error(err, CAIRN_MISMATCH, "it is no file of at most %ju bytes",
                           (uintmax_t)size_limit);
    return copy_bytes(places->world, fd, (uint64_t)status.st_size, scratch_fd, file_name, err);
}

bool
repair_place_copy(const RepairPlaces *places, const RepairPlace *place, const char *file_name,
                  uint64_t size_limit, int scratch_fd, CairnError *err)
{
    if (places->world->disk->ftruncate(places->world->disk, scratch_fd, 0) != 0)
        return cairn_error_errno(err, "unable to empty the scratch file");
    if (place->fd >= 0)
        return copy_from_directory(places, place, file_name, size_limit, scratch_fd, err);
    return wal_store_fetch(place->store, file_name, scratch_fd, err);
}
