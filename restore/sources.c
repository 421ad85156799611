#include "restore/sources.h"

#include "common/log.h"
#include "repository/pack.h"
#include "repository/refs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Packs of one backup in one folder: [first, end). */
typedef struct {
    uint32_t first;
    uint64_t end;
    uint64_t found;
} Wanted;

static StorageListNext
count_wanted(void *context, const StorageEntry *entry, CairnError *err)
{
    Wanted *wanted = context;
    char *end;
    (void)err;
    if (!entry->is_directory && strlen(entry->name) == 8) {
        const unsigned long number = strtoul(entry->name, &end, 16);
        wanted->found += *end == '\0' && number >= wanted->first && number < wanted->end;
    }
    return STORAGE_LIST_GO_ON;
}

static void
name_of(char *name, const Fate *backup, const RefsRange *range, uint32_t pack)
{
    if (range->is_map)
        map_pack_name(name, backup->cluster, &range->creator, pack);
    else
        pack_name(name, backup->cluster, &range->creator, pack);
}

/* Says which one it is that the folder lacks. */
static bool
tell_missing(Repository *repository, const Fate *backup, const RefsRange *range,
             const Wanted *wanted, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    uint64_t size;

    for (uint64_t pack = wanted->first; pack < wanted->end; pack++) {
        name_of(name, backup, range, (uint32_t)pack);
        if (storage_exists(repository_storage(repository), name, &size, err))
            continue;
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        cairn_error(err, CAIRN_CORRUPT, "backup %s needs '%s', which is missing", backup->label,
                    name);
        return cairn_error_hint(err, "nothing was changed; `pgcairn verify` tells which backups "
                                     "are whole, --set=LABEL restores another one");
    }
    return true; /* all are there: a listing may lag behind */
}

static bool
check_range(Repository *repository, const Fate *backup, const RefsRange *range, CairnError *err)
{
    enum { FOLDER_PACKS = 1024 }; /* data packs; map packs lie in one folder */
    const uint64_t end = (uint64_t)range->first_pack + range->pack_count;
    char folder[STORAGE_NAME_LIMIT];

    for (uint64_t first = range->first_pack; first < end;) {
        const uint64_t folder_end =
            range->is_map ? end : first / FOLDER_PACKS * FOLDER_PACKS + FOLDER_PACKS;
        Wanted wanted = {
            .first = (uint32_t)first,
            .end = folder_end < end ? folder_end : end,
        };
        name_of(folder, backup, range, wanted.first);
        *strrchr(folder, '/') = '\0';
        if (!storage_list(repository_storage(repository), folder, count_wanted, &wanted, err))
            return false;
        if (wanted.found < wanted.end - wanted.first &&
            !tell_missing(repository, backup, range, &wanted, err))
            return false;
        first = wanted.end;
    }
    return true;
}

bool
sources_check(Repository *repository, const Fate *backup, CairnError *err)
{
    SCOPED(Refs) refs = refs_read(repository, backup, err);
    if (refs == NULL) {
        if (err->kind != CAIRN_CORRUPT && err->kind != CAIRN_NOT_FOUND)
            return false;
        log_warn("whether all packs are there is not known beforehand: %s", err->message);
        cairn_error_clear(err);
        return true;
    }
    for (size_t i = 0; i < refs->count; i++) {
        if (!check_range(repository, backup, &refs->ranges[i], err))
            return false;
    }
    return true;
}
