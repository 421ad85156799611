#include "walarchive/get_spool.h"

#include "common/bytes.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/log.h"
#include "common/scoped.h"
#include "storage/connect.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define SPOOL_PREFIX "pgsql_tmp_pgcairn_get."
#define SPOOL_HOME "base/pgsql_tmp"
#define WANT_PREFIX "want."
#define LOCK_NAME "lock"

enum {
    SEGMENT_DIGITS = WAL_NAME_SIZE - 1,
    CRC_DIGITS = 8,
    TIME_DIGITS = 16,
    READ_SIZE = 256 << 10, /* stays in the second cache level */
    BUSY_STEP_MS = 1,
    BUSY_LIMIT_MS = 500,
};

static const uint64_t FRESH_NS = UINT64_C(60) * 1000000000;
static const int64_t LEFTOVER_AGE_S = 3600;

static const int DIRECTORY_FLAGS = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

/* What PG_VERSION's inode says: a restore writes it anew, and nobody touches it afterwards. */
static bool
make_token(const World *world, const GetSpoolOptions *options, char token[GET_SPOOL_TOKEN_SIZE])
{
    const Disk *disk = world->disk;
    struct stat data, version;
    char place[STORAGE_PLACE_TEXT_SIZE];
    char text[4 * PATH_MAX];

    if (disk->fstat(disk, options->pgdata_fd, &data) != 0 ||
        disk->fstatat(disk, options->pgdata_fd, "PG_VERSION", &version, AT_SYMLINK_NOFOLLOW) != 0)
        return false;
    int size = snprintf(text, sizeof text, "%ju %ju %ju %jd.%09ld %" PRIu64 " %d %" PRIu32 " %s",
                        (uintmax_t)data.st_dev, (uintmax_t)data.st_ino, (uintmax_t)version.st_ino,
                        (intmax_t)version.st_ctim.tv_sec, version.st_ctim.tv_nsec,
                        options->control->system_id, options->control->major,
                        options->control->wal_segment_size, options->cluster);
    for (size_t i = 0; i < options->repository_count; i++) {
        if (size < 0 || (size_t)size >= sizeof text)
            return false;
        storage_place_text(options->repositories[i], place);
        size += snprintf(text + size, sizeof text - (size_t)size, "\n%s", place);
    }
    if (size < 0 || (size_t)size >= sizeof text)
        return false;
    snprintf(token, GET_SPOOL_TOKEN_SIZE, "%016" PRIx64, fnv1a(text, (size_t)size));
    return true;
}

static int
open_base(const World *world, const GetSpoolOptions *options, bool create)
{
    const Disk *disk = world->disk;
    const mode_t mode = (options->file_mode & S_IRGRP) != 0 ? S_IRWXU | S_IRGRP | S_IXGRP : S_IRWXU;

    if (options->spool_path != NULL)
        return disk->openat(disk, AT_FDCWD, options->spool_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                            0);
    int fd = disk->openat_beneath(disk, options->pgdata_fd, SPOOL_HOME, DIRECTORY_FLAGS, 0);
    /* PostgreSQL makes it itself when the first temporary file is needed, and takes it as it is. */
    if (fd < 0 && errno == ENOENT && create &&
        disk->mkdirat(disk, options->pgdata_fd, SPOOL_HOME, mode) == 0)
        fd = disk->openat_beneath(disk, options->pgdata_fd, SPOOL_HOME, DIRECTORY_FLAGS, 0);
    return fd;
}

/* What others may write to, they may fill. */
static bool
is_ours(const World *world, int fd)
{
    struct stat status;

    return world->disk->fstat(world->disk, fd, &status) == 0 && status.st_uid == geteuid() &&
           (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

void
get_spool_open(const World *world, const GetSpoolOptions *options, bool create, GetSpool *spool_out)
{
    const Disk *disk = world->disk;
    GetSpool spool = {.world = world,
                      .segment_size = options->control->wal_segment_size,
                      .file_mode = options->file_mode,
                      .base_fd = -1,
                      .fd = -1};
    char token[GET_SPOOL_TOKEN_SIZE];

    *spool_out = spool;
    if (!make_token(world, options, token))
        return;
    snprintf(spool.name, sizeof spool.name, SPOOL_PREFIX "%s", token);
    spool.base_fd = open_base(world, options, create);
    if (spool.base_fd < 0) {
        *spool_out = spool;
        return;
    }
    spool.fd = disk->openat(disk, spool.base_fd, spool.name, DIRECTORY_FLAGS, 0);
    if (spool.fd < 0 && errno == ENOENT && create &&
        disk->mkdirat(disk, spool.base_fd, spool.name, S_IRWXU) == 0)
        spool.fd = disk->openat(disk, spool.base_fd, spool.name, DIRECTORY_FLAGS, 0);
    if (spool.fd >= 0 && !is_ours(world, spool.fd)) {
        log_debug("spool '%s' belongs to somebody else: not used", spool.name);
        disk->close(disk, spool.fd);
        spool.fd = -1;
    }
    *spool_out = spool;
}

void
get_spool_close(GetSpool *spool)
{
    const Disk *disk = spool->world->disk;

    if (spool->fd >= 0)
        disk->close(disk, take_fd(&spool->fd));
    if (spool->base_fd >= 0)
        disk->close(disk, take_fd(&spool->base_fd));
}

static bool
parse_segment(const GetSpool *spool, const char *name, uint32_t *timeline_out,
              uint64_t *segment_out)
{
    char segment[WAL_NAME_SIZE];

    snprintf(segment, sizeof segment, "%.*s", SEGMENT_DIGITS, name);
    return wal_segment_parse(segment, spool->segment_size, timeline_out, segment_out);
}

static bool
parse_file(const GetSpool *spool, const char *name, GetSpoolFile *file_out)
{
    uint8_t crc[CRC_DIGITS / 2], written[TIME_DIGITS / 2];
    char hex[CRC_DIGITS + 1];
    const char *at = name + SEGMENT_DIGITS;

    if (strlen(name) != SEGMENT_DIGITS + 1 + CRC_DIGITS + 1 + TIME_DIGITS || at[0] != '.' ||
        at[1 + CRC_DIGITS] != '.')
        return false;
    snprintf(hex, sizeof hex, "%.*s", CRC_DIGITS, at + 1);
    if (!hex_decode(crc, sizeof crc, hex) ||
        !hex_decode(written, sizeof written, at + 1 + CRC_DIGITS + 1) ||
        !parse_segment(spool, name, &file_out->timeline, &file_out->segment))
        return false;
    file_out->crc = get_u32(crc);
    file_out->written_ns = get_u64(written);
    return true;
}

static bool
is_temporary(const char *name)
{
    const size_t size = strlen(name);

    return size > 4 && strcmp(name + size - 4, ".tmp") == 0;
}

static void
note_name(const GetSpool *spool, const char *name, GetSpoolState *state, char fetching[],
          size_t fetching_size)
{
    GetSpoolFile file;

    if (strncmp(name, WANT_PREFIX, strlen(WANT_PREFIX)) == 0 &&
        strlen(name) == strlen(WANT_PREFIX) + SEGMENT_DIGITS) {
        state->wants |= parse_segment(spool, name + strlen(WANT_PREFIX), &state->want_timeline,
                                      &state->want_segment);
    } else if (is_temporary(name) && strlen(fetching) + WAL_NAME_SIZE < fetching_size) {
        strncat(fetching, name, SEGMENT_DIGITS);
    } else if (parse_file(spool, name, &file) && state->file_count < GET_SPOOL_FILES_LIMIT) {
        state->files[state->file_count++] = file;
    }
}

/* A descriptor of its own, so that reading begins at the start each time. */
static DIR *
open_listing(const World *world, int fd)
{
    const Disk *disk = world->disk;
    const int own = disk->openat(disk, fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    DIR *directory = own >= 0 ? disk->opendir(disk, own) : NULL;

    if (directory == NULL && own >= 0)
        disk->close(disk, own);
    return directory;
}

bool
get_spool_read(const GetSpool *spool, GetSpoolState *state_out)
{
    const Disk *disk = spool->world->disk;
    GetSpoolState state = {0};
    char fetching[GET_SPOOL_FILES_LIMIT] = ""; /* names one after another */
    char wanted[WAL_NAME_SIZE];
    const struct dirent *entry;
    DIR *directory = open_listing(spool->world, spool->fd);

    if (directory == NULL)
        return false;
    while ((entry = disk->readdir(disk, directory)) != NULL)
        note_name(spool, entry->d_name, &state, fetching, sizeof fetching);
    disk->closedir(disk, directory);
    if (state.wants) {
        wal_segment_name(wanted, state.want_timeline, state.want_segment, spool->segment_size);
        state.busy = strstr(fetching, wanted) != NULL;
    }
    *state_out = state;
    return true;
}

void
get_spool_file_name(const GetSpool *spool, const GetSpoolFile *file,
                    char name_out[GET_SPOOL_NAME_SIZE])
{
    char segment[WAL_NAME_SIZE], hex[CRC_DIGITS + 1], written_hex[TIME_DIGITS + 1];
    uint8_t crc[CRC_DIGITS / 2], written[TIME_DIGITS / 2];

    put_u32(crc, file->crc);
    hex_encode(hex, crc, sizeof crc);
    put_u64(written, file->written_ns);
    hex_encode(written_hex, written, sizeof written);
    wal_segment_name(segment, file->timeline, file->segment, spool->segment_size);
    snprintf(name_out, GET_SPOOL_NAME_SIZE, "%s.%s.%s", segment, hex, written_hex);
}

void
get_spool_remove_file(const GetSpool *spool, const GetSpoolFile *file)
{
    char name[GET_SPOOL_NAME_SIZE];

    get_spool_file_name(spool, file, name);
    spool->world->disk->unlinkat(spool->world->disk, spool->fd, name, 0);
}

static uint64_t
written_ns(const struct stat *status)
{
    return (uint64_t)status->st_mtim.tv_sec * 1000000000 + (uint64_t)status->st_mtim.tv_nsec;
}

static bool
is_segment(const GetSpool *spool, int fd, struct stat *status_out)
{
    return spool->world->disk->fstat(spool->world->disk, fd, status_out) == 0 &&
           S_ISREG(status_out->st_mode) && status_out->st_size == (off_t)spool->segment_size;
}

static bool
read_crc(const GetSpool *spool, int fd, uint32_t *crc_out)
{
    SCOPED_MEMORY uint8_t *data = malloc(READ_SIZE);
    CairnError ignored = {0}; /* what cannot be read is not whole */
    uint32_t crc = 0;

    if (data == NULL)
        return false;
    for (uint64_t at = 0; at < spool->segment_size; at += READ_SIZE) {
        if (!file_pread(spool->world, fd, data, READ_SIZE, at, "spool", &ignored))
            return false;
        crc = crc32c(crc, data, READ_SIZE);
    }
    *crc_out = crc;
    return true;
}

bool
get_spool_look(const GetSpool *spool, int fd, GetSpoolFile *file)
{
    struct stat status;

    if (!is_segment(spool, fd, &status) || !read_crc(spool, fd, &file->crc))
        return false;
    file->written_ns = written_ns(&status);
    return true;
}

/* Untouched for less than a minute, or its bytes are the same still. */
static bool
is_whole(const GetSpool *spool, int fd, const GetSpoolFile *file)
{
    const Clock *clock = spool->world->clock;
    const uint64_t now_ns = (uint64_t)clock->wall_us(clock) * 1000;
    struct stat status;
    uint32_t crc;

    if (!is_segment(spool, fd, &status))
        return false;
    if (written_ns(&status) == file->written_ns && now_ns >= file->written_ns &&
        now_ns - file->written_ns < FRESH_NS)
        return true;
    return read_crc(spool, fd, &crc) && crc == file->crc;
}

/* Over a file system's border: copied, and looked at while it passes. */
static bool
copy_file(const GetSpool *spool, int from_fd, int target_fd, const char *target, uint32_t wanted)
{
    const Disk *disk = spool->world->disk;
    SCOPED_MEMORY uint8_t *data = malloc(READ_SIZE);
    char temporary[NAME_MAX + 1];
    CairnError ignored = {0};
    uint32_t crc = 0;

    snprintf(temporary, sizeof temporary, "%.200s.%.16s.pgcairn", target,
             spool->name + strlen(SPOOL_PREFIX));
    disk->unlinkat(disk, target_fd, temporary, 0); /* of a get that was killed */
    const int fd =
        disk->openat(disk, target_fd, temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                     spool->file_mode);
    bool done = fd >= 0 && data != NULL;
    for (uint64_t at = 0; done && at < spool->segment_size; at += READ_SIZE) {
        done = file_pread(spool->world, from_fd, data, READ_SIZE, at, "spool", &ignored) &&
               file_pwrite(spool->world, fd, data, READ_SIZE, at, target, &ignored);
        crc = done ? crc32c(crc, data, READ_SIZE) : crc;
    }
    if (fd >= 0)
        done = disk->close(disk, fd) == 0 && done;
    done =
        done && crc == wanted && disk->renameat(disk, target_fd, temporary, target_fd, target) == 0;
    if (!done)
        disk->unlinkat(disk, target_fd, temporary, 0);
    return done;
}

static bool
same_file_system(const World *world, int a_fd, int b_fd)
{
    struct stat a, b;

    return world->disk->fstat(world->disk, a_fd, &a) == 0 &&
           world->disk->fstat(world->disk, b_fd, &b) == 0 && a.st_dev == b.st_dev;
}

static bool
deliver(const GetSpool *spool, const GetSpoolFile *file, int target_fd, const char *target)
{
    const Disk *disk = spool->world->disk;
    char name[GET_SPOOL_NAME_SIZE];

    get_spool_file_name(spool, file, name);
    SCOPED_FD fd =
        disk->openat(disk, spool->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool done;
    if (same_file_system(spool->world, spool->fd, target_fd)) {
        done = is_whole(spool, fd, file) &&
               disk->renameat(disk, spool->fd, name, target_fd, target) == 0;
    } else {
        done = copy_file(spool, fd, target_fd, target, file->crc);
    }
    if (!done)
        log_warn("'%s' in the spool is damaged or cannot be moved: fetched again", name);
    disk->unlinkat(disk, spool->fd, name, 0); /* absent after a rename */
    return done;
}

static const GetSpoolFile *
find_file(const GetSpoolState *state, uint32_t timeline, uint64_t segment)
{
    for (size_t i = 0; i < state->file_count; i++) {
        if (state->files[i].timeline == timeline && state->files[i].segment == segment)
            return &state->files[i];
    }
    return NULL;
}

/* The state, once the wanted segment is no longer being fetched, or that takes too long. */
static bool
read_settled(const GetSpool *spool, GetSpoolState *state_out)
{
    const Clock *clock = spool->world->clock;
    const int64_t limit_ns = clock->monotonic_ns(clock) + (int64_t)BUSY_LIMIT_MS * 1000000;

    for (;;) {
        if (!get_spool_read(spool, state_out))
            return false;
        if (!state_out->busy || clock->monotonic_ns(clock) >= limit_ns ||
            find_file(state_out, state_out->want_timeline, state_out->want_segment) != NULL)
            return true;
        /* Its writer may be gone: then its temporary file is left for ever. */
        const int lock_fd = get_spool_lock(spool);
        if (lock_fd >= 0) {
            spool->world->disk->close(spool->world->disk, lock_fd);
            return true;
        }
        clock->sleep_ms(clock, BUSY_STEP_MS);
    }
}

bool
get_spool_take(const GetSpool *spool, const char *segment_name, int target_fd, const char *target)
{
    GetSpoolState state;
    uint32_t timeline;
    uint64_t segment;

    if (spool->fd < 0 ||
        !wal_segment_parse(segment_name, spool->segment_size, &timeline, &segment) ||
        !get_spool_read(spool, &state))
        return false;
    if (!state.wants || state.want_timeline != timeline || state.want_segment != segment) {
        /* Recovery began anew or took another turn: what was meant for the old one goes. */
        for (size_t i = 0; i < state.file_count; i++)
            get_spool_remove_file(spool, &state.files[i]);
        return false;
    }
    if (state.busy && !read_settled(spool, &state))
        return false;
    const GetSpoolFile *file = find_file(&state, timeline, segment);
    return file != NULL && deliver(spool, file, target_fd, target);
}

void
get_spool_want_after(const GetSpool *spool, const char *segment_name)
{
    const Disk *disk = spool->world->disk;
    char next[WAL_NAME_SIZE], from[GET_SPOOL_NAME_SIZE], to[GET_SPOOL_NAME_SIZE];
    GetSpoolState state;
    uint32_t timeline;
    uint64_t segment;

    if (!wal_segment_parse(segment_name, spool->segment_size, &timeline, &segment) ||
        !get_spool_read(spool, &state))
        return;
    wal_segment_name(next, timeline, segment + 1, spool->segment_size);
    snprintf(to, sizeof to, WANT_PREFIX "%s", next);
    if (state.wants) {
        wal_segment_name(next, state.want_timeline, state.want_segment, spool->segment_size);
        snprintf(from, sizeof from, WANT_PREFIX "%s", next);
        if (disk->renameat(disk, spool->fd, from, spool->fd, to) == 0)
            return;
    }
    const int fd = disk->openat(disk, spool->fd, to, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC,
                                S_IRUSR | S_IWUSR);
    if (fd >= 0)
        disk->close(disk, fd);
}

int
get_spool_lock(const GetSpool *spool)
{
    const Disk *disk = spool->world->disk;
    const int fd = disk->openat(disk, spool->fd, LOCK_NAME,
                                O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);

    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        disk->close(disk, fd);
        return -1;
    }
    return fd;
}

/* Files only: nobody makes directories in a spool. */
static void
remove_directory(const World *world, int base_fd, const char *name)
{
    const Disk *disk = world->disk;
    const int fd = disk->openat(disk, base_fd, name, DIRECTORY_FLAGS, 0);
    DIR *directory = fd >= 0 ? open_listing(world, fd) : NULL;
    const struct dirent *entry;

    while (directory != NULL && (entry = disk->readdir(disk, directory)) != NULL) {
        if (entry->d_name[0] != '.')
            disk->unlinkat(disk, fd, entry->d_name, 0);
    }
    if (directory != NULL)
        disk->closedir(disk, directory);
    if (fd >= 0)
        disk->close(disk, fd);
    disk->unlinkat(disk, base_fd, name, AT_REMOVEDIR);
}

void
get_spool_remove(GetSpool *spool)
{
    if (spool->fd < 0)
        return;
    spool->world->disk->close(spool->world->disk, take_fd(&spool->fd));
    remove_directory(spool->world, spool->base_fd, spool->name);
}

static bool
is_old(const GetSpool *spool, const char *name)
{
    const Clock *clock = spool->world->clock;
    struct stat status;

    return spool->world->disk->fstatat(spool->world->disk, spool->base_fd, name, &status,
                                       AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISDIR(status.st_mode) && status.st_uid == geteuid() &&
           (int64_t)status.st_mtim.tv_sec < clock->wall_us(clock) / 1000000 - LEFTOVER_AGE_S;
}

/* Held: a standby that waits for its next segment may change nothing for hours. */
static bool
is_held(const GetSpool *spool, const char *name)
{
    const Disk *disk = spool->world->disk;
    SCOPED_FD fd = disk->openat(disk, spool->base_fd, name, DIRECTORY_FLAGS, 0);
    SCOPED_FD lock_fd = fd >= 0 ? disk->openat(disk, fd, LOCK_NAME, O_RDWR | O_CLOEXEC, 0) : -1;

    return lock_fd >= 0 && flock(lock_fd, LOCK_EX | LOCK_NB) != 0;
}

void
get_spool_sweep(GetSpool *spool)
{
    const Disk *disk = spool->world->disk;
    const struct dirent *entry;

    get_spool_remove(spool);
    DIR *directory = spool->base_fd >= 0 ? open_listing(spool->world, spool->base_fd) : NULL;
    if (directory == NULL)
        return;
    while ((entry = disk->readdir(disk, directory)) != NULL) {
        if (strncmp(entry->d_name, SPOOL_PREFIX, strlen(SPOOL_PREFIX)) == 0 &&
            is_old(spool, entry->d_name) && !is_held(spool, entry->d_name))
            remove_directory(spool->world, spool->base_fd, entry->d_name);
    }
    disk->closedir(disk, directory);
}
