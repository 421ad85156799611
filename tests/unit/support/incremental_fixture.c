#include "tests/unit/support/incremental_fixture.h"

#include "repository/refs.h"
#include "tests/unit/support/repository_fixture.h"
#include "tests/unit/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

static const char *scratch;

Repository *
incremental_repository(const char *compression)
{
    static unsigned number;
    static char roots[64][256];
    char name[32];
    CairnError err = {0};
    snprintf(name, sizeof name, "repo%u", number);
    char *root = roots[number++ % 64];
    snprintf(root, 256, "%s", scratch_path(scratch, name));
    const RepositoryConfig config = {
        .name = "main", .path = root, .encryption = "none", .compression = compression};
    assert_true(repository_init(world_real(), &config, &err));
    Repository *repository = repository_open(world_real(), &config, &err);
    assert_non_null(repository);
    test_encrypt_as_asked(repository);
    return repository;
}

BackupWriter *
incremental_begin(Repository *repository, const IncrementalRun *run)
{
    CairnError err = {0};
    BackupWriter *writer =
        backup_writer_begin(repository,
                            &(BackupWriterOptions){.cluster = "main",
                                                   .system_id = 1,
                                                   .major = 17,
                                                   .type = "incr",
                                                   .parent = run->parent,
                                                   .refresh_percent = run->refresh_percent,
                                                   .jobs = run->jobs,
                                                   .scratch_directory = scratch},
                            &err);
    if (writer == NULL)
        fail_msg("%s", err.message);
    return writer;
}

Fate *
incremental_back_up(Repository *repository, const IncrementalRun *run, const TestFile *files,
                    size_t count, BackupCounts *counts_out)
{
    CairnError err = {0};
    Fate *fate = NULL;
    SCOPED(BackupWriter) writer = incremental_begin(repository, run);
    if (!test_backup_write(writer, files, count, 7, &err) ||
        !test_backup_commit(writer, &fate, &err))
        fail_msg("%s", err.message);
    if (counts_out != NULL)
        *counts_out = *backup_writer_counts(writer);
    return fate;
}

/* What a walk over the whole map refers to, to compare with the summary. */
typedef struct {
    RefsBuilder *refs;
    CreatorTable *creators;
} Walk;

static bool
walk_node(void *context, const MapNodeSeenAt *at, CairnError *err)
{
    Walk *walk = context;
    uint32_t creator;
    return creator_table_add(walk->creators, &at->ref->creator, &creator, err) &&
           refs_builder_node(walk->refs, creator, at->ref->pack, err);
}

static void
walk_runs(Walk *walk, MapReader *map, const MapRun *runs, size_t count)
{
    CairnError err = {0};
    for (size_t i = 0; i < count; i++) {
        uint32_t creator;
        if (runs[i].is_zero)
            continue;
        assert_true(creator_table_add(walk->creators, map_reader_creator(map, runs[i].creator),
                                      &creator, &err));
        assert_true(refs_builder_units(walk->refs, creator, runs[i].pack, runs[i].units, &err));
    }
}

static void
walk_regions(Walk *walk, MapReader *map)
{
    CairnError err = {0};
    for (;;) {
        MapRegion region;
        bool found;
        assert_true(map_reader_region_raw(map, &region, &found, &err));
        if (!found)
            return;
        if (region.is_node) {
            const MapNodeSeenAt at = {.ref = &region.node};
            assert_true(walk_node(walk, &at, &err));
            assert_true(map_reader_region_node(map, &region.node, region.first_unit, region.units,
                                               &region.runs, &region.count, &err));
        }
        walk_runs(walk, map, region.runs, region.count);
    }
}

/* The summary says exactly what the map says: every data pack with its live units, every map pack
 * that holds a node (and all of our own, which hold the root, lists and frame tables). */
void
incremental_check_refs(Repository *repository, const Fate *fate)
{
    CairnError err = {0};
    uint32_t self;
    SCOPED(CreatorTable) creators = creator_table_new(&err);
    assert_true(creator_table_add(creators, &fate->bid, &self, &err));
    SCOPED(RefsBuilder) builder = refs_builder_new(creators, &err);
    Walk walk = {builder, creators};
    SCOPED(MapReader) map = map_reader_open(repository, "main", &fate->map_root, &err);
    assert_non_null(map);
    map_reader_on_node(map, walk_node, &walk);
    for (;;) {
        MapEntry entry;
        bool found;
        assert_true(map_reader_next(map, &entry, &found, &err));
        if (!found)
            break;
        walk_regions(&walk, map);
    }
    for (uint32_t i = 0; i < fate->map_pack_count; i++)
        assert_true(refs_builder_node(builder, self, i, &err));

    SCOPED_BYTES ByteWriter ignored = {0};
    assert_true(refs_builder_finish(builder, &ignored, &err));
    SCOPED(Refs) refs = refs_read(repository, fate, &err);
    assert_non_null(refs);
    /* Creators may stand in another order: every range of one must be a range of the other. */
    SCOPED(Refs) walked = calloc(1, sizeof *walked);
    assert_true(refs_parse(ignored.data, ignored.size, walked, &err));
    assert_int_equal(walked->count, refs->count);
    assert_int_equal(walked->creator_count, refs->creator_count);
    for (size_t i = 0; i < walked->count; i++) {
        const RefsRange *range = &walked->ranges[i];
        const RefsRange *found = refs_find(refs, &range->creator, range->is_map, range->first_pack);
        assert_non_null(found);
        assert_int_equal(found->first_pack, range->first_pack);
        assert_int_equal(found->pack_count, range->pack_count);
        assert_int_equal(found->live_units, range->live_units);
    }
}

TestFile
incremental_file(const char *path, uint64_t units, const uint32_t *versions)
{
    static uint64_t seed = 1000;
    TestFile file = {
        .mode = 0600, .size_bytes = units * UNIT_SIZE, .seed = seed++, .versions = versions};
    snprintf(file.path, sizeof file.path, "%s", path);
    return file;
}

char *
incremental_object_path(Repository *repository, const char *name)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", repository_config(repository)->path, name);
    return path;
}

/* Random files with content, at least one pack. */
void
incremental_some_files(TestFile *files, size_t count, uint64_t units)
{
    for (size_t i = 0; i < count; i++) {
        char path[64];
        snprintf(path, sizeof path, "base/1/%zu", i);
        files[i] = incremental_file(path, units, NULL);
    }
}

int
incremental_set_up(void **state)
{
    (void)state;
    scratch = scratch_directory();
    return 0;
}
