/*
 * Maps: every node of a backup's map is checked, and that all it leads to is really there. Each is
 * walked by one thread, several at a time; what they share is read by the first that comes to it.
 */
#include "repository/verify_intern.h"

#include "common/cancel.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const Verify *verify;
    Refs *refs;            /* sorted by search_order */
    const RefsRange *last; /* that held the pack asked for last */
} MapCheck;

static int
search_order(const void *a, const void *b)
{
    const RefsRange *left = a, *right = b;
    const int order = strcmp(left->creator.text, right->creator.text);
    if (order != 0 || left->is_map != right->is_map)
        return order != 0 ? order : (int)left->is_map - (int)right->is_map;
    return (left->first_pack > right->first_pack) - (left->first_pack < right->first_pack);
}

static bool
range_holds(const RefsRange *range, const BackupId *creator, bool is_map, uint32_t pack)
{
    return range->is_map == is_map && pack >= range->first_pack &&
           pack - range->first_pack < range->pack_count &&
           backup_id_equal(&range->creator, creator);
}

/* What a map leads to must stand in the reference summary, or it would be collected. */
static bool
check_reference(MapCheck *check, const BackupId *creator, bool is_map, uint32_t pack,
                CairnError *err)
{
    if (check->last != NULL && range_holds(check->last, creator, is_map, pack))
        return true;
    const RefsRange wanted = {.creator = *creator, .is_map = is_map, .first_pack = pack};
    size_t low = 0, high = check->refs->count; /* the last range that does not begin later */
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (search_order(&check->refs->ranges[middle], &wanted) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0 || !range_holds(&check->refs->ranges[low - 1], creator, is_map, pack)) {
        return cairn_error(err, CAIRN_CORRUPT,
                           "the map needs %spack %u of backup %s, which the reference summary "
                           "does not name",
                           is_map ? "map " : "", pack, creator->text);
    }
    check->last = &check->refs->ranges[low - 1];
    return true;
}

static bool
check_node(void *context, const MapNodeRef *ref, CairnError *err)
{
    return check_reference(context, &ref->creator, true, ref->pack, err);
}

/* *slots_out 0: not known, since the pack cannot be opened; the packs' own turn has said so. */
static bool
find_slots(const Verify *verify, const BackupId *creator, uint32_t pack_number, uint32_t *slots_out,
           CairnError *err)
{
    if (pack_slots_find(verify->slots, creator, pack_number, slots_out))
        return true;
    *slots_out = 0;
    if (damaged_packs_contain(&verify->packs, creator, pack_number))
        return true;
    SCOPED(PackReader)
    pack = pack_open(verify->repository, verify->options->cluster, creator, pack_number, err);
    if (pack == NULL) {
        if (err->kind == CAIRN_CANCELLED || err->kind == CAIRN_INTERNAL)
            return false;
        cairn_error_clear(err);
        return true;
    }
    *slots_out = pack_slot_count(pack);
    pack_slots_put(verify->slots, creator, pack_number, *slots_out);
    return true;
}

static bool
check_run(MapCheck *check, MapReader *map, const MapRun *run, CairnError *err)
{
    uint32_t slots;
    if (run->is_zero)
        return true;
    const BackupId *creator = map_reader_creator(map, run->creator);
    if (!check_reference(check, creator, false, run->pack, err) ||
        !find_slots(check->verify, creator, run->pack, &slots, err))
        return false;
    if (slots > 0 && run->slot + run->units > slots) {
        return cairn_error(err, CAIRN_CORRUPT,
                           "the map asks for slot %" PRIu64
                           " of pack %u of backup %s, which has %u",
                           run->slot + run->units - 1, run->pack, creator->text, slots);
    }
    return true;
}

static bool
check_regions(MapCheck *check, MapReader *map, const char *path, CairnError *err)
{
    const MapRun *runs;
    size_t count;
    uint64_t first_unit;
    do {
        if (!map_reader_region(map, &runs, &count, &first_unit, err))
            return cairn_error_wrap(err, "file '%s'", path);
        for (size_t i = 0; i < count; i++) {
            if (!check_run(check, map, &runs[i], err))
                return cairn_error_wrap(err, "file '%s'", path);
        }
    } while (count > 0);
    return true;
}

/* Walks the whole map: every node is read and checked, every run must lie in a pack that has it. */
static bool
walk_map(MapCheck *check, const Fate *fate, CairnError *err)
{
    const MapWalkOptions options = {.cache = check->verify->nodes,
                                    .packs = check->verify->map_packs,
                                    .watch = check_node,
                                    .context = check};
    SCOPED(MapReader)
    map = map_reader_open_walk(check->verify->repository, check->verify->options->cluster,
                               &fate->map_root, &options, err);
    if (map == NULL)
        return false;
    uint64_t files = 0;
    for (;;) {
        MapEntry entry;
        bool found;
        if (!cancel_check(err) || !map_reader_next(map, &entry, &found, err))
            return false;
        if (!found)
            break;
        files += entry.class == MAP_CLASS_CLUSTER && entry.type == MAP_FILE;
        if (!check_regions(check, map, entry.path, err))
            return false;
    }
    if (files != fate->file_count)
        return cairn_error(err, CAIRN_CORRUPT,
                           "the map holds %" PRIu64 " files, the backup has %" PRIu64, files,
                           fate->file_count);
    return true;
}

static bool
read_map(VerifyWorker *worker, VerifyJob *job, CairnError *err)
{
    const Verify *verify = worker->verify;
    const CatalogBackup *backup = &verify->catalog->backups[job->backup];
    SCOPED(Refs) refs = refs_read(verify->repository, backup->fate, err);
    if (refs == NULL) {
        job->no_refs = true;
        snprintf(job->object, sizeof job->object, "c/%s/b/%s/refs", verify->options->cluster,
                 backup->bid.text);
        return false;
    }
    if (refs->count > 1)
        qsort(refs->ranges, refs->count, sizeof *refs->ranges, search_order);
    MapCheck check = {.verify = verify, .refs = refs};
    return walk_map(&check, backup->fate, err);
}

bool
verify_note_map(Verify *verify, const VerifyJob *job, const VerifySubject *subject, CairnError *err)
{
    BackupCheck *check = &verify->checks[job->backup];
    if (!job->no_refs && err->kind == CAIRN_NOT_FOUND && check->damaged) {
        cairn_error_clear(err);
        return true;
    }
    check->no_refs |= job->no_refs;
    return verify_note_now(verify, subject, err);
}

bool
verify_maps(Verify *verify, CairnError *err)
{
    for (uint32_t i = 0; i < verify->catalog->count; i++) {
        VerifyJob job = {
            .read = read_map, .uncounted = true, .is_map = true, .backup = i, .needed_by = {&i, 1}};
        bool reads;
        snprintf(job.object, sizeof job.object, "c/%s/b/%s", verify->options->cluster,
                 verify->catalog->backups[i].bid.text);
        if (!verify_reads(verify, job.object, &reads, err) ||
            (reads && verify_has_refs(verify, i) && !verify_add(verify, &job, err)))
            return false;
    }
    return verify_settle(verify, err);
}
