#include "restore/file_job.h"

#include "common/digest.h"
#include "common/file.h"

#include <stdio.h>
#include <stdlib.h>

/* Smaller parts are left to the kernel: starting writeback for each costs more than it gains. */
enum { WRITEBACK_UNITS = 128 };

FileJob *
file_job_new(const BackupId *const *creators, size_t parts, size_t runs)
{
    FileJob *job = calloc(1, sizeof *job + parts * sizeof *job->parts + runs * sizeof *job->runs);
    CAIRN_ASSERT(job != NULL);
    job->creators = creators;
    job->parts = (FilePart *)(job + 1);
    job->runs = (SlotRun *)(job->parts + parts);
    return job;
}

size_t
file_job_memory_bytes(const FileJob *job)
{
    return sizeof *job + job->part_count * sizeof *job->parts + job->run_count * sizeof *job->runs;
}

/* Units of the cells that the file has: fewer in the last one. */
static uint32_t
units_of_cells(const FileTarget *file, uint32_t first_cell, uint32_t cells)
{
    const uint64_t left = units_of_size(file->size_bytes) - (uint64_t)first_cell * CELL_UNITS;
    const uint32_t units = cells * CELL_UNITS;
    return left < units ? (uint32_t)left : units;
}

void
file_job_add(FileJob *job, FileTarget *file, uint32_t first_cell, uint32_t cells,
             const SlotRun *runs, size_t run_count)
{
    FilePart *part = &job->parts[job->part_count];
    const FilePart *last = part - 1;
    *part = (FilePart){
        .file = file,
        .first_cell = first_cell,
        .cells = cells,
        .first_unit = job->part_count == 0 ? 0 : last->first_unit + last->units,
        .units = units_of_cells(file, first_cell, cells),
    };
    CAIRN_ASSERT(part->first_unit + part->units <= JOB_UNITS);
    for (size_t i = 0; i < run_count; i++) {
        SlotRun *run = &job->runs[job->run_count++];
        *run = runs[i];
        CAIRN_ASSERT(run->unit + (uint32_t)run->units <= part->units);
        run->unit = (uint16_t)(run->unit + part->first_unit);
        part->data_units += run->units;
    }
    job->part_count++;
}

void
file_job_free(FileJob *job)
{
    if (job == NULL)
        return;
    for (uint32_t i = 0; i < job->part_count; i++) {
        if (job->parts[i].file != NULL)
            file_target_abandon(job->parts[i].file, job->parts[i].cells);
    }
    free(job);
}

/* One job under way. */
typedef struct {
    FileJob *job;
    UnitCrcs *crcs;
    Progress *progress;
    FilePart *part; /* that the last units went to */
} Writing;

static FilePart *
part_of(Writing *writing, uint32_t unit)
{
    FilePart *part = writing->part;
    if (unit < part->first_unit || unit - part->first_unit >= part->units) {
        part = writing->job->parts;
        while (unit - part->first_unit >= part->units)
            part++;
    }
    writing->part = part;
    return part;
}

/* Where a unit of the job lies in its file, in units. */
static uint64_t
file_unit(const FilePart *part, uint32_t unit)
{
    return (uint64_t)part->first_cell * CELL_UNITS + (unit - part->first_unit);
}

/* Units that no run fills are zeros. */
static void
prepare_crcs(const FileJob *job, UnitCrcs *crcs)
{
    static const uint8_t ZEROS[UNIT_SIZE];
    const uint32_t zero_crc = crc32c(0, ZEROS, UNIT_SIZE);

    for (uint32_t i = 0; i < job->part_count; i++) {
        const FilePart *part = &job->parts[i];
        if (part->units == 0)
            continue;
        for (uint32_t unit = 0; unit < part->units; unit++)
            crcs->of_unit[part->first_unit + unit] = zero_crc;
        const uint32_t last = part->first_unit + part->units - 1;
        const uint64_t bytes = file_target_bytes(part->file, file_unit(part, last), 1);
        crcs->of_unit[last] = crc32c(0, ZEROS, (size_t)bytes);
    }
}

/* Joins the units' CRCs cell by cell. */
static void
join_crcs(const FilePart *part, const UnitCrcs *crcs)
{
    const uint32_t *of_unit = crcs->of_unit + part->first_unit;

    for (uint32_t cell = 0; cell < part->cells; cell++) {
        const uint32_t done = cell * CELL_UNITS;
        const uint32_t left = part->units - done;
        const uint32_t units = left < CELL_UNITS ? left : CELL_UNITS;
        uint32_t crc = 0;
        if (units > 0) {
            const uint32_t last = done + units - 1;
            const uint64_t unit = file_unit(part, part->first_unit + last);
            crc = crc32c_combine_pages(0, of_unit + done, units - 1);
            crc = crc32c_combine(crc, of_unit[last], file_target_bytes(part->file, unit, 1));
        }
        part->file->cell_crcs[part->first_cell + cell] = crc;
    }
}

/* All its units are there. */
static bool
end_part(Writing *writing, FilePart *part, CairnError *err)
{
    FileTarget *file = part->file;
    const uint64_t first_unit = (uint64_t)part->first_cell * CELL_UNITS;
    const uint64_t bytes = file_target_bytes(file, first_unit, part->units);

    if (file->fd < 0 && !file_target_create(file, err)) /* nothing but zeros */
        return false;
    if (file->has_crc32c)
        join_crcs(part, writing->crcs);
    if (part->units >= WRITEBACK_UNITS) {
        /* Only a hint: an error of the disk is told by the sync at the end. */
        file->world->disk->start_writeback(file->world->disk, file->fd,
                                           (off_t)(first_unit * UNIT_SIZE), (off_t)bytes);
    }
    progress_add(writing->progress, bytes);

    part->file = NULL;
    return file_target_done(file, part->cells, err);
}

static bool
write_units(void *context, const SlotRun *run, uint32_t done, const uint8_t *data, uint32_t units,
            CairnError *err)
{
    Writing *writing = context;
    const uint32_t first = run->unit + done;
    FilePart *part = part_of(writing, first);
    FileTarget *file = part->file;
    const uint64_t unit = file_unit(part, first);
    const size_t bytes = (size_t)file_target_bytes(file, unit, units);

    if (file->fd < 0 && !file_target_create(file, err))
        return false;
    for (uint32_t i = 0; file->has_crc32c && i < units; i++) {
        const size_t left = bytes - (size_t)i * UNIT_SIZE;
        writing->crcs->of_unit[first + i] =
            crc32c(0, data + (size_t)i * UNIT_SIZE, left < UNIT_SIZE ? left : UNIT_SIZE);
    }
    if (!file_pwrite(file->world, file->fd, data, bytes, unit * UNIT_SIZE, file->path, err))
        return false;
    part->data_units -= units;
    /* At once, since it is open. */
    return part->data_units > 0 || end_part(writing, part, err);
}

/* Which units of the job the slots that could not be read were for. */
static bool
name_blocks(const Writing *writing, const SlotRun *runs, size_t count, const SlotRange *unreadable,
            CairnError *err)
{
    enum { RANGES_SHOWN = 8 };
    char blocks[RANGES_SHOWN * 48] = "";
    size_t length = 0;
    unsigned ranges = 0;
    const FilePart *part = NULL;
    bool others = false;

    for (size_t i = 0; i < count; i++) {
        const uint32_t run_end = runs[i].slot + runs[i].units;
        const uint32_t from =
            runs[i].slot > unreadable->first_slot ? runs[i].slot : unreadable->first_slot;
        const uint32_t to = run_end < unreadable->end_slot ? run_end : unreadable->end_slot;
        if (from >= to)
            continue;
        const uint32_t unit = runs[i].unit + (from - runs[i].slot);
        const FilePart *its = writing->job->parts;
        while (unit - its->first_unit >= its->units)
            its++;
        if (its->file == NULL)
            continue;
        if (part == NULL)
            part = its;
        others = others || its != part;
        if (its != part || ++ranges > RANGES_SHOWN)
            continue;
        const unsigned long long block = file_unit(part, unit);
        length += (size_t)snprintf(blocks + length, sizeof blocks - length,
                                   to - from > 1 ? "%s%llu-%llu" : "%s%llu", ranges > 1 ? ", " : "",
                                   block, block + (to - from) - 1);
    }
    if (part == NULL)
        return false;
    return cairn_error_wrap(err, "file '%s', blocks %s%s%s", part->file->path, blocks,
                            ranges > RANGES_SHOWN ? " and more" : "",
                            others ? " (and other files)" : "");
}

/* The runs of one pack. */
static bool
write_group(Writing *writing, FrameReader *frames, const SlotRun *runs, size_t count,
            CairnError *err)
{
    SlotRange unreadable;
    return frame_reader_each(frames, writing->job->creators[runs->creator], runs, count,
                             write_units, writing, &unreadable, err) ||
           name_blocks(writing, runs, count, &unreadable, err);
}

int
slot_run_compare(const SlotRun *a, const SlotRun *b)
{
    if (a->creator != b->creator)
        return a->creator < b->creator ? -1 : 1;
    if (a->pack != b->pack)
        return a->pack < b->pack ? -1 : 1;
    return (a->slot > b->slot) - (a->slot < b->slot);
}

static int
compare_runs(const void *left, const void *right)
{
    return slot_run_compare(left, right);
}

static void
sort_runs(FileJob *job)
{
    for (uint32_t i = 1; i < job->run_count; i++) {
        if (slot_run_compare(&job->runs[i - 1], &job->runs[i]) > 0) {
            qsort(job->runs, job->run_count, sizeof *job->runs, compare_runs);
            return;
        }
    }
}

bool
file_job_write(FileJob *job, FrameReader *frames, UnitCrcs *crcs, Progress *progress,
               CairnError *err)
{
    Writing writing = {.job = job, .crcs = crcs, .progress = progress, .part = job->parts};

    prepare_crcs(job, crcs);
    sort_runs(job);
    for (uint32_t first = 0, end; first < job->run_count; first = end) {
        const SlotRun *runs = &job->runs[first];
        for (end = first + 1; end < job->run_count; end++) {
            if (job->runs[end].creator != runs->creator || job->runs[end].pack != runs->pack)
                break;
        }
        if (!write_group(&writing, frames, runs, end - first, err))
            return false;
    }
    /* What has no data. */
    for (uint32_t i = 0; i < job->part_count; i++) {
        if (job->parts[i].file != NULL && !end_part(&writing, &job->parts[i], err))
            return false;
    }
    return true;
}
