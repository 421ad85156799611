#include "repository/damage.h"

#include "repository/attempts.h"
#include "repository/json.h"

#include <stdio.h>
#include <string.h>

enum { DAMAGE_LIMIT = 1 << 20, EVENT_NAME_LIMIT = 64 };

#define DAMAGE_PREFIX "ev.damaged."

typedef struct {
    BackupId creator;
    bool all; /* every pack of the creator */
    uint32_t pack;
} DamagedPack;

struct Damage {
    DamagedPack *packs; /* sorted */
    size_t count, capacity;
};

typedef struct {
    char (*names)[EVENT_NAME_LIMIT];
    size_t count;
} EvidenceNames;

void
damage_free(Damage *damage)
{
    if (damage == NULL)
        return;
    free(damage->packs);
    free(damage);
}

static bool
add(Damage *damage, const DamagedPack *pack, CairnError *err)
{
    if (damage->count == DAMAGE_LIMIT)
        return cairn_error(err, CAIRN_UNSUPPORTED, "more than %d packs are damaged", DAMAGE_LIMIT);
    if (damage->count == damage->capacity) {
        size_t capacity = damage->capacity == 0 ? 16 : 2 * damage->capacity;
        DamagedPack *packs = realloc(damage->packs, capacity * sizeof *packs);
        if (packs == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        damage->packs = packs;
        damage->capacity = capacity;
    }
    damage->packs[damage->count++] = *pack;
    return true;
}

static StorageListNext
list_evidence(void *context, const StorageEntry *entry, CairnError *err)
{
    EvidenceNames *list = context;
    if (strncmp(entry->name, DAMAGE_PREFIX, strlen(DAMAGE_PREFIX)) != 0 ||
        strlen(entry->name) >= EVENT_NAME_LIMIT)
        return STORAGE_LIST_GO_ON;
    void *names = realloc(list->names, (list->count + 1) * sizeof *list->names);
    if (names == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return STORAGE_LIST_FAILED;
    }
    list->names = names;
    snprintf(list->names[list->count++], EVENT_NAME_LIMIT, "%s", entry->name);
    return STORAGE_LIST_GO_ON;
}

/* "<BID>/<pack number>". */
static bool
parse_pack(const char *text, DamagedPack *pack_out)
{
    char bid[BACKUP_ID_LENGTH + 1], end;
    unsigned pack;
    if (text == NULL || strlen(text) <= BACKUP_ID_LENGTH || text[BACKUP_ID_LENGTH] != '/')
        return false;
    memcpy(bid, text, BACKUP_ID_LENGTH);
    bid[BACKUP_ID_LENGTH] = '\0';
    if (sscanf(text + BACKUP_ID_LENGTH + 1, "%9u%c", &pack, &end) != 1)
        return false;
    *pack_out = (DamagedPack){.pack = pack};
    return backup_id_parse(bid, &pack_out->creator);
}

static bool
read_evidence(Repository *repository, const char *name, const BackupId *bid, Damage *damage,
              CairnError *err)
{
    SCOPED_JSON json_t *json = json_get(repository, name, OBJECT_EVIDENCE, NULL, err);
    if (json == NULL)
        return false;
    const json_t *packs = json_object_get(json_object_get(json, "result"), "packs");
    if (!json_is_array(packs))
        return add(damage, &(DamagedPack){.creator = *bid, .all = true}, err);
    for (size_t i = 0; i < json_array_size(packs); i++) {
        DamagedPack pack;
        if (!parse_pack(json_string_value(json_array_get(packs, i)), &pack))
            return cairn_error(err, CAIRN_CORRUPT, "object '%s' names an impossible pack", name);
        if (!add(damage, &pack, err))
            return false;
    }
    return true;
}

static bool
read_backup(Repository *repository, const char *cluster, const BackupId *bid, Damage *damage,
            CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    EvidenceNames list = {0};
    snprintf(name, sizeof name, "c/%s/b/%s", cluster, bid->text);
    bool good = storage_list(repository_storage(repository), name, list_evidence, &list, err);
    for (size_t i = 0; good && i < list.count; i++) {
        snprintf(name, sizeof name, "c/%s/b/%s/%s", cluster, bid->text, list.names[i]);
        good = read_evidence(repository, name, bid, damage, err);
    }
    free(list.names);
    return good;
}

static int
by_pack(const void *a, const void *b)
{
    const DamagedPack *left = a, *right = b;
    int order = memcmp(left->creator.text, right->creator.text, BACKUP_ID_LENGTH);
    if (order != 0)
        return order;
    if (left->all != right->all)
        return left->all ? -1 : 1;
    return (left->pack > right->pack) - (left->pack < right->pack);
}

Damage *
damage_read(Repository *repository, const char *cluster, CairnError *err)
{
    SCOPED_MEMORY BackupId *ids = NULL;
    size_t count;
    if (!attempts_list(repository, cluster, &ids, &count, err))
        return NULL;
    SCOPED(Damage) damage = calloc(1, sizeof *damage);
    if (damage == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        if (!read_backup(repository, cluster, &ids[i], damage, err))
            return NULL;
    }
    if (damage->count > 1)
        qsort(damage->packs, damage->count, sizeof *damage->packs, by_pack);
    return take(&damage);
}

bool
damage_names(const Damage *damage, const BackupId *creator, uint32_t pack)
{
    if (damage->count == 0)
        return false;
    const DamagedPack all = {.creator = *creator, .all = true};
    const DamagedPack one = {.creator = *creator, .pack = pack};
    return bsearch(&all, damage->packs, damage->count, sizeof all, by_pack) != NULL ||
           bsearch(&one, damage->packs, damage->count, sizeof one, by_pack) != NULL;
}
