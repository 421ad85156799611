/* Pins as a collector sees them: reading, dead ones, judging one. See pin.h. */
#include "repository/pin.h"

#include "common/bytes.h"
#include "common/cancel.h"
#include "repository/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { WATCH_STEP_MS = 1000 };

static void
record_free(PinRecord *record)
{
    free(record->backups);
}

void
pins_free(Pins *pins)
{
    for (size_t i = 0; i < pins->count; i++)
        record_free(&pins->pins[i]);
    free(pins->pins);
    *pins = (Pins){0};
}

/* Names of a listing: "<token>" and "<token>.<n>". */
typedef struct {
    char token[17];
    uint64_t renewal; /* 0: the pin itself */
} PinName;

typedef struct {
    PinName *names;
    size_t count, capacity;
} PinNames;

static bool
parse_name(const char *text, PinName *name_out)
{
    uint8_t bytes[8];
    char canonical[64];
    PinName name = {0};
    if (strlen(text) < 16)
        return false;
    memcpy(name.token, text, 16);
    if (!hex_decode(bytes, sizeof bytes, name.token))
        return false;
    if (text[16] != '\0') {
        if (sscanf(text + 16, ".%" SCNu64, &name.renewal) != 1 || name.renewal == 0)
            return false;
        snprintf(canonical, sizeof canonical, ".%" PRIu64, name.renewal);
        if (strcmp(text + 16, canonical) != 0)
            return false;
    }
    *name_out = name;
    return true;
}

static StorageListNext
list_name(void *context, const StorageEntry *entry, CairnError *err)
{
    PinNames *names = context;
    PinName name;
    if (entry->is_directory || !parse_name(entry->name, &name))
        return STORAGE_LIST_GO_ON;
    if (names->count == names->capacity) {
        const size_t capacity = names->capacity == 0 ? 16 : 2 * names->capacity;
        PinName *grown = reallocarray(names->names, capacity, sizeof *grown);
        if (grown == NULL) {
            cairn_error(err, CAIRN_INTERNAL, "out of memory");
            return STORAGE_LIST_FAILED;
        }
        names->names = grown;
        names->capacity = capacity;
    }
    names->names[names->count++] = name;
    return STORAGE_LIST_GO_ON;
}

/* names_out->names is malloc'ed (returned owned). */
static bool
list_names(Repository *repository, const char *cluster, PinNames *names_out, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT];
    PinNames names = {0};
    snprintf(prefix, sizeof prefix, "c/%s/pin", cluster);
    if (!storage_list(repository_storage(repository), prefix, list_name, &names, err)) {
        free(names.names);
        return false;
    }
    *names_out = names;
    return true;
}

static uint64_t
highest_renewal(const PinNames *names, const char *token)
{
    uint64_t highest = 0;
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->names[i].token, token) == 0 && names->names[i].renewal > highest)
            highest = names->names[i].renewal;
    }
    return highest;
}

static void
read_backups(JsonReader *fields, PinRecord *record)
{
    const json_t *array = json_read_array(fields, "backups");
    const size_t count = array != NULL ? json_array_size(array) : 0;
    record->backups = calloc(count + 1, sizeof *record->backups);
    CAIRN_ASSERT(record->backups != NULL); /* bounded by the limit of small objects */
    record->backup_count = count;
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(array, i));
        if (text == NULL || !backup_id_parse(text, &record->backups[i]))
            json_reader_fail(fields, "backups");
    }
}

static bool
unreadable(const char *token, CairnError *err)
{
    return cairn_error_hint(err,
                            "nothing was deleted: somebody may be reading. `pgcairn collect "
                            "--drop-pin %s` watches it for %d minutes and removes it if its reader "
                            "gives no sign of life",
                            token, PIN_STALE_S / 60);
}

/* False: err is CAIRN_OK when the pin was released meanwhile. */
static bool
read_pin(Repository *repository, const char *cluster, const char *token, PinRecord *record_out,
         CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "c/%s/pin/%s", cluster, token);
    SCOPED_JSON json_t *json = json_get(repository, name, OBJECT_PIN, NULL, err);
    if (json == NULL) {
        if (err->kind != CAIRN_NOT_FOUND)
            return unreadable(token, err);
        cairn_error_clear(err);
        return false;
    }
    PinRecord record = {0};
    JsonReader fields = json_reader(json, name, err);
    if (strcmp(json_read_text(&fields, "token"), token) != 0)
        json_reader_fail(&fields, "token");
    memcpy(record.token, token, sizeof record.token);
    snprintf(record.purpose, sizeof record.purpose, "%s", json_read_text(&fields, "purpose"));
    record.taken_us = json_read_time(&fields, "at");
    host_read(&fields, &record.host);
    read_backups(&fields, &record);
    if (fields.failed) {
        record_free(&record);
        return unreadable(token, err);
    }
    *record_out = record;
    return true;
}

/* record is taken, even on failure. */
static bool
append(Pins *pins, PinRecord *record, CairnError *err)
{
    if (pins->count == pins->capacity) {
        const size_t capacity = pins->capacity == 0 ? 8 : 2 * pins->capacity;
        PinRecord *grown = reallocarray(pins->pins, capacity, sizeof *grown);
        if (grown == NULL) {
            record_free(record);
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        }
        pins->pins = grown;
        pins->capacity = capacity;
    }
    pins->pins[pins->count++] = *record;
    return true;
}

/* Pins of living and of foreign processes, or those of this host's dead ones. */
static bool
read_pins(Repository *repository, const char *cluster, const PinNames *names, bool dead,
          Pins *pins_out, CairnError *err)
{
    Pins pins = {0};
    for (size_t i = 0; i < names->count; i++) {
        PinRecord record;
        if (names->names[i].renewal != 0)
            continue;
        if (!read_pin(repository, cluster, names->names[i].token, &record, err)) {
            if (err->kind == CAIRN_OK)
                continue;
            pins_free(&pins);
            return false;
        }
        record.renewals = highest_renewal(names, record.token);
        if (host_is_dead(&record.host) != dead) {
            record_free(&record);
        } else if (!append(&pins, &record, err)) {
            pins_free(&pins);
            return false;
        }
    }
    *pins_out = pins;
    return true;
}

bool
pins_read(Repository *repository, const char *cluster, Pins *pins_out, CairnError *err)
{
    PinNames names;
    if (!list_names(repository, cluster, &names, err))
        return false;
    const bool done = read_pins(repository, cluster, &names, false, pins_out, err);
    free(names.names);
    return done;
}

static bool
remove_name(Repository *repository, const char *cluster, const PinName *pin, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    if (pin->renewal == 0)
        snprintf(name, sizeof name, "c/%s/pin/%s", cluster, pin->token);
    else
        snprintf(name, sizeof name, "c/%s/pin/%s.%" PRIu64, cluster, pin->token, pin->renewal);
    return storage_remove(repository_storage(repository), name, err);
}

static bool
is_pinned(const PinNames *names, const char *token)
{
    for (size_t i = 0; i < names->count; i++) {
        if (names->names[i].renewal == 0 && strcmp(names->names[i].token, token) == 0)
            return true;
    }
    return false;
}

bool
pins_remove_dead(Repository *repository, const char *cluster, CairnError *err)
{
    PinNames names;
    SCOPED_PINS dead = {0};
    if (!list_names(repository, cluster, &names, err))
        return false;
    bool done = read_pins(repository, cluster, &names, true, &dead, err);
    for (size_t i = 0; done && i < dead.count; i++) {
        PinName name = {0};
        memcpy(name.token, dead.pins[i].token, sizeof name.token);
        done = remove_name(repository, cluster, &name, err);
    }
    /* A sign of life holds nothing, so one too many removed hurts nobody. */
    for (size_t i = 0; done && i < names.count; i++) {
        if (names.names[i].renewal != 0 && !is_pinned(&names, names.names[i].token))
            done = remove_name(repository, cluster, &names.names[i], err);
    }
    free(names.names);
    return done;
}

/* NOT_FOUND when the pin is not there. */
static bool
look_at(Repository *repository, const char *cluster, const char *token, uint64_t *renewals_out,
        CairnError *err)
{
    PinNames names;
    if (!list_names(repository, cluster, &names, err))
        return false;
    const bool there = is_pinned(&names, token);
    *renewals_out = highest_renewal(&names, token);
    free(names.names);
    return there || cairn_error(err, CAIRN_NOT_FOUND, "there is no pin '%s'", token);
}

bool
pin_judge(Repository *repository, const char *cluster, const char *token, CairnError *err)
{
    const Clock *clock = repository_world(repository)->clock;
    const int64_t begin_ns = clock->monotonic_ns(clock);
    uint64_t before, now;
    PinName name;
    if (!parse_name(token, &name) || name.renewal != 0)
        return cairn_error(err, CAIRN_USAGE, "'%.40s' is not the token of a pin", token);
    if (!look_at(repository, cluster, token, &before, err))
        return false;
    /* Our own clock alone: a reader that lives gives several signs in this time. */
    while (clock->monotonic_ns(clock) - begin_ns < (int64_t)PIN_STALE_S * 1000000000) {
        if (!cancel_check(err))
            return false;
        clock->sleep_ms(clock, WATCH_STEP_MS);
    }
    if (!look_at(repository, cluster, token, &now, err))
        return false;
    if (now != before) {
        return cairn_error(err, CAIRN_REFUSED, "the reader of pin '%s' is alive: it renewed it",
                           token);
    }
    return remove_name(repository, cluster, &name, err);
}
