#include "repository/incarnation.h"

#include "postgres/wal_name.h"
#include "repository/json.h"
#include "repository/map.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void
incarnation_name(char name[INCARNATION_NAME_SIZE], uint64_t system_id, int major)
{
    snprintf(name, INCARNATION_NAME_SIZE, "%016" PRIx64 "-%d", system_id, major);
}

static void
object_name(char *name, const char *cluster, uint64_t system_id, int major)
{
    char last[INCARNATION_NAME_SIZE];
    incarnation_name(last, system_id, major);
    snprintf(name, STORAGE_NAME_LIMIT, "c/%s/i/%s", cluster, last);
}

static bool
check_same(const Incarnation *wanted, const Incarnation *recorded, CairnError *err)
{
    if (wanted->wal_segment_size == recorded->wal_segment_size)
        return true;
    return cairn_error(err, CAIRN_CONFLICT,
                       "system %" PRIu64
                       " is recorded with WAL segments of %u bytes, now it has %u",
                       wanted->system_id, recorded->wal_segment_size, wanted->wal_segment_size);
}

bool
incarnation_record(Repository *repository, const char *cluster, const Incarnation *incarnation,
                   CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    object_name(name, cluster, incarnation->system_id, incarnation->major);
    const World *world = repository_world(repository);

    SCOPED_JSON json_t *record = json_pack(
        "{s:o, s:i, s:I, s:i, s:b, s:o}", "system_id", json_u64_text(incarnation->system_id),
        "major", incarnation->major, "wal_segment_size", (json_int_t)incarnation->wal_segment_size,
        "block_size", UNIT_SIZE, "data_checksums", incarnation->data_checksums, "created_at",
        json_time(world->clock->wall_us(world->clock)));
    if (json_put(repository, name, OBJECT_INCARNATION, 0, record, NULL, err))
        return true;
    if (err->kind != CAIRN_CONFLICT)
        return false;

    /* Somebody recorded it before us: fine when it says the same. */
    cairn_error_clear(err);
    Incarnation recorded;
    return incarnation_get(repository, cluster, incarnation->system_id, incarnation->major,
                           &recorded, err) &&
           check_same(incarnation, &recorded, err) &&
           storage_make_durable(repository_storage(repository), name, err);
}

bool
incarnation_get(Repository *repository, const char *cluster, uint64_t system_id, int major,
                Incarnation *incarnation_out, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    object_name(name, cluster, system_id, major);
    SCOPED_JSON json_t *record = json_get(repository, name, OBJECT_INCARNATION, NULL, err);
    if (record == NULL)
        return false;

    JsonReader fields = json_reader(record, name, err);
    Incarnation incarnation = {
        .system_id = json_read_u64_text(&fields, "system_id"),
        .major = (int)json_read_integer(&fields, "major", 1, 1000),
        .wal_segment_size = (uint32_t)json_read_integer(&fields, "wal_segment_size", 1, UINT32_MAX),
        .data_checksums = json_read_bool(&fields, "data_checksums"),
        .created_us = json_read_time(&fields, "created_at"),
    };
    if (fields.failed)
        return false;
    if (incarnation.system_id != system_id || incarnation.major != major ||
        !wal_segment_size_valid(incarnation.wal_segment_size))
        return cairn_error(err, CAIRN_CORRUPT, "object '%s' contradicts its name", name);
    *incarnation_out = incarnation;
    return true;
}
