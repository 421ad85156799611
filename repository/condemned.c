#include "repository/condemned.h"

#include "common/bytes.h"
#include "repository/host.h"
#include "repository/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void
list_free(CondemnedList *list)
{
    pack_set_free(&list->packs);
    free(list->dead);
}

void
condemned_lists_free(CondemnedLists *lists)
{
    for (size_t i = 0; i < lists->count; i++)
        list_free(&lists->lists[i]);
    free(lists->lists);
    *lists = (CondemnedLists){0};
}

/* list is taken, even on failure. */
static bool
append(CondemnedLists *lists, CondemnedList *list, CairnError *err)
{
    if (lists->count == lists->capacity) {
        const size_t capacity = lists->capacity == 0 ? 8 : 2 * lists->capacity;
        CondemnedList *grown = reallocarray(lists->lists, capacity, sizeof *grown);
        if (grown == NULL) {
            list_free(list);
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        }
        lists->lists = grown;
        lists->capacity = capacity;
    }
    lists->lists[lists->count++] = *list;
    return true;
}

static void
list_name(char *name, const char *cluster, const char *run, uint32_t number)
{
    snprintf(name, STORAGE_NAME_LIMIT, "c/%s/gc/%s/condemned.%" PRIu32, cluster, run, number);
}

static bool
parse_run(const char *text)
{
    uint8_t bytes[8];
    return strlen(text) == 16 && hex_decode(bytes, sizeof bytes, text);
}

static void
read_ranges(JsonReader *fields, const char *field, const BackupId *creator, bool is_map,
            PackSet *packs)
{
    const json_t *array = json_read_array(fields, field);
    for (size_t i = 0; array != NULL && i < json_array_size(array); i++) {
        const json_t *pair = json_array_get(array, i);
        const json_t *first = json_array_get(pair, 0), *count = json_array_get(pair, 1);
        const json_int_t begin = json_integer_value(first), size = json_integer_value(count);
        if (json_array_size(pair) != 2 || !json_is_integer(first) || !json_is_integer(count) ||
            begin < 0 || size < 1 || begin > PACK_NUMBER_LIMIT ||
            size > PACK_NUMBER_LIMIT - begin) {
            json_reader_fail(fields, field);
            return;
        }
        const PackRange range = {.creator = *creator,
                                 .is_map = is_map,
                                 .first_pack = (uint32_t)begin,
                                 .pack_count = (uint32_t)size};
        CairnError unused = {0};
        if (!pack_set_add(packs, range, &unused)) {
            json_reader_fail(fields, field);
            return;
        }
    }
}

static void
read_packs(JsonReader *fields, CondemnedList *list)
{
    const json_t *array = json_read_array(fields, "packs");
    for (size_t i = 0; array != NULL && i < json_array_size(array); i++) {
        JsonReader one = json_read_item(fields, "packs", array, i);
        BackupId creator = {0};
        if (!backup_id_parse(json_read_text(&one, "backup"), &creator))
            json_reader_fail(&one, "backup");
        read_ranges(&one, "data", &creator, false, &list->packs);
        read_ranges(&one, "map", &creator, true, &list->packs);
        json_reader_join(fields, &one);
    }
    pack_set_settle(&list->packs);
}

static int
by_id(const void *a, const void *b)
{
    return memcmp(((const BackupId *)a)->text, ((const BackupId *)b)->text, BACKUP_ID_LENGTH);
}

static void
read_dead(JsonReader *fields, CondemnedList *list)
{
    const json_t *array = json_read_array(fields, "dead");
    const size_t count = array != NULL ? json_array_size(array) : 0;
    list->dead = calloc(count + 1, sizeof *list->dead);
    CAIRN_ASSERT(list->dead != NULL); /* bounded by the limit of small objects */
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(array, i));
        if (text == NULL || !backup_id_parse(text, &list->dead[list->dead_count])) {
            json_reader_fail(fields, "dead");
            return;
        }
        list->dead_count++;
    }
    qsort(list->dead, list->dead_count, sizeof *list->dead, by_id);
}

static bool
unreadable(const char *cluster, CairnError *err)
{
    return cairn_error_hint(err,
                            "when no `pgcairn collect` of cluster '%s' runs on any host, this one "
                            "object may be removed: the next collect condemns anew",
                            cluster);
}

static bool
read_list(Repository *repository, const char *cluster, const char *run, uint32_t number,
          CondemnedLists *lists, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    list_name(name, cluster, run, number);
    SCOPED_JSON json_t *json = json_get(repository, name, OBJECT_CONDEMNED, NULL, err);
    if (json == NULL) {
        if (err->kind != CAIRN_NOT_FOUND)
            return unreadable(cluster, err);
        cairn_error_clear(err); /* its run, or a later one, is done with it */
        return true;
    }
    CondemnedList list = {.number = number};
    snprintf(list.run, sizeof list.run, "%s", run);
    JsonReader fields = json_reader(json, name, err);
    if (strcmp(json_read_text(&fields, "run"), run) != 0)
        json_reader_fail(&fields, "run");
    list.at_us = json_read_time(&fields, "at");
    read_packs(&fields, &list);
    read_dead(&fields, &list);
    if (fields.failed) {
        list_free(&list);
        return unreadable(cluster, err);
    }
    return append(lists, &list, err);
}

typedef struct {
    Repository *repository;
    const char *cluster;
    const char *run;
    CondemnedLists *lists;
} Walk;

static StorageListNext
visit_list(void *context, const StorageEntry *entry, CairnError *err)
{
    Walk *walk = context;
    uint32_t number;
    char canonical[64];
    if (entry->is_directory || sscanf(entry->name, "condemned.%" SCNu32, &number) != 1)
        return STORAGE_LIST_GO_ON;
    snprintf(canonical, sizeof canonical, "condemned.%" PRIu32, number);
    if (strcmp(canonical, entry->name) != 0)
        return STORAGE_LIST_GO_ON;
    return read_list(walk->repository, walk->cluster, walk->run, number, walk->lists, err)
               ? STORAGE_LIST_GO_ON
               : STORAGE_LIST_FAILED;
}

static StorageListNext
visit_run(void *context, const StorageEntry *entry, CairnError *err)
{
    Walk walk = *(Walk *)context;
    char prefix[STORAGE_NAME_LIMIT];
    if (!entry->is_directory || !parse_run(entry->name))
        return STORAGE_LIST_GO_ON;
    walk.run = entry->name;
    snprintf(prefix, sizeof prefix, "c/%s/gc/%s", walk.cluster, entry->name);
    return storage_list(repository_storage(walk.repository), prefix, visit_list, &walk, err)
               ? STORAGE_LIST_GO_ON
               : STORAGE_LIST_FAILED;
}

bool
condemned_read_all(Repository *repository, const char *cluster, CondemnedLists *lists_out,
                   CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT];
    CondemnedLists lists = {0};
    Walk walk = {.repository = repository, .cluster = cluster, .lists = &lists};
    snprintf(prefix, sizeof prefix, "c/%s/gc", cluster);
    if (!storage_list(repository_storage(repository), prefix, visit_run, &walk, err)) {
        condemned_lists_free(&lists);
        return cairn_error_wrap(err, "unable to read the condemn lists of cluster '%s'", cluster);
    }
    *lists_out = lists;
    return true;
}

/* Ranges of one creator, of one kind; they lie together. */
static json_t *
ranges_json(const PackRange *ranges, size_t count, bool is_map)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count && array != NULL; i++) {
        if (ranges[i].is_map != is_map)
            continue;
        if (json_array_append_new(array, json_pack("[I, I]", (json_int_t)ranges[i].first_pack,
                                                   (json_int_t)ranges[i].pack_count)) != 0) {
            json_decref(array);
            return NULL; /* a list that lost an entry would be believed */
        }
    }
    return array;
}

static json_t *
packs_json(const PackSet *packs)
{
    json_t *array = json_array();
    for (size_t i = 0; i < packs->count && array != NULL;) {
        size_t count = 1;
        while (i + count < packs->count &&
               backup_id_equal(&packs->ranges[i].creator, &packs->ranges[i + count].creator))
            count++;
        json_t *one = json_pack("{s:s, s:o, s:o}", "backup", packs->ranges[i].creator.text, "data",
                                ranges_json(packs->ranges + i, count, false), "map",
                                ranges_json(packs->ranges + i, count, true));
        if (json_array_append_new(array, one) != 0) {
            json_decref(array);
            return NULL;
        }
        i += count;
    }
    return array;
}

static json_t *
dead_json(const BackupId *dead, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count && array != NULL; i++) {
        if (json_array_append_new(array, json_string(dead[i].text)) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

/* One object; what it says is what `list` holds. */
static bool
put_list(Repository *repository, const char *cluster, const CondemnedList *list, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    list_name(name, cluster, list->run, list->number);
    SCOPED_JSON json_t *json =
        json_pack("{s:s, s:o, s:s, s:o, s:o}", "run", list->run, "at", json_time(list->at_us),
                  "program", "pgcairn " PGCAIRN_VERSION, "packs", packs_json(&list->packs), "dead",
                  dead_json(list->dead, list->dead_count));
    if (json == NULL || !host_put(json))
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!json_put(repository, name, OBJECT_CONDEMNED, 0, json, NULL, err))
        return cairn_error_wrap(err, "unable to write the condemn list");
    return true;
}

bool
condemned_put(Repository *repository, const char *cluster, const char *run, uint32_t *next_number,
              const PackSet *packs, const BackupId *dead, size_t dead_count, CondemnedLists *lists,
              CairnError *err)
{
    const World *world = repository_world(repository);
    size_t range_at = 0, dead_at = 0;
    while (range_at < packs->count || dead_at < dead_count) {
        CondemnedList list = {.number = (*next_number)++,
                              .at_us = world->clock->wall_us(world->clock)};
        snprintf(list.run, sizeof list.run, "%s", run);
        bool good = true;
        for (size_t i = 0; good && i < CONDEMNED_RANGES && range_at < packs->count; i++)
            good = pack_set_add(&list.packs, packs->ranges[range_at++], err);
        list.dead_count =
            dead_count - dead_at < CONDEMNED_DEAD ? dead_count - dead_at : CONDEMNED_DEAD;
        list.dead = calloc(list.dead_count + 1, sizeof *list.dead);
        if (good && list.dead == NULL)
            good = cairn_error(err, CAIRN_INTERNAL, "out of memory");
        if (!good) {
            list_free(&list);
            return false;
        }
        if (list.dead_count > 0)
            memcpy(list.dead, dead + dead_at, list.dead_count * sizeof *list.dead);
        dead_at += list.dead_count;
        pack_set_settle(&list.packs);
        if (!put_list(repository, cluster, &list, err)) {
            list_free(&list);
            return false;
        }
        if (!append(lists, &list, err))
            return false;
    }
    return true;
}

bool
condemned_remove(Repository *repository, const char *cluster, const CondemnedList *list,
                 CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    list_name(name, cluster, list->run, list->number);
    return storage_remove(repository_storage(repository), name, err);
}
