#include "repository/fate.h"

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

static void
fate_object_name(char name[STORAGE_NAME_LIMIT], const BackupId *bid)
{
    snprintf(name, STORAGE_NAME_LIMIT, "c/main/b/%s/fate", bid->text);
}

/* The JSON of a good fate of backup 1. */
static json_t *
good_json(Repository *repository)
{
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    const BackupId bid = test_backup_id(1);
    SCOPED(Fate) fate = test_fate(&bid, "20261122-233140F");

    fate->previous_bid = test_backup_id(9);
    assert_true(fate_commit(repository, fate, &err));
    fate_object_name(name, &bid);
    json_t *json = json_get(repository, name, OBJECT_FATE, NULL, &err);
    assert_non_null(json);
    return json;
}

/* Reads this JSON as the fate of backup 1; the kind of failure, or CAIRN_OK. */
static CairnErrorKind
read_as_fate(const json_t *json)
{
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    const BackupId bid = test_backup_id(1);

    fate_object_name(name, &bid);
    assert_true(json_put(repository, name, OBJECT_FATE, 1, json, NULL, &err));
    SCOPED(Fate) fate = fate_read(repository, "main", &bid, NULL, &err);
    assert_true((fate == NULL) == (err.kind != CAIRN_OK));
    return err.kind;
}

static void
test_every_field_is_read_back(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    uint8_t digest[SHA256_SIZE];
    SCOPED(Fate) fate = test_fate(&bid, "20261122-233140F");

    fate->previous_bid = test_backup_id(9);
    memset(fate->previous_sha256, 0xd4, SHA256_SIZE);
    assert_true(fate_commit(repository, fate, &err));
    SCOPED(Fate) read = fate_read(repository, "main", &bid, digest, &err);
    assert_non_null(read);
    assert_true(read->committed);
    assert_string_equal(read->bid.text, bid.text);
    assert_string_equal(read->token, fate->token);
    assert_string_equal(read->label, fate->label);
    assert_string_equal(read->name, fate->name);
    assert_string_equal(read->type, fate->type);
    assert_string_equal(read->cluster, fate->cluster);
    assert_true(read->system_id == fate->system_id);
    assert_int_equal(read->major, fate->major);
    assert_string_equal(read->server_version, fate->server_version);
    assert_true(read->from_standby);
    assert_true(read->start_lsn == fate->start_lsn && read->stop_lsn == fate->stop_lsn);
    assert_true(read->start_timeline == fate->start_timeline);
    assert_true(read->stop_timeline == fate->stop_timeline);
    assert_int_equal(read->wal_segment_size, fate->wal_segment_size);
    assert_true(read->started_us == fate->started_us && read->stopped_us == fate->stopped_us);
    assert_string_equal(read->backup_label, fate->backup_label);
    assert_int_equal(read->tablespace_count, 2);
    assert_true(read->tablespaces[0].oid == UINT32_MAX);
    assert_string_equal(read->tablespaces[0].path, fate->tablespaces[0].path);
    assert_string_equal(read->tablespaces[1].path, fate->tablespaces[1].path);
    assert_true(read->data_checksums && !read->damaged);
    assert_int_equal(read->checksum_failures_listed, 1);
    assert_string_equal(read->checksum_failures[0].path, "base/5/16384");
    assert_int_equal(read->checksum_failures[0].block, 131071);
    assert_int_equal(read->checksum_failure_count, 7);
    assert_int_equal(read->warning_count, 1);
    assert_string_equal(read->warnings[0], "a warning");
    assert_string_equal(read->map_root.creator.text, bid.text);
    assert_int_equal(read->map_root.pack, 2);
    assert_int_equal(read->map_root.offset, 192);
    assert_int_equal(read->map_root.stored_size, 100);
    assert_int_equal(read->map_root.raw_size, 300);
    assert_int_equal(read->map_root.codec, 1);
    assert_memory_equal(read->map_root.digest, fate->map_root.digest, KEYED_DIGEST_SIZE);
    assert_memory_equal(read->refs_sha256, fate->refs_sha256, SHA256_SIZE);
    assert_memory_equal(read->packs_sha256, fate->packs_sha256, SHA256_SIZE);
    assert_memory_equal(read->manifest_sha256, fate->manifest_sha256, SHA256_SIZE);
    assert_int_equal(read->pack_count, 5);
    assert_int_equal(read->map_pack_count, 3);
    assert_int_equal(read->file_count, 1000);
    assert_true(read->size_bytes == fate->size_bytes && read->stored_bytes == fate->stored_bytes);
    assert_int_equal(read->map_bytes, 4711);
    assert_string_equal(read->previous_bid.text, fate->previous_bid.text);
    assert_memory_equal(read->previous_sha256, fate->previous_sha256, SHA256_SIZE);
}

static void
test_a_backup_without_name_or_predecessor_is_read_back(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    SCOPED(Fate) fate = test_fate(&bid, "label");

    fate->name = NULL;
    fate->tablespace_count = fate->checksum_failures_listed = fate->warning_count = 0;
    assert_true(fate_commit(repository, fate, &err));
    SCOPED(Fate) read = fate_read(repository, "main", &bid, NULL, &err);
    assert_non_null(read);
    assert_null(read->name);
    assert_string_equal(read->previous_bid.text, "");
    assert_int_equal(read->tablespace_count + read->checksum_failures_listed + read->warning_count,
                     0);
}

static void
test_a_missing_field_is_refused(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    SCOPED_JSON json_t *good = good_json(repository);
    const char *field;
    json_t *value;

    assert_int_equal(read_as_fate(good), CAIRN_OK);
    json_object_foreach(good, field, value)
    {
        /* Told to people, or derived: nothing rests on them. */
        if (strcmp(field, "name") == 0 || strcmp(field, "program") == 0 ||
            strcmp(field, "sequence") == 0 || strcmp(field, "parent") == 0)
            continue;
        SCOPED_JSON json_t *without = json_copy(good);
        json_object_del(without, field);
        if (read_as_fate(without) != CAIRN_CORRUPT)
            fail_msg("a fate without '%s' was accepted", field);
    }
}

static void
test_a_field_of_another_type_is_refused(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    SCOPED_JSON json_t *good = good_json(repository);
    const char *field;
    json_t *value;

    json_object_foreach(good, field, value)
    {
        if (strcmp(field, "program") == 0 || strcmp(field, "sequence") == 0 ||
            strcmp(field, "parent") == 0)
            continue;
        SCOPED_JSON json_t *changed = json_copy(good);
        json_object_set_new(changed, field, json_real(1.5));
        if (read_as_fate(changed) != CAIRN_CORRUPT)
            fail_msg("a fate with a wrong '%s' was accepted", field);
    }
}

static void
test_a_wrong_field_of_the_map_root_is_refused(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    SCOPED_JSON json_t *good = good_json(repository);
    const char *field;
    json_t *value;

    json_object_foreach(json_object_get(good, "map_root"), field, value)
    {
        SCOPED_JSON json_t *changed = json_deep_copy(good);
        json_object_set_new(json_object_get(changed, "map_root"), field, json_integer(-1));
        if (read_as_fate(changed) != CAIRN_CORRUPT)
            fail_msg("a map root with a wrong '%s' was accepted", field);
    }
}

/* Values of the right type that are out of range or contradict the object's name. */
static const struct {
    const char *field;
    const char *json;
} wrong_values[] = {
    {"fate", "\"MAYBE\""},
    {"token", "\"0123456789abcdef0\""},
    {"bid", "\"0000000002-0123456789abcdef\""},
    {"cluster", "\"other\""},
    {"cluster", "\"../main\""},
    {"major", "0"},
    {"major", "4294967296"},
    {"system_id", "\"18446744073709551616\""},
    {"system_id", "\"-1\""},
    {"system_id", "\"12x\""},
    {"start_lsn", "\"0\""},
    {"stop_lsn", "\"0/1/2\""},
    {"start_timeline", "0"},
    {"stop_timeline", "4294967296"},
    {"wal_segment_size", "1048575"},
    {"wal_segment_size", "1073741825"},
    {"started_at", "\"yesterday\""},
    {"stopped_at", "\"2026-11-22 23:31:40\""},
    {"tablespaces", "[{\"oid\": 1, \"path\": \"/a\"}, 2]"},
    {"tablespaces", "[{\"oid\": 0, \"path\": \"/a\"}, {\"oid\": 0, \"path\": \"/b\"}]"},
    {"tablespaces", "[{\"oid\": 1}]"},
    {"tablespaces", "{}"},
    {"checksum_failures", "[{\"path\": 1, \"block\": 1}, {\"path\": 2, \"block\": 1}, 3]"},
    {"checksum_failures", "[{\"path\": \"a\", \"block\": -1}]"},
    {"warnings", "[\"a\", 1, 2]"},
    {"pack_count", "-1"},
    {"pack_count", "2147483648"},
    {"size_bytes", "-1"},
    {"refs_sha256", "\"abcd\""},
    {"packs_sha256", "\"ABCDABCDABCDABCDABCDABCDABCDABCDABCDABCDABCDABCDABCDABCDABCDABCD\""},
    {"previous", "{\"bid\": \"x\", \"fate_sha256\": \"00\"}"},
    {"previous", "[]"},
};

static void
test_impossible_values_are_refused(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    SCOPED_JSON json_t *good = good_json(repository);

    for (size_t i = 0; i < sizeof wrong_values / sizeof *wrong_values; i++) {
        SCOPED_JSON json_t *changed = json_copy(good);
        json_t *value = json_loads(wrong_values[i].json, JSON_DECODE_ANY, NULL);
        assert_non_null(value);
        json_object_set_new(changed, wrong_values[i].field, value);
        if (read_as_fate(changed) != CAIRN_CORRUPT)
            fail_msg("'%s': %s was accepted", wrong_values[i].field, wrong_values[i].json);
    }
}

static void
test_unknown_fields_are_ignored(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    SCOPED_JSON json_t *json = good_json(repository);

    json_object_set_new(json, "mood", json_string("good"));
    assert_int_equal(read_as_fate(json), CAIRN_OK);
}

static void
test_the_slot_is_taken_once(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    SCOPED(Fate) fate = test_fate(&bid, "label");

    assert_true(fate_revoke(repository, "main", &bid, "token", "too slow", &err));
    assert_false(fate_commit(repository, fate, &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    cairn_error_clear(&err);
    assert_false(fate_revoke(repository, "main", &bid, "other", "too slow", &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    cairn_error_clear(&err);

    SCOPED(Fate) read = fate_read(repository, "main", &bid, NULL, &err);
    assert_non_null(read);
    assert_false(read->committed);
    assert_string_equal(read->token, "token");
}

static void
test_an_unfinished_backup_has_no_fate(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);

    assert_null(fate_read(repository, "main", &bid, NULL, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
}

static void
test_odd_bytes_fail_a_tablespace_but_no_warning(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    SCOPED(Fate) fate = test_fate(&bid, "label");

    fate->warnings[0] = "file b\xe4se";
    fate->tablespaces[1].path = "/srv/b\xe4se";
    assert_false(fate_commit(repository, fate, &err));
    assert_int_equal(err.kind, CAIRN_INTERNAL);
    cairn_error_clear(&err);
    fate->tablespaces[1].path = "/srv/base";
    assert_true(fate_commit(repository, fate, &err));
    SCOPED(Fate) read = fate_read(repository, "main", &bid, NULL, &err);
    assert_non_null(read);
    assert_string_equal(read->warnings[0], "file b?se");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_field_is_read_back),
        cmocka_unit_test(test_a_backup_without_name_or_predecessor_is_read_back),
        cmocka_unit_test(test_a_missing_field_is_refused),
        cmocka_unit_test(test_a_field_of_another_type_is_refused),
        cmocka_unit_test(test_a_wrong_field_of_the_map_root_is_refused),
        cmocka_unit_test(test_impossible_values_are_refused),
        cmocka_unit_test(test_unknown_fields_are_ignored),
        cmocka_unit_test(test_the_slot_is_taken_once),
        cmocka_unit_test(test_an_unfinished_backup_has_no_fate),
        cmocka_unit_test(test_odd_bytes_fail_a_tablespace_but_no_warning),
    };
    return cmocka_run_group_tests_name("fate", tests, NULL, NULL);
}
