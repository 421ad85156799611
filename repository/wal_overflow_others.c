#include "repository/wal_overflow.h"

#include "common/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { KEY_DIGITS = 24 };

typedef struct {
    const World *world;
    const WalOverflowPlace *places;
    size_t place_count;
    char key[WAL_OVERFLOW_DIRECTORY_SIZE]; /* <cluster>-<24 hex>, while it is looked through */
    char directory[WAL_OVERFLOW_DIRECTORY_SIZE]; /* the same with the system */
    WalOverflowOthers others;
} Search;

typedef bool Visitor(Search *search, int fd, const char *name, CairnError *err);

static bool
visit(Search *search, int parent_fd, const char *name, Visitor *visitor, CairnError *err)
{
    SCOPED(Directory)
    directory =
        directory_open(search->world, parent_fd, name, parent_fd == AT_FDCWD ? 0 : O_NOFOLLOW);
    const char *entry;

    if (directory == NULL)
        /* What is no directory is none of ours. */
        return errno == ENOTDIR || errno == ELOOP || errno == ENOENT ||
               cairn_error_errno(err, "unable to list '%s' in overflow-path", name);
    while ((entry = directory_next(directory)) != NULL) {
        if (entry[0] != '.' && !visitor(search, directory_fd(directory), entry, err))
            return false;
    }
    return directory_complete(directory) ||
           cairn_error_errno(err, "unable to list '%s' in overflow-path", name);
}

/* Below overflow-path: what cannot be looked through is told, and hides nothing beside it. */
static bool
visit_below(Search *search, int parent_fd, const char *name, const char *path, Visitor *visitor,
            CairnError *err)
{
    WalOverflowOthers *others = &search->others;

    if (visit(search, parent_fd, name, visitor, err))
        return true;
    if (err->kind == CAIRN_CANCELLED || err->kind == CAIRN_INTERNAL)
        return false;
    if (others->unreadable++ == 0) {
        snprintf(others->unreadable_directory, sizeof others->unreadable_directory, "%s", path);
        others->problem = *err;
    }
    cairn_error_clear(err);
    return true;
}

static bool
count_file(Search *search, int fd, const char *name, CairnError *err)
{
    CairnError ignored = {0};
    WalFileName file;

    (void)fd;
    (void)err;
    if (strlen(name) < WAL_FILE_NAME_LIMIT && wal_file_name_parse(name, &file, &ignored)) {
        search->others.files++;
        snprintf(search->others.directory, sizeof search->others.directory, "%s",
                 search->directory);
    }
    return true;
}

static bool
is_place(const Search *search, bool *is_place_out, CairnError *err)
{
    char below[WAL_OVERFLOW_DIRECTORY_SIZE];
    *is_place_out = false;
    for (size_t i = 0; i < search->place_count && !*is_place_out; i++) {
        if (!wal_overflow_directory(&search->places[i], below, err))
            return false;
        *is_place_out = strcmp(search->directory, below) == 0;
    }
    return true;
}

static bool
visit_system(Search *search, int fd, const char *name, CairnError *err)
{
    bool known;
    if (snprintf(search->directory, sizeof search->directory, "%.100s/%s", search->key, name) >=
        (int)sizeof search->directory)
        return true;
    return is_place(search, &known, err) &&
           (known || visit_below(search, fd, name, search->directory, count_file, err));
}

static bool
visit_key(Search *search, int fd, const char *name, CairnError *err)
{
    const char *cluster = search->places[0].cluster;
    const size_t size = strlen(cluster);

    if (strlen(name) != size + 1 + KEY_DIGITS || strncmp(name, cluster, size) != 0 ||
        name[size] != '-' || strspn(name + size + 1, "0123456789abcdef") != KEY_DIGITS)
        return true;
    snprintf(search->key, sizeof search->key, "%s", name);
    return visit_below(search, fd, name, search->key, visit_system, err);
}

bool
wal_overflow_others(const World *world, const WalOverflowPlace *places, size_t count,
                    WalOverflowOthers *others_out, CairnError *err)
{
    CAIRN_ASSERT(count > 0);
    Search search = {.world = world, .places = places, .place_count = count};

    if (!visit(&search, AT_FDCWD, places[0].path, visit_key, err))
        return false;
    *others_out = search.others;
    return true;
}
