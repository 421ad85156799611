/* What is alive: the looks of the collector. The order of reading is the proof's (collect.c). */
#include "common/cancel.h"
#include "repository/attempts.h"
#include "repository/collect_intern.h"
#include "repository/fate.h"
#include "repository/mark.h"
#include "repository/pin.h"
#include "repository/refs.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Intents of the attempts that are open, kept until their claims are known. */
typedef struct {
    Intent *intent;
    BackupId bid;
} OpenIntent;

typedef struct {
    OpenIntent *open;
    size_t count, capacity;
} OpenIntents;

static void
open_intents_free(OpenIntents *intents)
{
    for (size_t i = 0; i < intents->count; i++)
        intent_free(intents->open[i].intent);
    free(intents->open);
}
#define SCOPED_INTENTS __attribute__((cleanup(open_intents_free))) OpenIntents

static bool
stop(CairnError *err, const char *what)
{
    if (err->hint[0] == '\0')
        cairn_error_hint(err,
                         "nothing was deleted: what cannot be read may still be needed; bring the "
                         "object back from a copy of the repository, or see `pgcairn verify`");
    return cairn_error_wrap(err, "unable to tell what is needed: %s", what);
}

/*
 * The same for what a host may put there that is allowed to create and nothing else, and that no
 * copy brings back then. We cannot tell its rubbish from a damaged object that backups rest on, so
 * a person decides; the way out is one that loses nothing should that be wrong about a writer.
 */
static bool PRINTF_LIKE(3, 4) stop_at(CairnError *err, const char *what, const char *way_out, ...)
{
    if (err->kind == CAIRN_CORRUPT || err->kind == CAIRN_MISMATCH) {
        char text[CAIRN_ERROR_HINT_SIZE];
        va_list args;
        va_start(args, way_out);
        vsnprintf(text, sizeof text, way_out, args);
        va_end(args);
        cairn_error_hint(err,
                         "nothing was deleted: what cannot be read may still be needed. Bring the "
                         "object back from a copy of the repository; if no copy has it: %s",
                         text);
    }
    return stop(err, what);
}

static bool
stop_at_summary(CairnError *err, const CollectBackup *backup, const char *what)
{
    return stop_at(err, what,
                   "take other backups first, then let this one go: `pgcairn expire --set %s`",
                   backup->bid.text);
}

static int
by_id(const void *a, const void *b)
{
    return memcmp(((const CollectBackup *)a)->bid.text, ((const CollectBackup *)b)->bid.text,
                  BACKUP_ID_LENGTH);
}

static CollectBackup *
find(const Collect *collect, const BackupId *bid)
{
    const CollectBackup wanted = {.bid = *bid};
    return collect->count == 0 ? NULL
                               : bsearch(&wanted, collect->backups, collect->count,
                                         sizeof *collect->backups, by_id);
}

/* Ids never go away, since fates don't: a listing only adds. */
static bool
list_backups(Collect *collect, CairnError *err)
{
    SCOPED_MEMORY BackupId *ids = NULL;
    size_t id_count;
    if (!attempts_list(collect->repository, collect->cluster, &ids, &id_count, err))
        return false;
    const size_t known = collect->count;
    CollectBackup *backups = reallocarray(collect->backups, known + id_count + 1, sizeof *backups);
    if (backups == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    collect->backups = backups;
    size_t count = known;
    for (size_t i = 0; i < id_count; i++) {
        if (find(collect, &ids[i]) == NULL)
            backups[count++] = (CollectBackup){.bid = ids[i]};
    }
    collect->count = count;
    if (count > known)
        qsort(backups, count, sizeof *backups, by_id);
    return true;
}

static bool
fate_is_named(const Collect *collect, const BackupId *bid, bool *named_out, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    uint64_t size;
    snprintf(name, sizeof name, "c/%s/b/%s/fate", collect->cluster, bid->text);
    *named_out = storage_exists(repository_storage(collect->repository), name, &size, err);
    if (!*named_out && err->kind != CAIRN_NOT_FOUND)
        return false;
    cairn_error_clear(err);
    return true;
}

static bool
keep_intent(OpenIntents *intents, const BackupId *bid, Intent *intent, CairnError *err)
{
    if (intents->count == intents->capacity) {
        const size_t capacity = intents->capacity == 0 ? 16 : 2 * intents->capacity;
        OpenIntent *open = reallocarray(intents->open, capacity, sizeof *open);
        if (open == NULL) {
            intent_free(intent);
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        }
        intents->open = open;
        intents->capacity = capacity;
    }
    intents->open[intents->count++] = (OpenIntent){.intent = intent, .bid = *bid};
    return true;
}

/* Where a fate is named already, the intent says nothing any more: its reader comes next. */
static bool
read_intent(Collect *collect, CollectBackup *backup, OpenIntents *intents, CairnError *err)
{
    bool named;
    if (!fate_is_named(collect, &backup->bid, &named, err))
        return false;
    if (named)
        return true;
    Intent *intent = intent_read(collect->repository, collect->cluster, &backup->bid, err);
    if (intent == NULL) {
        if (err->kind != CAIRN_NOT_FOUND)
            return stop_at(err, "an intent",
                           "`pgcairn collect --revoke %s`: then it can never become a backup, and "
                           "whoever still makes it fails",
                           backup->bid.text);
        cairn_error_clear(err);
        backup->has_intent = false;
        return true;
    }
    backup->has_intent = true;
    backup->has_floor = intent->has_wal_floor;
    backup->floor_lsn = intent->wal_floor_lsn;
    backup->system_id = intent->system_id;
    backup->major = intent->major;
    return keep_intent(intents, &backup->bid, intent, err);
}

static bool
read_fate(Collect *collect, CollectBackup *backup, CairnError *err)
{
    SCOPED(Fate) fate = fate_read(collect->repository, collect->cluster, &backup->bid, NULL, err);
    if (fate == NULL) {
        if (err->kind != CAIRN_NOT_FOUND)
            return stop_at(
                err, "a fate",
                "remove 'c/%s/b/%s/fate', and no other object, where the repository is, "
                "then run `pgcairn collect --revoke %s`, which takes its place for ever; "
                "if it was a backup, that lets it go",
                collect->cluster, backup->bid.text, backup->bid.text);
        cairn_error_clear(err);
        return true;
    }
    backup->fate = fate->committed ? FATE_COMMITTED : FATE_REVOKED;
    backup->protects = false; /* a summary of its own says now what it needs */
    if (!fate->committed)
        return true;
    backup->system_id = fate->system_id;
    backup->major = fate->major;
    backup->has_floor = true;
    backup->floor_lsn = fate->start_lsn;
    backup->stop_lsn = fate->stop_lsn;
    memcpy(backup->refs_sha256, fate->refs_sha256, SHA256_SIZE);
    return true;
}

typedef struct {
    MarkNames marks;
    bool has_intent, has_refs, has_doomed;
} SmallNames;

static StorageListNext
list_small(void *context, const StorageEntry *entry, CairnError *err)
{
    SmallNames *names = context;
    if (strcmp(entry->name, "intent") == 0)
        names->has_intent = true;
    else if (strcmp(entry->name, "refs") == 0)
        names->has_refs = true;
    else if (strncmp(entry->name, "doomed.", strlen("doomed.")) == 0)
        names->has_doomed = true;
    return mark_names_add(&names->marks, entry->name, err) ? STORAGE_LIST_GO_ON
                                                           : STORAGE_LIST_FAILED;
}

/* A listing of its own, after the fate was read. */
static bool
read_marks(Collect *collect, CollectBackup *backup, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT];
    SmallNames names = {0};
    MarkState state = {0};
    snprintf(prefix, sizeof prefix, "c/%s/b/%s", collect->cluster, backup->bid.text);
    if (!storage_list(repository_storage(collect->repository), prefix, list_small, &names, err))
        return stop(err, backup->bid.text);
    if (backup->fate == FATE_COMMITTED &&
        !mark_state(collect->repository, collect->cluster, &backup->bid, &names.marks, &state, err))
        return stop(err, "a mark");
    backup->expired = state.expired;
    backup->pending = state.pending;
    backup->has_intent = names.has_intent;
    backup->has_refs = names.has_refs;
    backup->has_doomed = names.has_doomed;
    return true;
}

static void
claim(const Collect *collect, const BackupId *bid)
{
    CollectBackup *backup = find(collect, bid);
    if (backup != NULL)
        backup->claimed = true;
}

static void
add_holder(CollectReport *report, bool is_pin, const char *name, const char *host, int64_t since_us)
{
    if (report->holder_count < COLLECT_HOLDERS_LISTED) {
        CollectHolder *holder = &report->holders[report->holder_count];
        holder->is_pin = is_pin;
        snprintf(holder->name, sizeof holder->name, "%s", name);
        snprintf(holder->host, sizeof holder->host, "%s", host);
        holder->since_us = since_us;
    }
    report->holder_count++;
}

static void
apply_claims(Collect *collect, const Pins *pins, const OpenIntents *intents)
{
    collect->report->holder_count = 0;
    for (size_t i = 0; i < collect->count; i++)
        collect->backups[i].claimed = false;
    for (size_t i = 0; i < pins->count; i++) {
        const PinRecord *pin = &pins->pins[i];
        for (size_t k = 0; k < pin->backup_count; k++)
            claim(collect, &pin->backups[k]);
        add_holder(collect->report, true, pin->token, pin->host.host, pin->taken_us);
    }
    for (size_t i = 0; i < intents->count; i++) {
        const Intent *intent = intents->open[i].intent;
        /* Decided since: a commit has a summary of its own, a revocation claims nothing. */
        if (find(collect, &intents->open[i].bid)->fate != FATE_OPEN)
            continue;
        if (intent->parent.text[0] != '\0')
            claim(collect, &intent->parent);
        for (size_t k = 0; k < intent->salvage_count; k++)
            claim(collect, &intent->salvage[k]);
        add_holder(collect->report, false, intents->open[i].bid.text, intent->host.host,
                   intent->started_us);
    }
}

static bool
read_all_marks(Collect *collect, bool doomed_only, CairnError *err)
{
    for (size_t i = 0; i < collect->count; i++) {
        CollectBackup *backup = &collect->backups[i];
        if (backup->fate != FATE_OPEN && (!doomed_only || backup->doomed) &&
            (!cancel_check(err) || !read_marks(collect, backup, err)))
            return false;
    }
    return true;
}

/*
 * With doomed_only (look 3) the marks come first: a backup whose marks say expire after it is
 * doomed stays so, and from then on the doomed object keeps readers away. In the other order an
 * un-expire that had looked before we doomed could let a reader in after we read the pins, and an
 * expire hide that from us.
 */
bool
collect_look(Collect *collect, bool doomed_only, CairnError *err)
{
    SCOPED_PINS pins = {0};
    SCOPED_INTENTS intents = {0};
    if ((doomed_only && !read_all_marks(collect, true, err)) ||
        !pins_read(collect->repository, collect->cluster, &pins, err))
        return stop(err, "a pin");
    if (!list_backups(collect, err))
        return false;
    for (size_t i = 0; i < collect->count; i++) {
        if (collect->backups[i].fate == FATE_OPEN &&
            !read_intent(collect, &collect->backups[i], &intents, err))
            return false;
    }
    for (size_t i = 0; i < collect->count; i++) {
        if (collect->backups[i].fate == FATE_OPEN &&
            (!cancel_check(err) || !read_fate(collect, &collect->backups[i], err)))
            return false;
    }
    if (!doomed_only && !read_all_marks(collect, false, err))
        return false;
    apply_claims(collect, &pins, &intents);
    return true;
}

/*
 * What is left of a sweep, or claimed by somebody who will find that out, has nothing to protect.
 * It may have been expired and swept by another run since we read its marks: they are read again.
 */
static bool
check_may_lack_refs(const Collect *collect, const CollectBackup *backup, CairnError *err)
{
    MarkState marks;
    if (backup->expired || backup->pending)
        return true;
    if (!mark_read(collect->repository, collect->cluster, &backup->bid, &marks, err))
        return stop(err, "a mark");
    if (marks.expired || marks.pending)
        return true;
    cairn_error(err, CAIRN_CORRUPT, "object 'c/%s/b/%s/refs' is missing", collect->cluster,
                backup->bid.text);
    return stop_at_summary(err, backup, "the reference summary of a backup");
}

bool
collect_add_refs(const Collect *collect, const CollectBackup *backup, PackSet *packs,
                 CairnError *err)
{
    if (backup->fate != FATE_COMMITTED)
        return true;
    Fate fate = {.cluster = collect->cluster, .bid = backup->bid};
    memcpy(fate.refs_sha256, backup->refs_sha256, SHA256_SIZE);
    SCOPED(Refs) refs = refs_read(collect->repository, &fate, err);
    if (refs != NULL)
        return pack_set_add_refs(packs, refs, err);
    if (err->kind != CAIRN_NOT_FOUND)
        return stop_at_summary(err, backup, "a reference summary");
    cairn_error_clear(err);
    return check_may_lack_refs(collect, backup, err);
}

/* Takes a backup's own packs and those named out of a set. */
static bool
exclude(PackSet *set, const CollectBackup *backup, const PackSet *named, CairnError *err)
{
    PackSet rest = {0};
    if (!pack_set_subtract(set, named, &rest, err)) {
        pack_set_free(&rest);
        return false;
    }
    pack_set_free(set);
    *set = rest;
    pack_set_remove_creator(set, &backup->bid);
    return true;
}

bool
collect_protect(Collect *collect, CollectBackup *backup, CairnError *err)
{
    SCOPED_PACK_SET named = {0};
    if (!collect_add_refs(collect, backup, &named, err))
        return false;
    pack_set_settle(&named);
    return exclude(&collect->sweep, backup, &named, err);
}

bool
collect_protect_roots(Collect *collect, CairnError *err)
{
    for (size_t i = 0; i < collect->count; i++) {
        CollectBackup *backup = &collect->backups[i];
        SCOPED_PACK_SET named = {0};
        if (!collect_is_root(backup) || backup->protects)
            continue;
        if (!collect_add_refs(collect, backup, &named, err))
            return false;
        pack_set_settle(&named);
        if (!exclude(&collect->sweep, backup, &named, err) ||
            !exclude(&collect->garbage, backup, &named, err))
            return false;
        backup->protects = true;
    }
    return true;
}
