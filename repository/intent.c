#include "repository/intent.h"

#include "common/bytes.h"
#include "repository/json.h"

#include <stdio.h>
#include <string.h>

void
intent_free(Intent *intent)
{
    if (intent == NULL)
        return;
    free(intent->salvage);
    free(intent);
}

static void
read_token(JsonReader *fields, char token[17])
{
    uint8_t bytes[8];
    const char *text = json_read_text(fields, "token");
    if (strlen(text) != 16 || !hex_decode(bytes, sizeof bytes, text))
        json_reader_fail(fields, "token");
    else
        memcpy(token, text, 17);
}

static void
read_parent(JsonReader *fields, BackupId *parent)
{
    /* Absent is not null: a field that was lost must not read as "none". */
    const json_t *value = fields->failed ? NULL : json_object_get(fields->object, "parent");
    if (json_is_null(value))
        return;
    if (!backup_id_parse(json_read_text(fields, "parent"), parent))
        json_reader_fail(fields, "parent");
}

static void
read_salvage(JsonReader *fields, Intent *intent)
{
    const json_t *array = json_read_array(fields, "salvage");
    const size_t count = array != NULL ? json_array_size(array) : 0;
    if (count > INTENT_SALVAGE_LIMIT) {
        json_reader_fail(fields, "salvage");
        return;
    }
    intent->salvage = calloc(count + 1, sizeof *intent->salvage);
    CAIRN_ASSERT(intent->salvage != NULL);
    intent->salvage_count = count;
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(array, i));
        if (text == NULL || !backup_id_parse(text, &intent->salvage[i]))
            json_reader_fail(fields, "salvage");
    }
}

Intent *
intent_read(Repository *repository, const char *cluster, const BackupId *bid, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "c/%s/b/%s/intent", cluster, bid->text);
    SCOPED_JSON json_t *json = json_get(repository, name, OBJECT_INTENT, NULL, err);
    if (json == NULL)
        return NULL;
    SCOPED(Intent) intent = calloc(1, sizeof *intent);
    CAIRN_ASSERT(intent != NULL);
    JsonReader fields = json_reader(json, name, err);
    read_token(&fields, intent->token);
    host_read(&fields, &intent->host);
    intent->started_us = json_read_time(&fields, "started_at");
    intent->system_id = json_read_u64_text(&fields, "system_id");
    intent->major = (int)json_read_integer(&fields, "major", 1, 1000);
    snprintf(intent->type, sizeof intent->type, "%s", json_read_text(&fields, "type"));
    read_parent(&fields, &intent->parent);
    read_salvage(&fields, intent);
    if (!fields.failed && !json_is_null(json_object_get(json, "wal_floor"))) {
        intent->wal_floor_lsn = json_read_lsn(&fields, "wal_floor");
        intent->has_wal_floor = true;
    }
    return fields.failed ? NULL : take(&intent);
}
