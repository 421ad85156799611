/* What an attempt left that never became a backup. */
#include "repository/pack.h"
#include "repository/refs.h"
#include "tests/unit/support/incremental_fixture.h"
#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

/* An attempt that never ends: what its packs hold is durable all the same. */
static BackupId
abandon_after(Repository *repository, const IncrementalRun *run, const TestFile *files,
              size_t count)
{
    CairnError err = {0};
    SCOPED(BackupWriter) writer = incremental_begin(repository, run);
    SCOPED(Fate) fate = test_fate(backup_writer_id(writer), "label");
    assert_true(test_backup_write(writer, files, count, 7, &err));
    assert_true(backup_writer_finish_data(writer, fate, &err));
    return *backup_writer_id(writer);
}

static void
test_what_a_revoked_attempt_left_is_salvaged_by_content(void **state)
{
    (void)state;
    enum { COUNT = 12, UNITS = 40 };
    for (int with_parent = 0; with_parent < 2; with_parent++) {
        SCOPED(Repository) repository = incremental_repository("lz4");
        TestFile files[COUNT];
        BackupCounts counts;
        uint32_t versions[UNITS] = {0};
        incremental_some_files(files, COUNT, UNITS);
        SCOPED(Fate) full = NULL;
        const IncrementalRun first = {.jobs = 2};
        if (with_parent)
            full = incremental_back_up(repository, &first, files, COUNT, NULL);
        /* The attempt saw file 3 change; when the next one comes, five of its pages are new. */
        for (size_t i = 0; i < UNITS; i++)
            versions[i] = 1;
        files[3].versions = versions;
        files[3].size_bytes -= 77; /* a short end, compared without its padding */
        const IncrementalRun run = {.jobs = 2, .parent = full};
        const BackupId dead = abandon_after(repository, &run, files, COUNT);
        for (size_t i = 0; i < 5; i++)
            versions[i * 7] = 2;
        SCOPED(Fate) fate = incremental_back_up(repository, &run, files, COUNT, &counts);
        assert_string_equal(fate->type, with_parent ? "incr" : "full");
        assert_int_equal(counts.stored, 5);
        assert_int_equal(counts.salvaged, (with_parent ? UNITS : COUNT * UNITS) - 5);
        incremental_check_refs(repository, fate);
        test_backup_compare(repository, fate, files, COUNT);
        CairnError err = {0};
        SCOPED(Refs) refs = refs_read(repository, fate, &err);
        assert_true(refs != NULL && refs_mention(refs, &dead, false, 0));

        /* It is older than a backup now, so the next full one stores every frame anew. */
        SCOPED(Fate) again = incremental_back_up(repository, &first, files, COUNT, &counts);
        assert_int_equal(counts.stored, COUNT * UNITS);
        assert_int_equal(counts.salvaged, 0);
        SCOPED(Refs) own = refs_read(repository, again, &err);
        assert_true(own != NULL && own->creator_count == 1);
    }
}

/* A frame of it rotted: nobody ever vouched for an attempt, so its packs are read whole first. */
static void
test_a_damaged_pack_of_an_attempt_is_not_salvaged(void **state)
{
    (void)state;
    enum { COUNT = 3, UNITS = 40 };
    SCOPED(Repository) repository = incremental_repository("lz4");
    TestFile files[COUNT];
    BackupCounts counts;
    char name[STORAGE_NAME_LIMIT];
    incremental_some_files(files, COUNT, UNITS);
    const IncrementalRun run = {.jobs = 2};
    const BackupId dead = abandon_after(repository, &run, files, COUNT);
    pack_name(name, "main", &dead, 0);
    FILE *file = fopen(incremental_object_path(repository, name), "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, 1000, SEEK_SET), 0);
    const int byte = fgetc(file);
    assert_int_equal(fseek(file, 1000, SEEK_SET), 0);
    assert_int_equal(fputc(byte ^ 1, file), byte ^ 1);
    assert_int_equal(fclose(file), 0);
    SCOPED(Fate) fate = incremental_back_up(repository, &run, files, COUNT, &counts);
    assert_int_equal(counts.salvaged, 0);
    assert_int_equal(counts.stored, COUNT * UNITS);
    test_backup_compare(repository, fate, files, COUNT);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_revoked_attempt_left_is_salvaged_by_content),
        cmocka_unit_test(test_a_damaged_pack_of_an_attempt_is_not_salvaged),
    };
    return cmocka_run_group_tests_name("salvage", tests, incremental_set_up, NULL);
}
