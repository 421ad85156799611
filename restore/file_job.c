#include "restore/file_job.h"

#include "common/digest.h"
#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/* Smaller regions are left to the kernel: starting writeback for each costs more than it gains. */
enum { WRITEBACK_UNITS = 128 };

static bool
create_file(FileTarget *file, CairnError *err)
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
    if (file->region_crcs != &file->single_crc)
        free(file->region_crcs);
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
    file->region_count = units == 0 ? 1 : (uint32_t)((units + JOB_UNITS - 1) / JOB_UNITS);
    atomic_init(&file->regions_left, file->region_count);
    file->region_crcs = &file->single_crc;
    if (file->region_count > 1) {
        file->region_crcs = calloc(file->region_count, sizeof *file->region_crcs);
        if (file->region_crcs == NULL)
            cairn_error(err, CAIRN_INTERNAL, "out of memory");
        if (file->region_crcs == NULL || !create_file(file, err)) {
            file_target_free(file);
            return NULL;
        }
    }
    return file;
}

void
file_target_abandon(FileTarget *file)
{
    if (atomic_fetch_sub(&file->regions_left, 1) == 1)
        file_target_free(file);
}

FileJob *
file_job_new(FileTarget *file, uint32_t region, size_t run_count)
{
    FileJob *job = malloc(sizeof *job + run_count * sizeof job->runs[0]);
    CAIRN_ASSERT(job != NULL); /* bounded by the batch and the queue */
    job->file = file;
    job->region = region;
    job->run_count = (uint32_t)run_count;
    return job;
}

void
file_job_free(FileJob *job)
{
    if (job == NULL)
        return;
    if (job->file != NULL)
        file_target_abandon(job->file);
    free(job);
}

/* Bytes of a region, or of the units from `unit` on in it. */
static uint64_t
bytes_from(const FileTarget *file, uint64_t unit, uint64_t units)
{
    const uint64_t start = unit * UNIT_SIZE;
    const uint64_t end = start + units * UNIT_SIZE;
    return (end < file->size_bytes ? end : file->size_bytes) - start;
}

/* CRC of `bytes` zeros, in steps of doubled length. */
static uint32_t
crc_of_zeros(uint64_t bytes)
{
    static const uint8_t ZEROS[UNIT_SIZE];
    uint32_t crc = crc32c(0, ZEROS, (size_t)(bytes % UNIT_SIZE));
    uint32_t step_crc = crc32c(0, ZEROS, UNIT_SIZE);
    uint64_t step = UNIT_SIZE;

    for (uint64_t units = bytes / UNIT_SIZE; units > 0; units >>= 1) {
        if (units & 1)
            crc = crc32c_combine(crc, step_crc, step);
        step_crc = crc32c_combine(step_crc, step_crc, step);
        step *= 2;
    }
    return crc;
}

static bool
write_run(FileTarget *file, const JobRun *run, uint64_t first_unit, FrameReader *frames,
          uint32_t *crc, CairnError *err)
{
    for (uint32_t done = 0; done < run->units;) {
        const uint8_t *data;
        uint32_t units;
        if (!frame_reader_units(frames, run->creator, run->pack, run->slot + done,
                                run->units - done, &data, &units, err)) {
            return false;
        }
        const uint64_t unit = first_unit + done;
        const size_t bytes = (size_t)bytes_from(file, unit, units);
        *crc = crc32c(*crc, data, bytes);
        if (!file_pwrite(file->world, file->fd, data, bytes, unit * UNIT_SIZE, file->path, err))
            return false;
        done += units;
    }
    return true;
}

static bool
write_region(FileJob *job, FrameReader *frames, CairnError *err)
{
    FileTarget *file = job->file;
    const uint64_t first_unit = (uint64_t)job->region * JOB_UNITS;
    uint64_t unit = first_unit;
    uint32_t crc = 0;

    if (file->fd < 0 && !create_file(file, err))
        return false;
    for (uint32_t i = 0; i < job->run_count; i++) {
        const JobRun *run = &job->runs[i];
        if (run->creator == NULL) {
            const uint64_t bytes = bytes_from(file, unit, run->units);
            crc = crc32c_combine(crc, crc_of_zeros(bytes), bytes);
        } else if (!write_run(file, run, unit, frames, &crc, err)) {
            return cairn_error_wrap(err, "file '%s'", file->path);
        }
        unit += run->units;
    }
    file->region_crcs[job->region] = crc;
    if (unit - first_unit >= WRITEBACK_UNITS) {
        /* Only a hint: an error of the disk is told by the sync at the end. */
        file->world->disk->start_writeback(file->world->disk, file->fd,
                                           (off_t)(first_unit * UNIT_SIZE),
                                           (off_t)((unit - first_unit) * UNIT_SIZE));
    }
    return true;
}

/* After the last region. The file is freed by the caller. */
static bool
end_file(FileTarget *file, CairnError *err)
{
    const Disk *disk = file->world->disk;
    uint32_t crc = file->region_crcs[0];
    for (uint32_t i = 1; i < file->region_count; i++) {
        const uint64_t bytes = bytes_from(file, (uint64_t)i * JOB_UNITS, JOB_UNITS);
        crc = crc32c_combine(crc, file->region_crcs[i], bytes);
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
file_job_write(FileJob *job, FrameReader *frames, Progress *progress, CairnError *err)
{
    FileTarget *file = job->file;
    const uint64_t first_unit = (uint64_t)job->region * JOB_UNITS;

    if (!write_region(job, frames, err))
        return false;
    progress_add(progress, bytes_from(file, first_unit, JOB_UNITS));

    job->file = NULL;
    if (atomic_fetch_sub(&file->regions_left, 1) > 1)
        return true;
    const bool ended = end_file(file, err);
    file_target_free(file);
    return ended;
}
