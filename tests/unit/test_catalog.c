#include "repository/catalog.h"

#include "repository/json.h"
#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static BackupId
put_backup(Repository *repository, uint64_t sequence, const char *label)
{
    CairnError err = {0};
    const BackupId bid = test_backup_id(sequence);
    SCOPED(Fate) fate = test_fate(&bid, label);
    assert_true(fate_commit(repository, fate, &err));
    return bid;
}

static void
put_mark(Repository *repository, const BackupId *bid, unsigned number, const char *mark)
{
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "c/main/b/%s/mark.%u", bid->text, number);
    SCOPED_JSON json_t *json = json_pack("{s:s}", "mark", mark);
    assert_true(json_put(repository, name, OBJECT_MARK, 1, json, NULL, &err));
}

static void
put_rubbish(Repository *repository, const BackupId *bid, const char *last)
{
    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "c/main/b/%s/%s", bid->text, last);
    memory_storage_replace(repository_storage(repository), name, "rubbish", 7);
}

static Catalog *
read_catalog(Repository *repository)
{
    CairnError err = {0};
    Catalog *catalog = catalog_read(repository, "main", &err);
    assert_non_null(catalog);
    return catalog;
}

static BackupPresence
presence_of_only_backup(Repository *repository)
{
    SCOPED(Catalog) catalog = read_catalog(repository);
    assert_int_equal(catalog->count, 1);
    return catalog->backups[0].presence;
}

static void
test_an_empty_repository_has_no_backups(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    SCOPED(Catalog) catalog = read_catalog(repository);
    assert_int_equal(catalog->count, 0);
    assert_int_equal(catalog_highest_sequence(catalog), 0);
    assert_null(catalog_find(catalog, "latest", &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
}

static void
test_backups_stand_in_order_with_what_became_of_them(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupId revoked = test_backup_id(3), unfinished = test_backup_id(10);
    put_backup(repository, 100, "c");
    put_backup(repository, 2, "a");
    put_rubbish(repository, &unfinished, "intent");
    assert_true(fate_revoke(repository, "main", &revoked, "token", "reason", &err));

    SCOPED(Catalog) catalog = read_catalog(repository);
    assert_int_equal(catalog->count, 4);
    static const uint64_t sequences[] = {2, 3, 10, 100};
    static const BackupPresence presences[] = {BACKUP_COMMITTED, BACKUP_REVOKED, BACKUP_UNFINISHED,
                                               BACKUP_COMMITTED};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(backup_id_sequence(&catalog->backups[i].bid), sequences[i]);
        assert_int_equal(catalog->backups[i].presence, presences[i]);
    }
    assert_int_equal(catalog_highest_sequence(catalog), 100);
}

static const struct {
    const char *title;
    const char *marks[4];
    BackupPresence presence;
    bool kept;
} mark_cases[] = {
    {"no mark", {NULL}, BACKUP_COMMITTED, false},
    {"expired", {"expire"}, BACKUP_EXPIRED, false},
    {"taken back", {"expire", "unexpire"}, BACKUP_COMMITTED, false},
    {"being taken back", {"expire", "unexpire-pending"}, BACKUP_EXPIRED, false},
    {"taken back for good", {"expire", "unexpire-pending", "unexpire"}, BACKUP_COMMITTED, false},
    {"expired again", {"expire", "unexpire", "expire"}, BACKUP_EXPIRED, false},
    {"kept", {"keep"}, BACKUP_COMMITTED, true},
    {"kept and let go", {"keep", "release"}, BACKUP_COMMITTED, false},
    {"kept, then expired", {"keep", "expire"}, BACKUP_EXPIRED, true},
};

static void
test_the_highest_mark_of_each_sort_wins(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof mark_cases / sizeof *mark_cases; i++) {
        SCOPED(Repository) repository = memory_repository("lz4");
        const BackupId bid = put_backup(repository, 1, "label");
        /* 9, 10, 11: as numbers, not as text. Written in reverse. */
        for (unsigned k = 4; k-- > 0;) {
            if (mark_cases[i].marks[k] != NULL)
                put_mark(repository, &bid, 9 + k, mark_cases[i].marks[k]);
        }
        SCOPED(Catalog) catalog = read_catalog(repository);
        if (catalog->backups[0].presence != mark_cases[i].presence ||
            catalog->backups[0].kept != mark_cases[i].kept)
            fail_msg("%s: wrong", mark_cases[i].title);
    }
}

static void
test_what_cannot_be_read_is_never_absent(void **state)
{
    (void)state;
    static const char *const objects[] = {"fate", "mark.0"};
    for (size_t i = 0; i < sizeof objects / sizeof *objects; i++) {
        SCOPED(Repository) repository = memory_repository("lz4");
        CairnError err = {0};
        const BackupId bid = put_backup(repository, 1, "label");
        put_rubbish(repository, &bid, objects[i]);
        put_backup(repository, 2, "other");
        SCOPED(Catalog) catalog = read_catalog(repository);
        assert_int_equal(catalog->count, 2);
        assert_int_equal(catalog->backups[0].presence, BACKUP_UNREADABLE);
        assert_int_equal(catalog->backups[0].problem->kind, CAIRN_CORRUPT);
        assert_int_equal(catalog->backups[1].presence, BACKUP_COMMITTED);
        assert_null(catalog_find(catalog, bid.text, &err));
        assert_int_equal(err.kind, CAIRN_CORRUPT);
    }
}

static void
test_an_unknown_mark_makes_a_backup_unreadable(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    const BackupId bid = put_backup(repository, 1, "label");
    put_mark(repository, &bid, 0, "hold");
    assert_int_equal(presence_of_only_backup(repository), BACKUP_UNREADABLE);
}

static void
test_names_that_are_no_marks_count_for_nothing(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    const BackupId bid = put_backup(repository, 1, "label");
    put_rubbish(repository, &bid, "mark.x");
    put_rubbish(repository, &bid, "mark.1x");
    put_rubbish(repository, &bid, "mark.007");
    put_rubbish(repository, &bid, "mark.-1");
    put_rubbish(repository, &bid, "mark.4294967297");
    put_rubbish(repository, &bid, "marks");
    put_rubbish(repository, &bid, "evil");
    assert_int_equal(presence_of_only_backup(repository), BACKUP_COMMITTED);
}

static void
test_backups_are_found_by_id_label_and_latest(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupId first = put_backup(repository, 1, "one"),
                   second = put_backup(repository, 2, "two");
    const BackupId expired = put_backup(repository, 3, "three"),
                   damaged = put_backup(repository, 4, "four");
    put_mark(repository, &expired, 0, "expire");
    assert_true(catalog_add_evidence(repository, "main", &damaged, "damaged", "full",
                                     "{\"packs\": 1}", &err));
    SCOPED(Catalog) catalog = read_catalog(repository);
    assert_string_equal(catalog_find(catalog, "one", &err)->bid.text, first.text);
    assert_string_equal(catalog_find(catalog, first.text, &err)->bid.text, first.text);
    assert_string_equal(catalog_find(catalog, "latest", &err)->bid.text, second.text);
    assert_string_equal(catalog_find(catalog, "three", &err)->bid.text, expired.text);
    assert_null(catalog_find(catalog, "five", &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
}

static void
test_a_label_that_two_backups_bear_is_refused(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupId first = put_backup(repository, 1, "same"),
                   second = put_backup(repository, 2, "same");
    SCOPED(Catalog) catalog = read_catalog(repository);
    assert_null(catalog_find(catalog, "same", &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
    assert_non_null(strstr(err.hint, first.text));
    assert_non_null(strstr(err.hint, second.text));
    cairn_error_clear(&err);
    assert_non_null(catalog_find(catalog, second.text, &err));
}

static void
test_evidence_is_added_and_its_date_read(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupId bid = put_backup(repository, 1, "label");
    for (int i = 0; i < 100; i++)
        assert_true(catalog_add_evidence(repository, "main", &bid, "verified", "full", NULL, &err));
    assert_true(catalog_add_evidence(repository, "main", &bid, "scrubbed", "quick", "{}", &err));
    put_rubbish(repository, &bid, "ev.drilled.0123456789abcdef");
    SCOPED(Catalog) catalog = read_catalog(repository);
    const CatalogBackup *backup = &catalog->backups[0];
    assert_true(backup->scrubbed && backup->verified && backup->drilled);
    assert_false(backup->damaged || backup->failed);
    assert_true(backup->verified_us > 1500000000000000);
    assert_int_equal(backup->drilled_us, 0);
}

static void
test_clusters_are_listed_in_order(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    Arena *arena = arena_new();
    const char **names;
    size_t count;
    Storage *storage = repository_storage(repository);
    assert_true(catalog_clusters(repository, arena, &names, &count, &err));
    assert_int_equal(count, 0);
    memory_storage_replace(storage, "c/west/i/x", "", 0);
    memory_storage_replace(storage, "c/east/i/x", "", 0);
    memory_storage_replace(storage, "c/odd.name/i/x", "", 0);
    memory_storage_replace(storage, "c/file", "", 0);
    assert_true(catalog_clusters(repository, arena, &names, &count, &err));
    assert_int_equal(count, 2);
    assert_string_equal(names[0], "east");
    assert_string_equal(names[1], "west");
    arena_free(arena);
}

static int
eight_at_once(Storage *storage)
{
    (void)storage;
    return 8;
}

/* As from a store that is far away: the same, whatever the order in which answers come. */
static void
test_several_requests_at_once_give_the_same_catalog(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    enum { COUNT = 40 };
    for (uint64_t i = 1; i <= COUNT; i++) {
        char label[32];
        snprintf(label, sizeof label, "backup %d", (int)i);
        const BackupId bid = put_backup(repository, i, label);
        if (i % 3 == 0)
            put_rubbish(repository, &bid, "mark.1");
        assert_true(catalog_add_evidence(repository, "main", &bid, "damaged", "full", NULL, &err));
    }
    SCOPED(Catalog) one = read_catalog(repository);
    Storage *storage = repository_storage(repository);
    const StorageOps *const real = storage->ops;
    StorageOps ops = *real;
    ops.requests_at_once = eight_at_once;
    storage->ops = &ops;
    for (int round = 0; round < 10; round++) {
        SCOPED(Catalog) several = read_catalog(repository);
        assert_int_equal(several->count, COUNT);
        for (size_t i = 0; i < COUNT; i++) {
            const CatalogBackup *a = &one->backups[i], *b = &several->backups[i];
            assert_true(backup_id_equal(&a->bid, &b->bid) && a->presence == b->presence);
            assert_int_equal(a->damage_count, b->damage_count);
            for (size_t k = 0; k < a->damage_count; k++)
                assert_string_equal(a->damages[k], b->damages[k]);
            if (a->problem != NULL)
                assert_string_equal(a->problem->message, b->problem->message);
        }
    }
    storage->ops = real;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_empty_repository_has_no_backups),
        cmocka_unit_test(test_backups_stand_in_order_with_what_became_of_them),
        cmocka_unit_test(test_the_highest_mark_of_each_sort_wins),
        cmocka_unit_test(test_what_cannot_be_read_is_never_absent),
        cmocka_unit_test(test_an_unknown_mark_makes_a_backup_unreadable),
        cmocka_unit_test(test_names_that_are_no_marks_count_for_nothing),
        cmocka_unit_test(test_backups_are_found_by_id_label_and_latest),
        cmocka_unit_test(test_a_label_that_two_backups_bear_is_refused),
        cmocka_unit_test(test_evidence_is_added_and_its_date_read),
        cmocka_unit_test(test_clusters_are_listed_in_order),
        cmocka_unit_test(test_several_requests_at_once_give_the_same_catalog),
    };
    return cmocka_run_group_tests_name("catalog", tests, NULL, NULL);
}
