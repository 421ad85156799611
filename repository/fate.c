#include "repository/fate.h"

#include "common/timestamp.h"
#include "repository/host.h"
#include "repository/json.h"

#include <stdio.h>
#include <string.h>

enum { FATE_TABLESPACE_LIMIT = 4096 };

Fate *
fate_new(void)
{
    Fate *fate = calloc(1, sizeof *fate);
    CAIRN_ASSERT(fate != NULL);
    fate->arena = arena_new();
    return fate;
}

void
fate_free(Fate *fate)
{
    if (fate == NULL)
        return;
    arena_free(fate->arena);
    free(fate);
}

static void
fate_name(char *name, const char *cluster, const BackupId *bid)
{
    snprintf(name, STORAGE_NAME_LIMIT, "c/%s/b/%s/fate", cluster, bid->text);
}

/* NULL when the item is: a list that lost an entry on the way would be believed. */
static json_t *
append_or_give_up(json_t *array, json_t *item)
{
    if (array != NULL && json_array_append_new(array, item) == 0)
        return array;
    json_decref(array);
    return NULL;
}

static json_t *
tablespaces_json(const Fate *fate)
{
    json_t *array = json_array();
    for (size_t i = 0; i < fate->tablespace_count; i++)
        array = append_or_give_up(array, json_pack("{s:I, s:s}", "oid",
                                                   (json_int_t)fate->tablespaces[i].oid, "path",
                                                   fate->tablespaces[i].path));
    return array;
}

static json_t *
checksum_failures_json(const Fate *fate)
{
    json_t *array = json_array();
    for (size_t i = 0; i < fate->checksum_failures_listed; i++) {
        const FateChecksumFailure *failure = &fate->checksum_failures[i];
        array =
            append_or_give_up(array, json_pack("{s:o, s:I}", "path", json_lossy_text(failure->path),
                                               "block", (json_int_t)failure->block));
    }
    return array;
}

static json_t *
warnings_json(const Fate *fate)
{
    json_t *array = json_array();
    for (size_t i = 0; i < fate->warning_count; i++)
        array = append_or_give_up(array, json_lossy_text(fate->warnings[i]));
    return array;
}

static json_t *
map_root_json(const MapNodeRef *root)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:o}", "pack", (json_int_t)root->pack, "offset",
                     (json_int_t)root->offset, "stored", (json_int_t)root->stored_size, "raw",
                     (json_int_t)root->raw_size, "codec", (json_int_t)root->codec, "digest",
                     json_hex(root->digest, sizeof root->digest));
}

/* False in a set call means out of memory or text that is no UTF-8: the whole value is given up
 * then. */
static json_t *
fate_json(const Fate *fate)
{
    SCOPED_JSON json_t *json = json_object();
    int failed = 0;
#define SET(field, value) failed |= json_object_set_new(json, field, value)
    SET("fate", json_string("COMMITTED"));
    SET("token", json_string(fate->token));
    SET("bid", json_string(fate->bid.text));
    SET("sequence", json_integer((json_int_t)backup_id_sequence(&fate->bid)));
    SET("label", json_string(fate->label));
    if (fate->name != NULL)
        SET("name", json_string(fate->name));
    SET("type", json_string(fate->type));
    SET("parent", fate->parent.text[0] != '\0' ? json_string(fate->parent.text) : json_null());
    SET("cluster", json_string(fate->cluster));
    SET("system_id", json_u64_text(fate->system_id));
    SET("major", json_integer(fate->major));
    SET("server_version", json_string(fate->server_version));
    SET("from_standby", json_boolean(fate->from_standby));
    SET("start_lsn", json_lsn(fate->start_lsn));
    SET("start_timeline", json_integer(fate->start_timeline));
    SET("stop_lsn", json_lsn(fate->stop_lsn));
    SET("stop_timeline", json_integer(fate->stop_timeline));
    SET("wal_segment_size", json_integer(fate->wal_segment_size));
    SET("started_at", json_time(fate->started_us));
    SET("stopped_at", json_time(fate->stopped_us));
    SET("backup_label", json_string(fate->backup_label));
    SET("tablespaces", tablespaces_json(fate));
    SET("data_checksums", json_boolean(fate->data_checksums));
    SET("damaged", json_boolean(fate->damaged));
    SET("checksum_failures", checksum_failures_json(fate));
    SET("checksum_failure_count", json_integer((json_int_t)fate->checksum_failure_count));
    SET("warnings", warnings_json(fate));
    SET("map_root", map_root_json(&fate->map_root));
    SET("refs_sha256", json_hex(fate->refs_sha256, SHA256_SIZE));
    SET("packs_sha256", json_hex(fate->packs_sha256, SHA256_SIZE));
    SET("manifest_sha256", json_hex(fate->manifest_sha256, SHA256_SIZE));
    SET("pack_count", json_integer(fate->pack_count));
    SET("map_pack_count", json_integer(fate->map_pack_count));
    SET("file_count", json_integer((json_int_t)fate->file_count));
    SET("size_bytes", json_integer((json_int_t)fate->size_bytes));
    SET("stored_bytes", json_integer((json_int_t)fate->stored_bytes));
    SET("map_bytes", json_integer((json_int_t)fate->map_bytes));
    SET("program", json_string("pgcairn " PGCAIRN_VERSION));
    if (fate->previous_bid.text[0] != '\0') {
        SET("previous", json_pack("{s:s, s:o}", "bid", fate->previous_bid.text, "fate_sha256",
                                  json_hex(fate->previous_sha256, SHA256_SIZE)));
    } else {
        SET("previous", json_null());
    }
#undef SET
    return failed != 0 ? NULL : take(&json);
}

bool
fate_commit(Repository *repository, const Fate *fate, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    fate_name(name, fate->cluster, &fate->bid);
    SCOPED_JSON json_t *json = fate_json(fate);
    return json_put(repository, name, OBJECT_FATE, backup_id_sequence(&fate->bid), json, NULL, err);
}

static bool
put_revocation(Repository *repository, const char *cluster, const BackupId *bid, const char *token,
               const char *reason, bool packs_go, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    fate_name(name, cluster, bid);
    const World *world = repository_world(repository);
    SCOPED_JSON json_t *json =
        json_pack("{s:s, s:s, s:o, s:s, s:b, s:o}", "fate", "REVOKED", "token", token, "by",
                  host_json(), "reason", reason, "packs_go", packs_go, "at",
                  json_time(world->clock->wall_us(world->clock)));
    return json_put(repository, name, OBJECT_FATE, backup_id_sequence(bid), json, NULL, err);
}

bool
fate_revoke(Repository *repository, const char *cluster, const BackupId *bid, const char *token,
            const char *reason, CairnError *err)
{
    return put_revocation(repository, cluster, bid, token, reason, false, err);
}

bool
fate_abandon(Repository *repository, const char *cluster, const BackupId *bid, const char *token,
             const char *reason, CairnError *err)
{
    return put_revocation(repository, cluster, bid, token, reason, true, err);
}

static void
read_tablespaces(Fate *fate, JsonReader *fields)
{
    const json_t *array = json_read_array(fields, "tablespaces");
    size_t count = array != NULL ? json_array_size(array) : 0;
    if (count > FATE_TABLESPACE_LIMIT) {
        json_reader_fail(fields, "tablespaces");
        count = 0;
    }
    fate->tablespaces = arena_alloc(fate->arena, (count + 1) * sizeof *fate->tablespaces);
    fate->tablespace_count = count;
    for (size_t i = 0; i < count; i++) {
        JsonReader one = json_read_item(fields, "tablespaces", array, i);
        fate->tablespaces[i].oid = (uint32_t)json_read_integer(&one, "oid", 1, UINT32_MAX);
        fate->tablespaces[i].path = arena_strdup(fate->arena, json_read_text(&one, "path"));
        json_reader_join(fields, &one);
    }
}

static void
read_checksum_failures(Fate *fate, JsonReader *fields)
{
    const json_t *array = json_read_array(fields, "checksum_failures");
    size_t count = array != NULL ? json_array_size(array) : 0;
    fate->checksum_failures =
        arena_alloc(fate->arena, (count + 1) * sizeof *fate->checksum_failures);
    fate->checksum_failures_listed = count;
    for (size_t i = 0; i < count; i++) {
        JsonReader one = json_read_item(fields, "checksum_failures", array, i);
        fate->checksum_failures[i].path = arena_strdup(fate->arena, json_read_text(&one, "path"));
        fate->checksum_failures[i].block = (uint64_t)json_read_integer(&one, "block", 0, INT64_MAX);
        json_reader_join(fields, &one);
    }
}

static void
read_warnings(Fate *fate, JsonReader *fields)
{
    const json_t *array = json_read_array(fields, "warnings");
    size_t count = array != NULL ? json_array_size(array) : 0;
    fate->warnings = arena_alloc(fate->arena, (count + 1) * sizeof *fate->warnings);
    fate->warning_count = count;
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(array, i));
        if (text == NULL)
            json_reader_fail(fields, "warnings");
        fate->warnings[i] = arena_strdup(fate->arena, text != NULL ? text : "");
    }
}

static void
read_map_root(Fate *fate, JsonReader *fields)
{
    JsonReader root = json_read_object(fields, "map_root");
    fate->map_root.creator = fate->bid;
    fate->map_root.pack = (uint32_t)json_read_integer(&root, "pack", 0, INT32_MAX);
    fate->map_root.offset = (uint64_t)json_read_integer(&root, "offset", 0, INT64_MAX);
    fate->map_root.stored_size =
        (uint32_t)json_read_integer(&root, "stored", 0, MAP_NODE_LIMIT + 4096);
    fate->map_root.raw_size = (uint32_t)json_read_integer(&root, "raw", 0, MAP_NODE_LIMIT);
    fate->map_root.codec = (uint8_t)json_read_integer(&root, "codec", 0, UINT8_MAX);
    json_read_hex(&root, "digest", fate->map_root.digest, sizeof fate->map_root.digest);
    json_reader_join(fields, &root);
}

static void
read_previous(Fate *fate, JsonReader *fields)
{
    if (json_is_null(json_object_get(fields->object, "previous")))
        return;
    JsonReader previous = json_read_object(fields, "previous");
    if (!backup_id_parse(json_read_text(&previous, "bid"), &fate->previous_bid))
        json_reader_fail(&previous, "bid");
    json_read_hex(&previous, "fate_sha256", fate->previous_sha256, SHA256_SIZE);
    json_reader_join(fields, &previous);
}

static void
read_committed(Fate *fate, const char *cluster, JsonReader *fields)
{
    Arena *arena = fate->arena;
    fate->committed = true;
    if (strcmp(json_read_text(fields, "bid"), fate->bid.text) != 0)
        json_reader_fail(fields, "bid");
    fate->label = arena_strdup(arena, json_read_text(fields, "label"));
    const char *name = json_read_text_or_null(fields, "name");
    fate->name = name != NULL ? arena_strdup(arena, name) : NULL;
    fate->type = arena_strdup(arena, json_read_text(fields, "type"));
    const char *parent = json_read_text_or_null(fields, "parent");
    if (parent != NULL && !backup_id_parse(parent, &fate->parent))
        json_reader_fail(fields, "parent");
    fate->cluster = arena_strdup(arena, json_read_text(fields, "cluster"));
    if (strcmp(fate->cluster, cluster) != 0)
        json_reader_fail(fields, "cluster");
    fate->system_id = json_read_u64_text(fields, "system_id");
    fate->major = (int)json_read_integer(fields, "major", 1, 1000);
    fate->server_version = arena_strdup(arena, json_read_text(fields, "server_version"));
    fate->from_standby = json_read_bool(fields, "from_standby");
    fate->start_lsn = json_read_lsn(fields, "start_lsn");
    fate->start_timeline = (uint32_t)json_read_integer(fields, "start_timeline", 1, UINT32_MAX);
    fate->stop_lsn = json_read_lsn(fields, "stop_lsn");
    fate->stop_timeline = (uint32_t)json_read_integer(fields, "stop_timeline", 1, UINT32_MAX);
    fate->wal_segment_size =
        (uint32_t)json_read_integer(fields, "wal_segment_size", 1 << 20, 1 << 30);
    fate->started_us = json_read_time(fields, "started_at");
    fate->stopped_us = json_read_time(fields, "stopped_at");
    fate->backup_label = arena_strdup(arena, json_read_text(fields, "backup_label"));
    read_tablespaces(fate, fields);
    fate->data_checksums = json_read_bool(fields, "data_checksums");
    fate->damaged = json_read_bool(fields, "damaged");
    read_checksum_failures(fate, fields);
    fate->checksum_failure_count =
        (uint64_t)json_read_integer(fields, "checksum_failure_count", 0, INT64_MAX);
    read_warnings(fate, fields);
    read_map_root(fate, fields);
    json_read_hex(fields, "refs_sha256", fate->refs_sha256, SHA256_SIZE);
    json_read_hex(fields, "packs_sha256", fate->packs_sha256, SHA256_SIZE);
    json_read_hex(fields, "manifest_sha256", fate->manifest_sha256, SHA256_SIZE);
    fate->pack_count = (uint32_t)json_read_integer(fields, "pack_count", 0, INT32_MAX);
    fate->map_pack_count = (uint32_t)json_read_integer(fields, "map_pack_count", 0, INT32_MAX);
    fate->file_count = (uint64_t)json_read_integer(fields, "file_count", 0, INT64_MAX);
    fate->size_bytes = (uint64_t)json_read_integer(fields, "size_bytes", 0, INT64_MAX);
    fate->stored_bytes = (uint64_t)json_read_integer(fields, "stored_bytes", 0, INT64_MAX);
    fate->map_bytes = (uint64_t)json_read_integer(fields, "map_bytes", 0, INT64_MAX);
    read_previous(fate, fields);
}

/* Writers of the first version removed the packs of whatever they revoked. */
static void
read_revoked(Fate *fate, JsonReader *fields)
{
    fate->packs_go =
        json_object_get(fields->object, "packs_go") == NULL || json_read_bool(fields, "packs_go");
}

Fate *
fate_read(Repository *repository, const char *cluster, const BackupId *bid, uint8_t *digest_out,
          CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    fate_name(name, cluster, bid);
    SCOPED_JSON json_t *json = json_get(repository, name, OBJECT_FATE, digest_out, err);
    if (json == NULL)
        return NULL;

    SCOPED(Fate) fate = fate_new();
    fate->bid = *bid;
    JsonReader fields = json_reader(json, name, err);
    const char *verdict = json_read_text(&fields, "fate");
    const char *token = json_read_text(&fields, "token");
    if (strlen(token) >= sizeof fate->token)
        json_reader_fail(&fields, "token");
    else
        memcpy(fate->token, token, strlen(token) + 1);
    if (!fields.failed && strcmp(verdict, "COMMITTED") == 0)
        read_committed(fate, cluster, &fields);
    else if (!fields.failed && strcmp(verdict, "REVOKED") == 0)
        read_revoked(fate, &fields);
    else if (!fields.failed)
        cairn_error(err, CAIRN_CORRUPT, "object '%s': fate '%s' is unknown", name, verdict);
    if (fields.failed || err->kind != CAIRN_OK)
        return NULL;
    return take(&fate);
}
