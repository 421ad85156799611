#include "repository/renew.h"

#include "repository/backup_locks.h"
#include "repository/catalog.h"
#include "repository/refs.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    Repository *repository;
    const char *cluster; /* the one at hand */
    ObjectLocks *locks;
    RenewReport *report;
    PackSet packs; /* of the cluster at hand */
} Renewal;

/* -- one backup */

typedef struct {
    ObjectLocks *locks;
    const char *prefix;
} Records;

/* What makes it exist, what it rests on, and what was decided about it. */
static StorageListNext
add_record(void *context, const StorageEntry *entry, CairnError *err)
{
    const Records *records = context;
    char name[STORAGE_NAME_LIMIT];
    const bool wanted = strcmp(entry->name, "fate") == 0 || strcmp(entry->name, "refs") == 0 ||
                        strncmp(entry->name, "mark.", 5) == 0;
    const int size = snprintf(name, sizeof name, "%s/%s", records->prefix, entry->name);
    if (!wanted || entry->is_directory || size < 0 || (size_t)size >= sizeof name)
        return STORAGE_LIST_GO_ON;
    return object_locks_add(records->locks, name, err) ? STORAGE_LIST_GO_ON : STORAGE_LIST_FAILED;
}

static bool
add_unreadable(Renewal *renewal, const BackupId *bid, const CairnError *why, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT];
    if (renewal->report->unreadable++ == 0)
        renewal->report->problem = *why;
    snprintf(prefix, sizeof prefix, "c/%s/b/%s", renewal->cluster, bid->text);
    return object_locks_add_below(renewal->locks, prefix, true, err);
}

static bool
is_about_the_object(const CairnError *err)
{
    return err->kind == CAIRN_CORRUPT || err->kind == CAIRN_UNSUPPORTED ||
           err->kind == CAIRN_MISMATCH || err->kind == CAIRN_NOT_FOUND;
}

static bool
add_backup(Renewal *renewal, const CatalogBackup *backup, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT];
    Records records = {.locks = renewal->locks, .prefix = prefix};
    CairnError why = {0};
    renewal->report->backups++;
    SCOPED(Refs) refs = refs_read(renewal->repository, backup->fate, &why);
    if (refs == NULL) {
        if (is_about_the_object(&why))
            return add_unreadable(renewal, &backup->bid, &why, err);
        *err = why;
        return false;
    }
    snprintf(prefix, sizeof prefix, "c/%s/b/%s", renewal->cluster, backup->bid.text);
    return pack_set_add_refs(&renewal->packs, refs, err) &&
           storage_list(repository_storage(renewal->repository), prefix, add_record, &records, err);
}

/* -- one cluster */

static bool
add_backups(Renewal *renewal, CairnError *err)
{
    SCOPED(Catalog) catalog = catalog_read(renewal->repository, renewal->cluster, err);
    if (catalog == NULL)
        return false;
    for (size_t i = 0; i < catalog->count; i++) {
        const CatalogBackup *backup = &catalog->backups[i];
        const bool added = backup->presence == BACKUP_COMMITTED ? add_backup(renewal, backup, err)
                           : backup->presence == BACKUP_UNREADABLE
                               ? add_unreadable(renewal, &backup->bid, backup->problem, err)
                               : true;
        if (!added)
            return false;
    }
    pack_set_settle(&renewal->packs);
    return object_locks_add_packs(renewal->locks, renewal->cluster, &renewal->packs, err);
}

static bool
add_cluster(Renewal *renewal, CairnError *err)
{
    char incarnations[STORAGE_NAME_LIMIT], wal[STORAGE_NAME_LIMIT];
    snprintf(incarnations, sizeof incarnations, "c/%s/i", renewal->cluster);
    snprintf(wal, sizeof wal, "c/%s/w", renewal->cluster);
    const bool added = add_backups(renewal, err) &&
                       object_locks_add_below(renewal->locks, incarnations, false, err) &&
                       object_locks_add_below(renewal->locks, wal, true, err);
    pack_set_free(&renewal->packs);
    return added;
}

/* -- all of them */

static bool
add_clusters(Renewal *renewal, const char *only, CairnError *err)
{
    SCOPED(Arena) arena = arena_new();
    const char **names = NULL;
    size_t count = 0;
    bool found = false;
    if (!catalog_clusters(renewal->repository, arena, &names, &count, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (only != NULL && strcmp(only, names[i]) != 0)
            continue;
        found = true;
        renewal->cluster = names[i];
        if (!add_cluster(renewal, err))
            return cairn_error_wrap(err, "cluster '%s'", names[i]);
    }
    if (only != NULL && !found)
        return cairn_error(err, CAIRN_NOT_FOUND, "the repository has nothing of cluster '%s'",
                           only);
    return true;
}

bool
renew_run(Repository *repository, const RenewOptions *options, RenewReport *report_out,
          CairnError *err)
{
    Storage *storage = repository_storage(repository);
    const StorageLockTerms terms = storage_lock_terms(storage);
    RenewReport report = {0};
    if (terms.mode == NULL) {
        cairn_error(err, CAIRN_UNSUPPORTED, "repository '%s' locks nothing",
                    repository_config(repository)->name);
        return cairn_error_hint(err, "lock-mode and lock-days of an object store do; see "
                                     "docs/object-stores.md");
    }
    SCOPED(ObjectLocks)
    locks = object_locks_begin(storage,
                               &(ObjectLocksOptions){.left_us = terms.days * LOCK_DAY_US,
                                                     .only_ask = options->only_ask,
                                                     .jobs = options->jobs},
                               err);
    Renewal renewal = {.repository = repository, .locks = locks, .report = &report};
    if (locks == NULL || !backup_locks_add_repository(locks, err) ||
        !add_clusters(&renewal, options->cluster, err) ||
        !object_locks_finish(locks, &report.locks, err))
        return false;
    *report_out = report;
    return true;
}
