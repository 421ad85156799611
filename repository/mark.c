#include "repository/mark.h"

#include "repository/host.h"
#include "repository/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const KIND_NAMES[] = {
    [MARK_EXPIRE] = "expire",     [MARK_UNEXPIRE_PENDING] = "unexpire-pending",
    [MARK_UNEXPIRE] = "unexpire", [MARK_KEEP] = "keep",
    [MARK_RELEASE] = "release",
};

enum { KIND_COUNT = sizeof KIND_NAMES / sizeof KIND_NAMES[0] };

const char *
mark_kind_name(MarkKind kind)
{
    return KIND_NAMES[kind];
}

static void
mark_name(char *name, const char *cluster, const BackupId *bid, uint32_t number)
{
    snprintf(name, STORAGE_NAME_LIMIT, "c/%s/b/%s/mark.%" PRIu32, cluster, bid->text, number);
}

/* "mark.<n>" as we write it: no other spelling of the same number. */
static bool
parse_name(const char *name, uint32_t *number_out)
{
    uint32_t number;
    char canonical[32];
    if (sscanf(name, "mark.%" SCNu32, &number) != 1 || number >= MARK_LIMIT)
        return false;
    snprintf(canonical, sizeof canonical, "mark.%" PRIu32, number);
    if (strcmp(name, canonical) != 0)
        return false;
    *number_out = number;
    return true;
}

bool
mark_names_add(MarkNames *names, const char *name, CairnError *err)
{
    uint32_t number;
    if (!parse_name(name, &number))
        return true;
    if (names->count == MARKS_LISTED)
        return cairn_error(err, CAIRN_UNSUPPORTED, "a backup has more than %d marks", MARKS_LISTED);
    names->numbers[names->count++] = number;
    return true;
}

static int
ascending(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static bool
read_kind(Repository *repository, const char *cluster, const BackupId *bid, uint32_t number,
          MarkKind *kind_out, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    mark_name(name, cluster, bid, number);
    SCOPED_JSON json_t *json = json_get(repository, name, OBJECT_MARK, NULL, err);
    if (json == NULL)
        return false;
    JsonReader fields = json_reader(json, name, err);
    const char *mark = json_read_text(&fields, "mark");
    if (fields.failed)
        return false;
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        if (strcmp(mark, KIND_NAMES[kind]) == 0) {
            *kind_out = (MarkKind)kind;
            return true;
        }
    }
    return cairn_error(err, CAIRN_UNSUPPORTED, "object '%s': mark '%s' is unknown", name, mark);
}

bool
mark_state(Repository *repository, const char *cluster, const BackupId *bid, MarkNames *names,
           MarkState *state_out, CairnError *err)
{
    MarkState state = {0};
    bool life_decided = false, hold_decided = false;
    qsort(names->numbers, names->count, sizeof *names->numbers, ascending);
    if (names->count > 0)
        state.next = names->numbers[names->count - 1] + 1;
    for (size_t i = names->count; i-- > 0 && !(life_decided && hold_decided);) {
        MarkKind kind;
        if (!read_kind(repository, cluster, bid, names->numbers[i], &kind, err))
            return false;
        if (kind == MARK_KEEP || kind == MARK_RELEASE) {
            if (!hold_decided) {
                state.kept = kind == MARK_KEEP;
                state.released = kind == MARK_RELEASE;
            }
            hold_decided = true;
        } else if (!life_decided) {
            state.expired = kind == MARK_EXPIRE;
            state.pending = kind == MARK_UNEXPIRE_PENDING;
            life_decided = true;
        }
    }
    *state_out = state;
    return true;
}

static StorageListNext
list_mark(void *context, const StorageEntry *entry, CairnError *err)
{
    return mark_names_add(context, entry->name, err) ? STORAGE_LIST_GO_ON : STORAGE_LIST_FAILED;
}

static bool
list_marks(Repository *repository, const char *cluster, const BackupId *bid, MarkNames *names_out,
           CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT];
    names_out->count = 0;
    snprintf(prefix, sizeof prefix, "c/%s/b/%s", cluster, bid->text);
    return storage_list(repository_storage(repository), prefix, list_mark, names_out, err) ||
           cairn_error_wrap(err, "backup %s", bid->text);
}

bool
mark_read(Repository *repository, const char *cluster, const BackupId *bid, MarkState *state_out,
          CairnError *err)
{
    MarkNames names;
    if (!list_marks(repository, cluster, bid, &names, err))
        return false;
    return mark_state(repository, cluster, bid, &names, state_out, err);
}

bool
mark_add_at(Repository *repository, const char *cluster, const BackupId *bid, uint32_t number,
            MarkKind kind, const char *reason, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    const World *world = repository_world(repository);
    if (number >= MARK_LIMIT)
        return cairn_error(err, CAIRN_UNSUPPORTED, "backup %s has too many marks", bid->text);
    mark_name(name, cluster, bid, number);
    SCOPED_JSON json_t *json = json_pack("{s:s, s:o, s:o, s:o}", "mark", KIND_NAMES[kind], "at",
                                         json_time(world->clock->wall_us(world->clock)), "by",
                                         host_json(), "reason", json_lossy_text(reason));
    return json_put(repository, name, OBJECT_MARK, backup_id_sequence(bid), json, NULL, err);
}

bool
mark_add(Repository *repository, const char *cluster, const BackupId *bid, MarkKind kind,
         const char *reason, CairnError *err)
{
    /* The numbers alone: a new mark may be what settles a damaged one. */
    MarkNames names;
    uint32_t next = 0;
    if (!list_marks(repository, cluster, bid, &names, err))
        return cairn_error_wrap(err, "unable to add mark '%s'", KIND_NAMES[kind]);
    for (size_t i = 0; i < names.count; i++) {
        if (names.numbers[i] >= next)
            next = names.numbers[i] + 1;
    }
    for (uint32_t number = next;; number++) {
        if (mark_add_at(repository, cluster, bid, number, kind, reason, err))
            return true;
        if (err->kind != CAIRN_CONFLICT)
            return cairn_error_wrap(err, "unable to add mark '%s' to backup %s", KIND_NAMES[kind],
                                    bid->text);
        cairn_error_clear(err);
    }
}
