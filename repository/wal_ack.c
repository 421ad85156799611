#include "repository/wal_ack.h"

#include "common/bytes.h"
#include "repository/host.h"
#include "repository/wal_object.h"

#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOG_SHIFT = 32, LSN_DIGITS = 16, TOKEN_BYTES = 8, PASSWD_SIZE = 4096 };

#define ACK_PREFIX "ack."

static const char *const DECISION_NAMES[] = {
    [WAL_ACK_GAP] = "acknowledge-gap",
    [WAL_ACK_SKIP] = "skip",
};

const char *
wal_ack_decision_name(WalAckDecision decision)
{
    return DECISION_NAMES[decision];
}

/* Exactly sixteen upper-case hex digits; the place after them. NULL for anything else. */
static const char *
parse_lsn_digits(const char *text, uint64_t *lsn_out)
{
    uint32_t high, low;

    if (!wal_digits_parse(text, &high) || !wal_digits_parse(text + LSN_DIGITS / 2, &low))
        return NULL;
    *lsn_out = (uint64_t)high << 32 | low;
    return text + LSN_DIGITS;
}

bool
wal_ack_name_parse(const char *name, uint64_t *start_lsn_out, uint64_t *end_lsn_out)
{
    uint64_t start_lsn, end_lsn;
    uint8_t token[TOKEN_BYTES];

    if (strncmp(name, ACK_PREFIX, strlen(ACK_PREFIX)) != 0)
        return false;
    const char *rest = parse_lsn_digits(name + strlen(ACK_PREFIX), &start_lsn);
    if (rest == NULL || *rest != '-' || (rest = parse_lsn_digits(rest + 1, &end_lsn)) == NULL ||
        *rest != '.' || strlen(rest + 1) != 2 * (size_t)TOKEN_BYTES ||
        !hex_decode(token, sizeof token, rest + 1) || start_lsn >= end_lsn)
        return false;
    *start_lsn_out = start_lsn;
    *end_lsn_out = end_lsn;
    return true;
}

static void
fill_user(char user[WAL_ACK_TEXT_SIZE])
{
    struct passwd entry, *found = NULL;
    char text[PASSWD_SIZE];

    if (getpwuid_r(getuid(), &entry, text, sizeof text, &found) == 0 && found != NULL)
        snprintf(user, WAL_ACK_TEXT_SIZE, "%s", found->pw_name);
    else
        snprintf(user, WAL_ACK_TEXT_SIZE, "uid %lu", (unsigned long)getuid());
}

static bool
check_ack(const WalStore *store, const WalAck *ack, CairnError *err)
{
    const uint64_t size = store->incarnation->wal_segment_size;

    if (ack->timeline == 0 || ack->start_lsn >= ack->end_lsn || ack->start_lsn % size != 0 ||
        ack->end_lsn % size != 0)
        return cairn_error(err, CAIRN_USAGE, "a hole is a range of whole segments on one timeline");
    if (((ack->end_lsn - 1) >> LOG_SHIFT) - (ack->start_lsn >> LOG_SHIFT) >= WAL_ACK_LOG_LIMIT)
        return cairn_error(err, CAIRN_USAGE, "the range is wider than %d GiB",
                           4 * (int)WAL_ACK_LOG_LIMIT);
    if (ack->reason[0] == '\0')
        return cairn_error(err, CAIRN_USAGE, "a reason is needed: who reads it later was not here");
    return true;
}

/* Looks for a segment of the range among the names of one log. */
typedef struct {
    const WalStore *store;
    const WalAck *ack;
    bool found;
    char name[WAL_NAME_SIZE];
} StoredSearch;

static StorageListNext
match_stored(void *context, const StorageEntry *entry, CairnError *err)
{
    StoredSearch *search = context;
    const uint32_t size = search->store->incarnation->wal_segment_size;
    uint32_t timeline;
    uint64_t number;

    (void)err;
    if (entry->is_directory || !wal_segment_parse(entry->name, size, &timeline, &number) ||
        timeline != search->ack->timeline || number < search->ack->start_lsn / size ||
        number >= search->ack->end_lsn / size)
        return STORAGE_LIST_GO_ON;
    search->found = true;
    snprintf(search->name, sizeof search->name, "%s", entry->name);
    return STORAGE_LIST_STOP;
}

static bool
check_absent(WalStore *store, const WalAck *ack, uint64_t log, CairnError *err)
{
    StoredSearch search = {.store = store, .ack = ack};

    if (!wal_store_list_log(store, ack->timeline, (uint32_t)log, match_stored, &search, err))
        return false;
    if (search.found) {
        cairn_error(err, CAIRN_CONFLICT, "'%s' is stored: there is no hole to acknowledge",
                    search.name);
        return cairn_error_hint(err, "name only segments that are missing; `pgcairn info` lists "
                                     "them");
    }
    return true;
}

/* The part of the range that lies in one log. */
static bool
put_part(WalStore *store, const WalAck *ack, uint64_t start_lsn, uint64_t end_lsn, CairnError *err)
{
    const World *world = repository_world(store->repository);
    char own[65], name[STORAGE_NAME_LIMIT + 1];
    char token[2 * TOKEN_BYTES + 1], user[WAL_ACK_TEXT_SIZE];

    if (!random_token(world, token, err))
        return false;
    fill_user(user);
    snprintf(own, sizeof own, ACK_PREFIX "%016" PRIX64 "-%016" PRIX64 ".%s", start_lsn, end_lsn,
             token);
    wal_store_name(store, ack->timeline, (uint32_t)(start_lsn >> LOG_SHIFT), own, name);
    SCOPED_JSON json_t *json =
        json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "decision",
                  wal_ack_decision_name(ack->decision), "timeline", (json_int_t)ack->timeline,
                  "start_lsn", json_lsn(start_lsn), "end_lsn", json_lsn(end_lsn), "at",
                  json_time(world->clock->wall_us(world->clock)), "by", host_json(), "user",
                  json_lossy_text(user), "reason", json_lossy_text(ack->reason));
    return json_put(store->repository, name, OBJECT_WAL_ACK, 0, json, NULL, err);
}

bool
wal_ack_put(WalStore *store, const WalAck *ack, CairnError *err)
{
    if (!check_ack(store, ack, err))
        return false;
    const uint64_t last_log = (ack->end_lsn - 1) >> LOG_SHIFT;
    for (uint64_t log = ack->start_lsn >> LOG_SHIFT; log <= last_log; log++) {
        if (!check_absent(store, ack, log, err))
            return false;
    }
    for (uint64_t start_lsn = ack->start_lsn; start_lsn < ack->end_lsn;) {
        const uint64_t log_end = ((start_lsn >> LOG_SHIFT) + 1) << LOG_SHIFT;
        /* log_end is 0 in the very last log. */
        const uint64_t end_lsn = log_end - 1 < ack->end_lsn - 1 ? log_end : ack->end_lsn;
        if (!put_part(store, ack, start_lsn, end_lsn, err))
            return cairn_error_wrap(err, "unable to acknowledge a hole of timeline %" PRIu32,
                                    ack->timeline);
        start_lsn = end_lsn;
    }
    return true;
}

static void
read_short_text(JsonReader *fields, const char *field, char *text, size_t size)
{
    /* For people only: too long is cut, not refused. */
    snprintf(text, size, "%s", json_read_text(fields, field));
}

static WalAckDecision
read_decision(JsonReader *fields)
{
    const char *text = json_read_text(fields, "decision");

    for (size_t i = 0; i < sizeof DECISION_NAMES / sizeof *DECISION_NAMES; i++) {
        if (strcmp(text, DECISION_NAMES[i]) == 0)
            return (WalAckDecision)i;
    }
    json_reader_fail(fields, "decision");
    return WAL_ACK_GAP;
}

/* The name is bound to the content; that both say the same range is checked all the same. */
static bool
read_ack(WalStore *store, uint32_t timeline, const char *name, uint64_t start_lsn, uint64_t end_lsn,
         WalAck *ack_out, CairnError *err)
{
    WalAck ack = {.timeline = timeline, .start_lsn = start_lsn, .end_lsn = end_lsn};
    SCOPED_JSON json_t *json = json_get(store->repository, name, OBJECT_WAL_ACK, NULL, err);

    if (json == NULL)
        return false;
    JsonReader fields = json_reader(json, name, err);
    JsonReader by = json_read_object(&fields, "by");
    ack.decision = read_decision(&fields);
    if (json_read_integer(&fields, "timeline", 1, UINT32_MAX) != (int64_t)timeline)
        json_reader_fail(&fields, "timeline");
    if (json_read_lsn(&fields, "start_lsn") != start_lsn)
        json_reader_fail(&fields, "start_lsn");
    if (json_read_lsn(&fields, "end_lsn") != end_lsn)
        json_reader_fail(&fields, "end_lsn");
    ack.at_us = json_read_time(&fields, "at");
    read_short_text(&by, "host", ack.host, sizeof ack.host);
    json_reader_join(&fields, &by);
    read_short_text(&fields, "user", ack.user, sizeof ack.user);
    read_short_text(&fields, "reason", ack.reason, sizeof ack.reason);
    if (fields.failed)
        return false;
    *ack_out = ack;
    return true;
}

typedef struct {
    WalStore *store;
    uint32_t timeline;
    uint32_t log;
    uint64_t start_lsn, end_lsn; /* what is asked about */
    WalAck *acks;
    size_t count, capacity;
} AckList;

static bool
grow(AckList *list, CairnError *err)
{
    if (list->count < list->capacity)
        return true;
    const size_t capacity = list->capacity == 0 ? 8 : 2 * list->capacity;
    WalAck *acks = reallocarray(list->acks, capacity, sizeof *acks);
    if (acks == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    list->acks = acks;
    list->capacity = capacity;
    return true;
}

static bool
proves_nothing(const CairnError *err)
{
    return err->kind == CAIRN_CORRUPT || err->kind == CAIRN_MISMATCH ||
           err->kind == CAIRN_UNSUPPORTED || err->kind == CAIRN_NOT_FOUND;
}

static StorageListNext
collect_ack(void *context, const StorageEntry *entry, CairnError *err)
{
    AckList *list = context;
    char name[STORAGE_NAME_LIMIT + 1];
    uint64_t start_lsn, end_lsn;

    if (entry->is_directory || !wal_ack_name_parse(entry->name, &start_lsn, &end_lsn) ||
        start_lsn >= list->end_lsn || end_lsn <= list->start_lsn || list->count == WAL_ACK_LIMIT)
        return STORAGE_LIST_GO_ON;
    wal_store_name(list->store, list->timeline, list->log, entry->name, name);
    if (!grow(list, err))
        return STORAGE_LIST_FAILED;
    if (read_ack(list->store, list->timeline, name, start_lsn, end_lsn, &list->acks[list->count],
                 err)) {
        list->count++;
        return STORAGE_LIST_GO_ON;
    }
    if (!proves_nothing(err))
        return STORAGE_LIST_FAILED;
    cairn_error_clear(err);
    return STORAGE_LIST_GO_ON;
}

static bool
find_acks(WalStore *store, AckList *list, CairnError *err)
{
    SCOPED_MEMORY uint32_t *logs = NULL;
    size_t count = 0;

    if (list->start_lsn >= list->end_lsn)
        return true;
    if (!wal_store_logs(store, list->timeline, &logs, &count, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (logs[i] < list->start_lsn >> LOG_SHIFT || logs[i] > (list->end_lsn - 1) >> LOG_SHIFT)
            continue;
        list->log = logs[i];
        if (!wal_store_list_log(store, list->timeline, list->log, collect_ack, list, err))
            return false;
    }
    return true;
}

bool
wal_ack_find(WalStore *store, uint32_t timeline, uint64_t start_lsn, uint64_t end_lsn,
             WalAck **acks_out, size_t *count_out, CairnError *err)
{
    AckList list = {
        .store = store, .timeline = timeline, .start_lsn = start_lsn, .end_lsn = end_lsn};

    if (!find_acks(store, &list, err)) {
        free(list.acks);
        return cairn_error_wrap(err, "unable to look for acknowledged holes of timeline %" PRIu32,
                                timeline);
    }
    *acks_out = list.acks;
    *count_out = list.count;
    return true;
}

/* How far the range is covered from lsn on, by what begins at or before it. */
static uint64_t
covered_from(const WalAck *acks, size_t count, uint64_t lsn)
{
    uint64_t end_lsn = lsn;

    for (size_t i = 0; i < count; i++) {
        if (acks[i].start_lsn <= lsn && acks[i].end_lsn > end_lsn)
            end_lsn = acks[i].end_lsn;
    }
    return end_lsn;
}

const WalAck *
wal_ack_covering(const WalAck *acks, size_t count, uint64_t start_lsn, uint64_t end_lsn)
{
    const WalAck *newest = NULL;

    for (uint64_t lsn = start_lsn; lsn < end_lsn;) {
        const uint64_t next = covered_from(acks, count, lsn);
        if (next == lsn)
            return NULL;
        lsn = next;
    }
    for (size_t i = 0; i < count; i++) {
        if (acks[i].start_lsn < end_lsn && acks[i].end_lsn > start_lsn &&
            (newest == NULL || acks[i].at_us > newest->at_us))
            newest = &acks[i];
    }
    return newest;
}
