#include "repository/evidence.h"

#include "repository/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Keeps the newest; hundreds of names may lie beside a backup that is drilled every day. */
static void
keep_newest(EvidenceName *names, size_t *count, const EvidenceName *name)
{
    EvidenceName *place = &names[0];
    if (*count < EVIDENCE_READ_LIMIT) {
        names[(*count)++] = *name;
        return;
    }
    for (size_t i = 1; i < EVIDENCE_READ_LIMIT; i++) {
        if (names[i].modified_us < place->modified_us)
            place = &names[i];
    }
    if (name->modified_us > place->modified_us)
        *place = *name;
}

static bool
split_name(const char *name, const char *kind, EvidenceName *name_out)
{
    const size_t size = strlen(kind);
    if (strncmp(name, "ev.", 3) != 0 || strncmp(name + 3, kind, size) != 0 || name[3 + size] != '.')
        return false;
    snprintf(name_out->token, sizeof name_out->token, "%s", name + 3 + size + 1);
    return true;
}

static void
add_damage(EvidenceList *list, const EvidenceName *name, bool whole)
{
    if (!whole || list->damage_count == EVIDENCE_DAMAGE_LIMIT)
        list->damage_overflow = true;
    else
        list->damages[list->damage_count++] = *name;
}

void
evidence_list_add(EvidenceList *list, const char *name, int64_t modified_us)
{
    EvidenceName parsed = {.modified_us = modified_us};
    if (split_name(name, "damaged", &parsed)) {
        add_damage(list, &parsed, strlen(name) - strlen("ev.damaged.") == strlen(parsed.token));
    } else if (split_name(name, "verified", &parsed)) {
        list->verified = true;
        keep_newest(list->proofs, &list->proof_count, &parsed);
    } else if (split_name(name, "drilled", &parsed)) {
        list->drilled = true;
        keep_newest(list->drills, &list->drill_count, &parsed);
    } else if (split_name(name, "sampled", &parsed)) {
        keep_newest(list->samples, &list->sample_count, &parsed);
    } else {
        list->scrubbed |= split_name(name, "scrubbed", &parsed);
        list->failed |= split_name(name, "failed", &parsed);
    }
}

static StorageListNext
add_entry(void *context, const StorageEntry *entry, CairnError *err)
{
    (void)err;
    if (!entry->is_directory)
        evidence_list_add(context, entry->name, entry->modified_us);
    return STORAGE_LIST_GO_ON;
}

bool
evidence_list_read(Repository *repository, const char *cluster, const BackupId *bid,
                   EvidenceList *list_out, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT];
    snprintf(prefix, sizeof prefix, "c/%s/b/%s", cluster, bid->text);
    *list_out = (EvidenceList){0};
    return storage_list(repository_storage(repository), prefix, add_entry, list_out, err);
}

bool
evidence_scope_parse(const char *scope, uint32_t *slice_out, uint32_t *slices_out)
{
    uint32_t slice, slices;
    char canonical[64];
    if (sscanf(scope, "sample %" SCNu32 "/%" SCNu32, &slice, &slices) != 2)
        return false;
    snprintf(canonical, sizeof canonical, "sample %" PRIu32 "/%" PRIu32, slice, slices);
    if (strcmp(canonical, scope) != 0 || slice == 0 || slice > slices ||
        slices < EVIDENCE_SLICES_MIN || slices > EVIDENCE_SLICES_MAX)
        return false;
    *slice_out = slice;
    *slices_out = slices;
    return true;
}

/* One object, opened. Unreadable ones are empty: they prove nothing. Returned owned, or NULL. */
static json_t *
read_evidence(Repository *repository, const char *cluster, const BackupId *bid, const char *kind,
              const EvidenceName *evidence)
{
    char name[STORAGE_NAME_LIMIT];
    CairnError ignored = {0};
    snprintf(name, sizeof name, "c/%s/b/%s/ev.%.16s.%.32s", cluster, bid->text, kind,
             evidence->token);
    return json_get(repository, name, OBJECT_EVIDENCE, NULL, &ignored);
}

static int64_t
time_of(const json_t *json)
{
    CairnError ignored = {0};
    JsonReader fields = json_reader(json, "evidence", &ignored);
    const int64_t at_us = json_read_time(&fields, "at");
    return fields.failed ? 0 : at_us;
}

/* `result.duration_s` of a drill, whole seconds or a fraction. */
static int64_t
duration_of(const json_t *json)
{
    const double seconds =
        json_number_value(json_object_get(json_object_get(json, "result"), "duration_s"));
    return seconds > 0 && seconds < 1e9 ? (int64_t)(seconds * 1e6) : 0;
}

static const char *
scope_of(const json_t *json)
{
    const char *scope = json_string_value(json_object_get(json, "scope"));
    return scope != NULL ? scope : "";
}

/* Slices of one rotation, all of the same number. */
typedef struct {
    uint32_t slices; /* 0: not in use */
    int64_t newest_us[EVIDENCE_SLICES_MAX];
    uint32_t done;                        /* a bit a slice */
    uint32_t seen[EVIDENCE_DAMAGE_LIMIT]; /* the same, of those that knew of a damage */
} Rotation;

enum { ROTATIONS = 4 };

typedef struct {
    const EvidenceList *list;
    EvidenceState *state;
    Rotation rotations[ROTATIONS];
    bool proven;
} Summing;

static bool
names_token(const json_t *seen, const char *token)
{
    size_t index;
    json_t *item;
    json_array_foreach(seen, index, item)
    {
        const char *text = json_string_value(item);
        if (text != NULL && strcmp(text, token) == 0)
            return true;
    }
    return false;
}

static void
add_full(Summing *summing, int64_t at_us, const json_t *seen)
{
    summing->proven = true;
    if (at_us > summing->state->verified_us)
        summing->state->verified_us = at_us;
    for (size_t i = 0; i < summing->list->damage_count; i++) {
        if (names_token(seen, summing->list->damages[i].token))
            summing->state->stands[i] = false;
    }
}

static void
add_slice(Summing *summing, uint32_t slice, uint32_t slices, int64_t at_us, const json_t *seen)
{
    for (size_t r = 0; r < ROTATIONS; r++) {
        Rotation *rotation = &summing->rotations[r];
        if (rotation->slices != 0 && rotation->slices != slices)
            continue;
        const uint32_t bit = UINT32_C(1) << (slice - 1);
        rotation->slices = slices;
        rotation->done |= bit;
        if (at_us > rotation->newest_us[slice - 1])
            rotation->newest_us[slice - 1] = at_us;
        for (size_t i = 0; i < summing->list->damage_count; i++) {
            if (names_token(seen, summing->list->damages[i].token))
                rotation->seen[i] |= bit;
        }
        return;
    }
}

static void
close_rotation(Summing *summing, const Rotation *rotation)
{
    const uint32_t all = UINT32_MAX >> (32 - rotation->slices);
    if (rotation->done != all)
        return;
    int64_t oldest_us = rotation->newest_us[0];
    for (uint32_t i = 1; i < rotation->slices; i++) {
        if (rotation->newest_us[i] < oldest_us)
            oldest_us = rotation->newest_us[i];
    }
    summing->proven = true;
    if (oldest_us > summing->state->verified_us)
        summing->state->verified_us = oldest_us;
    for (size_t i = 0; i < summing->list->damage_count; i++) {
        if (rotation->seen[i] == all)
            summing->state->stands[i] = false;
    }
}

static void
add_proof(Summing *summing, const json_t *json)
{
    const json_t *seen = json_object_get(json_object_get(json, "result"), "seen");
    uint32_t slice, slices;
    if (strcmp(scope_of(json), "full") == 0)
        add_full(summing, time_of(json), seen);
    else if (evidence_scope_parse(scope_of(json), &slice, &slices))
        add_slice(summing, slice, slices, time_of(json), seen);
}

static bool
damage_stands(const EvidenceList *list, const EvidenceState *state)
{
    for (size_t i = 0; i < list->damage_count; i++) {
        if (state->stands[i])
            return true;
    }
    return list->damage_overflow;
}

static int
newest_first(const void *a, const void *b)
{
    const EvidenceName *left = a, *right = b;
    return (left->modified_us < right->modified_us) - (left->modified_us > right->modified_us);
}

static void
sum_proofs(Repository *repository, const char *cluster, const BackupId *bid, Summing *summing)
{
    EvidenceName proofs[EVIDENCE_READ_LIMIT];
    const size_t count = summing->list->proof_count;
    memcpy(proofs, summing->list->proofs, count * sizeof *proofs);
    if (count > 1)
        qsort(proofs, count, sizeof *proofs, newest_first);
    for (size_t i = 0; i < count; i++) {
        SCOPED_JSON json_t *json = read_evidence(repository, cluster, bid, "verified", &proofs[i]);
        if (json != NULL)
            add_proof(summing, json);
        /* Older ones say nothing new: what stands for 10 000 backups is read for each of them. */
        if (summing->proven && !damage_stands(summing->list, summing->state))
            return;
    }
    for (size_t r = 0; r < ROTATIONS; r++) {
        if (summing->rotations[r].slices != 0)
            close_rotation(summing, &summing->rotations[r]);
    }
}

void
evidence_state(Repository *repository, const char *cluster, const BackupId *bid,
               const EvidenceList *list, EvidenceState *state_out)
{
    *state_out = (EvidenceState){0};
    Summing summing = {.list = list, .state = state_out};
    for (size_t i = 0; i < list->damage_count; i++)
        state_out->stands[i] = true;
    sum_proofs(repository, cluster, bid, &summing);
    state_out->damaged = damage_stands(list, state_out);
    state_out->verified = summing.proven && !state_out->damaged;
    for (size_t i = 0; i < list->drill_count; i++) {
        SCOPED_JSON json_t *json =
            read_evidence(repository, cluster, bid, "drilled", &list->drills[i]);
        const int64_t at_us = json != NULL ? time_of(json) : 0;
        if (at_us > state_out->drilled_us) {
            state_out->drilled_us = at_us;
            state_out->drill_duration_us = duration_of(json);
        }
    }
}

static void
raise_run(const json_t *json, uint32_t wanted, uint64_t *highest)
{
    uint32_t slice, slices;
    const json_int_t run =
        json_integer_value(json_object_get(json_object_get(json, "result"), "run"));
    /* A number that does not give its own slice is none of ours: it must not move the rotation. */
    if (evidence_scope_parse(scope_of(json), &slice, &slices) && slices == wanted && run > 0 &&
        (uint64_t)(run - 1) % slices + 1 == slice && (uint64_t)run > *highest)
        *highest = (uint64_t)run;
}

uint64_t
evidence_highest_run(Repository *repository, const char *cluster, const BackupId *bid,
                     const EvidenceList *list, uint32_t slices)
{
    const struct {
        const char *kind;
        const EvidenceName *names;
        size_t count;
    } all[] = {{"verified", list->proofs, list->proof_count},
               {"sampled", list->samples, list->sample_count},
               {"damaged", list->damages, list->damage_count}};
    uint64_t highest = 0;
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        for (size_t i = 0; i < all[k].count; i++) {
            SCOPED_JSON json_t *json =
                read_evidence(repository, cluster, bid, all[k].kind, &all[k].names[i]);
            if (json != NULL)
                raise_run(json, slices, &highest);
        }
    }
    return highest;
}
