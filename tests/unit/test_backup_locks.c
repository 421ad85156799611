/* Which objects are asked for their locks, before a commit, for a look, and by `repo renew`, and
   what becomes of refusals. The storage is in memory and keeps a moment for each name. */
#include "repository/backup_locks.h"
#include "repository/mark.h"
#include "repository/renew.h"
#include "tests/unit/support/collect_fixture.h"
#include "tests/unit/support/memory_storage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { NAMES_LIMIT = 512, LOCK_DAYS = 10, REFRESH_DAYS = 2 };

typedef struct {
    char name[STORAGE_NAME_LIMIT];
    bool asked, renewed;
} Asked;

static StorageOps ops;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static Asked asked[NAMES_LIMIT];
static size_t asked_count;
static const char *short_names[8]; /* texts in names whose lock ends tomorrow; NULL ends them */
static const char *refused;        /* text in names that may not be extended; NULL: none */
static CairnErrorKind refused_kind;
static const char *unlisted; /* a prefix that cannot be listed; NULL: none */
static const char *vanishes; /* text in names that are gone when asked for; NULL: none */
static const int64_t NOW_US = INT64_C(1800000000000000);

static StorageLockTerms
lock_terms(Storage *storage)
{
    (void)storage;
    return (StorageLockTerms){
        .mode = "governance", .days = LOCK_DAYS, .refresh_days = REFRESH_DAYS};
}

static bool
is_short(const char *name)
{
    for (size_t i = 0; short_names[i] != NULL; i++) {
        if (strstr(name, short_names[i]) != NULL)
            return true;
    }
    return false;
}

static bool
answer(const char *name, int64_t left_us, StorageLock *lock_out, CairnError *err)
{
    const int64_t until_us = NOW_US + (is_short(name) ? 1 : LOCK_DAYS + 1) * LOCK_DAY_US;
    const bool extend = until_us < NOW_US + left_us;
    if (extend && refused != NULL && strstr(name, refused) != NULL)
        return cairn_error(err, refused_kind, "'%s' is refused", name);
    *lock_out = (StorageLock){.now_us = NOW_US, .until_us = until_us, .renewed = extend};
    if (extend)
        lock_out->until_us = NOW_US + (LOCK_DAYS + REFRESH_DAYS) * LOCK_DAY_US;
    return true;
}

static bool
ensure_lock(Storage *storage, const char *name, int64_t left_us, StorageLock *lock_out,
            CairnError *err)
{
    uint64_t size;
    if (vanishes != NULL && strstr(name, vanishes) != NULL)
        return cairn_error(err, CAIRN_NOT_FOUND, "'%s' does not exist", name);
    if (!storage->ops->exists(storage, name, &size, err))
        return false;
    pthread_mutex_lock(&mutex);
    assert_true(asked_count < NAMES_LIMIT);
    Asked *entry = &asked[asked_count++];
    *entry = (Asked){.asked = true};
    snprintf(entry->name, sizeof entry->name, "%s", name);
    const bool done = answer(name, left_us, lock_out, err);
    entry->renewed = done && lock_out->renewed;
    pthread_mutex_unlock(&mutex);
    return done;
}

static void
forget(void)
{
    asked_count = 0;
}

static bool (*list_inner)(Storage *storage, const char *prefix, StorageListCallback *callback,
                          void *context, CairnError *err);

static bool
list(Storage *storage, const char *prefix, StorageListCallback *callback, void *context,
     CairnError *err)
{
    if (unlisted != NULL && strcmp(prefix, unlisted) == 0)
        return cairn_error(err, CAIRN_DENIED, "'%s' may not be listed", prefix);
    return list_inner(storage, prefix, callback, context, err);
}

static const Asked *
find(const char *name)
{
    for (size_t i = 0; i < asked_count; i++) {
        if (strcmp(asked[i].name, name) == 0)
            return &asked[i];
    }
    return NULL;
}

/* c/main/b/<BID>/<last>. */
static bool
was_asked(const BackupId *bid, const char *last)
{
    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "c/main/b/%s/%s", bid->text, last);
    return find(name) != NULL;
}

static size_t
asked_with(const char *text)
{
    size_t count = 0;
    for (size_t i = 0; i < asked_count; i++)
        count += strstr(asked[i].name, text) != NULL ? 1 : 0;
    return count;
}

static void
put(Lab *lab, const char *name)
{
    CairnError err = {0};
    assert_true(storage_put(repository_storage(lab->repository), name, "x", 1, &err));
}

static void
open_lab(Lab *lab)
{
    Storage *storage = memory_storage_new();
    ops = *storage->ops;
    ops.lock_terms = lock_terms;
    ops.ensure_lock = ensure_lock;
    list_inner = ops.list;
    ops.list = list;
    storage->ops = &ops;
    memset(short_names, 0, sizeof short_names);
    refused = vanishes = unlisted = NULL;
    refused_kind = CAIRN_DENIED;
    lab_open_storage(lab, storage);
    forget();
}

/* A full backup of 3 and 2 packs, and an incremental that refers to two and one of them. */
typedef struct {
    BackupId full, incremental;
    Fate *fate; /* of the latter */
} Pair;

static void
make_pair(Lab *lab, Pair *pair)
{
    CairnError err = {0};
    pair->full = lab_backup(lab, 1, &(LabBackup){.packs = 3, .map_packs = 2});
    const PackRange others[] = {
        {pair->full, false, 0, 1}, {pair->full, false, 2, 1}, {pair->full, true, 1, 1}};
    pair->incremental = lab_backup(
        lab, 2, &(LabBackup){.packs = 1, .map_packs = 1, .others = others, .other_count = 3});
    pair->fate = fate_read(lab->repository, "main", &pair->incremental, NULL, &err);
    assert_non_null(pair->fate);
}

static ObjectLockCounts
ensure(Lab *lab, const Fate *fate, int64_t age_us)
{
    ObjectLockCounts counts;
    CairnError err = {0};
    forget();
    assert_true(backup_locks_ensure(lab->repository, fate, age_us, &counts, &err));
    return counts;
}

static void
test_what_a_backup_inherits_is_asked_for_and_nothing_else(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    Pair pair;
    open_lab(&lab);
    make_pair(&lab, &pair);
    char incarnation[32], history[STORAGE_NAME_LIMIT];
    put(&lab, "keys/one");
    put(&lab, "c/main/i/of-main");
    snprintf(incarnation, sizeof incarnation, "%016llx-%d",
             (unsigned long long)pair.fate->system_id, pair.fate->major);
    snprintf(history, sizeof history, "c/main/w/%s/00000002/history", incarnation);
    put(&lab, history);
    snprintf(history, sizeof history, "c/main/w/%s/00000002/00000000/000000020000000000000001",
             incarnation);
    put(&lab, history);
    put(&lab, "c/other/i/of-other");

    short_names[0] = "/p/000/00000002";
    const ObjectLockCounts counts = ensure(&lab, pair.fate, 0);
    assert_int_equal(object_locks_unproven(&counts), 0);
    assert_int_equal(counts.asked, 7);
    assert_int_equal(counts.renewed, 1);
    assert_true(was_asked(&pair.full, "p/000/00000000"));
    assert_true(was_asked(&pair.full, "p/000/00000002"));
    assert_true(was_asked(&pair.full, "m/00000001"));
    assert_int_equal(asked_with(pair.full.text), 3);
    assert_int_equal(asked_with(pair.incremental.text), 0);
    assert_non_null(find(DESCRIPTOR_NAME));
    assert_non_null(find("keys/one"));
    assert_non_null(find("c/main/i/of-main"));
    assert_int_equal(asked_with("/history"), 1);
    assert_true(counts.earliest_us == NOW_US + (LOCK_DAYS + 1) * LOCK_DAY_US);
    fate_free(pair.fate);
}

/* A run of days: what it stored first may be locked too short by its end. */
static void
test_a_long_run_asks_for_its_own_packs_too(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    Pair pair;
    open_lab(&lab);
    make_pair(&lab, &pair);
    ensure(&lab, pair.fate, REFRESH_DAYS * LOCK_DAY_US - 1);
    assert_int_equal(asked_with(pair.incremental.text), 0);
    ensure(&lab, pair.fate, REFRESH_DAYS * LOCK_DAY_US);
    assert_int_equal(asked_with(pair.incremental.text), 2);
    fate_free(pair.fate);
}

static void
test_a_missing_pack_stops_the_backup(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    Pair pair;
    ObjectLockCounts counts;
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    open_lab(&lab);
    make_pair(&lab, &pair);
    snprintf(name, sizeof name, "c/main/b/%s/p/000/00000002", pair.full.text);
    assert_true(storage_remove(repository_storage(lab.repository), name, &err));
    assert_false(backup_locks_ensure(lab.repository, pair.fate, 0, &counts, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    assert_non_null(strstr(err.message, name));
    fate_free(pair.fate);
}

static void
test_a_refusal_is_counted_and_kept(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    Pair pair;
    open_lab(&lab);
    make_pair(&lab, &pair);
    short_names[0] = "/p/000/";
    refused = "/p/000/00000002";
    const ObjectLockCounts counts = ensure(&lab, pair.fate, 0);
    assert_int_equal(object_locks_unproven(&counts), 1);
    assert_int_equal(counts.renewed, 1);
    assert_int_equal(counts.failed, 1);
    assert_int_equal(counts.unasked, 0);
    assert_int_equal(counts.failure.kind, CAIRN_DENIED);
    assert_non_null(strstr(counts.failure.message, "00000002' is refused"));
    fate_free(pair.fate);
}

/* Before this nobody had to list histories of old timelines for a backup. */
static void
test_what_cannot_be_listed_stops_no_backup(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    Pair pair;
    open_lab(&lab);
    make_pair(&lab, &pair);
    unlisted = "c/main/i";
    const ObjectLockCounts counts = ensure(&lab, pair.fate, 0);
    assert_int_equal(counts.asked, 3); /* the packs */
    assert_int_equal(object_locks_unproven(&counts), 1);
    assert_int_equal(counts.failure.kind, CAIRN_DENIED);
    fate_free(pair.fate);
}

/* Not a request for each of thousands, when the first ones tell. */
static void
test_where_all_is_refused_the_asking_ends(void **state)
{
    (void)state;
    static const CairnErrorKind KINDS[] = {CAIRN_DENIED, CAIRN_UNAVAILABLE};
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++) {
        __attribute__((cleanup(lab_close))) Lab lab;
        CairnError err = {0};
        RenewReport report;
        open_lab(&lab);
        lab_backup(&lab, 1, &(LabBackup){.packs = 200, .map_packs = 1});
        short_names[0] = refused = "/p/000/";
        refused_kind = KINDS[i];
        assert_true(renew_run(lab.repository, &(RenewOptions){.jobs = 2}, &report, &err));
        const ObjectLockCounts *locks = &report.locks;
        const uint64_t limit = KINDS[i] == CAIRN_DENIED ? OBJECT_LOCKS_DENIED_LIMIT : 1;
        assert_true(locks->failed >= limit && locks->failed <= limit + 1);
        assert_true(locks->asked + locks->failed + locks->unasked == asked_count + locks->unasked);
        assert_true(locks->unasked > 150);
        assert_int_equal(locks->failure.kind, KINDS[i]);
    }
}

/* They say nothing of others: a weaker mode than configured can still be extended. */
static void
test_what_is_refused_for_its_own_sake_ends_nothing(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    CairnError err = {0};
    RenewReport report;
    open_lab(&lab);
    lab_backup(&lab, 1, &(LabBackup){.packs = 200, .map_packs = 1});
    short_names[0] = refused = "/p/000/";
    refused_kind = CAIRN_MISMATCH;
    assert_true(renew_run(lab.repository, &(RenewOptions){.jobs = 2}, &report, &err));
    assert_int_equal(report.locks.failed, 200);
    assert_int_equal(report.locks.unasked, 0);
}

/* A collector that runs meanwhile takes WAL, which is no alarm; packs of what is kept are. */
static void
test_what_a_collector_takes_meanwhile_is_not_missing(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    CairnError err = {0};
    RenewReport report;
    open_lab(&lab);
    lab_backup(&lab, 1, &(LabBackup){.packs = 2, .map_packs = 1});
    put(&lab, "c/main/w/0000000000000001-17/00000001/00000000/000000010000000000000001");
    vanishes = "/w/";
    assert_true(renew_run(lab.repository, &(RenewOptions){0}, &report, &err));
    assert_int_equal(report.locks.missing, 0);
    assert_int_equal(object_locks_unproven(&report.locks), 0);
    vanishes = "/p/000/";
    assert_true(renew_run(lab.repository, &(RenewOptions){0}, &report, &err));
    assert_int_equal(report.locks.missing, 2);
}

/* A page of a listing is in memory at each level, and a store can make up hundreds of them. */
static void
test_listings_do_not_go_deeper_than_names_of_ours(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    CairnError err = {0};
    RenewReport report;
    char deep[STORAGE_NAME_LIMIT] = "c/main/w";
    open_lab(&lab);
    lab_backup(&lab, 1, &(LabBackup){.packs = 1, .map_packs = 1});
    put(&lab, "c/main/w/0000000000000001-17/00000001/00000000/000000010000000000000001");
    for (size_t i = strlen(deep), end = i + 200; i < end; i += 2)
        memcpy(deep + i, "/a", sizeof "/a");
    put(&lab, deep);
    forget();
    assert_true(renew_run(lab.repository, &(RenewOptions){0}, &report, &err));
    assert_int_equal(asked_with("000000010000000000000001"), 1);
    assert_int_equal(asked_with("/a/a/a"), 0);
}

static void
test_a_look_asks_a_bounded_sample_from_old_to_new(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    ObjectLockCounts counts;
    uint64_t inherited;
    CairnError err = {0};
    open_lab(&lab);
    const BackupId first = lab_backup(&lab, 1, &(LabBackup){.packs = 90, .map_packs = 5});
    const BackupId second = lab_backup(&lab, 2, &(LabBackup){.packs = 60, .map_packs = 5});
    const PackRange others[] = {{first, false, 0, 90}, {second, false, 10, 50}};
    const BackupId third = lab_backup(
        &lab, 3, &(LabBackup){.packs = 1, .map_packs = 1, .others = others, .other_count = 2});
    SCOPED(Fate) fate = fate_read(lab.repository, "main", &third, NULL, &err);
    short_names[0] = first.text;
    assert_true(backup_locks_sample(lab.repository, fate, &counts, &inherited, &err));
    assert_int_equal(inherited, 140);
    assert_int_equal(counts.asked, BACKUP_LOCKS_SAMPLE + 3);
    assert_true(was_asked(&first, "p/000/00000000"));
    assert_true(asked_with(first.text) >= 20 && asked_with(second.text) >= 11);
    assert_int_equal(asked_with(third.text), 2); /* fate and refs */
    assert_true(counts.earliest_us == NOW_US + LOCK_DAY_US);
    assert_non_null(strstr(counts.earliest, first.text));
    for (size_t i = 0; i < asked_count; i++)
        assert_false(asked[i].renewed);
}

/* -- repo renew */

static void
test_renewing_covers_what_is_kept(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    Pair pair;
    CairnError err = {0};
    RenewReport report;
    open_lab(&lab);
    make_pair(&lab, &pair);
    const BackupId gone = lab_backup(&lab, 3, &(LabBackup){.packs = 1, .map_packs = 1});
    lab_expire(&lab, &gone);
    const BackupId attempt = lab_attempt(&lab, 4, NULL, NULL, 2);
    assert_true(mark_add(lab.repository, "main", &pair.full, MARK_KEEP, "for ever", &err));
    put(&lab, "c/main/w/0000000000000001-17/00000001/00000000/000000010000000000000001");
    put(&lab, "c/main/i/of-main");
    put(&lab, "c/other/i/of-other");
    put(&lab, "probe/some");
    put(&lab, "keys/one");
    short_names[0] = pair.full.text;

    /* Looking changes nothing. */
    forget();
    assert_true(renew_run(lab.repository, &(RenewOptions){.only_ask = true}, &report, &err));
    const uint64_t would = report.locks.renewed;
    for (size_t i = 0; i < asked_count; i++)
        assert_false(asked[i].renewed);
    forget();
    assert_true(renew_run(lab.repository, &(RenewOptions){0}, &report, &err));
    assert_int_equal(report.backups, 2);
    assert_int_equal(report.unreadable, 0);
    assert_int_equal(object_locks_unproven(&report.locks), 0);
    assert_int_equal(report.locks.renewed, would);
    assert_int_equal(would, 5 + 3); /* packs, fate, refs, mark */
    assert_true(was_asked(&pair.full, "mark.0"));
    assert_true(was_asked(&pair.incremental, "p/000/00000000"));
    assert_true(was_asked(&pair.incremental, "fate"));
    assert_int_equal(asked_with(gone.text) + asked_with(attempt.text) + asked_with("probe/"), 0);
    assert_int_equal(asked_with("000000010000000000000001"), 1);
    assert_int_equal(asked_with("of-other"), 1);
    assert_int_equal(asked_with("of-main"), 1);
    assert_int_equal(asked_with("keys/one") + asked_with(DESCRIPTOR_NAME), 2);
    /* Each once: packs of both are the full one's. */
    assert_int_equal(asked_with(pair.full.text), 8);

    forget();
    assert_true(renew_run(lab.repository, &(RenewOptions){.cluster = "other"}, &report, &err));
    assert_int_equal(asked_with("c/main/"), 0);
    assert_false(renew_run(lab.repository, &(RenewOptions){.cluster = "none"}, &report, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
    fate_free(pair.fate);
}

static void
test_renewing_tells_what_is_missing_and_what_cannot_be_read(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    Pair pair;
    CairnError err = {0};
    RenewReport report;
    char name[STORAGE_NAME_LIMIT];
    open_lab(&lab);
    make_pair(&lab, &pair);
    snprintf(name, sizeof name, "c/main/b/%s/p/000/00000002", pair.full.text);
    assert_true(storage_remove(repository_storage(lab.repository), name, &err));
    const BackupId broken = lab_backup(&lab, 3, &(LabBackup){.packs = 2, .map_packs = 1});
    char refs[STORAGE_NAME_LIMIT];
    snprintf(refs, sizeof refs, "c/main/b/%s/refs", broken.text);
    lab_damage(&lab, refs);
    forget();
    assert_true(renew_run(lab.repository, &(RenewOptions){0}, &report, &err));
    assert_int_equal(report.locks.missing, 1);
    assert_string_equal(report.locks.first_missing, name);
    assert_int_equal(report.unreadable, 1);
    assert_int_equal(report.problem.kind, CAIRN_CORRUPT);
    assert_true(was_asked(&broken, "p/000/00000001")); /* its own are kept all the same */
    assert_true(was_asked(&broken, "m/00000000"));
    fate_free(pair.fate);
}

static void
test_where_nothing_locks_nothing_is_renewed(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    RenewReport report;
    CairnError err = {0};
    lab_open(&lab);
    assert_false(renew_run(lab.repository, &(RenewOptions){0}, &report, &err));
    assert_int_equal(err.kind, CAIRN_UNSUPPORTED);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_backup_inherits_is_asked_for_and_nothing_else),
        cmocka_unit_test(test_a_long_run_asks_for_its_own_packs_too),
        cmocka_unit_test(test_a_missing_pack_stops_the_backup),
        cmocka_unit_test(test_a_refusal_is_counted_and_kept),
        cmocka_unit_test(test_what_cannot_be_listed_stops_no_backup),
        cmocka_unit_test(test_where_all_is_refused_the_asking_ends),
        cmocka_unit_test(test_what_is_refused_for_its_own_sake_ends_nothing),
        cmocka_unit_test(test_what_a_collector_takes_meanwhile_is_not_missing),
        cmocka_unit_test(test_listings_do_not_go_deeper_than_names_of_ours),
        cmocka_unit_test(test_a_look_asks_a_bounded_sample_from_old_to_new),
        cmocka_unit_test(test_renewing_covers_what_is_kept),
        cmocka_unit_test(test_renewing_tells_what_is_missing_and_what_cannot_be_read),
        cmocka_unit_test(test_where_nothing_locks_nothing_is_renewed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
