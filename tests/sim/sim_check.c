/* What must hold, after every step and at the end. */
#include "tests/sim/sim.h"

#include "repository/catalog.h"
#include "repository/json.h"
#include "repository/object.h"

#include <stdio.h>
#include <string.h>

SimBackup *
sim_backup(Sim *sim, const BackupId *bid)
{
    for (size_t i = 0; i < sim->backup_count; i++) {
        if (backup_id_equal(&sim->backups[i].bid, bid))
            return &sim->backups[i];
    }
    return NULL;
}

static void
object_name(const SimBackup *backup, const char *last, char name[STORAGE_NAME_LIMIT])
{
    snprintf(name, STORAGE_NAME_LIMIT, "c/%s/b/%s/%s", SIM_CLUSTER, backup->bid.text, last);
}

/* The backup that an object belongs to, and its name below it; NULL for anything else. */
static SimBackup *
owner_of(Sim *sim, const char *name, const char **last_out)
{
    static const char prefix[] = "c/" SIM_CLUSTER "/b/";
    BackupId bid;
    if (strncmp(name, prefix, sizeof prefix - 1) != 0 ||
        strlen(name) < sizeof prefix + BACKUP_ID_LENGTH)
        return NULL;
    char text[BACKUP_ID_LENGTH + 1] = "";
    memcpy(text, name + sizeof prefix - 1, BACKUP_ID_LENGTH);
    if (!backup_id_parse(text, &bid))
        return NULL;
    *last_out = name + sizeof prefix + BACKUP_ID_LENGTH;
    return sim_backup(sim, &bid);
}

/* --- what the storage says of a backup --- */

static void
look_at_fate(Sim *sim, SimBackup *backup)
{
    char name[STORAGE_NAME_LIMIT];
    object_name(backup, "fate", name);
    backup->committed = false;
    if (!sim_object_is_seen(sim, name))
        return;
    CairnError err = {0};
    SCOPED(Fate) fate = fate_read(sim->oracle->repository, SIM_CLUSTER, &backup->bid, NULL, &err);
    if (fate == NULL)
        sim_fail(sim, "the fate of %s cannot be read: %s", backup->bid.text, err.message);
    else
        backup->committed = fate->committed;
}

/* Marks by the rules of the design, by their ascending numbers: not by the code under test. */
static void
look_at_marks(Sim *sim, SimBackup *backup)
{
    backup->expired = false;
    for (unsigned n = 0; n < 100; n++) {
        char name[STORAGE_NAME_LIMIT], last[32];
        snprintf(last, sizeof last, "mark.%u", n);
        object_name(backup, last, name);
        if (!sim_object_is_seen(sim, name))
            continue;
        CairnError err = {0};
        SCOPED_JSON json_t *json = json_get(sim->oracle->repository, name, OBJECT_MARK, NULL, &err);
        JsonReader fields = json_reader(json, name, &err);
        const char *mark = json != NULL ? json_read_text(&fields, "mark") : "";
        if (strcmp(mark, "expire") == 0 || strcmp(mark, "unexpire-pending") == 0)
            backup->expired = true;
        else if (strcmp(mark, "unexpire") == 0)
            backup->expired = false;
        else if (json == NULL)
            sim_fail(sim, "%s cannot be read: %s", name, err.message);
    }
}

static bool
is_live(const SimBackup *backup)
{
    return backup->committed && !backup->expired;
}

static void
check_whole(Sim *sim, const SimBackup *backup, const char *when)
{
    if (!is_live(backup))
        return;
    char refs[STORAGE_NAME_LIMIT];
    object_name(backup, "refs", refs);
    if (!sim_object_is_seen(sim, refs))
        sim_fail(sim, "%s: backup %s has lost its refs", when, backup->bid.text);
    for (size_t i = 0; i < backup->need_count; i++) {
        if (!sim_object_is_seen(sim, backup->needs[i]))
            sim_fail(sim, "%s: backup %s needs '%s', which is gone", when, backup->bid.text,
                     backup->needs[i]);
    }
}

/* --- after each step --- */

void
sim_check_created(Sim *sim, const char *name)
{
    const char *last = "";
    SimBackup *backup = owner_of(sim, name, &last);
    if (backup == NULL)
        return;
    if (strcmp(last, "fate") == 0) {
        look_at_fate(sim, backup);
        *(backup->committed ? &sim->commits : &sim->revocations) += 1;
        check_whole(sim, backup, "committed");
    } else if (strncmp(last, "mark.", 5) == 0) {
        look_at_marks(sim, backup);
        check_whole(sim, backup, "marked");
    }
}

void
sim_check_removed(Sim *sim, const char *name)
{
    const char *last = "";
    const SimBackup *owner = owner_of(sim, name, &last);
    if (owner != NULL && (strcmp(last, "fate") == 0 || strncmp(last, "mark.", 5) == 0))
        sim_fail(sim, "'%s' was removed: graves stay", name);
    if (owner != NULL && strcmp(last, "refs") == 0)
        check_whole(sim, owner, "removed");
    if (strchr(last, '/') == NULL)
        return;
    sim->packs_removed++;
    for (size_t i = 0; i < sim->backup_count; i++) {
        const SimBackup *backup = &sim->backups[i];
        for (size_t k = 0; k < backup->need_count && is_live(backup); k++) {
            if (strcmp(backup->needs[k], name) == 0)
                sim_fail(sim, "'%s' was removed, which backup %s needs", name, backup->bid.text);
        }
    }
}

void
sim_check_reported(Sim *sim, SimBackup *backup)
{
    char name[STORAGE_NAME_LIMIT];
    look_at_fate(sim, backup);
    object_name(backup, "fate", name);
    if (!backup->committed)
        sim_fail(sim, "backup %s is reported good and has no commit record", backup->bid.text);
    if (!sim_object_is_durable(sim, name))
        sim_fail(sim, "backup %s is reported good, and its fate is not durable", backup->bid.text);
    object_name(backup, "refs", name);
    if (is_live(backup) && !sim_object_is_durable(sim, name))
        sim_fail(sim, "backup %s is reported good, and its refs are not durable", backup->bid.text);
    /* Expired meanwhile, it may lose its packs. */
    for (size_t i = 0; i < backup->need_count && is_live(backup); i++) {
        if (!sim_object_is_durable(sim, backup->needs[i]))
            sim_fail(sim, "backup %s is reported good, and '%s' is not durable", backup->bid.text,
                     backup->needs[i]);
    }
}

void
sim_check_after_power_cut(Sim *sim)
{
    for (size_t i = 0; i < sim->backup_count; i++) {
        SimBackup *backup = &sim->backups[i];
        look_at_fate(sim, backup);
        look_at_marks(sim, backup);
        if (backup->reported && !backup->committed)
            sim_fail(sim, "backup %s was reported good and is gone after a power cut",
                     backup->bid.text);
        if (backup->expire_reported && !backup->unexpire_begun && !backup->expired)
            sim_fail(sim, "backup %s was reported expired and is not after a power cut",
                     backup->bid.text);
        check_whole(sim, backup, "after a power cut");
    }
}

/* --- at the end --- */

void
sim_check_all_readable(Sim *sim)
{
    CairnError err = {0};
    SCOPED(Catalog) catalog = catalog_read(sim->oracle->repository, SIM_CLUSTER, &err);
    if (catalog == NULL) {
        sim_fail(sim, "the catalog cannot be read: %s", err.message);
        return;
    }
    for (size_t i = 0; i < catalog->count && !sim->failed; i++) {
        const CatalogBackup *listed = &catalog->backups[i];
        const SimBackup *backup = sim_backup(sim, &listed->bid);
        if (listed->presence == BACKUP_UNREADABLE)
            sim_fail(sim, "backup %s is half visible: %s", listed->bid.text,
                     listed->problem->message);
        const bool is_listed = listed->presence == BACKUP_COMMITTED;
        if (backup == NULL ? is_listed : is_listed != is_live(backup))
            sim_fail(sim, "backup %s is listed wrongly: presence %d", listed->bid.text,
                     listed->presence);
        if (is_listed && !sim->failed && !sim_backup_read(sim->oracle, &listed->bid, &err))
            sim_fail(sim, "backup %s cannot be read: %s", listed->bid.text, err.message);
    }
    for (size_t i = 0; i < sim->backup_count; i++)
        check_whole(sim, &sim->backups[i], "at the end");
}

/* What the protocol leaves behind for a while only. */
static void
check_small_objects(Sim *sim, const char *name, const SimBackup *owner, const char *last)
{
    if (strstr(name, "/condemned.") != NULL || strstr(name, "/pin/") != NULL ||
        (owner != NULL && strncmp(last, "doomed.", 7) == 0) ||
        (owner != NULL && strcmp(last, "refs") == 0 && !is_live(owner)))
        sim_fail(sim, "'%s' is left over", name);
}

void
sim_check_space(Sim *sim)
{
    for (size_t i = 0; i < sim->object_count; i++) {
        const SimObject *object = &sim->objects[i];
        const char *last = "";
        const SimBackup *owner = object->seen ? owner_of(sim, object->name, &last) : NULL;
        if (object->seen)
            check_small_objects(sim, object->name, owner, last);
        if (owner == NULL || strchr(last, '/') == NULL)
            continue;
        bool is_needed = false;
        for (size_t k = 0; k < sim->backup_count && !is_needed; k++) {
            const SimBackup *backup = &sim->backups[k];
            for (size_t n = 0; n < backup->need_count && is_live(backup); n++)
                is_needed |= strcmp(backup->needs[n], object->name) == 0;
        }
        if (!is_needed)
            sim_fail(sim, "'%s' is needed by nobody, and still takes space", object->name);
    }
}
