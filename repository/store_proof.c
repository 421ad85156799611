#include "repository/store_proof.h"

#include "common/log.h"
#include "repository/json.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define SWEEP_AGE_US (INT64_C(7) * 24 * 3600 * 1000000)

static const char PREFIX[] = "probe";
static const char RECORD[] = "proof.";

/* "proof.20261122T233140Z.0123456789abcdef": sorted by name is sorted by time. */
enum { RECORD_SIZE = 6 + 16 + 1 + 16 + 1 };

typedef char RecordName[RECORD_SIZE];

static const char *const FEATURES[] = {"not asked", "holds", "fails"};

static bool
is_record(const char *name)
{
    return strlen(name) == RECORD_SIZE - 1 && strncmp(name, RECORD, strlen(RECORD)) == 0;
}

static StorageListNext
keep_newest(void *context, const StorageEntry *entry, CairnError *err)
{
    (void)err;
    char *newest = context;
    if (!entry->is_directory && is_record(entry->name) && strcmp(entry->name, newest) > 0)
        memcpy(newest, entry->name, RECORD_SIZE);
    return STORAGE_LIST_GO_ON;
}

/* "" when there is none. */
static bool
find_newest(Repository *repository, RecordName newest, CairnError *err)
{
    newest[0] = '\0';
    return storage_list(repository_storage(repository), PREFIX, keep_newest, newest, err);
}

static StorageFeature
read_feature(JsonReader *fields, const char *name)
{
    const char *text = json_read_text(fields, name);
    for (size_t i = 0; i < sizeof FEATURES / sizeof FEATURES[0]; i++)
        if (strcmp(text, FEATURES[i]) == 0)
            return (StorageFeature)i;
    if (!fields->failed)
        json_reader_fail(fields, name);
    return STORAGE_FEATURE_FAILS;
}

static bool
read_record(Repository *repository, const RecordName record, StoreProof *proof_out, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "%s/%s", PREFIX, record);
    SCOPED_JSON json_t *json = json_get(repository, name, OBJECT_STORE_PROOF, NULL, err);
    if (json == NULL)
        return false;
    JsonReader fields = json_reader(json, name, err);
    StoreProof proof = {
        .at_us = json_read_time(&fields, "at"),
        .probe = {.exclusive_create = read_feature(&fields, "exclusive_create"),
                  .list_after_write = read_feature(&fields, "list_after_write"),
                  .ranged_read = read_feature(&fields, "ranged_read"),
                  .digest_check = read_feature(&fields, "digest_check"),
                  .object_lock = read_feature(&fields, "object_lock")},
    };
    if (fields.failed)
        return false;
    *proof_out = proof;
    return true;
}

bool
store_proof_record(Repository *repository, const StoreProof *proof, CairnError *err)
{
    char token[17], time_text[17], name[STORAGE_NAME_LIMIT];
    const time_t at_s = (time_t)(proof->at_us / 1000000);
    struct tm utc;
    if (!random_token(repository_world(repository), token, err))
        return false;
    if (gmtime_r(&at_s, &utc) == NULL ||
        strftime(time_text, sizeof time_text, "%Y%m%dT%H%M%SZ", &utc) != sizeof time_text - 1)
        return cairn_error(err, CAIRN_USAGE, "the clock of this host shows no usable time");
    snprintf(name, sizeof name, "%s/%s%s.%s", PREFIX, RECORD, time_text, token);
    const StorageProbe *probe = &proof->probe;
    SCOPED_JSON json_t *json = json_pack(
        "{s:o, s:s, s:s, s:s, s:s, s:s}", "at", json_time(proof->at_us), "exclusive_create",
        FEATURES[probe->exclusive_create], "list_after_write", FEATURES[probe->list_after_write],
        "ranged_read", FEATURES[probe->ranged_read], "digest_check", FEATURES[probe->digest_check],
        "object_lock", FEATURES[probe->object_lock]);
    return json_put(repository, name, OBJECT_STORE_PROOF, 0, json, NULL, err);
}

bool
store_probe_verdict(const StorageProbe *probe, CairnError *err)
{
    if (probe->exclusive_create == STORAGE_FEATURE_FAILS) {
        cairn_error(err, CAIRN_REFUSED, "the object store does not create a name once only: %s",
                    probe->detail);
        return cairn_error_hint(err, "with one host that writes, and no other, it can be used: "
                                     "writers = one; docs/object-stores.md says what that means");
    }
    if (probe->object_lock == STORAGE_FEATURE_FAILS) {
        cairn_error(err, CAIRN_REFUSED, "the object store does not lock: %s", probe->detail);
        return cairn_error_hint(err, "make the bucket with object lock, or remove lock-mode and "
                                     "lock-days");
    }
    if (probe->list_after_write == STORAGE_FEATURE_FAILS ||
        probe->ranged_read == STORAGE_FEATURE_FAILS) {
        cairn_error(err, CAIRN_REFUSED, "the object store cannot be relied on: %s", probe->detail);
        return cairn_error_hint(err, "something between here and the store may be caching: use "
                                     "the store's own address");
    }
    return true;
}

/* Of what this configuration asks for: a record from before a lock was configured says nothing. */
static bool
covers(const Repository *repository, const StorageProbe *probe)
{
    return (probe->exclusive_create == STORAGE_FEATURE_HOLDS ||
            !storage_creates_exclusively(repository_storage(repository))) &&
           (probe->object_lock == STORAGE_FEATURE_HOLDS ||
            repository_config(repository)->s3.lock_mode == NULL);
}

/* An unreadable record is as good as none: the store is asked again. */
static bool
is_fresh(Repository *repository, const RecordName newest, StoreProof *proof, int64_t now_us)
{
    CairnError ignored = {0};
    if (newest[0] == '\0')
        return false;
    if (!read_record(repository, newest, proof, &ignored)) {
        log_debug("the last record of a probe is no use: %s", ignored.message);
        return false;
    }
    return proof->at_us <= now_us && proof->at_us > now_us - STORE_PROOF_AGE_US &&
           covers(repository, &proof->probe);
}

bool
store_proof_renew(Repository *repository, StoreProof *proof_out, CairnError *err)
{
    Storage *storage = repository_storage(repository);
    const Clock *clock = repository_world(repository)->clock;
    RecordName newest;
    StoreProof proof = {0};
    if (!storage_needs_probe(storage)) {
        *proof_out = proof;
        return true;
    }
    if (!find_newest(repository, newest, err))
        return false;
    if (!is_fresh(repository, newest, &proof, clock->wall_us(clock))) {
        proof = (StoreProof){.at_us = clock->wall_us(clock)};
        if (!storage_probe(storage, &proof.probe, err) || !store_probe_verdict(&proof.probe, err) ||
            !store_proof_record(repository, &proof, err))
            return false;
    }
    *proof_out = proof;
    return true;
}

/* -- sweeping */

enum { SWEEP_LIMIT = 1024 }; /* in one run */

typedef struct {
    const char *newest;
    int64_t before_us;
    size_t count;
    char names[SWEEP_LIMIT][64];
} Sweep;

static StorageListNext
note_old(void *context, const StorageEntry *entry, CairnError *err)
{
    (void)err;
    Sweep *sweep = context;
    if (entry->is_directory || entry->modified_us >= sweep->before_us ||
        strlen(entry->name) >= sizeof sweep->names[0] || strcmp(entry->name, sweep->newest) == 0)
        return STORAGE_LIST_GO_ON;
    memcpy(sweep->names[sweep->count++], entry->name, strlen(entry->name) + 1);
    return sweep->count < SWEEP_LIMIT ? STORAGE_LIST_GO_ON : STORAGE_LIST_STOP;
}

bool
store_proof_sweep(Repository *repository, CairnError *err)
{
    Storage *storage = repository_storage(repository);
    const Clock *clock = repository_world(repository)->clock;
    RecordName newest;
    if (!storage_needs_probe(storage))
        return true;
    if (!find_newest(repository, newest, err))
        return false;
    SCOPED_MEMORY Sweep *sweep = calloc(1, sizeof *sweep);
    if (sweep == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    sweep->newest = newest;
    sweep->before_us = clock->wall_us(clock) - SWEEP_AGE_US;
    if (!storage_list(storage, PREFIX, note_old, sweep, err))
        return false;
    for (size_t i = 0; i < sweep->count; i++) {
        char name[STORAGE_NAME_LIMIT];
        snprintf(name, sizeof name, "%s/%s", PREFIX, sweep->names[i]);
        if (!storage_remove(storage, name, err)) {
            if (err->kind != CAIRN_DENIED)
                return false;
            cairn_error_clear(err);
        }
    }
    return true;
}
