#include "repository/backup_base.h"

#include <string.h>

struct BackupBase {
    CreatorTable *creators; /* 0: the backup in the making; the parent's; salvaged attempts */
    uint32_t first_salvage;
    Refs *refs;
    DamagedPacks damage;
    ParentTable *parent;
    SalvageTable *salvage;
    Fingerprints *prints;
    UnitSource *units;
    RefsBuilder *refs_builder;
};

void
backup_base_free(BackupBase *base)
{
    if (base == NULL)
        return;
    unit_source_free(base->units);
    fingerprints_free(base->prints);
    parent_table_free(base->parent);
    salvage_table_free(base->salvage);
    refs_builder_free(base->refs_builder);
    damaged_packs_free(&base->damage);
    refs_free(base->refs);
    creator_table_free(base->creators);
    free(base);
}

static bool
add_damage(BackupBase *base, const BackupBaseOptions *options, const BackupId *bid, CairnError *err)
{
    SCOPED_DAMAGED_PACKS DamagedPacks found = {0};
    if (!damage_read(options->repository, options->cluster, bid, &found, err))
        return false;
    base->damage.all |= found.all;
    for (size_t i = 0; i < found.count && !base->damage.all; i++) {
        if (!damaged_packs_add(&base->damage, &found.packs[i].creator, found.packs[i].pack, err))
            return false;
    }
    return true;
}

/* Verify leaves evidence with every backup that needs a pack: the parent's is what counts. That of
 * the backups it draws on may be from before the parent was there. */
static bool
read_damage(BackupBase *base, const BackupBaseOptions *options, CairnError *err)
{
    if (!add_damage(base, options, &options->parent->bid, err))
        return false;
    for (size_t i = 0; i < base->refs->creator_count; i++) {
        if (!add_damage(base, options, &base->refs->creators[i].creator, err))
            return false;
    }
    damaged_packs_settle(&base->damage);
    return true;
}

/* Summary, evidence, map: what must be readable for a parent to be one. */
static bool
open_parent(BackupBase *base, const BackupBaseOptions *options, CairnError *err)
{
    base->refs = refs_read(options->repository, options->parent, err);
    if (base->refs == NULL)
        return false;
    if (!read_damage(base, options, err))
        return false;
    for (size_t i = 0; i < base->refs->creator_count; i++) {
        uint32_t number;
        if (!creator_table_add(base->creators, &base->refs->creators[i].creator, &number, err))
            return false;
    }
    base->parent =
        parent_table_new(&(ParentTableOptions){.repository = options->repository,
                                               .cluster = options->cluster,
                                               .map_root = &options->parent->map_root,
                                               .refs = base->refs,
                                               .creators = base->creators,
                                               .scratch_directory = options->scratch_directory,
                                               .hash_mask = UINT64_MAX},
                         err);
    return base->parent != NULL;
}

/* The creators stay: numbers that nobody uses harm nobody. */
static void
close_parent(BackupBase *base)
{
    parent_table_free(base->parent);
    damaged_packs_free(&base->damage);
    refs_free(base->refs);
    base->parent = NULL;
    base->refs = NULL;
}

static bool
open_salvage(BackupBase *base, const BackupBaseOptions *options, CairnError *err)
{
    base->first_salvage = creator_table_count(base->creators);
    for (size_t i = 0; i < options->salvage_count; i++) {
        uint32_t number;
        if (!creator_table_add(base->creators, &options->salvage[i], &number, err))
            return false;
    }
    if (creator_table_count(base->creators) == base->first_salvage)
        return true;
    base->salvage =
        salvage_table_new(&(SalvageTableOptions){.repository = options->repository,
                                                 .cluster = options->cluster,
                                                 .creators = base->creators,
                                                 .first_salvage = base->first_salvage,
                                                 .scratch_directory = options->scratch_directory},
                          err);
    return base->salvage != NULL;
}

static bool
open_units(BackupBase *base, const BackupBaseOptions *options, CairnError *err)
{
    if (base->parent == NULL && base->salvage == NULL)
        return true;
    base->prints =
        fingerprints_new(&(FingerprintsOptions){.repository = options->repository,
                                                .cluster = options->cluster,
                                                .creators = base->creators,
                                                .refs = base->refs,
                                                .damage = &base->damage,
                                                .first_salvage = base->first_salvage,
                                                .memory_bytes = options->fingerprints_bytes},
                         err);
    if (base->prints == NULL)
        return false;
    uint64_t parent_units =
        base->parent != NULL ? parent_table_size_bytes(base->parent) / UNIT_SIZE : 0;
    base->units = unit_source_new(
        &(UnitSourceOptions){.parent = base->parent,
                             .salvage = base->salvage,
                             .prints = base->prints,
                             .creators = base->creators,
                             .refs = base->refs,
                             .refresh_units = parent_units / 100 * options->refresh_percent},
        err);
    return base->units != NULL;
}

BackupBase *
backup_base_open(const BackupBaseOptions *options, CairnError *parent_problem, CairnError *err)
{
    SCOPED(BackupBase) base = calloc(1, sizeof *base);
    uint32_t self;
    if (base == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    base->creators = creator_table_new(err);
    if (base->creators == NULL || !creator_table_add(base->creators, options->bid, &self, err))
        return NULL;
    base->refs_builder = refs_builder_new(base->creators, err);
    if (base->refs_builder == NULL)
        return NULL;
    if (options->parent != NULL && !open_parent(base, options, err)) {
        if (!error_is_of_object(err))
            return NULL;
        close_parent(base);
        *parent_problem = *err;
        cairn_error_clear(err);
    }
    if (!open_salvage(base, options, err) || !open_units(base, options, err))
        return NULL;
    return take(&base);
}

bool
backup_base_has_parent(const BackupBase *base)
{
    return base->parent != NULL;
}

UnitSource *
backup_base_units(BackupBase *base)
{
    return base->units;
}

RefsBuilder *
backup_base_refs(BackupBase *base)
{
    return base->refs_builder;
}

MapSources
backup_base_map_sources(BackupBase *base)
{
    return (MapSources){.creators = base->creators,
                        .refs = base->refs_builder,
                        .find_node = base->parent != NULL ? parent_table_node : NULL,
                        .context = base->parent};
}

uint64_t
backup_base_lost(const BackupBase *base)
{
    return (base->prints != NULL ? fingerprints_distrusted(base->prints) : 0) +
           (base->parent != NULL ? parent_table_lost_regions(base->parent) : 0);
}
