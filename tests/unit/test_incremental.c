#include "repository/catalog.h"
#include "repository/pack.h"
#include "tests/unit/support/incremental_fixture.h"
#include "tests/unit/support/living_cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GENERATIONS = 10 };

static void
test_every_generation_is_whole_and_stores_just_what_changed(void **state)
{
    (void)state;
    static const char *const codecs[] = {"lz4", "zstd", "none"};
    for (unsigned c = 0; c < 3; c++) {
        SCOPED(Repository) repository = incremental_repository(codecs[c]);
        TestCluster cluster = {.random = 4711 + c};
        Generation kept[GENERATIONS] = {0};
        while (cluster.count < 60)
            test_cluster_add_file(&cluster);
        const unsigned generations = c == 0 ? GENERATIONS : 4;
        for (unsigned g = 0; g < generations; g++) {
            BackupCounts counts;
            const IncrementalRun run = {.jobs = 1 + (int)(g % 3),
                                        .parent = g > 0 ? kept[g - 1].fate : NULL};
            Fate *fate =
                incremental_back_up(repository, &run, cluster.files, cluster.count, &counts);
            assert_string_equal(fate->type, g > 0 ? "incr" : "full");
            if (g > 0) {
                assert_string_equal(fate->parent.text, kept[g - 1].fate->bid.text);
                assert_int_equal(counts.stored, generation_changed_units(
                                                    cluster.files, cluster.count, &kept[g - 1]));
                assert_int_equal(counts.lost, 0);
            }
            kept[g] = generation_keep(&cluster, fate);
            test_backup_compare(repository, fate, kept[g].files, kept[g].count);
            incremental_check_refs(repository, fate);
            test_cluster_evolve(&cluster);
        }
        /* What came later changed none of it. */
        for (unsigned g = 0; g < generations; g++) {
            test_backup_compare(repository, kept[g].fate, kept[g].files, kept[g].count);
            generation_forget(&kept[g]);
        }
        test_cluster_free(&cluster);
    }
}

/* A tree of some depth, so that there are leaves and inner nodes to share, and a region node. */
static void
test_what_did_not_change_is_referred_to_again(void **state)
{
    (void)state;
    enum { SMALL = 30000, BIG_UNITS = REGION_UNITS + 3000 };
    SCOPED(Repository) repository = incremental_repository("lz4");
    SCOPED_MEMORY TestFile *files = calloc(SMALL + 1, sizeof *files);
    SCOPED_MEMORY uint32_t *versions = calloc(BIG_UNITS, sizeof *versions);
    assert_true(files != NULL && versions != NULL);
    for (unsigned i = 0; i < SMALL; i++) {
        char path[64];
        snprintf(path, sizeof path, "base/%u/%u", i % 10, i);
        files[i] = incremental_file(path, 0, NULL);
    }
    /* Mostly zeros, for speed, and so many runs that each region needs a node. */
    files[SMALL] = incremental_file("big", BIG_UNITS, versions);
    files[SMALL].zero_percent = 97;
    files[SMALL].size_bytes -= 100;

    BackupCounts counts;
    const IncrementalRun first = {.jobs = 2};
    SCOPED(Fate) full = incremental_back_up(repository, &first, files, SMALL + 1, &counts);
    assert_int_equal(counts.shared_nodes, 0);
    const IncrementalRun second = {.jobs = 2, .parent = full};
    SCOPED(Fate) same = incremental_back_up(repository, &second, files, SMALL + 1, &counts);
    assert_int_equal(counts.stored, 0);
    assert_int_equal(same->pack_count, 0);
    assert_true(same->map_bytes < 4000 && same->map_bytes * 4 < full->map_bytes);
    assert_true(counts.shared_nodes > 40);
    incremental_check_refs(repository, same);
    test_backup_compare(repository, same, files, SMALL + 1);

    /* One page of the second region: one leaf, one region node and what stands above them. */
    for (size_t i = 0; i <= SMALL; i++) {
        if (files[i].versions != NULL) {
            versions[REGION_UNITS + 5] = 1;
            for (unsigned seed = 0; seed < 100; seed++) { /* until the page is none of zeros */
                uint8_t unit[UNIT_SIZE];
                static const uint8_t zeros[UNIT_SIZE];
                test_file_unit(&files[i], REGION_UNITS + 5, unit);
                if (memcmp(unit, zeros, UNIT_SIZE) != 0)
                    break;
                versions[REGION_UNITS + 5]++;
            }
        }
    }
    const IncrementalRun third = {.jobs = 2, .parent = same};
    SCOPED(Fate) changed = incremental_back_up(repository, &third, files, SMALL + 1, &counts);
    assert_int_equal(counts.stored, 1);
    assert_true(changed->map_bytes < 8000);
    assert_true(counts.shared_nodes > 40);
    incremental_check_refs(repository, changed);
    test_backup_compare(repository, changed, files, SMALL + 1);
}

static void
flip_index_byte(Repository *repository, const char *name)
{
    FILE *file = fopen(incremental_object_path(repository, name), "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, -100, SEEK_END), 0); /* the index ends before the trailer's 64 */
    const int byte = fgetc(file);
    assert_int_equal(fseek(file, -100, SEEK_END), 0);
    assert_int_equal(fputc(byte ^ 1, file), byte ^ 1);
    assert_int_equal(fclose(file), 0);
}

static void
drop(Repository *repository, const char *name)
{
    assert_int_equal(remove(incremental_object_path(repository, name)), 0);
}

static void
cut(Repository *repository, const char *name)
{
    const char *path = incremental_object_path(repository, name);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    const long size = ftell(file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(truncate(path, size - 10), 0);
}

static void
accuse(Repository *repository, const char *name)
{
    CairnError err = {0};
    BackupId bid;
    char text[128], id[BACKUP_ID_LENGTH + 1];
    memcpy(id, name + strlen("c/main/b/"), BACKUP_ID_LENGTH);
    id[BACKUP_ID_LENGTH] = '\0';
    assert_true(backup_id_parse(id, &bid));
    snprintf(text, sizeof text, "{\"packs\": [\"%s/0\"], \"packs_complete\": true}", id);
    assert_true(catalog_add_evidence(repository, "main", &bid, "damaged", "full", text, &err));
}

static void
accuse_all(Repository *repository, const char *name)
{
    CairnError err = {0};
    BackupId bid;
    char id[BACKUP_ID_LENGTH + 1];
    memcpy(id, name + strlen("c/main/b/"), BACKUP_ID_LENGTH);
    id[BACKUP_ID_LENGTH] = '\0';
    assert_true(backup_id_parse(id, &bid));
    assert_true(catalog_add_evidence(repository, "main", &bid, "damaged", "full", NULL, &err));
}

static const struct {
    const char *title;
    void (*harm)(Repository *repository, const char *name);
} harms[] = {
    {"a pack that is missing", drop},
    {"a pack whose directory is damaged", flip_index_byte},
    {"a pack that is too short", cut},
    {"a pack that evidence names", accuse},
    {"a backup that evidence calls damaged without saying where", accuse_all},
};

static void
test_packs_that_cannot_be_trusted_are_stored_anew(void **state)
{
    (void)state;
    enum { COUNT = 20, UNITS = 30 };
    for (size_t i = 0; i < sizeof harms / sizeof *harms; i++) {
        SCOPED(Repository) repository = incremental_repository("lz4");
        TestFile files[COUNT];
        BackupCounts counts;
        incremental_some_files(files, COUNT, UNITS);
        const IncrementalRun first = {.jobs = 2};
        SCOPED(Fate) full = incremental_back_up(repository, &first, files, COUNT, NULL);
        char name[STORAGE_NAME_LIMIT];
        pack_name(name, "main", &full->bid, 0);
        harms[i].harm(repository, name);
        const IncrementalRun second = {.jobs = 2, .parent = full};
        SCOPED(Fate) fate = incremental_back_up(repository, &second, files, COUNT, &counts);
        if (counts.stored != COUNT * UNITS || counts.lost == 0)
            fail_msg("%s was trusted", harms[i].title);
        assert_string_equal(fate->type, "incr");
        if (harms[i].harm != drop)
            drop(repository, name); /* and nothing rests on it any more */
        test_backup_compare(repository, fate, files, COUNT);
    }
}

/*
 * Two backups that each change another third of the pages leave regions of three packs, all of
 * whose frames must be read, though two thirds of the base are live no more. Half of a budget of 60
 * per cent holds one of four regions, and no more is stored anew in one backup.
 */
static void
test_scattered_regions_are_refreshed_within_the_budget(void **state)
{
    (void)state;
    enum { FILES = 4, UNITS = 300, ROUNDS = 2, QUIET = 5 };
    static const unsigned budgets[] = {0, 60};
    for (size_t b = 0; b < 2; b++) {
        SCOPED(Repository) repository = incremental_repository("lz4");
        SCOPED_MEMORY uint32_t *versions = calloc(UNITS, sizeof *versions);
        assert_non_null(versions);
        TestFile files[FILES];
        incremental_some_files(files, FILES, UNITS);
        for (size_t i = 0; i < FILES; i++)
            files[i].versions = versions;
        BackupCounts counts = {0};
        IncrementalRun run = {.jobs = 2, .refresh_percent = budgets[b]};
        Fate *parent = incremental_back_up(repository, &run, files, FILES, NULL);
        uint64_t refreshed = 0;
        for (unsigned round = 0; round < ROUNDS + QUIET; round++) {
            for (size_t i = round; round < ROUNDS && i < UNITS; i += 3)
                versions[i]++;
            run.parent = parent;
            Fate *fate = incremental_back_up(repository, &run, files, FILES, &counts);
            fate_free(parent);
            parent = fate;
            incremental_check_refs(repository, fate);
            if (round + 1 == ROUNDS + QUIET)
                test_backup_compare(repository, fate, files, FILES);
            assert_true(counts.refreshed <= UNITS);
            refreshed += counts.refreshed;
        }
        fate_free(parent);
        /* Each of them once, and then there is nothing left to do. */
        assert_int_equal(refreshed, budgets[b] == 0 ? 0 : FILES * UNITS);
        assert_int_equal(counts.stored, 0);
    }
}

/* What the parent's map or summary cannot tell any more costs the comparison, not the backup. */
static void
test_a_parent_that_cannot_be_read_makes_the_backup_full(void **state)
{
    (void)state;
    enum { COUNT = 3, UNITS = 40 };
    for (int what = 0; what < 2; what++) {
        SCOPED(Repository) repository = incremental_repository("lz4");
        TestFile files[COUNT];
        CairnError err = {0};
        char name[STORAGE_NAME_LIMIT];
        const char *why;
        incremental_some_files(files, COUNT, UNITS);
        const IncrementalRun first = {.jobs = 1};
        SCOPED(Fate) full = incremental_back_up(repository, &first, files, COUNT, NULL);
        if (what == 0)
            map_pack_name(name, "main", &full->bid, 0);
        else
            snprintf(name, sizeof name, "c/main/b/%s/refs", full->bid.text);
        drop(repository, name);
        const IncrementalRun second = {.jobs = 1, .parent = full};
        SCOPED(BackupWriter) writer = incremental_begin(repository, &second);
        assert_string_equal(backup_writer_type(writer, &why), "full");
        assert_non_null(why);
        SCOPED(Fate) fate = NULL;
        assert_true(test_backup_write(writer, files, COUNT, 7, &err));
        assert_true(test_backup_commit(writer, &fate, &err));
        assert_string_equal(fate->type, "full");
        assert_string_equal(fate->parent.text, "");
        assert_int_equal(backup_writer_counts(writer)->stored, COUNT * UNITS);
        test_backup_compare(repository, fate, files, COUNT);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_generation_is_whole_and_stores_just_what_changed),
        cmocka_unit_test(test_what_did_not_change_is_referred_to_again),
        cmocka_unit_test(test_packs_that_cannot_be_trusted_are_stored_anew),
        cmocka_unit_test(test_scattered_regions_are_refreshed_within_the_budget),
        cmocka_unit_test(test_a_parent_that_cannot_be_read_makes_the_backup_full),
    };
    return cmocka_run_group_tests_name("incremental", tests, incremental_set_up, NULL);
}
