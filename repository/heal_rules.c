#include "repository/heal_rules.h"

#include "repository/backup_id.h"
#include "repository/replica.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- names */

static bool
begins_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* part: what follows "c/<cluster>/b/<BID>/". */
static HealSubject
subject_in_backup(const char *part)
{
    static const struct {
        const char *start;
        bool whole;
        HealSubject subject;
    } PARTS[] = {
        {"fate", true, HEAL_FATE},     {"refs", true, HEAL_REFS},
        {"intent", true, HEAL_INTENT}, {"mark.", false, HEAL_MARK},
        {"ev.", false, HEAL_EVIDENCE}, {"p/", false, HEAL_PACK},
        {"m/", false, HEAL_MAP_PACK},  {"doomed.", false, HEAL_DOOMED},
    };
    for (size_t i = 0; i < sizeof PARTS / sizeof PARTS[0]; i++) {
        if (PARTS[i].whole ? strcmp(part, PARTS[i].start) == 0 : begins_with(part, PARTS[i].start))
            return PARTS[i].subject;
    }
    return HEAL_FOREIGN;
}

/* rest: what follows "c/<cluster>/". */
static HealSubject
subject_in_cluster(const char *rest)
{
    static const struct {
        const char *start;
        HealSubject subject;
    } PLACES[] = {
        {"i/", HEAL_INCARNATION},     {"w/", HEAL_WAL},        {"pin/", HEAL_PIN},
        {"gc/reserve", HEAL_PASSING}, {"gc/", HEAL_CONDEMNED}, {"cat/", HEAL_INDEX},
        {"check-", HEAL_PASSING},
    };
    if (begins_with(rest, "b/")) {
        const char *part = strchr(rest + 2, '/');
        char id[BACKUP_ID_LENGTH + 1];
        BackupId bid;
        if (part == NULL || part - (rest + 2) != BACKUP_ID_LENGTH)
            return HEAL_FOREIGN;
        snprintf(id, sizeof id, "%.*s", BACKUP_ID_LENGTH, rest + 2);
        return backup_id_parse(id, &bid) ? subject_in_backup(part + 1) : HEAL_FOREIGN;
    }
    for (size_t i = 0; i < sizeof PLACES / sizeof PLACES[0]; i++) {
        if (begins_with(rest, PLACES[i].start))
            return PLACES[i].subject;
    }
    return HEAL_FOREIGN;
}

HealSubject
heal_subject(const char *name)
{
    if (strcmp(name, DESCRIPTOR_NAME) == 0 || strcmp(name, REPLICA_DESCRIPTOR) == 0)
        return HEAL_DESCRIPTOR;
    if (begins_with(name, "keys/"))
        return HEAL_KEY;
    if (begins_with(name, "probe/"))
        return HEAL_PASSING;
    const char *rest = begins_with(name, "c/") ? strchr(name + 2, '/') : NULL;
    return rest != NULL ? subject_in_cluster(rest + 1) : HEAL_FOREIGN;
}

const char *
heal_subject_name(HealSubject subject)
{
    static const char *const NAMES[HEAL_SUBJECTS] = {
        [HEAL_DESCRIPTOR] = "descriptors",
        [HEAL_KEY] = "keys",
        [HEAL_INCARNATION] = "incarnations",
        [HEAL_FATE] = "fates",
        [HEAL_REFS] = "summaries",
        [HEAL_INTENT] = "intents",
        [HEAL_MARK] = "marks",
        [HEAL_EVIDENCE] = "evidence",
        [HEAL_PACK] = "packs",
        [HEAL_MAP_PACK] = "map packs",
        [HEAL_WAL] = "WAL files",
        [HEAL_DOOMED] = "doomed objects",
        [HEAL_PIN] = "pins",
        [HEAL_CONDEMNED] = "condemn lists",
        [HEAL_INDEX] = "recovery indexes",
        [HEAL_PASSING] = "probes",
        [HEAL_FOREIGN] = "foreign objects",
    };
    return NAMES[subject];
}

/* -- versions of one name */

enum { DIGEST_SIZE = 80 };

typedef struct {
    char version[STORAGE_VERSION_LIMIT + 1];
    char digest[DIGEST_SIZE]; /* "": none */
    bool is_deletion;
    uint64_t size_bytes;
    int64_t created_us;
} Seen;

/* The name at hand, from its newest version to its oldest. */
typedef struct {
    char name[STORAGE_NAME_LIMIT + 1];
    HealSubject subject;
    uint64_t count;
    Seen newest;
    bool after_deletion; /* what is there was created while the name was absent */
    int64_t last_us;     /* of the version before this one, a later one */
    /* The oldest version since TIME, and what came right after it. */
    Seen first;
    bool has_first;
    int64_t first_changed_us;
    /* At TIME: the newest before it. */
    bool has_old;
    Seen old;
    int64_t old_changed_us;
    /* The oldest that `old` overwrote, while nothing but overwriting happened. */
    bool chain_ends, has_origin;
    Seen origin;
} Name;

struct HealRules {
    int64_t since_us;
    HealWant *want;
    void *context;
    HealCounts counts;
    Name name;
    /* Of the backup at hand. */
    char backup[STORAGE_NAME_LIMIT + 1]; /* "c/<cluster>/b/<BID>/" */
    bool packs_gone;
    bool has_doomed, doomed_is_old;
    HealItem doomed;
    /* The last WAL segment that is there, or comes back. */
    char wal[STORAGE_NAME_LIMIT + 1];
};

HealRules *
heal_rules_new(int64_t since_us, HealWant *want, void *context, CairnError *err)
{
    HealRules *rules = calloc(1, sizeof *rules);
    if (rules == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    rules->since_us = since_us;
    rules->want = want;
    rules->context = context;
    return rules;
}

void
heal_rules_free(HealRules *rules)
{
    free(rules);
}

const HealCounts *
heal_rules_counts(const HealRules *rules)
{
    return &rules->counts;
}

static Seen
see(const StorageVersion *version)
{
    Seen seen = {.is_deletion = version->is_deletion,
                 .size_bytes = version->size_bytes,
                 .created_us = version->created_us};
    CAIRN_ASSERT(strlen(version->version) < sizeof seen.version);
    snprintf(seen.version, sizeof seen.version, "%s", version->version);
    if (strlen(version->digest) < sizeof seen.digest)
        snprintf(seen.digest, sizeof seen.digest, "%s", version->digest);
    return seen;
}

static bool
is_same(const Seen *a, const Seen *b)
{
    return a->size_bytes == b->size_bytes && a->digest[0] != '\0' &&
           strcmp(a->digest, b->digest) == 0;
}

static void
note_version(Name *name, const StorageVersion *version, int64_t since_us)
{
    const Seen seen = see(version);
    name->count++;
    if (name->count == 1)
        name->newest = seen;
    if (name->count == 2)
        name->after_deletion = seen.is_deletion;
    if (name->has_old) {
        name->chain_ends = name->chain_ends || seen.is_deletion || name->old.is_deletion;
        if (!name->chain_ends) {
            name->origin = seen;
            name->has_origin = true;
        }
    } else if (seen.created_us < since_us) {
        name->old = seen;
        name->has_old = true;
        name->old_changed_us = name->last_us;
    } else if (!seen.is_deletion) {
        name->first = seen;
        name->has_first = true;
        name->first_changed_us = name->last_us;
    }
    name->last_us = seen.created_us;
}

/* What the name must hold; NULL: nothing, or no version of it is left. */
static const Seen *
wanted_version(const Name *name)
{
    if (name->has_old && !name->old.is_deletion)
        return &name->old;
    return name->has_first ? &name->first : NULL;
}

/* -- what comes of a name */

static HealItem
make_item(const Name *name, const Seen *wanted)
{
    const Seen *newest = &name->newest;
    HealItem item = {.subject = name->subject,
                     .overwritten = !newest->is_deletion,
                     .changed_us =
                         wanted == &name->old ? name->old_changed_us : name->first_changed_us,
                     .size_bytes = wanted->size_bytes,
                     .same_size = !newest->is_deletion && newest->size_bytes == wanted->size_bytes};
    memcpy(item.name, name->name, sizeof item.name);
    memcpy(item.version, wanted->version, sizeof item.version);
    if (item.overwritten)
        memcpy(item.current, newest->version, sizeof item.current);
    item.may_be_newer = item.overwritten && name->after_deletion &&
                        (name->subject == HEAL_MARK || name->subject == HEAL_KEY);
    return item;
}

/* "<segment>.tail.*" of a segment that is there. */
static bool
is_needless_piece(const HealRules *rules, const Name *name)
{
    const char *tail = strstr(name->name, ".tail.");
    const size_t size = tail != NULL ? (size_t)(tail - name->name) : 0;
    return name->subject == HEAL_WAL && size > 0 && strlen(rules->wal) == size &&
           strncmp(rules->wal, name->name, size) == 0;
}

/* The head of this file's header says why. */
static bool
stays_hidden(const HealRules *rules, const Name *name)
{
    switch (name->subject) {
    case HEAL_DOOMED:
    case HEAL_PIN:
    case HEAL_CONDEMNED:
    case HEAL_INDEX:
        return true;
    default:
        return is_needless_piece(rules, name);
    }
}

static void
keep_doomed(HealRules *rules, const HealItem *item, bool is_old)
{
    if (rules->has_doomed && (rules->doomed_is_old || !is_old))
        return;
    rules->has_doomed = true;
    rules->doomed_is_old = is_old;
    rules->doomed = *item;
}

static bool
take_hidden(HealRules *rules, const HealItem *item, bool existed_at_time, CairnError *err)
{
    if (stays_hidden(rules, &rules->name)) {
        rules->counts.left_hidden++;
        if (item->subject == HEAL_DOOMED)
            keep_doomed(rules, item, existed_at_time);
        return true;
    }
    if (item->subject == HEAL_REFS && rules->has_doomed &&
        (rules->packs_gone || rules->doomed_is_old)) {
        rules->has_doomed = false;
        rules->counts.left_hidden--;
        if (!rules->want(rules->context, &rules->doomed, err))
            return false;
    }
    return rules->want(rules->context, item, err);
}

/* Between a segment and its pieces lie its partials and its history file, which have a dot. */
static void
note_present(HealRules *rules, const Name *name)
{
    if (name->subject == HEAL_WAL && strchr(strrchr(name->name, '/'), '.') == NULL)
        memcpy(rules->wal, name->name, sizeof rules->wal);
}

static bool
take_name(HealRules *rules, const Name *name, const Seen *wanted, CairnError *err)
{
    const Seen *newest = &name->newest;
    const bool is_new = wanted == &name->first;
    if (strcmp(newest->version, wanted->version) == 0 ||
        (!newest->is_deletion && is_same(newest, wanted))) {
        rules->counts.new_marks += is_new && name->subject == HEAL_MARK;
        note_present(rules, name);
        return true;
    }
    const HealItem item = make_item(name, wanted);
    if (!item.overwritten) {
        const bool done = take_hidden(rules, &item, !is_new, err);
        if (!stays_hidden(rules, name))
            note_present(rules, name);
        return done;
    }
    note_present(rules, name);
    /* Made anew under a number of before: as good as the old one. */
    if (name->subject == HEAL_INDEX && name->after_deletion)
        return true;
    return rules->want(rules->context, &item, err);
}

static bool
finish_name(HealRules *rules, CairnError *err)
{
    const Name *name = &rules->name;
    const bool is_ours = name->subject != HEAL_FOREIGN && name->subject != HEAL_PASSING;
    if (name->count == 0 || !is_ours)
        return true;
    rules->counts.names++;
    rules->counts.versions += name->count;
    const Seen *wanted = wanted_version(name);
    if (name->has_origin && !is_same(&name->old, &name->origin) && name->subject != HEAL_INDEX)
        rules->counts.earlier++;
    if (wanted != NULL)
        return take_name(rules, name, wanted, err);
    if (!name->has_old)
        rules->counts.without_version++;
    if (name->subject == HEAL_PACK || name->subject == HEAL_MAP_PACK)
        rules->packs_gone = true;
    return true;
}

static bool
is_of_backup(const HealRules *rules, const char *name)
{
    return rules->backup[0] != '\0' && begins_with(name, rules->backup);
}

static void
begin_backup(HealRules *rules, const char *name)
{
    rules->packs_gone = rules->has_doomed = false;
    rules->backup[0] = '\0';
    if (heal_subject(name) == HEAL_FOREIGN || !begins_with(name, "c/"))
        return;
    const char *cluster_end = strchr(name + 2, '/');
    if (cluster_end != NULL && begins_with(cluster_end, "/b/"))
        snprintf(rules->backup, sizeof rules->backup, "%.*s",
                 (int)(cluster_end - name) + 3 + BACKUP_ID_LENGTH + 1, name);
}

static bool
begin_name(HealRules *rules, const char *name, CairnError *err)
{
    if (!finish_name(rules, err))
        return false;
    if (!is_of_backup(rules, name))
        begin_backup(rules, name);
    rules->name.count = 0;
    rules->name.after_deletion = rules->name.has_first = rules->name.has_old = false;
    rules->name.chain_ends = rules->name.has_origin = false;
    rules->name.last_us = 0;
    CAIRN_ASSERT(strlen(name) < sizeof rules->name.name);
    snprintf(rules->name.name, sizeof rules->name.name, "%s", name);
    rules->name.subject = heal_subject(name);
    return true;
}

bool
heal_rules_add(HealRules *rules, const StorageVersion *version, CairnError *err)
{
    if ((rules->name.count == 0 || strcmp(rules->name.name, version->name) != 0) &&
        !begin_name(rules, version->name, err))
        return false;
    rules->counts.kept_versions =
        rules->counts.kept_versions || strcmp(version->version, "null") != 0;
    note_version(&rules->name, version, rules->since_us);
    return true;
}

bool
heal_rules_finish(HealRules *rules, CairnError *err)
{
    const bool done = finish_name(rules, err);
    rules->name.count = 0;
    return done;
}
