#include "walarchive/receive_spool.h"

#include "common/bytes.h"
#include "common/directory.h"
#include "common/file.h"
#include "common/log.h"
#include "postgres/wal_page.h"
#include "postgres/wal_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#define PART_SUFFIX ".part"
#define HISTORY_SUFFIX ".history"

enum { SEGMENT_DIGITS = 24, TIMELINE_DIGITS = 8, RECEIVE_FILE_LIMIT = 1 << 20 };

static int
open_lock(const ReceiveSpool *spool, CairnError *err)
{
    const Disk *disk = spool->world->disk;
    const int fd = disk->openat(disk, spool->directory_fd, "lock",
                                O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);

    if (fd < 0) {
        cairn_error_errno(err, "unable to open '%s/lock'", spool->path);
    } else if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        cairn_error(err, CAIRN_REFUSED, "another receiver works in '%s'", spool->path);
        cairn_error_hint(err, "stop it, or give this one another --spool-path and --slot");
        disk->close(disk, fd);
        return -1;
    }
    return fd;
}

static bool
format_path(const char *path, const char *cluster, const Incarnation *incarnation,
            char text[PATH_MAX], CairnError *err)
{
    char name[INCARNATION_NAME_SIZE];

    incarnation_name(name, incarnation->system_id, incarnation->major);
    const int size = snprintf(text, PATH_MAX, "%s/receive/%s/%s", path, cluster, name);
    return (size_t)size < PATH_MAX - WAL_FILE_NAME_LIMIT ||
           cairn_error(err, CAIRN_USAGE, "'%s' is too long for a spool", path);
}

bool
receive_spool_exists(const World *world, const char *path, const char *cluster,
                     const Incarnation *incarnation, bool *exists_out, CairnError *err)
{
    char text[PATH_MAX];
    struct stat status;

    if (!format_path(path, cluster, incarnation, text, err))
        return false;
    *exists_out = world->disk->fstatat(world->disk, AT_FDCWD, text, &status, 0) == 0;
    return *exists_out || errno == ENOENT || cairn_error_errno(err, "unable to examine '%s'", text);
}

bool
receive_spool_open(const World *world, const char *path, const char *cluster,
                   const Incarnation *incarnation, ReceiveSpool *spool_out, CairnError *err)
{
    const Disk *disk = world->disk;
    ReceiveSpool spool = {.world = world,
                          .incarnation = incarnation,
                          .directory_fd = -1,
                          .lock_fd = -1,
                          .part_fd = -1};

    if (!format_path(path, cluster, incarnation, spool.path, err))
        return false;
    if (!file_make_directories(world, AT_FDCWD, spool.path, S_IRWXU, err))
        return false;
    spool.directory_fd =
        disk->openat(disk, AT_FDCWD, spool.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (spool.directory_fd < 0)
        return cairn_error_errno(err, "unable to open '%s'", spool.path);
    spool.lock_fd = open_lock(&spool, err);
    if (spool.lock_fd < 0) {
        disk->close(disk, spool.directory_fd);
        return false;
    }
    *spool_out = spool;
    return true;
}

void
receive_spool_close(ReceiveSpool *spool)
{
    const Disk *disk = spool->world != NULL ? spool->world->disk : NULL;

    if (disk != NULL && spool->part_fd >= 0)
        disk->close(disk, take_fd(&spool->part_fd));
    if (disk != NULL && spool->directory_fd >= 0)
        disk->close(disk, take_fd(&spool->directory_fd));
    if (disk != NULL && spool->lock_fd >= 0)
        disk->close(disk, take_fd(&spool->lock_fd));
}

static bool
parse_name(const ReceiveSpool *spool, const char *text, ReceiveFile *file)
{
    char plain[WAL_NAME_SIZE];
    WalFileName name;
    CairnError ignored = {0}; /* other names are none of ours */

    if (strlen(text) >= sizeof file->name)
        return false;
    snprintf(file->name, sizeof file->name, "%s", text);
    if (strlen(text) == TIMELINE_DIGITS + strlen(HISTORY_SUFFIX)) {
        if (!wal_file_name_parse(text, &name, &ignored) || name.kind != WAL_FILE_HISTORY)
            return false;
        file->kind = RECEIVE_HISTORY;
        file->timeline = name.timeline;
        return true;
    }
    snprintf(plain, sizeof plain, "%.24s", text);
    file->kind = strcmp(text + strlen(plain), PART_SUFFIX) == 0 ? RECEIVE_PART : RECEIVE_SEGMENT;
    return (file->kind == RECEIVE_PART || text[strlen(plain)] == '\0') &&
           wal_segment_parse(plain, spool->incarnation->wal_segment_size, &file->timeline,
                             &file->segment);
}

static int
compare_files(const void *left, const void *right)
{
    const ReceiveFile *a = left;
    const ReceiveFile *b = right;

    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    return strcmp(a->name, b->name);
}

static bool
read_entries(const ReceiveSpool *spool, ReceiveFile **files, size_t *count, CairnError *err)
{
    const Disk *disk = spool->world->disk;
    SCOPED(Directory) directory = directory_open(spool->world, spool->directory_fd, ".", 0);
    const char *name;
    size_t capacity = 0;

    if (directory == NULL)
        return cairn_error_errno(err, "unable to list '%s'", spool->path);
    while ((name = directory_next(directory)) != NULL) {
        ReceiveFile file = {0};
        struct stat status;
        if (!parse_name(spool, name, &file))
            continue; /* not ours */
        if (disk->fstatat(disk, spool->directory_fd, name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
            if (errno == ENOENT)
                continue; /* renamed meanwhile */
            return cairn_error_errno(err, "unable to examine '%s/%s'", spool->path, name);
        }
        if (!S_ISREG(status.st_mode))
            continue;
        file.size = (uint64_t)status.st_size;
        if (*count == capacity) {
            capacity = capacity == 0 ? 64 : 2 * capacity;
            ReceiveFile *more = capacity <= RECEIVE_FILE_LIMIT
                                    ? reallocarray(*files, capacity, sizeof *more)
                                    : NULL;
            if (more == NULL)
                return cairn_error(err, CAIRN_INTERNAL, "too many files in '%s'", spool->path);
            *files = more;
        }
        (*files)[(*count)++] = file;
    }
    /* What a listing cut short leaves out would be taken for archived, or never received. */
    return directory_complete(directory) ||
           cairn_error_errno(err, "unable to list '%s'", spool->path);
}

bool
receive_spool_list(const ReceiveSpool *spool, ReceiveFile **files_out, size_t *count_out,
                   CairnError *err)
{
    ReceiveFile *files = malloc(sizeof *files);
    size_t count = 0;

    if (files == NULL)
        return cairn_error_errno(err, "unable to list '%s'", spool->path);
    if (!read_entries(spool, &files, &count, err)) {
        free(files);
        return false;
    }
    qsort(files, count, sizeof *files, compare_files);
    *files_out = files;
    *count_out = count;
    return true;
}

int
receive_spool_open_file(const ReceiveSpool *spool, const char *name, CairnError *err)
{
    const Disk *disk = spool->world->disk;
    const int fd = disk->openat(disk, spool->directory_fd, name,
                                O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);

    if (fd < 0)
        cairn_error_errno(err, "unable to open '%s/%s'", spool->path, name);
    return fd;
}

bool
receive_spool_remove(const ReceiveSpool *spool, const char *name, CairnError *err)
{
    const Disk *disk = spool->world->disk;

    /* Not synced: what comes back after a crash is archived once more, and found to be there. */
    return disk->unlinkat(disk, spool->directory_fd, name, 0) == 0 || errno == ENOENT ||
           cairn_error_errno(err, "unable to remove '%s/%s'", spool->path, name);
}

bool
receive_spool_put_history(const ReceiveSpool *spool, uint32_t timeline, const char *text,
                          size_t size, CairnError *err)
{
    char name[WAL_FILE_NAME_LIMIT];

    snprintf(name, sizeof name, "%08" PRIX32 HISTORY_SUFFIX, timeline);
    return file_replace(spool->world, spool->directory_fd, name, text, size, S_IRUSR | S_IWUSR,
                        err);
}

void
receive_spool_part_name(const ReceiveSpool *spool, uint32_t timeline, uint64_t segment,
                        char name[WAL_FILE_NAME_LIMIT])
{
    char plain[WAL_NAME_SIZE];

    wal_segment_name(plain, timeline, segment, spool->incarnation->wal_segment_size);
    snprintf(name, WAL_FILE_NAME_LIMIT, "%s" PART_SUFFIX, plain);
}

/* Pages of the part, as far as it goes. */
static bool
part_page(void *context, uint64_t lsn, uint8_t page[8192], bool *present_out, CairnError *err)
{
    const ReceiveSpool *spool = context;
    const uint64_t start = spool->segment * spool->incarnation->wal_segment_size;

    *present_out = lsn >= start && lsn - start < spool->size;
    if (!*present_out)
        return true;
    const uint64_t left = spool->size - (lsn - start);
    const size_t size = left < WAL_PAGE_SIZE ? (size_t)left : WAL_PAGE_SIZE;
    memset(page + size, 0, WAL_PAGE_SIZE - size);
    return file_pread(spool->world, spool->part_fd, page, size, lsn - start, "the spool", err);
}

/* How much of the part is whole records; what comes behind is streamed again. */
static bool
find_whole(ReceiveSpool *spool, uint32_t *whole_out, CairnError *err)
{
    const Incarnation *incarnation = spool->incarnation;
    const uint64_t start = spool->segment * incarnation->wal_segment_size;
    WalRecord record;
    uint64_t end_lsn = start;

    *whole_out = 0;
    if (spool->size < WAL_LONG_HEADER_SIZE)
        return true;
    SCOPED(WalReader)
    reader = wal_reader_new(part_page, spool, incarnation->major, incarnation->wal_segment_size,
                            incarnation->system_id, start, true, err);
    if (reader == NULL)
        return false;
    for (bool found = true; found;) {
        if (!wal_reader_next(reader, &record, &found, err))
            return false;
        if (found)
            end_lsn = record.end_lsn;
    }
    *whole_out = end_lsn - start < spool->size ? (uint32_t)(end_lsn - start) : spool->size;
    return true;
}

static bool
resume(ReceiveSpool *spool, const char *name, CairnError *err)
{
    const Disk *disk = spool->world->disk;
    struct stat status;
    uint32_t whole;

    if (disk->fstat(disk, spool->part_fd, &status) != 0)
        return cairn_error_errno(err, "unable to examine '%s/%s'", spool->path, name);
    if (!S_ISREG(status.st_mode) || (uint64_t)status.st_size > spool->incarnation->wal_segment_size)
        return cairn_error(err, CAIRN_CORRUPT, "'%s/%s' is no part of a segment", spool->path,
                           name);
    spool->size = (uint32_t)status.st_size;
    if (!find_whole(spool, &whole, err))
        return cairn_error_wrap(err, "'%s/%s'", spool->path, name);
    if (whole < spool->size) {
        log_info("'%s' has whole records up to byte %" PRIu32 " of %" PRIu32
                 ": the rest is streamed again",
                 name, whole, spool->size);
        if (disk->ftruncate(disk, spool->part_fd, (off_t)whole) != 0)
            return cairn_error_errno(err, "unable to cut '%s/%s'", spool->path, name);
    }
    spool->size = whole;
    return true;
}

static bool
open_part(ReceiveSpool *spool, uint32_t timeline, uint64_t segment, char name[WAL_FILE_NAME_LIMIT],
          int flags, CairnError *err)
{
    const Disk *disk = spool->world->disk;

    CAIRN_ASSERT(spool->part_fd < 0);
    spool->timeline = timeline;
    spool->segment = segment;
    spool->size = spool->synced = 0;
    spool->part_fd = disk->openat(disk, spool->directory_fd, name,
                                  O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags,
                                  S_IRUSR | S_IWUSR);
    return spool->part_fd >= 0 ||
           cairn_error_errno(err, "unable to open '%s/%s'", spool->path, name);
}

/* The entry must be durable before anything in it is reported as flushed. */
static bool
sync_begun_part(ReceiveSpool *spool, CairnError *err)
{
    if (!file_sync(spool->world, spool->part_fd, spool->path, err) ||
        !file_sync_directory(spool->world, spool->directory_fd, ".", err)) {
        spool->failed = true;
        return false;
    }
    spool->synced = spool->size;
    return true;
}

bool
receive_spool_begin(ReceiveSpool *spool, uint32_t timeline, uint64_t segment, CairnError *err)
{
    char name[WAL_FILE_NAME_LIMIT];

    receive_spool_part_name(spool, timeline, segment, name);
    return open_part(spool, timeline, segment, name, 0, err) && resume(spool, name, err) &&
           sync_begun_part(spool, err);
}

/* A new file, not a cut one: whoever still reads the old one reads WAL. */
bool
receive_spool_begin_empty(ReceiveSpool *spool, uint32_t timeline, uint64_t segment, CairnError *err)
{
    char name[WAL_FILE_NAME_LIMIT];

    receive_spool_part_name(spool, timeline, segment, name);
    return receive_spool_remove(spool, name, err) &&
           open_part(spool, timeline, segment, name, O_EXCL, err) && sync_begun_part(spool, err);
}

bool
receive_spool_write(ReceiveSpool *spool, const void *data, size_t size, CairnError *err)
{
    CAIRN_ASSERT(spool->part_fd >= 0 && size <= spool->incarnation->wal_segment_size - spool->size);
    if (!file_pwrite(spool->world, spool->part_fd, data, size, spool->size, spool->path, err))
        return cairn_error_wrap(err, "spool");
    spool->size += (uint32_t)size;
    return true;
}

/* What the kernel keeps of it may never reach the disk, and a second sync would call it durable, in
   the next process too. So it goes, and is streamed again. */
static void
cut_unsynced(ReceiveSpool *spool)
{
    const Disk *disk = spool->world->disk;

    spool->failed = true;
    if (disk->ftruncate(disk, spool->part_fd, (off_t)spool->synced) != 0)
        log_debug("unable to cut a part in '%s': %s", spool->path, strerror(errno));
}

bool
receive_spool_sync(ReceiveSpool *spool, CairnError *err)
{
    if (spool->failed)
        return cairn_error(err, CAIRN_IO, "'%s' was not synced before", spool->path);
    if (spool->part_fd < 0 || spool->synced == spool->size)
        return true;
    if (!file_sync(spool->world, spool->part_fd, spool->path, err)) {
        cut_unsynced(spool);
        return cairn_error_wrap(err, "spool");
    }
    spool->synced = spool->size;
    return true;
}

/* The last look before a segment counts as received: a stream that went to another offset would be
   stored for ever. Pages behind a switch are zeros, header and all. */
static bool
check_pages(const ReceiveSpool *spool, const char *part, CairnError *err)
{
    static const uint8_t zeros[16];
    const uint64_t start = spool->segment * spool->incarnation->wal_segment_size;
    uint8_t header[sizeof zeros];

    for (uint32_t offset = 0; offset < spool->size; offset += WAL_PAGE_SIZE) {
        if (!file_pread(spool->world, spool->part_fd, header, sizeof header, offset, part, err))
            return false;
        if (memcmp(header, zeros, sizeof zeros) == 0 ||
            (wal_major_of_magic(get_u16(header)) == spool->incarnation->major &&
             get_u64(header + 8) == start + offset))
            continue;
        cairn_error(err, CAIRN_CORRUPT,
                    "'%s/%s': what the server sent has no WAL page of its address at byte %" PRIu32
                    " (magic %04X, address %" PRIX64 ")",
                    spool->path, part, offset, get_u16(header), get_u64(header + 8));
        return cairn_error_hint(err, "nothing of it is stored as a segment; a new start cuts it "
                                     "behind its last whole record and streams the rest again");
    }
    return true;
}

static bool
sync_and_close(ReceiveSpool *spool, CairnError *err)
{
    const Disk *disk = spool->world->disk;

    if (!receive_spool_sync(spool, err))
        return false;
    return disk->close(disk, take_fd(&spool->part_fd)) == 0 ||
           cairn_error_errno(err, "unable to close a part in '%s'", spool->path);
}

bool
receive_spool_finish(ReceiveSpool *spool, CairnError *err)
{
    const Disk *disk = spool->world->disk;
    char part[WAL_FILE_NAME_LIMIT];
    char name[WAL_NAME_SIZE];

    CAIRN_ASSERT(spool->size == spool->incarnation->wal_segment_size);
    receive_spool_part_name(spool, spool->timeline, spool->segment, part);
    wal_segment_name(name, spool->timeline, spool->segment, spool->incarnation->wal_segment_size);
    if (!check_pages(spool, part, err) || !sync_and_close(spool, err))
        return false;
    if (disk->renameat(disk, spool->directory_fd, part, spool->directory_fd, name) != 0)
        return cairn_error_errno(err, "unable to rename '%s/%s'", spool->path, part);
    if (!file_sync_directory(spool->world, spool->directory_fd, ".", err))
        return false;
    spool->synced = spool->size;
    return true;
}

bool
receive_spool_leave(ReceiveSpool *spool, CairnError *err)
{
    return spool->part_fd < 0 || sync_and_close(spool, err);
}
