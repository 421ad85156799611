#include "repository/damage.h"

#include "repository/evidence.h"
#include "repository/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Where nothing says which: an old program's evidence, or one that is damaged itself. */
static bool
parse_pack(const char *text, DamagedPack *pack_out)
{
    char id[BACKUP_ID_LENGTH + 1], canonical[64];
    uint32_t pack;
    BackupId creator;
    if (strlen(text) < BACKUP_ID_LENGTH + 2 || text[BACKUP_ID_LENGTH] != '/')
        return false;
    memcpy(id, text, BACKUP_ID_LENGTH);
    id[BACKUP_ID_LENGTH] = '\0';
    if (!backup_id_parse(id, &creator) ||
        sscanf(text + BACKUP_ID_LENGTH + 1, "%" SCNu32, &pack) != 1 || pack > INT32_MAX)
        return false;
    snprintf(canonical, sizeof canonical, "%s/%" PRIu32, id, pack);
    *pack_out = (DamagedPack){creator, pack};
    return strcmp(canonical, text) == 0;
}

static int
by_position(const void *a, const void *b)
{
    const DamagedPack *left = a, *right = b;
    const int order = strcmp(left->creator.text, right->creator.text);
    return order != 0 ? order : (left->pack > right->pack) - (left->pack < right->pack);
}

bool
damaged_packs_add(DamagedPacks *packs, const BackupId *creator, uint32_t pack, CairnError *err)
{
    packs->standing = true;
    const DamagedPack added = {*creator, pack};
    if (packs->count > 0 && by_position(&packs->packs[packs->count - 1], &added) == 0)
        return true; /* frame after frame of one pack */
    if (packs->count == DAMAGE_PACKS_LIMIT)
        damaged_packs_settle(packs);
    if (packs->count == DAMAGE_PACKS_LIMIT) {
        packs->all = true;
        return true;
    }
    /* Doubles: its capacity is the power of two at or above the count. */
    if ((packs->count & (packs->count - 1)) == 0) {
        const size_t capacity = packs->count == 0 ? 1 : 2 * packs->count;
        DamagedPack *grown = reallocarray(packs->packs, capacity, sizeof *grown);
        if (grown == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        packs->packs = grown;
    }
    packs->packs[packs->count++] = added;
    return true;
}

void
damaged_packs_settle(DamagedPacks *packs)
{
    size_t kept = 0;
    if (packs->count < 2)
        return;
    qsort(packs->packs, packs->count, sizeof *packs->packs, by_position);
    for (size_t i = 0; i < packs->count; i++) {
        if (kept == 0 || by_position(&packs->packs[kept - 1], &packs->packs[i]) != 0)
            packs->packs[kept++] = packs->packs[i];
    }
    packs->count = kept;
}

bool
damaged_packs_contain(const DamagedPacks *packs, const BackupId *creator, uint32_t pack)
{
    const DamagedPack wanted = {*creator, pack};
    return packs->all || (packs->count > 0 && bsearch(&wanted, packs->packs, packs->count,
                                                      sizeof wanted, by_position) != NULL);
}

void
damaged_packs_free(DamagedPacks *packs)
{
    free(packs->packs);
    *packs = (DamagedPacks){0};
}

/* True when everything that it says was understood and taken over. */
static bool
add_packs(DamagedPacks *out, const json_t *result, bool *whole_out, CairnError *err)
{
    const json_t *packs = json_object_get(result, "packs");
    *whole_out = json_is_array(packs) && json_is_true(json_object_get(result, "packs_complete")) &&
                 json_array_size(packs) <= DAMAGE_PACKS_LIMIT;
    for (size_t i = 0; *whole_out && i < json_array_size(packs); i++) {
        const char *text = json_string_value(json_array_get(packs, i));
        DamagedPack pack;
        if (text == NULL || !parse_pack(text, &pack))
            *whole_out = false;
        else if (!damaged_packs_add(out, &pack.creator, pack.pack, err))
            return false;
    }
    return true;
}

static bool
add_damage(Repository *repository, const char *cluster, const BackupId *bid,
           const EvidenceName *evidence, DamagedPacks *out, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    bool whole;
    snprintf(name, sizeof name, "c/%s/b/%s/ev.damaged.%s", cluster, bid->text, evidence->token);
    SCOPED_JSON json_t *json = json_get(repository, name, OBJECT_EVIDENCE, NULL, err);
    out->standing = true;
    if (json == NULL) {
        if (err->kind != CAIRN_CORRUPT && err->kind != CAIRN_UNSUPPORTED &&
            err->kind != CAIRN_MISMATCH && err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        out->all = true;
        return true;
    }
    if (!add_packs(out, json_object_get(json, "result"), &whole, err))
        return false;
    out->all |= !whole;
    return true;
}

bool
damage_read(Repository *repository, const char *cluster, const BackupId *bid, DamagedPacks *out,
            CairnError *err)
{
    SCOPED_MEMORY EvidenceList *list = malloc(sizeof *list);
    EvidenceState state;
    SCOPED_DAMAGED_PACKS DamagedPacks packs = {0};
    if (list == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!evidence_list_read(repository, cluster, bid, list, err))
        return false;
    evidence_state(repository, cluster, bid, list, &state);
    packs.all = packs.standing = list->damage_overflow;
    for (size_t i = 0; i < list->damage_count; i++) {
        if (state.stands[i] &&
            !add_damage(repository, cluster, bid, &list->damages[i], &packs, err))
            return false;
    }
    damaged_packs_settle(&packs);
    *out = packs;
    packs = (DamagedPacks){0};
    return true;
}
