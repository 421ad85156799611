#include "walarchive/repair_places.h"

#include "common/file.h"

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

static void
open_directory_place(RepairPlaces *places, RepairReport *report, const char *path)
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
    add_place(places, report, below)->fd = fd;
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
    if (options->directory_count + options->other_count > REPAIR_PLACES_LIMIT)
        return cairn_error(err, CAIRN_USAGE, "more than %d places to look into",
                           (int)REPAIR_PLACES_LIMIT);
    report->place_count = report->problem_count = 0;
    for (size_t i = 0; i < options->directory_count; i++)
        open_directory_place(places_out, report, options->directories[i]);
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
