#include "restore/file_target.h"

#include "common/digest.h"
#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

bool
file_target_create(FileTarget *file, CairnError *err)
{
    const Disk *disk = file->world->disk;
    file->fd =
        disk->openat(disk, directory_handle_fd(file->parent), file->name,
                     O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (file->fd < 0)
        return cairn_error_errno(err, "unable to create '%s'", file->path);
    if (file->mode != (S_IRUSR | S_IWUSR) &&
        disk->fchmod(disk, file->fd, (mode_t)file->mode) != 0) {
        return cairn_error_errno(err, "unable to set the mode of '%s'", file->path);
    }
    return true;
}

static void
file_target_free(FileTarget *file)
{
    if (file->fd >= 0)
        file->world->disk->close(file->world->disk, file->fd);
    directory_handle_release(file->parent);
    if (file->cell_crcs != &file->single_crc)
        free(file->cell_crcs);
    free(file);
}

FileTarget *
file_target_new(const World *world, DirectoryHandle *parent, const MapEntry *entry, CairnError *err)
{
    const size_t path_size = strlen(entry->path) + 1;
    FileTarget *file = NULL;

    if (entry->size_bytes > FILE_SIZE_LIMIT)
        cairn_error(err, CAIRN_UNSUPPORTED, "file '%s' is larger than 1 TiB", entry->path);
    else if ((file = calloc(1, sizeof *file + path_size)) == NULL)
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (file == NULL) {
        directory_handle_release(parent);
        return NULL;
    }

    file->world = world;
    file->parent = parent;
    file->fd = -1;
    file->mode = entry->mode;
    file->size_bytes = entry->size_bytes;
    file->has_crc32c = entry->has_crc32c;
    file->crc32c = entry->crc32c;
    memcpy(file->path, entry->path, path_size);
    char *slash = strrchr(file->path, '/');
    file->name = slash == NULL ? file->path : slash + 1;

    const uint64_t units = units_of_size(entry->size_bytes);
    file->cell_count = units == 0 ? 1 : (uint32_t)((units + CELL_UNITS - 1) / CELL_UNITS);
    atomic_init(&file->cells_left, file->cell_count);
    file->cell_crcs = &file->single_crc;
    if (file->cell_count > 1) {
        file->cell_crcs = calloc(file->cell_count, sizeof *file->cell_crcs);
        if (file->cell_crcs == NULL)
            cairn_error(err, CAIRN_INTERNAL, "out of memory");
        if (file->cell_crcs == NULL || !file_target_create(file, err)) {
            file_target_free(file);
            return NULL;
        }
    }
    return file;
}

void
file_target_abandon(FileTarget *file, uint32_t cells)
{
    if (cells > 0 && atomic_fetch_sub(&file->cells_left, cells) == cells)
        file_target_free(file);
}

uint64_t
file_target_bytes(const FileTarget *file, uint64_t unit, uint64_t units)
{
    const uint64_t start = unit * UNIT_SIZE;
    const uint64_t end = start + units * UNIT_SIZE;
    return (end < file->size_bytes ? end : file->size_bytes) - start;
}

/* After the last cell. The file is freed by the caller. */
static bool
end_file(FileTarget *file, CairnError *err)
{
    const Disk *disk = file->world->disk;
    uint32_t crc = file->cell_crcs[0];
    for (uint32_t i = 1; i < file->cell_count; i++) {
        const uint64_t bytes = file_target_bytes(file, (uint64_t)i * CELL_UNITS, CELL_UNITS);
        crc = crc32c_combine(crc, file->cell_crcs[i], bytes);
    }
    if (file->has_crc32c && crc != file->crc32c) {
        return cairn_error(err, CAIRN_CORRUPT,
                           "file '%s': what is stored has checksum %08x, the backup says %08x",
                           file->path, crc, file->crc32c);
    }
    /* The file may end in zeros, which nobody wrote. */
    if (file->size_bytes > 0 && disk->ftruncate(disk, file->fd, (off_t)file->size_bytes) != 0)
        return cairn_error_errno(err, "unable to set the size of '%s'", file->path);
    const int fd = take_fd(&file->fd);
    if (disk->close(disk, fd) != 0)
        return cairn_error_errno(err, "unable to close '%s'", file->path);
    return true;
}

bool
file_target_done(FileTarget *file, uint32_t cells, CairnError *err)
{
    if (atomic_fetch_sub(&file->cells_left, cells) > cells)
        return true;
    const bool ended = end_file(file, err);
    file_target_free(file);
    return ended;
}
