/*
 * Small JSON objects of the repository: written whole, read field by field with every type and
 * bound checked.
 *
 * JsonReader: failure is sticky; the first missing or wrong field fills err (CORRUPT, naming object
 * and field), later reads return empty values. Texts are borrowed from the JSON value. Numbers that
 * may pass 2^53 are decimal strings; LSNs and times are text.
 */
#ifndef PGCAIRN_REPOSITORY_JSON_H
#define PGCAIRN_REPOSITORY_JSON_H

#include "repository/object.h"

#include <jansson.h>

static inline void
scoped_json_decref(json_t **value)
{
    json_decref(*value);
}
#define SCOPED_JSON __attribute__((cleanup(scoped_json_decref)))

/* json NULL (a failed json_pack) is INTERNAL: out of memory. */
bool json_put(Repository *repository, const char *name, ObjectKind kind, uint64_t creator_sequence,
              const json_t *json, uint8_t *digest_out, CairnError *err) MUST_CHECK;
/* An object; CORRUPT when the content is anything else. Returned owned. */
json_t *json_get(Repository *repository, const char *name, ObjectKind kind, uint8_t *digest_out,
                 CairnError *err) MUST_CHECK;

typedef struct {
    const json_t *object;
    const char *name; /* for messages */
    CairnError *err;
    bool failed;
} JsonReader;

JsonReader json_reader(const json_t *object, const char *name, CairnError *err);

const char *json_read_text(JsonReader *reader, const char *field); /* "" after failure */
const char *json_read_text_or_null(JsonReader *reader,
                                   const char *field); /* absent or null: NULL */
int64_t json_read_integer(JsonReader *reader, const char *field, int64_t minimum, int64_t maximum);
uint64_t json_read_u64_text(JsonReader *reader, const char *field);
uint64_t json_read_lsn(JsonReader *reader, const char *field);
int64_t json_read_time(JsonReader *reader, const char *field);
bool json_read_bool(JsonReader *reader, const char *field);
void json_read_hex(JsonReader *reader, const char *field, uint8_t *data, size_t size);
/* NULL after failure. */
const json_t *json_read_array(JsonReader *reader, const char *field);
JsonReader json_read_object(JsonReader *reader, const char *field);
/* The object at this place of an array that json_read_array returned. */
JsonReader json_read_item(JsonReader *reader, const char *field, const json_t *array, size_t index);
/* A value of the right type that the caller finds wrong: as if the field were damaged. */
void json_reader_fail(JsonReader *reader, const char *field);
/* Takes over the failure of a nested reader. */
void json_reader_join(JsonReader *reader, const JsonReader *nested);

/* Values for json_pack: new references (use format "o"). */
json_t *json_lsn(uint64_t lsn);
json_t *json_time(int64_t time_us);
/* For people only: bytes that are no UTF-8 become '?', so that a stray file name fails no backup.
 */
json_t *json_lossy_text(const char *text);
json_t *json_u64_text(uint64_t value);
json_t *json_hex(const uint8_t *data, size_t size);

#endif
