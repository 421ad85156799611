#include "repository/backup_base.h"
#include "repository/backup_writer.h"
#include "repository/catalog.h"
#include "repository/pack.h"
#include "repository/refs.h"
#include "tests/unit/support/backup_fixture.h"
#include "tests/unit/support/repository_fixture.h"
#include "tests/unit/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A cluster that lives: files whose units have versions. */
enum { FILE_LIMIT = 400, UNIT_LIMIT = 200 };

typedef struct {
    TestFile files[FILE_LIMIT];
    size_t count;
    uint64_t random;
    uint64_t next_seed;
    unsigned next_name;
} TestCluster;

static const char *scratch;

static Repository *
a_repository(const char *compression)
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
    return repository;
}

static uint32_t *
new_versions(void)
{
    uint32_t *versions = calloc(UNIT_LIMIT, sizeof *versions);
    assert_non_null(versions);
    return versions;
}

static void
add_file(TestCluster *cluster)
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

static void
free_cluster(TestCluster *cluster)
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

static void
evolve(TestCluster *cluster)
{
    for (size_t i = 0; i < cluster->count; i++) {
        if (test_random_below(&cluster->random, 4) == 0)
            change_file(cluster, &cluster->files[i]);
    }
    for (int i = 0; i < 4; i++) {
        if (cluster->count > 20 && test_random_below(&cluster->random, 2) == 0)
            remove_file(cluster, (size_t)test_random_below(&cluster->random, cluster->count));
        if (cluster->count < FILE_LIMIT)
            add_file(cluster);
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

/* A generation as it was, for later comparison. */
typedef struct {
    TestFile *files;
    size_t count;
    Fate *fate;
} Generation;

static Generation
keep(const TestCluster *cluster, Fate *fate)
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

static void
forget(Generation *generation)
{
    for (size_t i = 0; i < generation->count; i++)
        free((void *)(uintptr_t)generation->files[i].versions);
    free(generation->files);
    fate_free(generation->fate);
    *generation = (Generation){0};
}

typedef struct {
    int jobs;
    unsigned refresh_percent;
    const Fate *parent;
} Run;

static BackupWriter *
begin(Repository *repository, const Run *run)
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

static Fate *
back_up(Repository *repository, const Run *run, const TestFile *files, size_t count,
        BackupCounts *counts_out)
{
    CairnError err = {0};
    Fate *fate = NULL;
    SCOPED(BackupWriter) writer = begin(repository, run);
    if (!test_backup_write(writer, files, count, 7, &err) ||
        !test_backup_commit(writer, &fate, &err))
        fail_msg("%s", err.message);
    if (counts_out != NULL)
        *counts_out = *backup_writer_counts(writer);
    return fate;
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
static uint64_t
changed_units(const TestFile *files, size_t count, const Generation *parent)
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
static void
check_refs(Repository *repository, const Fate *fate)
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

enum { GENERATIONS = 10 };

static void
test_every_generation_is_whole_and_stores_just_what_changed(void **state)
{
    (void)state;
    static const char *const codecs[] = {"lz4", "zstd", "none"};
    for (unsigned c = 0; c < 3; c++) {
        SCOPED(Repository) repository = a_repository(codecs[c]);
        TestCluster cluster = {.random = 4711 + c};
        Generation kept[GENERATIONS] = {0};
        while (cluster.count < 60)
            add_file(&cluster);
        const unsigned generations = c == 0 ? GENERATIONS : 4;
        for (unsigned g = 0; g < generations; g++) {
            BackupCounts counts;
            const Run run = {.jobs = 1 + (int)(g % 3), .parent = g > 0 ? kept[g - 1].fate : NULL};
            Fate *fate = back_up(repository, &run, cluster.files, cluster.count, &counts);
            assert_string_equal(fate->type, g > 0 ? "incr" : "full");
            if (g > 0) {
                assert_string_equal(fate->parent.text, kept[g - 1].fate->bid.text);
                assert_int_equal(counts.stored,
                                 changed_units(cluster.files, cluster.count, &kept[g - 1]));
                assert_int_equal(counts.lost, 0);
            }
            kept[g] = keep(&cluster, fate);
            test_backup_compare(repository, fate, kept[g].files, kept[g].count);
            check_refs(repository, fate);
            evolve(&cluster);
        }
        /* What came later changed none of it. */
        for (unsigned g = 0; g < generations; g++) {
            test_backup_compare(repository, kept[g].fate, kept[g].files, kept[g].count);
            forget(&kept[g]);
        }
        free_cluster(&cluster);
    }
}

static TestFile
a_file(const char *path, uint64_t units, const uint32_t *versions)
{
    static uint64_t seed = 1000;
    TestFile file = {
        .mode = 0600, .size_bytes = units * UNIT_SIZE, .seed = seed++, .versions = versions};
    snprintf(file.path, sizeof file.path, "%s", path);
    return file;
}

/* A tree of some depth, so that there are leaves and inner nodes to share, and a region node. */
static void
test_what_did_not_change_is_referred_to_again(void **state)
{
    (void)state;
    enum { SMALL = 30000, BIG_UNITS = REGION_UNITS + 3000 };
    SCOPED(Repository) repository = a_repository("lz4");
    SCOPED_MEMORY TestFile *files = calloc(SMALL + 1, sizeof *files);
    SCOPED_MEMORY uint32_t *versions = calloc(BIG_UNITS, sizeof *versions);
    assert_true(files != NULL && versions != NULL);
    for (unsigned i = 0; i < SMALL; i++) {
        char path[64];
        snprintf(path, sizeof path, "base/%u/%u", i % 10, i);
        files[i] = a_file(path, 0, NULL);
    }
    /* Mostly zeros, for speed, and so many runs that each region needs a node. */
    files[SMALL] = a_file("big", BIG_UNITS, versions);
    files[SMALL].zero_percent = 97;
    files[SMALL].size_bytes -= 100;

    BackupCounts counts;
    const Run first = {.jobs = 2};
    SCOPED(Fate) full = back_up(repository, &first, files, SMALL + 1, &counts);
    assert_int_equal(counts.shared_nodes, 0);
    const Run second = {.jobs = 2, .parent = full};
    SCOPED(Fate) same = back_up(repository, &second, files, SMALL + 1, &counts);
    assert_int_equal(counts.stored, 0);
    assert_int_equal(same->pack_count, 0);
    assert_true(same->map_bytes < 4000 && same->map_bytes * 4 < full->map_bytes);
    assert_true(counts.shared_nodes > 40);
    check_refs(repository, same);
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
    const Run third = {.jobs = 2, .parent = same};
    SCOPED(Fate) changed = back_up(repository, &third, files, SMALL + 1, &counts);
    assert_int_equal(counts.stored, 1);
    assert_true(changed->map_bytes < 8000);
    assert_true(counts.shared_nodes > 40);
    check_refs(repository, changed);
    test_backup_compare(repository, changed, files, SMALL + 1);
}

static char *
object_path(Repository *repository, const char *name)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", repository_config(repository)->path, name);
    return path;
}

/* Random files with content, at least one pack. */
static void
some_files(TestFile *files, size_t count, uint64_t units)
{
    for (size_t i = 0; i < count; i++) {
        char path[64];
        snprintf(path, sizeof path, "base/1/%zu", i);
        files[i] = a_file(path, units, NULL);
    }
}

static void
flip_index_byte(Repository *repository, const char *name)
{
    FILE *file = fopen(object_path(repository, name), "r+b");
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
    assert_int_equal(remove(object_path(repository, name)), 0);
}

static void
cut(Repository *repository, const char *name)
{
    const char *path = object_path(repository, name);
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
        SCOPED(Repository) repository = a_repository("lz4");
        TestFile files[COUNT];
        BackupCounts counts;
        some_files(files, COUNT, UNITS);
        const Run first = {.jobs = 2};
        SCOPED(Fate) full = back_up(repository, &first, files, COUNT, NULL);
        char name[STORAGE_NAME_LIMIT];
        pack_name(name, "main", &full->bid, 0);
        harms[i].harm(repository, name);
        const Run second = {.jobs = 2, .parent = full};
        SCOPED(Fate) fate = back_up(repository, &second, files, COUNT, &counts);
        if (counts.stored != COUNT * UNITS || counts.lost == 0)
            fail_msg("%s was trusted", harms[i].title);
        assert_string_equal(fate->type, "incr");
        if (harms[i].harm != drop)
            drop(repository, name); /* and nothing rests on it any more */
        test_backup_compare(repository, fate, files, COUNT);
    }
}

/* An attempt that never ends: what its packs hold is durable all the same. */
static BackupId
abandon_after(Repository *repository, const Run *run, const TestFile *files, size_t count)
{
    CairnError err = {0};
    SCOPED(BackupWriter) writer = begin(repository, run);
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
        SCOPED(Repository) repository = a_repository("lz4");
        TestFile files[COUNT];
        BackupCounts counts;
        uint32_t versions[UNITS] = {0};
        some_files(files, COUNT, UNITS);
        SCOPED(Fate) full = NULL;
        const Run first = {.jobs = 2};
        if (with_parent)
            full = back_up(repository, &first, files, COUNT, NULL);
        /* The attempt saw file 3 change; when the next one comes, five of its pages are new. */
        for (size_t i = 0; i < UNITS; i++)
            versions[i] = 1;
        files[3].versions = versions;
        files[3].size_bytes -= 77; /* a short end, compared without its padding */
        const Run run = {.jobs = 2, .parent = full};
        const BackupId dead = abandon_after(repository, &run, files, COUNT);
        for (size_t i = 0; i < 5; i++)
            versions[i * 7] = 2;
        SCOPED(Fate) fate = back_up(repository, &run, files, COUNT, &counts);
        assert_string_equal(fate->type, with_parent ? "incr" : "full");
        assert_int_equal(counts.stored, 5);
        assert_int_equal(counts.salvaged, (with_parent ? UNITS : COUNT * UNITS) - 5);
        check_refs(repository, fate);
        test_backup_compare(repository, fate, files, COUNT);
        CairnError err = {0};
        SCOPED(Refs) refs = refs_read(repository, fate, &err);
        assert_true(refs != NULL && refs_mention(refs, &dead, false, 0));

        /* It is older than a backup now, so the next full one stores every frame anew. */
        SCOPED(Fate) again = back_up(repository, &first, files, COUNT, &counts);
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
    SCOPED(Repository) repository = a_repository("lz4");
    TestFile files[COUNT];
    BackupCounts counts;
    char name[STORAGE_NAME_LIMIT];
    some_files(files, COUNT, UNITS);
    const Run run = {.jobs = 2};
    const BackupId dead = abandon_after(repository, &run, files, COUNT);
    pack_name(name, "main", &dead, 0);
    FILE *file = fopen(object_path(repository, name), "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, 1000, SEEK_SET), 0);
    const int byte = fgetc(file);
    assert_int_equal(fseek(file, 1000, SEEK_SET), 0);
    assert_int_equal(fputc(byte ^ 1, file), byte ^ 1);
    assert_int_equal(fclose(file), 0);
    SCOPED(Fate) fate = back_up(repository, &run, files, COUNT, &counts);
    assert_int_equal(counts.salvaged, 0);
    assert_int_equal(counts.stored, COUNT * UNITS);
    test_backup_compare(repository, fate, files, COUNT);
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
        SCOPED(Repository) repository = a_repository("lz4");
        SCOPED_MEMORY uint32_t *versions = calloc(UNITS, sizeof *versions);
        assert_non_null(versions);
        TestFile files[FILES];
        some_files(files, FILES, UNITS);
        for (size_t i = 0; i < FILES; i++)
            files[i].versions = versions;
        BackupCounts counts = {0};
        Run run = {.jobs = 2, .refresh_percent = budgets[b]};
        Fate *parent = back_up(repository, &run, files, FILES, NULL);
        uint64_t refreshed = 0;
        for (unsigned round = 0; round < ROUNDS + QUIET; round++) {
            for (size_t i = round; round < ROUNDS && i < UNITS; i += 3)
                versions[i]++;
            run.parent = parent;
            Fate *fate = back_up(repository, &run, files, FILES, &counts);
            fate_free(parent);
            parent = fate;
            check_refs(repository, fate);
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
        SCOPED(Repository) repository = a_repository("lz4");
        TestFile files[COUNT];
        CairnError err = {0};
        char name[STORAGE_NAME_LIMIT];
        const char *why;
        some_files(files, COUNT, UNITS);
        const Run first = {.jobs = 1};
        SCOPED(Fate) full = back_up(repository, &first, files, COUNT, NULL);
        if (what == 0)
            map_pack_name(name, "main", &full->bid, 0);
        else
            snprintf(name, sizeof name, "c/main/b/%s/refs", full->bid.text);
        drop(repository, name);
        const Run second = {.jobs = 1, .parent = full};
        SCOPED(BackupWriter) writer = begin(repository, &second);
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

static int
set_up(void **state)
{
    (void)state;
    scratch = scratch_directory();
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_generation_is_whole_and_stores_just_what_changed),
        cmocka_unit_test(test_what_did_not_change_is_referred_to_again),
        cmocka_unit_test(test_packs_that_cannot_be_trusted_are_stored_anew),
        cmocka_unit_test(test_what_a_revoked_attempt_left_is_salvaged_by_content),
        cmocka_unit_test(test_a_damaged_pack_of_an_attempt_is_not_salvaged),
        cmocka_unit_test(test_scattered_regions_are_refreshed_within_the_budget),
        cmocka_unit_test(test_a_parent_that_cannot_be_read_makes_the_backup_full),
    };
    return cmocka_run_group_tests_name("incremental", tests, set_up, NULL);
}
