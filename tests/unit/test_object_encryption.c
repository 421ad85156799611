/* What encryption promises of single objects: nothing changed, moved, exchanged or forged by who
   has the storage and not the keys is ever believed. */
#include "repository/object.h"

#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FRAMES = 3, FRAME_BYTES = 60, INDEX_BYTES = 300, OBJECT_ROOM = 4096 };

/* Header and trailer fields (docs/format.md). */
enum {
    AT_FLAGS = 24,
    AT_AEAD = 28,
    AT_MODE = 29,
    AT_EPOCH = 30,
    AT_CREATOR = 64,
    AT_COMMITMENT = 112,
    AT_CRC = 188,
    STANZA_AT = 192 + 36,
    STANZA_SIZE = 80,
};

#define SMALL_NAME "c/main/b/0000000001-0000000000000001/intent"
#define FRAMED_NAME "c/main/b/0000000001-0000000000000001/p/000/00000000"
#define OTHER_NAME "c/main/b/0000000001-0000000000000001/p/000/00000001"

static const KeyMode modes[] = {KEY_MODE_EPOCH, KEY_MODE_SEALED};
enum { MODES = 2 };

/* -- repositories and objects -- */

/* On the other's storage where there is one: the caller keeps that open. keyring is taken. */
static Repository *
encrypted_repository(Keyring *keyring)
{
    Repository *repository = memory_repository("lz4");
    if (repository_keyring(repository) == NULL)
        repository_take_keyring(repository, keyring);
    else
        keyring_free(keyring);
    return repository;
}

/* Under keys that differ in what is asked for. */
static Keyring *
other_keyring(KeyMode mode, uint16_t epoch, uint8_t meta, uint8_t private)
{
    CairnError err = {0};
    uint8_t meta_root[KEY_SIZE], data_root[KEY_SIZE], private_key[KEY_SIZE];
    uint8_t recipients[1][KEY_SIZE] = {{9}};
    memset(meta_root, meta, sizeof meta_root);
    memset(data_root, 'd', sizeof data_root);
    memset(private_key, private, sizeof private_key);
    const bool sealed = mode == KEY_MODE_SEALED;
    const KeyringParts parts = {.mode = mode,
                                .epoch = epoch,
                                .meta_root = meta_root,
                                .data_root = sealed ? NULL : data_root,
                                .recipients = recipients,
                                .recipient_count = sealed ? 1 : 0,
                                .private_key = sealed ? private_key : NULL};
    Keyring *keyring = keyring_new(&parts, &err);
    assert_non_null(keyring);
    return keyring;
}

typedef struct {
    ObjectFrame frames[FRAMES];
} Framed;

static Framed
put_framed(Repository *repository, const char *name)
{
    Framed framed;
    CairnError err = {0};
    uint8_t frame[FRAME_BYTES], index[INDEX_BYTES];
    SCOPED(ObjectWriter) writer = object_create(repository, name, OBJECT_PACK, 7, &err);
    assert_non_null(writer);
    for (int i = 0; i < FRAMES; i++) {
        memset(frame, 'a' + i, sizeof frame);
        framed.frames[i] = test_append(writer, frame, sizeof frame);
    }
    memset(index, 'x', sizeof index); /* compresses, so that the index has a codec */
    assert_true(object_finish(writer, index, sizeof index, NULL, &err));
    return framed;
}

/* Everything that a reader with all keys would look at, but no SHA-256: that guards nothing, since
   whoever changes bytes can compute it anew. */
static bool
read_framed(Repository *repository, const char *name, const Framed *framed, CairnError *err)
{
    uint8_t stored[2 * FRAME_BYTES], raw[FRAME_BYTES], expected[FRAME_BYTES];
    SCOPED(ObjectReader) reader = object_open(repository, name, OBJECT_PACK, err);
    SCOPED(CodecContext) codec = reader != NULL ? codec_open(CODEC_NONE, 0, err) : NULL;
    if (codec == NULL)
        return false;
    for (int i = 0; i < FRAMES; i++) {
        const ObjectFrame *frame = &framed->frames[i];
        if (!object_pread(reader, stored, frame->stored_size, frame->offset, err) ||
            !object_decode(reader, frame, codec, stored, raw, err))
            return false;
        memset(expected, 'a' + i, sizeof expected);
        assert_memory_equal(raw, expected, sizeof raw);
    }
    const ByteReader index = object_index(reader);
    assert_int_equal(index.size, INDEX_BYTES);
    return object_frame_count(reader) == FRAMES;
}

/* What an attacker does last: header CRC, index CRC and SHA-256 are right again. */
static void
mend(uint8_t *bytes, size_t size)
{
    uint8_t *trailer = bytes + size - OBJECT_TRAILER_SIZE;
    const uint64_t index_at = get_u64(trailer + 8);
    CairnError err = {0};
    put_u32(bytes + AT_CRC, crc32c(0, bytes, AT_CRC));
    if (index_at < size - OBJECT_TRAILER_SIZE)
        put_u32(trailer + 24,
                crc32c(0, bytes + index_at, (size_t)(size - OBJECT_TRAILER_SIZE - index_at)));
    assert_true(sha256_of(bytes, size - SHA256_SIZE, bytes + size - SHA256_SIZE, &err));
}

/* Recipients' section: its checksum too. */
static void
mend_stanzas(uint8_t *bytes, size_t size)
{
    const uint32_t length = get_u32(bytes + 16);
    if (length >= OBJECT_HEADER_SIZE + 4 && length <= size)
        put_u32(bytes + length - 4,
                crc32c(0, bytes + OBJECT_HEADER_SIZE, length - OBJECT_HEADER_SIZE - 4));
}

static uint8_t *
bytes_of(Repository *repository, const char *name, size_t *size_out)
{
    uint8_t *bytes = memory_storage_bytes(repository_storage(repository), name, size_out);
    assert_non_null(bytes);
    assert_true(*size_out <= OBJECT_ROOM);
    return bytes;
}

static void
copy_of(Repository *repository, const char *name, uint8_t copy[OBJECT_ROOM], size_t *size_out)
{
    const uint8_t *bytes = bytes_of(repository, name, size_out);
    memcpy(copy, bytes, *size_out);
}

/* -- what is stored -- */

static void
test_what_is_stored_is_read_back_and_shows_nothing(void **state)
{
    (void)state;
    for (size_t m = 0; m < MODES; m++) {
        SCOPED(Repository) repository = encrypted_repository(test_keyring(modes[m], true));
        CairnError err = {0};
        size_t size;
        const Framed framed = put_framed(repository, FRAMED_NAME);
        assert_true(read_framed(repository, FRAMED_NAME, &framed, &err));
        const uint8_t *bytes = bytes_of(repository, FRAMED_NAME, &size);
        assert_int_equal(bytes[AT_AEAD], 1);
        for (int i = 0; i < FRAMES; i++) {
            const char c = (char)('a' + i);
            const char run[8] = {c, c, c, c, c, c, c, c};
            assert_null(memmem(bytes, size, run, sizeof run));
        }
        assert_null(memmem(bytes, size, "xxxxxxxx", 8));
        SCOPED(ObjectReader) reader = object_open(repository, FRAMED_NAME, OBJECT_PACK, &err);
        assert_non_null(reader);
        assert_true(object_scrub(reader, &err));
    }
}

static void
test_the_same_content_is_never_the_same_bytes(void **state)
{
    (void)state;
    for (size_t m = 0; m < MODES; m++) {
        SCOPED(Repository) repository = encrypted_repository(test_keyring(modes[m], true));
        size_t size, again_size;
        const Framed framed = put_framed(repository, FRAMED_NAME);
        uint8_t first[OBJECT_ROOM];
        const uint8_t *bytes = bytes_of(repository, FRAMED_NAME, &size);
        memcpy(first, bytes, size);
        CairnError err = {0};
        assert_true(storage_remove(repository_storage(repository), FRAMED_NAME, &err));
        put_framed(repository, FRAMED_NAME); /* as after a crash: the same name once more */
        const uint8_t *again = bytes_of(repository, FRAMED_NAME, &again_size);
        assert_int_equal(again_size, size);
        for (int i = 0; i < FRAMES; i++)
            assert_memory_not_equal(first + framed.frames[i].offset,
                                    again + framed.frames[i].offset, FRAME_BYTES);
    }
}

/* -- damage and forgery -- */

static void
expect_refused(Repository *repository, const Framed *framed, const char *what, size_t at)
{
    CairnError err = {0};
    if (read_framed(repository, FRAMED_NAME, framed, &err))
        fail_msg("%s (%zu) passed unnoticed", what, at);
    if (err.kind != CAIRN_CORRUPT && err.kind != CAIRN_MISMATCH && err.kind != CAIRN_UNSUPPORTED &&
        err.kind != CAIRN_DENIED && err.kind != CAIRN_SEALED && err.kind != CAIRN_OK)
        fail_msg("%s (%zu): %s", what, at, err.message);
}

/* Each bit by itself, with every checksum that needs no key made right again: only the checksum
   fields themselves may differ and say nothing new. */
static void
test_each_forged_bit_is_noticed(void **state)
{
    (void)state;
    for (size_t m = 0; m < MODES; m++) {
        SCOPED(Repository) repository = encrypted_repository(test_keyring(modes[m], true));
        const Framed framed = put_framed(repository, FRAMED_NAME);
        size_t size;
        uint8_t whole[OBJECT_ROOM];
        uint8_t *bytes = bytes_of(repository, FRAMED_NAME, &size);
        memcpy(whole, bytes, size);
        for (size_t bit = 0; bit < 8 * size; bit++) {
            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            mend_stanzas(bytes, size);
            mend(bytes, size);
            if (memcmp(bytes, whole, size) != 0) /* else it was a checksum, and is right again */
                expect_refused(repository, &framed, "bit", bit);
            memcpy(bytes, whole, size);
        }
        CairnError err = {0};
        assert_true(read_framed(repository, FRAMED_NAME, &framed, &err));
    }
}

static void
test_frames_cannot_change_places(void **state)
{
    (void)state;
    for (size_t m = 0; m < MODES; m++) {
        SCOPED(Repository) repository = encrypted_repository(test_keyring(modes[m], true));
        const Framed framed = put_framed(repository, FRAMED_NAME);
        size_t size;
        uint8_t *bytes = bytes_of(repository, FRAMED_NAME, &size);
        uint8_t keep[2 * FRAME_BYTES];
        const ObjectFrame *a = &framed.frames[0], *b = &framed.frames[1];
        memcpy(keep, bytes + a->offset, a->stored_size);
        memcpy(bytes + a->offset, bytes + b->offset, a->stored_size);
        memcpy(bytes + b->offset, keep, a->stored_size);
        mend(bytes, size);
        expect_refused(repository, &framed, "exchanged frames", 0);
    }
}

/* A whole object under another name; its header, its body, or its index in place of another's. */
static void
test_parts_of_another_object_are_refused(void **state)
{
    (void)state;
    for (size_t m = 0; m < MODES; m++) {
        SCOPED(Repository) repository = encrypted_repository(test_keyring(modes[m], true));
        const Framed framed = put_framed(repository, FRAMED_NAME);
        put_framed(repository, OTHER_NAME);
        size_t size, other_size;
        uint8_t whole[OBJECT_ROOM];
        uint8_t *bytes = bytes_of(repository, FRAMED_NAME, &size);
        const uint8_t *other = bytes_of(repository, OTHER_NAME, &other_size);
        assert_int_equal(size, other_size);
        memcpy(whole, bytes, size);
        const size_t body = (size_t)framed.frames[0].offset;
        const size_t index = (size_t)framed.frames[FRAMES - 1].offset + FRAME_BYTES + AEAD_TAG_SIZE;
        const struct {
            size_t from, to;
        } parts[] = {{0, size}, {0, body}, {80, 112}, {body, index}, {index, size}};
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            memcpy(bytes + parts[i].from, other + parts[i].from, parts[i].to - parts[i].from);
            mend(bytes, size);
            expect_refused(repository, &framed, "a part of another object", i);
            memcpy(bytes, whole, size);
        }
    }
}

static void
test_a_frame_less_is_noticed(void **state)
{
    (void)state;
    SCOPED(Repository) repository = encrypted_repository(test_keyring(KEY_MODE_EPOCH, true));
    const Framed framed = put_framed(repository, FRAMED_NAME);
    size_t size;
    uint8_t whole[OBJECT_ROOM];
    copy_of(repository, FRAMED_NAME, whole, &size);
    const size_t cut = FRAME_BYTES + AEAD_TAG_SIZE, at = (size_t)framed.frames[FRAMES - 1].offset;
    uint8_t *trailer = whole + size - OBJECT_TRAILER_SIZE;
    put_u64(trailer + 8, get_u64(trailer + 8) - cut);
    put_u32(trailer + 28, FRAMES - 1);
    memmove(whole + at, whole + at + cut, size - at - cut);
    mend(whole, size - cut);
    memory_storage_replace(repository_storage(repository), FRAMED_NAME, whole, size - cut);
    CairnError err = {0};
    assert_null(object_open(repository, FRAMED_NAME, OBJECT_PACK, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
}

static void
test_a_plain_object_is_refused_where_all_are_encrypted(void **state)
{
    (void)state;
    SCOPED(Repository) plain = memory_repository("lz4");
    SCOPED(Repository) repository = encrypted_repository(test_keyring(KEY_MODE_EPOCH, true));
    if (repository_is_encrypted(plain))
        skip();
    CairnError err = {0};
    size_t size;
    uint8_t copy[OBJECT_ROOM];
    put_framed(plain, FRAMED_NAME);
    copy_of(plain, FRAMED_NAME, copy, &size);
    memcpy(copy + 32, repository_id(repository), REPOSITORY_ID_SIZE);
    mend(copy, size);
    memory_storage_replace(repository_storage(repository), FRAMED_NAME, copy, size);
    assert_null(object_open(repository, FRAMED_NAME, OBJECT_PACK, &err));
    assert_int_equal(err.kind, CAIRN_MISMATCH);
    assert_non_null(strstr(err.message, "not encrypted"));
}

/* Header fields of an encrypted object, each with all checksums right again. */
static const struct {
    const char *title;
    size_t at;
    uint8_t value;
} stripped[] = {
    {"encryption off", AT_AEAD, 0},   {"no key mode", AT_MODE, 0},
    {"epoch key", AT_MODE, 1},        {"sealed", AT_MODE, 2},
    {"metadata key", AT_MODE, 3},     {"older epoch", AT_EPOCH, 0},
    {"a later epoch", AT_EPOCH, 200}, {"another creator", AT_CREATOR, 99},
    {"flags", AT_FLAGS, 1},
};

static void
test_stripped_and_changed_header_fields_are_refused(void **state)
{
    (void)state;
    for (size_t m = 0; m < MODES; m++) {
        SCOPED(Repository) repository = encrypted_repository(test_keyring(modes[m], true));
        const Framed framed = put_framed(repository, FRAMED_NAME);
        size_t size;
        uint8_t whole[OBJECT_ROOM];
        uint8_t *bytes = bytes_of(repository, FRAMED_NAME, &size);
        memcpy(whole, bytes, size);
        for (size_t i = 0; i < sizeof stripped / sizeof *stripped; i++) {
            if (bytes[stripped[i].at] == stripped[i].value)
                continue;
            bytes[stripped[i].at] = stripped[i].value;
            if (stripped[i].at == AT_AEAD)
                bytes[AT_MODE] = 0;
            mend(bytes, size);
            expect_refused(repository, &framed, stripped[i].title, i);
            memcpy(bytes, whole, size);
        }
    }
}

static void
test_recipients_cannot_be_exchanged_added_or_taken_away(void **state)
{
    (void)state;
    SCOPED(Repository) repository = encrypted_repository(test_keyring(KEY_MODE_SEALED, true));
    if (keyring_mode(repository_keyring(repository)) != KEY_MODE_SEALED)
        skip();
    const Framed framed = put_framed(repository, FRAMED_NAME);
    Storage *storage = repository_storage(repository);
    CairnError err = {0};
    size_t size;
    uint8_t whole[OBJECT_ROOM], changed[OBJECT_ROOM + STANZA_SIZE];
    copy_of(repository, FRAMED_NAME, whole, &size);

    /* Another's public key. */
    memcpy(changed, whole, size);
    memset(changed + STANZA_AT, 9, KEY_SIZE);
    mend_stanzas(changed, size);
    mend(changed, size);
    memory_storage_replace(storage, FRAMED_NAME, changed, size);
    assert_null(object_open(repository, FRAMED_NAME, OBJECT_PACK, &err));
    assert_int_equal(err.kind, CAIRN_MISMATCH);
    cairn_error_clear(&err);

    /* One more, which is ours again. */
    memcpy(changed, whole, STANZA_AT + STANZA_SIZE);
    memcpy(changed + STANZA_AT + STANZA_SIZE, whole + STANZA_AT, size - STANZA_AT);
    put_u16(changed + OBJECT_HEADER_SIZE + 2, 2);
    put_u32(changed + 16, get_u32(whole + 16) + STANZA_SIZE);
    mend_stanzas(changed, size);
    mend(changed, size + STANZA_SIZE);
    memory_storage_replace(storage, FRAMED_NAME, changed, size + STANZA_SIZE);
    assert_null(object_open(repository, FRAMED_NAME, OBJECT_PACK, &err));
    assert_int_equal(err.kind, CAIRN_MISMATCH);
    cairn_error_clear(&err);

    /* None. */
    memcpy(changed, whole, OBJECT_HEADER_SIZE);
    memcpy(changed + OBJECT_HEADER_SIZE, whole + get_u32(whole + 16), size - get_u32(whole + 16));
    put_u32(changed + 16, OBJECT_HEADER_SIZE);
    mend(changed, size - (get_u32(whole + 16) - OBJECT_HEADER_SIZE));
    memory_storage_replace(storage, FRAMED_NAME, changed,
                           size - (get_u32(whole + 16) - OBJECT_HEADER_SIZE));
    assert_null(object_open(repository, FRAMED_NAME, OBJECT_PACK, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    cairn_error_clear(&err);

    memory_storage_replace(storage, FRAMED_NAME, whole, size);
    assert_true(read_framed(repository, FRAMED_NAME, &framed, &err));
}

/* -- who has which keys -- */

/* The same storage as another host sees it: object bytes and repository id are the first one's. */
static Repository *
other_host(Repository *repository, const char *name, Keyring *keyring)
{
    SCOPED(Repository) other = memory_repository("lz4");
    size_t size, descriptor_size;
    CairnError err = {0};
    Storage *storage = repository_storage(repository), *theirs = memory_storage_new();
    const uint8_t *bytes = memory_storage_bytes(storage, name, &size);
    const uint8_t *descriptor = memory_storage_bytes(storage, "pgcairn.repo", &descriptor_size);
    memory_storage_replace(theirs, name, bytes, size);
    memory_storage_replace(theirs, "pgcairn.repo", descriptor, descriptor_size);
    const RepositoryConfig config = {.name = "memory", .path = "/", .encryption = "none"};
    Repository *opened = repository_open_storage(world_real(), &config, theirs, false, &err);
    assert_non_null(opened);
    if (keyring != NULL)
        repository_take_keyring(opened, keyring);
    return opened;
}

static void
test_without_the_right_keys_nothing_opens(void **state)
{
    (void)state;
    for (size_t m = 0; m < MODES; m++) {
        SCOPED(Repository) repository = encrypted_repository(test_keyring(modes[m], true));
        const Framed framed = put_framed(repository, FRAMED_NAME);
        CairnError err = {0};

        SCOPED(Repository) keyless = other_host(repository, FRAMED_NAME, NULL);
        assert_false(read_framed(keyless, FRAMED_NAME, &framed, &err));
        /* Its descriptor says that nothing is encrypted, so it is this object that is wrong. */
        assert_int_equal(err.kind, CAIRN_MISMATCH);
        assert_non_null(strstr(err.message, "though the repository is not"));
        cairn_error_clear(&err);

        SCOPED(Repository)
        stranger = other_host(repository, FRAMED_NAME, other_keyring(modes[m], 1, 'q', 'p'));
        assert_false(read_framed(stranger, FRAMED_NAME, &framed, &err));
        assert_int_equal(err.kind, CAIRN_MISMATCH);
        if (keyring_mode(repository_keyring(repository)) == modes[m])
            assert_non_null(strstr(err.message, "wrong key"));
    }
}

static void
test_a_host_that_only_seals_reads_metadata_and_no_data(void **state)
{
    (void)state;
    SCOPED(Repository) repository = encrypted_repository(test_keyring(KEY_MODE_SEALED, false));
    if (keyring_mode(repository_keyring(repository)) != KEY_MODE_SEALED ||
        repository_reads_data(repository))
        skip();
    CairnError err = {0};
    size_t size;
    const Framed framed = put_framed(repository, FRAMED_NAME);
    assert_true(object_put_small(repository, SMALL_NAME, OBJECT_INTENT, 7, "{}", 2, NULL, &err));
    SCOPED_MEMORY char *text =
        object_get_small(repository, SMALL_NAME, OBJECT_INTENT, &size, NULL, &err);
    assert_string_equal(text, "{}");

    SCOPED(ObjectReader) reader = object_open(repository, FRAMED_NAME, OBJECT_PACK, &err);
    assert_non_null(reader);
    assert_false(object_is_readable(reader));
    assert_true(object_scrub(reader, &err));
    assert_false(read_framed(repository, FRAMED_NAME, &framed, &err));
    assert_int_equal(err.kind, CAIRN_SEALED);
    assert_non_null(strstr(err.message, "private key"));
    cairn_error_clear(&err);

    /* Where the private key is, it is read; with another's private key it is not. */
    SCOPED(Repository)
    restores = other_host(repository, FRAMED_NAME, test_keyring(KEY_MODE_SEALED, true));
    assert_true(read_framed(restores, FRAMED_NAME, &framed, &err));
}

static void
test_older_and_later_epochs_are_read(void **state)
{
    (void)state;
    SCOPED(Repository) first = encrypted_repository(other_keyring(KEY_MODE_EPOCH, 1, 'm', 0));
    if (keyring_epoch(repository_keyring(first)) != 1 || getenv("PGCAIRN_TEST_ENCRYPTION") != NULL)
        skip();
    CairnError err = {0};
    const Framed old = put_framed(first, FRAMED_NAME);
    SCOPED(Repository)
    rotated = other_host(first, FRAMED_NAME, other_keyring(KEY_MODE_EPOCH, 2, 'm', 0));
    assert_true(read_framed(rotated, FRAMED_NAME, &old, &err));
    const Framed new = put_framed(rotated, OTHER_NAME);
    assert_true(read_framed(rotated, OTHER_NAME, &new, &err));
    /* A program that opened the repository before the rotation, and runs on. */
    SCOPED(Repository)
    stale = other_host(rotated, OTHER_NAME, other_keyring(KEY_MODE_EPOCH, 1, 'm', 0));
    assert_true(read_framed(stale, OTHER_NAME, &new, &err));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_stored_is_read_back_and_shows_nothing),
        cmocka_unit_test(test_the_same_content_is_never_the_same_bytes),
        cmocka_unit_test(test_each_forged_bit_is_noticed),
        cmocka_unit_test(test_frames_cannot_change_places),
        cmocka_unit_test(test_parts_of_another_object_are_refused),
        cmocka_unit_test(test_a_frame_less_is_noticed),
        cmocka_unit_test(test_a_plain_object_is_refused_where_all_are_encrypted),
        cmocka_unit_test(test_stripped_and_changed_header_fields_are_refused),
        cmocka_unit_test(test_recipients_cannot_be_exchanged_added_or_taken_away),
        cmocka_unit_test(test_without_the_right_keys_nothing_opens),
        cmocka_unit_test(test_a_host_that_only_seals_reads_metadata_and_no_data),
        cmocka_unit_test(test_older_and_later_epochs_are_read),
    };
    return cmocka_run_group_tests_name("object encryption", tests, NULL, NULL);
}
