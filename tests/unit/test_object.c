#include "repository/object.h"

#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

enum { FRAMES = 3, FRAME_BYTES = 500, INDEX_BYTES = 700 };

#define SMALL_NAME "c/main/b/0000000001-0000000000000001/intent"
#define FRAMED_NAME "c/main/b/0000000001-0000000000000001/p/000/00000000"

static const char small_content[] = "{\"some\": \"json\"}";

static void
put_small(Repository *repository)
{
    CairnError err = {0};
    assert_true(object_put_small(repository, SMALL_NAME, OBJECT_INTENT, 7, small_content,
                                 strlen(small_content), NULL, &err));
}

static void
put_framed(Repository *repository)
{
    CairnError err = {0};
    uint8_t frame[FRAME_BYTES], index[INDEX_BYTES];
    SCOPED(ObjectWriter) writer = object_create(repository, FRAMED_NAME, OBJECT_PACK, 7, &err);
    assert_non_null(writer);
    for (int i = 0; i < FRAMES; i++) {
        memset(frame, 'a' + i, sizeof frame);
        const ObjectFrame stored = test_append(writer, frame, sizeof frame);
        assert_int_equal(stored.offset, OBJECT_HEADER_SIZE + i * FRAME_BYTES);
    }
    memset(index, 'x', sizeof index); /* compresses, so that the index has a codec */
    assert_true(object_finish(writer, index, sizeof index, NULL, &err));
}

/* Opens and reads all there is: what any reader would notice. */
static bool
read_whole(Repository *repository, const char *name, ObjectKind kind, CairnError *err)
{
    SCOPED(ObjectReader) reader = object_open(repository, name, kind, err);
    return reader != NULL && object_scrub(reader, err);
}

static void
test_a_small_object_is_read_back(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(Repository) repository = memory_repository("lz4");
    size_t size;
    uint8_t digest[SHA256_SIZE], written[SHA256_SIZE];

    assert_true(object_put_small(repository, SMALL_NAME, OBJECT_INTENT, 7, small_content,
                                 strlen(small_content), written, &err));
    SCOPED_MEMORY char *text =
        object_get_small(repository, SMALL_NAME, OBJECT_INTENT, &size, digest, &err);
    assert_non_null(text);
    assert_int_equal(size, strlen(small_content));
    assert_string_equal(text, small_content);
    assert_memory_equal(digest, written, sizeof digest);
}

static void
test_indexes_of_every_size_and_codec_are_read_back(void **state)
{
    (void)state;
    static const char *const codecs[] = {"none", "lz4", "zstd"};
    static const size_t sizes[] = {0,      1, 255, 256, 65536, CODEC_RAW_LIMIT, CODEC_RAW_LIMIT + 1,
                                   3000000};
    for (size_t c = 0; c < sizeof codecs / sizeof *codecs; c++) {
        SCOPED(Repository) repository = memory_repository(codecs[c]);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            CairnError err = {0};
            uint64_t random = 42 + i;
            char name[64];
            size_t size;
            SCOPED_MEMORY char *content = malloc(sizes[i] + 1);
            assert_non_null(content);
            test_fill(&random, content, sizes[i]);
            snprintf(name, sizeof name, "keys/%zu", i);
            assert_true(
                object_put_small(repository, name, OBJECT_KEY, 0, content, sizes[i], NULL, &err));
            SCOPED_MEMORY char *read =
                object_get_small(repository, name, OBJECT_KEY, &size, NULL, &err);
            assert_non_null(read);
            assert_int_equal(size, sizes[i]);
            assert_memory_equal(read, content, size);
        }
    }
}

static void
test_frames_are_read_where_they_were_put(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(Repository) repository = memory_repository("lz4");
    uint8_t data[FRAME_BYTES];

    put_framed(repository);
    SCOPED(ObjectReader) reader = object_open(repository, FRAMED_NAME, OBJECT_PACK, &err);
    assert_non_null(reader);
    assert_int_equal(object_frame_count(reader), FRAMES);
    assert_int_equal(object_body_start(reader), OBJECT_HEADER_SIZE);
    assert_int_equal(object_body_end(reader), OBJECT_HEADER_SIZE + FRAMES * FRAME_BYTES);
    for (int i = 0; i < FRAMES; i++) {
        assert_true(object_pread(reader, data, sizeof data,
                                 OBJECT_HEADER_SIZE + (uint64_t)i * FRAME_BYTES, &err));
        assert_int_equal(data[0], 'a' + i);
        assert_int_equal(data[FRAME_BYTES - 1], 'a' + i);
    }
    ByteReader index = object_index(reader);
    assert_int_equal(byte_reader_left(&index), INDEX_BYTES);
    assert_true(object_scrub(reader, &err));
}

static void
test_reads_stay_inside_the_body(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    uint8_t data[FRAME_BYTES];
    put_framed(repository);
    SCOPED(ObjectReader) reader = object_open(repository, FRAMED_NAME, OBJECT_PACK, &err);
    assert_non_null(reader);
    const uint64_t end = object_body_end(reader);
    const uint64_t offsets[] = {
        0,         OBJECT_HEADER_SIZE - 1, end - FRAME_BYTES + 1, end, end + 1, UINT64_MAX - 10,
        UINT64_MAX};
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        CairnError outside = {0};
        assert_false(object_pread(reader, data, sizeof data, offsets[i], &outside));
        assert_int_equal(outside.kind, CAIRN_CORRUPT);
    }
}

/* Every bit of the byte would take eight times as long and tell the same. */
static void
flip_each_byte(Repository *repository, const char *name, ObjectKind kind)
{
    size_t size;
    uint8_t *bytes = memory_storage_bytes(repository_storage(repository), name, &size);
    assert_non_null(bytes);
    for (size_t i = 0; i < size; i++) {
        CairnError err = {0};
        bytes[i] ^= (uint8_t)(1 << (i % 8));
        if (read_whole(repository, name, kind, &err))
            fail_msg("byte %zu of %zu was changed unnoticed", i, size);
        if (err.kind != CAIRN_CORRUPT && err.kind != CAIRN_UNSUPPORTED &&
            err.kind != CAIRN_MISMATCH)
            fail_msg("byte %zu: %s", i, err.message);
        bytes[i] ^= (uint8_t)(1 << (i % 8));
    }
    CairnError err = {0};
    assert_true(read_whole(repository, name, kind, &err));
}

static void
test_each_changed_byte_of_a_small_object_is_noticed(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    put_small(repository);
    flip_each_byte(repository, SMALL_NAME, OBJECT_INTENT);
}

static void
test_each_changed_byte_of_a_framed_object_is_noticed(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("zstd");
    put_framed(repository);
    flip_each_byte(repository, FRAMED_NAME, OBJECT_PACK);
}

static void
test_an_object_cut_at_any_length_is_refused(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    Storage *storage = repository_storage(repository);
    size_t size;
    put_framed(repository);
    SCOPED_MEMORY uint8_t *whole = calloc(1, 4096);
    uint8_t *bytes = memory_storage_bytes(storage, FRAMED_NAME, &size);
    assert_true(whole != NULL && bytes != NULL && size < 4096);
    memcpy(whole, bytes, size);
    for (size_t cut = 0; cut < size; cut++) {
        CairnError err = {0};
        memory_storage_replace(storage, FRAMED_NAME, whole, cut);
        if (read_whole(repository, FRAMED_NAME, OBJECT_PACK, &err))
            fail_msg("%zu of %zu bytes passed for whole", cut, size);
        assert_int_equal(err.kind, CAIRN_CORRUPT);
    }
    for (size_t more = 1; more < 100; more++) {
        CairnError err = {0};
        memory_storage_replace(storage, FRAMED_NAME, whole,
                               size + more); /* rubbish behind the end */
        assert_false(read_whole(repository, FRAMED_NAME, OBJECT_PACK, &err));
        assert_int_equal(err.kind, CAIRN_CORRUPT);
    }
}

static void
test_an_object_under_another_name_or_kind_is_refused(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    Storage *storage = repository_storage(repository);
    CairnError err = {0};
    size_t size;
    put_small(repository);
    const uint8_t *bytes = memory_storage_bytes(storage, SMALL_NAME, &size);
    memory_storage_replace(storage, SMALL_NAME "2", bytes, size);
    assert_false(read_whole(repository, SMALL_NAME "2", OBJECT_INTENT, &err));
    assert_int_equal(err.kind, CAIRN_MISMATCH);
    cairn_error_clear(&err);
    assert_false(read_whole(repository, SMALL_NAME, OBJECT_FATE, &err));
    assert_int_equal(err.kind, CAIRN_MISMATCH);
}

static void
test_an_object_of_another_repository_is_refused(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    SCOPED(Repository) other = memory_repository("lz4");
    CairnError err = {0};
    size_t size;
    put_small(other);
    const uint8_t *bytes = memory_storage_bytes(repository_storage(other), SMALL_NAME, &size);
    memory_storage_replace(repository_storage(repository), SMALL_NAME, bytes, size);
    assert_false(read_whole(repository, SMALL_NAME, OBJECT_INTENT, &err));
    assert_int_equal(err.kind, CAIRN_MISMATCH);
}

/* Header fields that a newer pgcairn would set, with the header's CRC made right again. */
static const struct {
    const char *title;
    size_t at;
    uint8_t value;
} newer[] = {
    {"major version", 10, 2},
    {"incompatible flag", 20, 1},
    {"encryption", 28, 1},
    {"key mode", 29, 1},
};

static void
test_a_newer_format_is_unsupported_not_damaged(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof newer / sizeof *newer; i++) {
        SCOPED(Repository) repository = memory_repository("lz4");
        CairnError err = {0};
        size_t size;
        put_small(repository);
        uint8_t *bytes = memory_storage_bytes(repository_storage(repository), SMALL_NAME, &size);
        bytes[newer[i].at] = newer[i].value;
        put_u32(bytes + 188, crc32c(0, bytes, 188));
        assert_false(read_whole(repository, SMALL_NAME, OBJECT_INTENT, &err));
        if (err.kind != CAIRN_UNSUPPORTED)
            fail_msg("%s: %s", newer[i].title, err.message);
    }
}

static void
test_compatible_flags_and_minor_versions_are_read(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    size_t size;
    put_small(repository);
    uint8_t *bytes = memory_storage_bytes(repository_storage(repository), SMALL_NAME, &size);
    bytes[12] = 9; /* minor */
    bytes[24] = 1; /* compatible flags */
    put_u32(bytes + 188, crc32c(0, bytes, 188));
    SCOPED(ObjectReader) reader = object_open(repository, SMALL_NAME, OBJECT_INTENT, &err);
    assert_non_null(reader);
}

static void
test_a_name_is_taken_once(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    size_t size;
    put_small(repository);
    assert_false(
        object_put_small(repository, SMALL_NAME, OBJECT_INTENT, 7, "other", 5, NULL, &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    cairn_error_clear(&err);
    SCOPED_MEMORY char *text =
        object_get_small(repository, SMALL_NAME, OBJECT_INTENT, &size, NULL, &err);
    assert_string_equal(text, small_content);
}

static void
test_an_unfinished_object_leaves_nothing(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const size_t before = memory_storage_count(repository_storage(repository));
    {
        SCOPED(ObjectWriter) writer = object_create(repository, FRAMED_NAME, OBJECT_PACK, 7, &err);
        assert_non_null(writer);
        test_append(writer, "frame", 5);
    }
    assert_int_equal(memory_storage_count(repository_storage(repository)), before);
}

static void
test_a_framed_object_is_no_small_one(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    size_t size;
    put_framed(repository);
    assert_null(object_get_small(repository, FRAMED_NAME, OBJECT_PACK, &size, NULL, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
}

int
main(void)
{
    unsetenv("PGCAIRN_TEST_ENCRYPTION"); /* these are the plain bytes; test_object_encryption */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_small_object_is_read_back),
        cmocka_unit_test(test_indexes_of_every_size_and_codec_are_read_back),
        cmocka_unit_test(test_frames_are_read_where_they_were_put),
        cmocka_unit_test(test_reads_stay_inside_the_body),
        cmocka_unit_test(test_each_changed_byte_of_a_small_object_is_noticed),
        cmocka_unit_test(test_each_changed_byte_of_a_framed_object_is_noticed),
        cmocka_unit_test(test_an_object_cut_at_any_length_is_refused),
        cmocka_unit_test(test_an_object_under_another_name_or_kind_is_refused),
        cmocka_unit_test(test_an_object_of_another_repository_is_refused),
        cmocka_unit_test(test_a_newer_format_is_unsupported_not_damaged),
        cmocka_unit_test(test_compatible_flags_and_minor_versions_are_read),
        cmocka_unit_test(test_a_name_is_taken_once),
        cmocka_unit_test(test_an_unfinished_object_leaves_nothing),
        cmocka_unit_test(test_a_framed_object_is_no_small_one),
    };
    return cmocka_run_group_tests_name("object", tests, NULL, NULL);
}
