#include "repository/object_scan.h"

#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

enum { FRAMES = 30, FRAME_BYTES = 128 << 10, NO_PLACE = -1 };

#define NAME "c/main/b/0000000001-0000000000000001/p/000/00000000"

/* Readers that count, and fail where a read touches one byte. */
static const StorageOps *real_ops;
static StorageOps watched_ops;
static const StorageReaderOps *real_reader_ops;
static StorageReaderOps watched_reader_ops;
static struct {
    size_t reads, bytes;
    int64_t bad_offset;
    CairnErrorKind kind;
} watch;

static bool
watched_pread(StorageReader *reader, void *data, size_t size, uint64_t offset, CairnError *err)
{
    watch.reads++;
    watch.bytes += size;
    if (watch.bad_offset >= 0 && offset <= (uint64_t)watch.bad_offset &&
        (uint64_t)watch.bad_offset < offset + size)
        return cairn_error(err, watch.kind, "a bad place");
    return real_reader_ops->pread(reader, data, size, offset, err);
}

static StorageReader *
watched_open(Storage *storage, const char *name, CairnError *err)
{
    StorageReader *reader = real_ops->open(storage, name, err);
    if (reader == NULL)
        return NULL;
    real_reader_ops = reader->ops;
    watched_reader_ops = *real_reader_ops;
    watched_reader_ops.pread = watched_pread;
    reader->ops = &watched_reader_ops;
    return reader;
}

typedef struct {
    Repository *repository;
    ObjectFrame frames[FRAMES];
    ObjectReader *reader;
    ObjectScan *scan;
} Scene;

static int
open_scene(void **state)
{
    Scene *scene = calloc(1, sizeof *scene);
    CairnError err = {0};
    uint64_t random = 42;
    assert_non_null(scene);
    SCOPED_MEMORY uint8_t *frame = malloc(FRAME_BYTES);
    scene->repository = memory_repository("none");
    SCOPED(ObjectWriter) writer = object_create(scene->repository, NAME, OBJECT_PACK, 7, &err);
    assert_true(frame != NULL && writer != NULL);
    for (int i = 0; i < FRAMES; i++) {
        test_fill(&random, (char *)frame, FRAME_BYTES);
        frame[0] = (uint8_t)i;
        scene->frames[i] = test_append(writer, frame, FRAME_BYTES);
    }
    assert_true(object_finish(writer, "index", 5, NULL, &err));
    Storage *storage = repository_storage(scene->repository);
    real_ops = storage->ops;
    watched_ops = *real_ops;
    watched_ops.open = watched_open;
    storage->ops = &watched_ops;
    watch.bad_offset = NO_PLACE;
    scene->reader = object_open(scene->repository, NAME, OBJECT_PACK, &err);
    assert_non_null(scene->reader);
    scene->scan = object_scan_new(scene->reader, &err);
    assert_non_null(scene->scan);
    watch.reads = watch.bytes = 0;
    *state = scene;
    return 0;
}

static int
close_scene(void **state)
{
    Scene *scene = *state;
    object_scan_free(scene->scan);
    object_reader_free(scene->reader);
    repository_close(scene->repository);
    free(scene);
    return 0;
}

static bool
scan_frame(const Scene *scene, int number, CairnError *err)
{
    const ObjectFrame *frame = &scene->frames[number];
    const uint8_t *data;
    if (!object_scan_frame(scene->scan, frame->offset, frame->stored_size, &data, err))
        return false;
    assert_int_equal(data[0], number);
    assert_int_equal(crc32c(0, data, frame->stored_size), frame->crc);
    return true;
}

static void
test_every_byte_is_read_once_in_large_pieces(void **state)
{
    const Scene *scene = *state;
    CairnError err = {0};
    for (int i = 0; i < FRAMES; i++)
        assert_true(scan_frame(scene, i, &err));
    assert_true(object_scan_finish(scene->scan, &err));
    assert_int_equal(watch.bytes, object_stored_size(scene->reader) - SHA256_SIZE);
    assert_true(watch.reads >= 1 &&
                watch.reads <= 1 + FRAMES * FRAME_BYTES / (OBJECT_SCAN_WINDOW - FRAME_BYTES));
}

static void
test_a_bad_place_costs_the_frame_that_it_lies_in(void **state)
{
    const Scene *scene = *state;
    static const CairnErrorKind kinds[] = {CAIRN_IO, CAIRN_CORRUPT};
    enum { BAD = 12 };
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        watch.bad_offset = (int64_t)scene->frames[BAD].offset + 70000;
        watch.kind = kinds[k];
        for (int i = 0; i < FRAMES; i++) {
            CairnError err = {0};
            assert_int_equal(scan_frame(scene, i, &err), i != BAD);
            assert_int_equal(err.kind, i != BAD ? CAIRN_OK : kinds[k]);
        }
        CairnError err = {0};
        assert_false(object_scan_finish(scene->scan, &err));
        assert_int_equal(err.kind, kinds[k]);
        watch.bad_offset = NO_PLACE;
        cairn_error_clear(&err);
        assert_true(object_scan_finish(scene->scan, &err)); /* all of it again */
    }
}

/* What is out of reach is not asked for twice: each time takes as long as patience lasts. */
static void
test_what_is_out_of_reach_is_asked_for_once(void **state)
{
    const Scene *scene = *state;
    CairnError err = {0};
    watch.bad_offset = 1000;
    watch.kind = CAIRN_UNAVAILABLE;
    assert_false(scan_frame(scene, 0, &err));
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    assert_int_equal(watch.reads, 1);
}

static void
test_frames_in_any_order_are_proven_all_the_same(void **state)
{
    const Scene *scene = *state;
    CairnError err = {0};
    for (int i = 0; i < FRAMES; i++)
        assert_true(scan_frame(scene, i * 7 % FRAMES, &err));
    assert_true(object_scan_finish(scene->scan, &err));
}

static void
test_a_changed_byte_anywhere_is_found_at_the_end(void **state)
{
    const Scene *scene = *state;
    size_t size;
    uint8_t *bytes = memory_storage_bytes(repository_storage(scene->repository), NAME, &size);
    const size_t places[] = {8, 100000, size / 2, size - OBJECT_TRAILER_SIZE - 1};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        CairnError err = {0};
        bytes[places[i]] ^= 1;
        SCOPED(ObjectReader) after = object_open(scene->repository, NAME, OBJECT_PACK, &err);
        if (after != NULL)
            assert_false(object_scrub(after, &err));
        assert_int_equal(err.kind, CAIRN_CORRUPT);
        bytes[places[i]] ^= 1;
    }
}

#define SCENE_TEST(function) cmocka_unit_test_setup_teardown(function, open_scene, close_scene)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE_TEST(test_every_byte_is_read_once_in_large_pieces),
        SCENE_TEST(test_a_bad_place_costs_the_frame_that_it_lies_in),
        SCENE_TEST(test_what_is_out_of_reach_is_asked_for_once),
        SCENE_TEST(test_frames_in_any_order_are_proven_all_the_same),
        SCENE_TEST(test_a_changed_byte_anywhere_is_found_at_the_end),
    };
    return cmocka_run_group_tests_name("object_scan", tests, NULL, NULL);
}
