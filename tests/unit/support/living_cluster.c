#include "tests/unit/support/living_cluster.h"

#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t *
new_versions(void)
{
    uint32_t *versions = calloc(UNIT_LIMIT, sizeof *versions);
    assert_non_null(versions);
    return versions;
}

void
test_cluster_add_file(TestCluster *cluster)
{
    TestFile *file = &cluster->files[cluster->count++];
    const uint64_t kind = test_random_below(&cluster->random, 10);
    const uint64_t limit = kind < 5 ? 3 * UNIT_SIZE : kind < 9 ? 30 * UNIT_SIZE : 120 * UNIT_SIZE;
    *file = (TestFile){.class = kind == 0 ? MAP_CLASS_OURS : MAP_CLASS_CLUSTER,
                       .mode = 0600,
                       .size_bytes = test_random_below(&cluster->random, limit),
                       .seed = ++cluster->next_seed,
                       .zero_percent = (unsigned)test_random_below(&cluster->random, 30),
                       .versions = new_versions()};
    /* Relations: whole pages, mostly. */
    if (test_random_below(&cluster->random, 3) > 0)
        file->size_bytes -= file->size_bytes % UNIT_SIZE;
    snprintf(file->path, sizeof file->path, "base/%llu/%u",
             (unsigned long long)test_random_below(&cluster->random, 4), cluster->next_name++);
}

static void
remove_file(TestCluster *cluster, size_t index)
{
    free((void *)(uintptr_t)cluster->files[index].versions);
    cluster->files[index] = cluster->files[--cluster->count];
}

void
test_cluster_free(TestCluster *cluster)
{
    while (cluster->count > 0)
        remove_file(cluster, 0);
}

static void
change_file(TestCluster *cluster, TestFile *file)
{
    uint32_t *versions = (uint32_t *)(uintptr_t)file->versions;
    const uint64_t units = units_of_size(file->size_bytes);
    switch (test_random_below(&cluster->random, 8)) {
    case 0: /* scattered */
    case 1:
        for (uint64_t i = 0; i < units; i++) {
            if (test_random_below(&cluster->random, 10) == 0)
                versions[i]++;
        }
        break;
    case 2: /* in one place */
        for (uint64_t i = test_random_below(&cluster->random, units + 1), left = 30;
             i < units && left > 0; i++, left--)
            versions[i]++;
        break;
    case 3: /* shrinks, and what is beyond the end is forgotten */
        file->size_bytes = test_random_below(&cluster->random, file->size_bytes + 1);
        break;
    case 4: /* grows, by a few bytes or by pages */
        file->size_bytes += test_random_below(&cluster->random, 2) == 0
                                ? test_random_below(&cluster->random, 300)
                                : test_random_below(&cluster->random, 20 * UNIT_SIZE);
        if (file->size_bytes > (uint64_t)UNIT_LIMIT * UNIT_SIZE)
            file->size_bytes = (uint64_t)UNIT_LIMIT * UNIT_SIZE;
        break;
    case 5: /* emptied pages */
        for (uint64_t i = 0; i < units; i++) {
            if (test_random_below(&cluster->random, 20) == 0)
                versions[i] = TEST_UNIT_ZERO;
        }
        break;
    case 6: /* all of it */
        for (uint64_t i = 0; i < units; i++)
            versions[i]++;
        break;
    default:
        file->mode = file->mode == 0600 ? 0640 : 0600;
        break;
    }
}

void
test_cluster_evolve(TestCluster *cluster)
{
    for (size_t i = 0; i < cluster->count; i++) {
        if (test_random_below(&cluster->random, 4) == 0)
            change_file(cluster, &cluster->files[i]);
    }
    for (int i = 0; i < 4; i++) {
        if (cluster->count > 20 && test_random_below(&cluster->random, 2) == 0)
            remove_file(cluster, (size_t)test_random_below(&cluster->random, cluster->count));
        if (cluster->count < FILE_LIMIT)
            test_cluster_add_file(cluster);
    }
    /* A file replaced by a directory of the same name, and back. */
    TestFile *file = &cluster->files[test_random_below(&cluster->random, cluster->count)];
    if (!file->is_directory && test_random_below(&cluster->random, 3) == 0)
        file->is_directory = true;
    else if (file->is_directory)
        file->is_directory = false;
    /* The server reads its directories in any order. */
    for (size_t i = cluster->count; i > 1; i--) {
        const size_t j = (size_t)test_random_below(&cluster->random, i);
        const TestFile swapped = cluster->files[i - 1];
        cluster->files[i - 1] = cluster->files[j];
        cluster->files[j] = swapped;
    }
}

Generation
generation_keep(const TestCluster *cluster, Fate *fate)
{
    Generation kept = {
        .files = calloc(cluster->count, sizeof(TestFile)), .count = cluster->count, .fate = fate};
    assert_non_null(kept.files);
    for (size_t i = 0; i < cluster->count; i++) {
        kept.files[i] = cluster->files[i];
        uint32_t *versions = new_versions();
        memcpy(versions, cluster->files[i].versions, UNIT_LIMIT * sizeof *versions);
        kept.files[i].versions = versions;
    }
    return kept;
}

void
generation_forget(Generation *generation)
{
    for (size_t i = 0; i < generation->count; i++)
        free((void *)(uintptr_t)generation->files[i].versions);
    free(generation->files);
    fate_free(generation->fate);
    *generation = (Generation){0};
}

static const TestFile *
find_file(const TestFile *files, size_t count, const TestFile *wanted)
{
    for (size_t i = 0; i < count; i++) {
        if (files[i].class == wanted->class && strcmp(files[i].path, wanted->path) == 0)
            return &files[i];
    }
    return NULL;
}

static uint64_t
unit_bytes(const TestFile *file, uint64_t unit)
{
    const uint64_t left = file->size_bytes - unit * UNIT_SIZE;
    return left < UNIT_SIZE ? left : UNIT_SIZE;
}

/* Units that are not zeros, and not the same in the parent. */
uint64_t
generation_changed_units(const TestFile *files, size_t count, const Generation *parent)
{
    static const uint8_t zeros[UNIT_SIZE];
    uint8_t now[UNIT_SIZE], before[UNIT_SIZE];
    uint64_t changed = 0;
    for (size_t i = 0; i < count; i++) {
        const TestFile *file = &files[i];
        const TestFile *was = find_file(parent->files, parent->count, file);
        const uint64_t units = file->is_directory ? 0 : units_of_size(file->size_bytes);
        const uint64_t had = was == NULL || was->is_directory ? 0 : units_of_size(was->size_bytes);
        for (uint64_t unit = 0; unit < units; unit++) {
            test_file_unit(file, unit, now);
            if (memcmp(now, zeros, UNIT_SIZE) == 0)
                continue;
            if (unit < had)
                test_file_unit(was, unit, before);
            changed += unit >= had || unit_bytes(file, unit) != unit_bytes(was, unit) ||
                       memcmp(now, before, UNIT_SIZE) != 0;
        }
    }
    return changed;
}
