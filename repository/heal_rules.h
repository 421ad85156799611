/*
 * What is to be put right in a storage that keeps versions, after somebody deleted or overwrote
 * objects (heal.h does it). Pure: fed with versions, hands out items.
 *
 * A name of ours is created once and never changes. So what it held at TIME, or, if it was created
 * later, what it was created with, is what it must hold now. A deletion since then hides it, a
 * version since then overwrites it.
 *
 * Not every hidden name comes back. Legitimate deletions since TIME are undone with the others, and
 * that is safe for what a collector takes: packs, summaries, intents and WAL that nobody needs are
 * garbage again, no root names them, and the next collector condemns and deletes them as ever
 * (collect.c: what is deleted follows from roots alone). But these stay hidden:
 *
 * - condemn lists permit deletions. Hiding one delays a collector; bringing one back would let it
 *   delete at once what it must first condemn anew, and take the grace from who wants to un-expire.
 * - doomed objects, since one below a living backup would keep readers and writers off it. With one
 *   exception: where the summary (refs) of the backup comes back, and packs may be gone that were
 *   deleted before TIME or have no version any more. Its own doomed object, which says so and
 *   forbids to un-expire it, comes back too.
 * - pins are of readers that are gone, and would hold back collectors until somebody drops them.
 * - the recovery index is derived (`verify --reindex`), and its numbers are used again.
 * - pieces of a WAL segment that is there say nothing that it does not say.
 * - probes, checks and the collector's reserve hold nothing.
 *
 * Marks and key slots have names that are used again: where one is there that was created while the
 * old one was hidden, `may_be_newer` says so, and a whole one stays (heal.c).
 *
 * Memory: fixed, however many versions. Threads: one.
 */
#ifndef PGCAIRN_REPOSITORY_HEAL_RULES_H
#define PGCAIRN_REPOSITORY_HEAL_RULES_H

#include "common/scoped.h"
#include "storage/storage.h"

/* What a name is of, for counting and for people. */
typedef enum {
    HEAL_DESCRIPTOR,
    HEAL_KEY,
    HEAL_INCARNATION,
    HEAL_FATE,
    HEAL_REFS,
    HEAL_INTENT,
    HEAL_MARK,
    HEAL_EVIDENCE,
    HEAL_PACK,
    HEAL_MAP_PACK,
    HEAL_WAL,
    HEAL_DOOMED,
    HEAL_PIN,
    HEAL_CONDEMNED,
    HEAL_INDEX,
    HEAL_PASSING, /* probes, checks, the reserve: never touched */
    HEAL_FOREIGN, /* no name of ours: never touched */
    HEAL_SUBJECTS,
} HealSubject;

HealSubject heal_subject(const char *name);
const char *heal_subject_name(HealSubject subject); /* "packs" */

typedef struct {
    char name[STORAGE_NAME_LIMIT + 1];
    HealSubject subject;
    bool overwritten;                        /* else hidden by a deletion */
    int64_t changed_us;                      /* the first change since TIME */
    char version[STORAGE_VERSION_LIMIT + 1]; /* what it must hold */
    uint64_t size_bytes;
    /* Of an overwritten one: what is there now. */
    char current[STORAGE_VERSION_LIMIT + 1];
    bool same_size;    /* whether it differs, reading both must tell */
    bool may_be_newer; /* it may be one of ours, and later: reading it must tell */
} HealItem;

typedef struct {
    uint64_t names, versions;
    uint64_t
        without_version;  /* deleted since TIME, and no version left: for good, or never there */
    uint64_t left_hidden; /* what is listed above */
    uint64_t
        earlier; /* overwritten before TIME: what is brought back may not be what was created */
    uint64_t new_marks; /* marks that were put down since TIME and are there */
    bool kept_versions; /* any name has a version of its own */
} HealCounts;

typedef bool HealWant(void *context, const HealItem *item, CairnError *err);

typedef struct HealRules HealRules;
/* since_us: whole seconds; what happened in that second happened since. */
HealRules *heal_rules_new(int64_t since_us, HealWant *want, void *context,
                          CairnError *err) MUST_CHECK;
/* In the order of storage_list_versions. False: what `want` failed at. */
bool heal_rules_add(HealRules *rules, const StorageVersion *version, CairnError *err) MUST_CHECK;
/* After the last one. */
bool heal_rules_finish(HealRules *rules, CairnError *err) MUST_CHECK;
const HealCounts *heal_rules_counts(const HealRules *rules);
void heal_rules_free(HealRules *rules);
SCOPED_TYPE(HealRules, heal_rules_free);

#endif
