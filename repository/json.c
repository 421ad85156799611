#include "repository/json.h"

#include "common/timestamp.h"
#include "postgres/wal_name.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { HEX_LIMIT = 128 };

bool
json_put(Repository *repository, const char *name, ObjectKind kind, uint64_t creator_sequence,
         const json_t *json, uint8_t *digest_out, CairnError *err)
{
    SCOPED_MEMORY char *text =
        json != NULL ? json_dumps(json, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
    if (text == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "unable to write '%s': out of memory or no UTF-8",
                           name);
    return object_put_small(repository, name, kind, creator_sequence, text, strlen(text),
                            digest_out, err);
}

json_t *
json_get(Repository *repository, const char *name, ObjectKind kind, uint8_t *digest_out,
         CairnError *err)
{
    size_t size;
    SCOPED_MEMORY char *text = object_get_small(repository, name, kind, &size, digest_out, err);
    if (text == NULL)
        return NULL;
    json_error_t where;
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &where);
    if (json == NULL || !json_is_object(json)) {
        json_decref(json);
        cairn_error(err, CAIRN_CORRUPT, "object '%s' is no JSON object: %s", name, where.text);
        return NULL;
    }
    return json;
}

JsonReader
json_reader(const json_t *object, const char *name, CairnError *err)
{
    return (JsonReader){.object = object, .name = name, .err = err};
}

void
json_reader_fail(JsonReader *reader, const char *field)
{
    if (!reader->failed) {
        reader->failed = true;
        cairn_error(reader->err, CAIRN_CORRUPT, "object '%s': field '%s' is missing or wrong",
                    reader->name, field);
    }
}

const char *
json_read_text(JsonReader *reader, const char *field)
{
    const char *text =
        reader->failed ? NULL : json_string_value(json_object_get(reader->object, field));
    if (text == NULL) {
        json_reader_fail(reader, field);
        return "";
    }
    return text;
}

const char *
json_read_text_or_null(JsonReader *reader, const char *field)
{
    const json_t *value = reader->failed ? NULL : json_object_get(reader->object, field);
    if (value == NULL || json_is_null(value))
        return NULL;
    return json_read_text(reader, field);
}

int64_t
json_read_integer(JsonReader *reader, const char *field, int64_t minimum, int64_t maximum)
{
    const json_t *value = reader->failed ? NULL : json_object_get(reader->object, field);
    if (!json_is_integer(value) || json_integer_value(value) < minimum ||
        json_integer_value(value) > maximum) {
        json_reader_fail(reader, field);
        return minimum;
    }
    return json_integer_value(value);
}

uint64_t
json_read_u64_text(JsonReader *reader, const char *field)
{
    const char *text = json_read_text(reader, field);
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno != 0 || *text < '0' || *text > '9' || *end != '\0') {
        json_reader_fail(reader, field);
        return 0;
    }
    return value;
}

uint64_t
json_read_lsn(JsonReader *reader, const char *field)
{
    uint64_t lsn = 0;
    if (!lsn_parse(json_read_text(reader, field), &lsn)) {
        json_reader_fail(reader, field);
        return 0;
    }
    return lsn;
}

int64_t
json_read_time(JsonReader *reader, const char *field)
{
    const char *text = json_read_text(reader, field);
    if (reader->failed)
        return 0;
    CairnError ignored = {0}; /* the field's name says more than why its text is no time */
    Timestamp timestamp;
    if (!timestamp_parse(text, &timestamp, &ignored) || !timestamp.has_zone) {
        json_reader_fail(reader, field);
        return 0;
    }
    return timestamp.time_us;
}

bool
json_read_bool(JsonReader *reader, const char *field)
{
    const json_t *value = reader->failed ? NULL : json_object_get(reader->object, field);
    if (!json_is_boolean(value)) {
        json_reader_fail(reader, field);
        return false;
    }
    return json_is_true(value);
}

void
json_read_hex(JsonReader *reader, const char *field, uint8_t *data, size_t size)
{
    const char *text = json_read_text(reader, field);
    if (strlen(text) != 2 * size || !hex_decode(data, size, text)) {
        memset(data, 0, size);
        json_reader_fail(reader, field);
    }
}

const json_t *
json_read_array(JsonReader *reader, const char *field)
{
    const json_t *value = reader->failed ? NULL : json_object_get(reader->object, field);
    if (!json_is_array(value)) {
        json_reader_fail(reader, field);
        return NULL;
    }
    return value;
}

JsonReader
json_read_object(JsonReader *reader, const char *field)
{
    JsonReader nested = *reader;
    nested.object = reader->failed ? NULL : json_object_get(reader->object, field);
    if (!json_is_object(nested.object)) {
        json_reader_fail(reader, field);
        nested.failed = true;
    }
    return nested;
}

JsonReader
json_read_item(JsonReader *reader, const char *field, const json_t *array, size_t index)
{
    /* Inherits the failure: an error is filled once, however many items are wrong. */
    JsonReader nested = *reader;
    nested.object = reader->failed ? NULL : json_array_get(array, index);
    if (!json_is_object(nested.object)) {
        json_reader_fail(reader, field);
        nested.failed = true;
    }
    return nested;
}

void
json_reader_join(JsonReader *reader, const JsonReader *nested)
{
    reader->failed = reader->failed || nested->failed;
}

json_t *
json_lsn(uint64_t lsn)
{
    char text[LSN_TEXT_SIZE];
    lsn_format(text, lsn);
    return json_string(text);
}

json_t *
json_time(int64_t time_us)
{
    char text[TIMESTAMP_TEXT_SIZE];
    timestamp_format(text, time_us);
    return json_string(text);
}

json_t *
json_lossy_text(const char *text)
{
    json_t *value = json_string(text);
    if (value != NULL)
        return value;
    SCOPED_MEMORY char *ascii = strdup(text);
    if (ascii == NULL)
        return NULL;
    for (char *c = ascii; *c != '\0'; c++) {
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    }
    return json_string(ascii);
}

json_t *
json_u64_text(uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, value);
    return json_string(text);
}

json_t *
json_hex(const uint8_t *data, size_t size)
{
    char text[2 * HEX_LIMIT + 1];
    CAIRN_ASSERT(size <= HEX_LIMIT);
    hex_encode(text, data, size);
    return json_string(text);
}
