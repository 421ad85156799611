#include "restore/materialise.h"

#include "restore/job_queue.h"
#include "restore/restore_memory.h"
#include "tests/unit/support/fault_disk.h"
#include "tests/unit/support/repository_fixture.h"
#include "tests/unit/support/scratch.h"
#include "tests/unit/support/sources_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* Sanitizers keep memory of their own beside everything. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

enum { MAP_SOURCE = SOURCES_LIMIT - 1, MANY = 64 };

typedef struct {
    FaultDisk disk;
    Repository *repository;
    char root[256]; /* this test's own; holds path and target */
    char path[256];
    char target[256];
    SourcePack packs[MANY];
    size_t pack_count;
    SourceFile files[MANY];
    size_t file_count;
    uint64_t seed;
    uint64_t random;
    uint64_t decoded; /* frames, by the last restore */
    CairnError err;   /* its failure */
} Fixture;

static int
setup(void **state)
{
    static Fixture fixture;

    fixture = (Fixture){.random = 4711};
    fault_disk_init(&fixture.disk);
    fixture.disk.pretend_sync = true;
    snprintf(fixture.root, sizeof fixture.root, "%s", scratch_directory());
    snprintf(fixture.path, sizeof fixture.path, "%s", scratch_path(fixture.root, "repository"));
    fixture.repository = scratch_repository(&fixture.disk.world, fixture.path);
    *state = &fixture;
    return 0;
}

static int
teardown(void **state)
{
    Fixture *fixture = *state;
    for (size_t i = 0; i < fixture->pack_count; i++)
        source_pack_free(&fixture->packs[i]);
    for (size_t i = 0; i < fixture->file_count; i++)
        source_file_free(&fixture->files[i]);
    repository_close(fixture->repository);
    return 0;
}

static SourcePack *
begin_pack(Fixture *fixture, uint32_t source, uint32_t number, uint32_t slots_per_frame)
{
    assert_true(fixture->pack_count < MANY);
    SourcePack *pack = &fixture->packs[fixture->pack_count++];
    source_pack_begin(pack, fixture->repository, source, number, slots_per_frame);
    return pack;
}

static void
finish_packs(Fixture *fixture)
{
    for (size_t i = 0; i < fixture->pack_count; i++)
        source_pack_finish(&fixture->packs[i]);
}

static SourceFile *
add_file(Fixture *fixture)
{
    assert_true(fixture->file_count < MANY);
    SourceFile *file = &fixture->files[fixture->file_count];
    snprintf(file->path, sizeof file->path, "%06zu", fixture->file_count++);
    return file;
}

/* The next unit of the file is a new one at the end of the pack. */
static void
add_unit(Fixture *fixture, SourceFile *file, SourcePack *pack)
{
    const uint64_t seed = ++fixture->seed;
    sources_add(file, seed, pack, source_pack_add(pack, seed));
}

static bool
take_all(void *context, const char *path)
{
    (void)context;
    (void)path;
    return true;
}

/* Restores over the world into a new directory; the failure is left in fixture->err. */
static bool
restore_with(Fixture *fixture, const World *world, Repository *repository, MapNodeRef root,
             const RestoreMemory *memory)
{
    static int number;
    char name[32];
    CairnError *err = &fixture->err;

    snprintf(name, sizeof name, "target-%d", number++);
    snprintf(fixture->target, sizeof fixture->target, "%s", scratch_path(fixture->root, name));
    SCOPED(TargetDirectory) directory = target_directory_open(world, fixture->target, err);
    SCOPED(MapReader) map = map_reader_open(repository, "main", &root, err);
    SCOPED(FrameSource)
    frames = frame_source_new(repository, "main", memory->cache_bytes, err);
    assert_true(directory != NULL && map != NULL && frames != NULL);
    assert_true(target_directory_create(directory, err));
    fault_disk_reset(&fixture->disk);
    const MaterialiseOptions options = {
        .world = world,
        .map = map,
        .frames = frames,
        .directory = directory,
        .jobs = memory->jobs,
        .wanted = take_all,
    };
    const bool restored = materialise(&options, err);
    fixture->decoded = frame_source_decoded(frames);
    return restored;
}

static bool
restore(Fixture *fixture, MapNodeRef root)
{
    const RestoreMemory memory = {.jobs = 1, .cache_bytes = RESTORE_CACHE_MEMORY};
    return restore_with(fixture, &fixture->disk.world, fixture->repository, root, &memory);
}

static void
compare_file(const Fixture *fixture, const SourceFile *file)
{
    uint64_t left = source_file_size(file);
    const int fd = open(scratch_path(fixture->target, file->path), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(lseek(fd, 0, SEEK_END), left);
    lseek(fd, 0, SEEK_SET);
    for (uint32_t unit = 0; unit < file->unit_count; unit++) {
        uint8_t expected[UNIT_SIZE];
        uint8_t found[UNIT_SIZE];
        const size_t size = left < UNIT_SIZE ? (size_t)left : UNIT_SIZE;
        source_unit(file->seeds[unit], expected);
        assert_int_equal(read(fd, found, size), size);
        if (memcmp(found, expected, size) != 0)
            fail_msg("'%s': unit %u differs", file->path, unit);
        left -= size;
    }
    close(fd);
}

static void
compare_files(const Fixture *fixture)
{
    for (size_t i = 0; i < fixture->file_count; i++)
        compare_file(fixture, &fixture->files[i]);
}

static void
assert_restored(Fixture *fixture, MapNodeRef root)
{
    if (!restore(fixture, root))
        fail_msg("%s", fixture->err.message);
    compare_files(fixture);
}

/* How many frames hold at least one of the units of all files. */
static uint64_t
frames_wanted(const Fixture *fixture)
{
    uint64_t wanted = 0;
    for (size_t i = 0; i < fixture->pack_count; i++) {
        const SourcePack *pack = &fixture->packs[i];
        bool *is_wanted = calloc(pack->frame_count + 1, sizeof *is_wanted);
        assert_non_null(is_wanted);
        for (size_t k = 0; k < fixture->file_count; k++) {
            const SourceFile *file = &fixture->files[k];
            for (uint32_t run = 0; run < file->run_count; run++) {
                const MapRun *its = &file->runs[run];
                if (its->is_zero || its->creator != pack->source || its->pack != pack->number)
                    continue;
                for (uint64_t slot = its->slot; slot < its->slot + its->units; slot++)
                    is_wanted[pack->frame_of[slot]] = true;
            }
        }
        for (uint32_t frame = 0; frame < pack->frame_count; frame++)
            wanted += is_wanted[frame];
        free(is_wanted);
    }
    return wanted;
}

/* Of every `stride` units one comes from a newer pack, in turn; the others from the first. Units of
 * the base that are not current stay in its pack, as in a real one. */
static void
add_scattered(Fixture *fixture, SourceFile *file, uint32_t units, uint32_t stride)
{
    SourcePack *base = &fixture->packs[0];
    for (uint32_t unit = 0; unit < units; unit++) {
        if (unit % stride == stride - 1) {
            const size_t newer = 1 + unit / stride % (fixture->pack_count - 1);
            source_pack_add(base, ++fixture->seed);
            add_unit(fixture, file, &fixture->packs[newer]);
        } else {
            add_unit(fixture, file, base);
        }
    }
}

static void
test_a_scattered_file_decodes_each_frame_once(void **state)
{
    Fixture *fixture = *state;
    for (uint32_t source = 0; source < 12; source++)
        begin_pack(fixture, source, source % 3, 0);
    add_scattered(fixture, add_file(fixture), 3000, 9);
    finish_packs(fixture);
    const MapNodeRef root = sources_map(fixture->repository, MAP_SOURCE, fixture->files, 1);

    assert_true(fixture->files[0].run_count > 600);
    assert_restored(fixture, root);
    assert_int_equal(fixture->decoded, frames_wanted(fixture));
}

static void
test_small_files_that_share_frames_decode_each_once(void **state)
{
    Fixture *fixture = *state;
    for (uint32_t source = 0; source < 5; source++)
        begin_pack(fixture, source, 0, 16);
    for (uint32_t i = 0; i < JOB_FILES; i++)
        add_scattered(fixture, add_file(fixture), 1 + i % 7, 3);
    finish_packs(fixture);
    const MapNodeRef root =
        sources_map(fixture->repository, MAP_SOURCE, fixture->files, fixture->file_count);

    assert_restored(fixture, root);
    assert_int_equal(fixture->decoded, frames_wanted(fixture));
}

static void
test_one_source_is_cut_into_jobs_for_all_threads(void **state)
{
    Fixture *fixture = *state;
    SourcePack *pack = begin_pack(fixture, 7, 0, 16);
    SourceFile *file = add_file(fixture);
    for (uint32_t unit = 0; unit < 3 * CELL_UNITS; unit++)
        add_unit(fixture, file, pack);
    file->tail_bytes = 5;
    finish_packs(fixture);
    const MapNodeRef root = sources_map(fixture->repository, MAP_SOURCE, fixture->files, 1);
    assert_restored(fixture, root);
    assert_int_equal(fixture->decoded, frames_wanted(fixture)); /* cells end where frames end */
    assert_int_equal(fixture->disk.calls[FAULT_WRITEBACK], 3);  /* one a job */
}

/* Runs from any packs, holes between. */
static void
add_random(Fixture *fixture, SourceFile *file, uint32_t units)
{
    uint64_t *random = &fixture->random;
    while (file->unit_count < units) {
        SourcePack *pack = &fixture->packs[test_random_below(random, fixture->pack_count)];
        const bool hole = test_random_below(random, 8) == 0;
        uint64_t length = 1 + test_random_below(random, 40);
        for (; length > 0 && file->unit_count < units; length--) {
            if (hole)
                sources_add(file, 0, NULL, 0);
            else
                add_unit(fixture, file, pack);
        }
    }
}

/* Exchanges runs, so that slots no longer ascend through the file. */
static void
shuffle(Fixture *fixture, SourceFile *file)
{
    if (file->run_count < 2 || file->unit_count > REGION_UNITS)
        return;
    SourceFile shuffled = {.tail_bytes = file->tail_bytes};
    snprintf(shuffled.path, sizeof shuffled.path, "%s", file->path);
    uint32_t *order = calloc(file->run_count, sizeof *order);
    uint32_t *unit_of = calloc(file->run_count, sizeof *unit_of);
    assert_true(order != NULL && unit_of != NULL);
    for (uint32_t i = 0, unit = 0; i < file->run_count; i++) {
        order[i] = i;
        unit_of[i] = unit;
        unit += (uint32_t)file->runs[i].units;
    }
    for (uint32_t i = file->run_count - 1; i > 0; i--) {
        const uint32_t other = (uint32_t)test_random_below(&fixture->random, i + 1);
        const uint32_t kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
    for (uint32_t i = 0; i < file->run_count; i++) {
        const MapRun *run = &file->runs[order[i]];
        const SourcePack pack = {.source = run->creator, .number = run->pack};
        for (uint32_t k = 0; k < run->units; k++)
            sources_add(&shuffled, file->seeds[unit_of[order[i]] + k], &pack, run->slot + k);
    }
    free(order);
    free(unit_of);
    source_file_free(file);
    *file = shuffled;
}

static MapNodeRef
make_random(Fixture *fixture)
{
    static const uint32_t UNITS[] = {0, 1, 16, 17, 1024, 1025, 2500};
    for (uint32_t source = 0; source < 20; source++)
        begin_pack(fixture, source / 2, source, source % 4 == 0 ? 16 : 0);
    for (size_t i = 0; i < MANY; i++) {
        SourceFile *file = add_file(fixture);
        const size_t choice = test_random_below(&fixture->random, 14);
        add_random(fixture, file,
                   choice < 7 ? UNITS[choice] : (uint32_t)test_random_below(&fixture->random, 200));
        shuffle(fixture, file);
        if (file->unit_count > 0)
            file->tail_bytes = test_random_below(&fixture->random, UNIT_SIZE);
    }
    finish_packs(fixture);
    return sources_map(fixture->repository, MAP_SOURCE, fixture->files, fixture->file_count);
}

static void
test_any_interleaving_comes_back_byte_for_byte(void **state)
{
    Fixture *fixture = *state;
    const MapNodeRef root = make_random(fixture);
    assert_restored(fixture, root);
    /* And with no pack kept open beyond the one in use. */
    const RestoreMemory least = {.jobs = 1};
    assert_true(restore_with(fixture, &fixture->disk.world, fixture->repository, root, &least));
    compare_files(fixture);
}

static void
test_many_threads_restore_the_same(void **state)
{
    Fixture *fixture = *state;
    const MapNodeRef root = make_random(fixture);
    CairnError err = {0};
    const RepositoryConfig config = {.name = "main", .path = fixture->path, .encryption = "none"};
    SCOPED(Repository) repository = repository_open(world_real(), &config, &err);
    assert_non_null(repository);
    test_encrypt_as_asked(repository);
    for (int jobs = 2; jobs < MATERIALISE_JOBS_LIMIT; jobs += 20) {
        const RestoreMemory memory = {.jobs = jobs, .cache_bytes = 4096};
        if (!restore_with(fixture, world_real(), repository, root, &memory))
            fail_msg("%s", fixture->err.message);
        compare_files(fixture);
    }
}

static void
test_packs_stay_open_as_far_as_memory_goes(void **state)
{
    Fixture *fixture = *state;
    enum { PACKS = 8, FILES = 3 };
    for (uint32_t source = 0; source < PACKS; source++)
        begin_pack(fixture, source, 0, 1);
    for (int i = 0; i < FILES; i++) {
        SourceFile *file = add_file(fixture);
        for (uint32_t unit = 0; unit < 80; unit++)
            add_unit(fixture, file, &fixture->packs[unit % PACKS]);
    }
    finish_packs(fixture);
    const MapNodeRef root = sources_map(fixture->repository, MAP_SOURCE, fixture->files, FILES);

    /* Each pack and each file; the directory is open already, the map pack too. */
    assert_restored(fixture, root);
    const unsigned kept = fixture->disk.calls[FAULT_OPEN];
    const RestoreMemory least = {.jobs = 1};
    assert_true(restore_with(fixture, &fixture->disk.world, fixture->repository, root, &least));
    assert_int_equal(fixture->disk.calls[FAULT_OPEN] - kept, (FILES - 1) * PACKS);
}

/* One unit of every `stride` of a pack of incompressible frames of one unit each. */
static unsigned
reads_with_stride(Fixture *fixture, uint32_t stride)
{
    SourcePack *pack = begin_pack(fixture, 3, (uint32_t)fixture->pack_count, 1);
    SourceFile *file = &fixture->files[0];
    *file = (SourceFile){.path = "one"};
    for (uint32_t unit = 0; unit < 256; unit++) {
        if (unit % stride == 0)
            add_unit(fixture, file, pack);
        else
            source_pack_add(pack, ++fixture->seed);
    }
    source_pack_finish(pack);
    const MapNodeRef root =
        sources_map(fixture->repository, (uint32_t)fixture->pack_count + 100, file, 1);
    fixture->file_count = 1;
    assert_restored(fixture, root);
    assert_int_equal(fixture->decoded, (256 + stride - 1) / stride);
    source_file_free(file);
    fixture->file_count = 0;
    return fixture->disk.calls[FAULT_READ];
}

static void
test_near_frames_are_read_together_and_far_ones_apart(void **state)
{
    Fixture *fixture = *state;
    /* What opening the pack reads is the same each time. */
    const unsigned all = reads_with_stride(fixture, 1);
    const unsigned near = reads_with_stride(fixture, 4);
    const unsigned far = reads_with_stride(fixture, 32);
    const unsigned windows = 256 * UNIT_SIZE / READ_WINDOW;
    assert_true(all <= 4 + windows + 1);
    assert_true(near <= all);
    assert_int_equal(far, all + 256 / 32 - windows); /* one each */
}

/* Byte in the middle of the frame that holds the slot. */
static void
damage_frame(const Fixture *fixture, const SourcePack *pack, uint32_t slot)
{
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    const BackupId bid = test_backup_id(pack->source);
    uint64_t offset;
    uint32_t stored_size;
    uint32_t raw_size;
    uint8_t byte;

    pack_name(name, "main", &bid, pack->number);
    SCOPED(PackReader) reader = pack_open(fixture->repository, "main", &bid, pack->number, &err);
    assert_non_null(reader);
    pack_frame_extent(reader, pack->frame_of[slot], &offset, &stored_size, &raw_size);
    const int fd = open(scratch_path(fixture->path, name), O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    offset += stored_size / 2;
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

/* Three sources; of the third come blocks 10, 11 and 20 of the file, in one frame. */
static MapNodeRef
make_three(Fixture *fixture)
{
    SourcePack *base = begin_pack(fixture, 1, 0, 16);
    SourcePack *second = begin_pack(fixture, 2, 0, 16);
    SourcePack *third = begin_pack(fixture, 3, 5, 16);
    SourceFile *file = add_file(fixture);
    for (uint32_t unit = 0; unit < 50; unit++)
        add_unit(fixture, file,
                 unit == 10 || unit == 11 || unit == 20 ? third
                 : unit == 15                           ? second
                                                        : base);
    finish_packs(fixture);
    return sources_map(fixture->repository, MAP_SOURCE, fixture->files, 1);
}

static void
test_damage_names_pack_file_and_blocks(void **state)
{
    Fixture *fixture = *state;
    const MapNodeRef root = make_three(fixture);
    char name[STORAGE_NAME_LIMIT];
    const BackupId bid = test_backup_id(3);
    pack_name(name, "main", &bid, 5);

    damage_frame(fixture, &fixture->packs[2], 1);
    assert_false(restore(fixture, root));
    assert_int_equal(fixture->err.kind, CAIRN_CORRUPT);
    assert_non_null(strstr(fixture->err.message, name));
    assert_non_null(strstr(fixture->err.message, "file '000000', blocks 10-11, 20: "));
}

static void
test_a_missing_pack_names_file_and_blocks(void **state)
{
    Fixture *fixture = *state;
    const MapNodeRef root = make_three(fixture);
    char name[STORAGE_NAME_LIMIT];
    const BackupId bid = test_backup_id(2);
    pack_name(name, "main", &bid, 0);

    assert_int_equal(unlink(scratch_path(fixture->path, name)), 0);
    assert_false(restore(fixture, root));
    assert_int_equal(fixture->err.kind, CAIRN_NOT_FOUND);
    assert_non_null(strstr(fixture->err.message, name));
    assert_non_null(strstr(fixture->err.message, "file '000000', blocks 15: "));
}

static void
test_a_unit_from_the_wrong_slot_fails_the_checksum_of_the_file(void **state)
{
    Fixture *fixture = *state;
    make_three(fixture);
    SourceFile *file = &fixture->files[0];
    const uint64_t right = file->seeds[20];
    /* The map's CRC is made of this, what is stored is not. */
    file->seeds[20] = file->seeds[10];
    const MapNodeRef root = sources_map(fixture->repository, MAP_SOURCE - 1, file, 1);
    file->seeds[20] = right;
    assert_false(restore(fixture, root));
    assert_int_equal(fixture->err.kind, CAIRN_CORRUPT);
    assert_non_null(strstr(fixture->err.message, "checksum"));
}

/* In a process of its own, so that what it takes is not counted. */
static void
make_most_scattered(Fixture *fixture, int root_fd)
{
    for (uint32_t source = 0; source < MANY; source++)
        begin_pack(fixture, source * 3, 0, 8);
    SourceFile *file = add_file(fixture);
    for (uint32_t unit = 0; unit < REGION_UNITS; unit++)
        add_unit(fixture, file, &fixture->packs[unit % MANY]);
    finish_packs(fixture);
    const MapNodeRef root = sources_map(fixture->repository, MAP_SOURCE, file, 1);
    const bool sent = write(root_fd, &root, sizeof root) == (ssize_t)sizeof root;
    _exit(sent && file->run_count == REGION_UNITS ? 0 : 1);
}

/* Each frame once, or the exit code tells. */
static void
restore_most_scattered(Fixture *fixture, int root_fd, uint64_t limit)
{
    MapNodeRef root;
    RestoreMemory memory;
    const bool good =
        read(root_fd, &root, sizeof root) == (ssize_t)sizeof root &&
        restore_memory_plan(limit, 0, 1, &memory, &fixture->err) &&
        restore_with(fixture, &fixture->disk.world, fixture->repository, root, &memory) &&
        fixture->decoded == REGION_UNITS / 8;
    _exit(good ? 0 : 1);
}

/* No two neighbours come from one backup: as many runs as there are units. */
static void
test_the_most_scattered_region_stays_within_the_memory_planned(void **state)
{
    Fixture *fixture = *state;
    enum { LIMIT = RESTORE_FIXED_MEMORY + RESTORE_WORKER_MEMORY + 2 * RESTORE_PACK_MEMORY };
    int pipe_fds[2];
    long resident_kib = 0;
    if (SANITIZED)
        skip();

    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    for (int step = 0; step < 2; step++) {
        int status;
        struct rusage usage;
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0 && step == 0)
            make_most_scattered(fixture, pipe_fds[1]);
        if (child == 0)
            restore_most_scattered(fixture, pipe_fds[0], LIMIT);
        assert_int_equal(wait4(child, &status, 0, &usage), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        resident_kib = usage.ru_maxrss;
    }
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    if (resident_kib > LIMIT / 1024)
        fail_msg("%ld KiB were resident", resident_kib);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        /* First, while this process is small: its children inherit what it holds. */
        cmocka_unit_test_setup_teardown(
            test_the_most_scattered_region_stays_within_the_memory_planned, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_scattered_file_decodes_each_frame_once, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_small_files_that_share_frames_decode_each_once, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_one_source_is_cut_into_jobs_for_all_threads, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_any_interleaving_comes_back_byte_for_byte, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_many_threads_restore_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(test_packs_stay_open_as_far_as_memory_goes, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_near_frames_are_read_together_and_far_ones_apart,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_names_pack_file_and_blocks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_missing_pack_names_file_and_blocks, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_a_unit_from_the_wrong_slot_fails_the_checksum_of_the_file, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
