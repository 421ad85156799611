/* Slots and descriptors that are damaged, or made by an enemy who owns the storage. */
#include "agent/keys.h"
#include "repository/descriptor.h"
#include "repository/json.h"
#include "tests/unit/support/key_site.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

/* Row 26: whichever bit of a slot flips, that slot is damaged and the other one opens. */
static void
test_a_flipped_bit_or_a_missing_end_is_damage_and_other_slots_open(void **state)
{
    (void)state;
    const KeySite *site = key_site_new("key-file");
    CairnError err = {0};
    const KeyChoice second = {.key_file = site->other_key};
    assert_true(keys_add(world_real(), &site->config, "second", &second, &err));
    RepositoryConfig other = site->config;
    other.keys.key_file = site->other_key;
    uint8_t bytes[KEY_SITE_OBJECT_LIMIT];
    const size_t size = key_site_read(site, "keys/key-file", bytes);
    for (size_t at = 0; at < size; at++) {
        bytes[at] ^= (uint8_t)(1u << at % 8);
        key_site_write(site, "keys/key-file", bytes, size);
        bytes[at] ^= (uint8_t)(1u << at % 8);
        CairnError flip_err = {0};
        Repository *repository = repository_open(world_real(), &site->config, &flip_err);
        assert_null(repository);
        assert_true(flip_err.kind == CAIRN_CORRUPT || flip_err.kind == CAIRN_DENIED ||
                    flip_err.kind == CAIRN_UNSUPPORTED);
        assert_true(strstr(flip_err.message, "key-file") != NULL ||
                    strstr(flip_err.hint, "key-file") != NULL || flip_err.kind == CAIRN_DENIED);
        repository = repository_open(world_real(), &other, &err);
        assert_non_null(repository);
        repository_close(repository);
    }
    for (size_t length = 0; length < size; length += 7) {
        key_site_write(site, "keys/key-file", bytes, length);
        CairnError cut_err = {0};
        assert_null(repository_open(world_real(), &site->config, &cut_err));
        Repository *repository = repository_open(world_real(), &other, &err);
        assert_non_null(repository);
        repository_close(repository);
    }
}

static void
flip_hex(json_t *json, const char *field)
{
    char text[512];
    const char *before = json_string_value(json_object_get(json, field));
    assert_non_null(before);
    snprintf(text, sizeof text, "%s", before);
    text[3] = text[3] == '0' ? '1' : '0';
    json_object_set_new(json, field, json_string(text));
}

/* In a container that is right: nothing that a slot says may be changed by who has no key. */
static void
test_a_forged_slot_never_opens(void **state)
{
    (void)state;
    static const char *const fields[] = {"salt",      "commitment", "wrapped", "public_key",
                                         "ephemeral", "created_at", "mode",    "type"};
    KeySite *site = key_site_new("key-file");
    CairnError err = {0};
    const KeyChoice recipient = {.recipient = site->recipients};
    assert_true(keys_add(world_real(), &site->config, "safe", &recipient, &err));
    site->config.keys.key_file = site->private_key;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        SCOPED_JSON json_t *json = key_site_json(site, "keys/safe", OBJECT_KEY);
        SCOPED_JSON json_t *genuine = json_deep_copy(json);
        if (strcmp(fields[i], "mode") == 0)
            json_object_set_new(json, "mode", json_string("sealed"));
        else if (strcmp(fields[i], "type") == 0)
            json_object_set_new(json, "type", json_string("key-file"));
        else if (strcmp(fields[i], "created_at") == 0)
            json_object_set_new(json, "created_at", json_string("2020-01-01 00:00:00+00"));
        else
            flip_hex(json, fields[i]);
        key_site_forge(site, "keys/safe", OBJECT_KEY, json);
        CairnError open_err = {0};
        assert_null(repository_open(world_real(), &site->config, &open_err));
        assert_true(open_err.kind == CAIRN_DENIED || open_err.kind == CAIRN_CORRUPT);
        key_site_forge(site, "keys/safe", OBJECT_KEY, genuine);
        Repository *repository = key_site_open(site);
        repository_close(repository);
    }
    /* Under another name. */
    SCOPED_JSON json_t *json = key_site_json(site, "keys/safe", OBJECT_KEY);
    json_object_set_new(json, "slot", json_string("renamed"));
    key_site_forge(site, "keys/renamed", OBJECT_KEY, json);
    key_site_remove(site, "keys/safe");
    key_site_refused(&site->config, CAIRN_DENIED, "wrong key");
}

/* Row 93. */
static void
test_a_slot_that_wants_a_terabyte_is_refused(void **state)
{
    (void)state;
    KeySite *site = key_site_new("key-file");
    {
        KEY_ROOM(room, site);
        key_room_add_passphrase(&room, "words", "correct horse battery staple");
    }
    SCOPED_JSON json_t *json = key_site_json(site, "keys/words", OBJECT_KEY);
    json_object_set_new(json, "scrypt",
                        json_pack("{s:I, s:i, s:i}", "n", (json_int_t)1 << 40, "r", 8, "p", 1));
    key_site_forge(site, "keys/words", OBJECT_KEY, json);
    site->config.encryption = "passphrase";
    site->config.keys = (KeyConfig){.passphrase_file = site->passphrase};
    CairnError err = {0};
    assert_null(repository_open(world_real(), &site->config, &err));
    assert_non_null(strstr(err.hint, "beyond the limits"));
}

/* Row 94 and "no downgrade": the descriptor is only believed as its writer made it. */
static void
test_a_forged_descriptor_is_refused(void **state)
{
    (void)state;
    const KeySite *site = key_site_new("key-file");
    RepositoryConfig unpinned = site->config;
    unpinned.spool_path = "/nonexistent";
    SCOPED_JSON json_t *genuine = key_site_json(site, DESCRIPTOR_NAME, OBJECT_REPOSITORY);

    SCOPED_JSON json_t *json = json_deep_copy(genuine);
    json_object_set_new(json, "encryption", json_string("none"));
    json_object_set_new(json, "root_key",
                        json_object_get(genuine, "repository_id") != NULL
                            ? json_string("0123456789abcdef0123456789abcdef"
                                          "0123456789abcdef0123456789abcdef")
                            : NULL);
    key_site_forge(site, DESCRIPTOR_NAME, OBJECT_REPOSITORY, json);
    key_site_refused(&unpinned, CAIRN_MISMATCH, "not encrypted");

    json_decref(json);
    json = json_deep_copy(genuine);
    json_object_set_new(json, "created_at", json_string("2020-01-01 00:00:00+00"));
    key_site_forge(site, DESCRIPTOR_NAME, OBJECT_REPOSITORY, json);
    key_site_refused(&unpinned, CAIRN_CORRUPT, "was changed");

    json_decref(json);
    json = json_deep_copy(genuine);
    json_object_set_new(json, "encryption", json_string("sealed"));
    key_site_forge(site, DESCRIPTOR_NAME, OBJECT_REPOSITORY, json);
    key_site_refused(&unpinned, CAIRN_MISMATCH, "sealed");
    unpinned.encryption = "sealed";
    key_site_refused(&unpinned, CAIRN_CORRUPT, "was changed");

    json_object_set_new(json, "encryption", json_string("rot13"));
    key_site_forge(site, DESCRIPTOR_NAME, OBJECT_REPOSITORY, json);
    key_site_refused(&unpinned, CAIRN_UNSUPPORTED, "rot13");
}

static void
test_what_the_configuration_says_must_be_what_is_there(void **state)
{
    (void)state;
    KeySite *site = key_site_new("none");
    site->config.encryption = "key-file";
    key_site_refused(&site->config, CAIRN_MISMATCH, "not encrypted");
    site = key_site_new("key-file");
    site->config.encryption = "none";
    key_site_refused(&site->config, CAIRN_MISMATCH, "encrypted with keys");
    site->config.encryption = "sealed";
    key_site_refused(&site->config, CAIRN_MISMATCH, "encrypted with keys");
    site->config.encryption = NULL;
    key_site_refused(&site->config, CAIRN_USAGE, "not decided");
    site = key_site_new("sealed");
    site->config.encryption = "key-file";
    key_site_refused(&site->config, CAIRN_MISMATCH, "sealed");
}

static void
test_another_repository_in_the_place_of_a_known_one_is_refused(void **state)
{
    (void)state;
    KeySite *site = key_site_new("key-file");
    uint8_t descriptor[KEY_SITE_OBJECT_LIMIT], slot[KEY_SITE_OBJECT_LIMIT];
    repository_close(key_site_open(site)); /* and is remembered */
    /* Made elsewhere, by somebody who has the key. */
    KeySite first = *site;
    KeySite *second = key_site_new("key-file");
    CairnError err = {0};
    const KeyChoice choice = {.key_file = first.key};
    assert_true(keys_add(world_real(), &second->config, "first", &choice, &err));
    const size_t descriptor_size = key_site_read(second, DESCRIPTOR_NAME, descriptor);
    const size_t slot_size = key_site_read(second, "keys/first", slot);
    key_site_write(&first, DESCRIPTOR_NAME, descriptor, descriptor_size);
    key_site_write(&first, "keys/first", slot, slot_size);
    first.config.path = first.root;
    first.config.keys.key_file = first.key;
    first.config.spool_path = first.spool;
    key_site_refused(&first.config, CAIRN_MISMATCH, "not the one that this host used before");
    /* init forgets, since it is done on purpose. */
    key_site_remove(&first, DESCRIPTOR_NAME);
    assert_true(repository_init(world_real(), &first.config, &err));
    repository_close(key_site_open(&first));
}

static void
test_a_slot_that_anybody_can_make_hides_no_genuine_one(void **state)
{
    (void)state;
    KeySite *site = key_site_new("key-file");
    CairnError err = {0};
    KeyRoots enemy = {0};
    const KeyChoice recipient = {.recipient = site->recipients};
    assert_true(keys_add(world_real(), &site->config, "safe", &recipient, &err));
    key_site_forge_slot(site, "a-first", &enemy);
    site->config.keys.key_file = site->private_key;
    site->config.spool_path = "/nonexistent";
    SCOPED(Repository) repository = key_site_open(site);
    assert_string_equal(repository_key_slot(repository), "safe");
    /* And no command wraps those roots for anybody. */
    const KeyChoice third = {.key_file = site->other_key};
    assert_true(keys_add(world_real(), &site->config, "third", &third, &err));
    site->config.keys.key_file = site->other_key;
    SCOPED(Repository) opened = key_site_open(site);
    assert_memory_equal(keyring_meta_root(repository_keyring(opened)),
                        keyring_meta_root(repository_keyring(repository)), KEY_SIZE);
}

/* The same id, and a descriptor that is genuine under the enemy's roots. */
static void
test_a_repository_of_the_same_id_with_other_keys_is_refused_where_it_was_used(void **state)
{
    (void)state;
    KeySite *site = key_site_new("key-file");
    CairnError err = {0};
    KeyRoots enemy = {0};
    Descriptor descriptor;
    const KeyChoice recipient = {.recipient = site->recipients};
    assert_true(keys_add(world_real(), &site->config, "safe", &recipient, &err));
    site->config.keys.key_file = site->private_key;
    repository_close(key_site_open(site)); /* and is remembered */
    key_site_remove(site, "keys/safe");
    key_site_forge_slot(site, "safe", &enemy);
    {
        SCOPED(Repository) locked = repository_open_locked(world_real(), &site->config, &err);
        assert_true(descriptor_read(locked, &descriptor, &err));
        assert_true(descriptor_sign(&descriptor, enemy.meta_root, &err));
        key_site_remove(site, DESCRIPTOR_NAME);
        assert_true(descriptor_write(locked, &descriptor, &err));
    }
    key_site_refused(&site->config, CAIRN_MISMATCH, "same id, and has other keys");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_flipped_bit_or_a_missing_end_is_damage_and_other_slots_open),
        cmocka_unit_test(test_a_forged_slot_never_opens),
        cmocka_unit_test(test_a_slot_that_wants_a_terabyte_is_refused),
        cmocka_unit_test(test_a_forged_descriptor_is_refused),
        cmocka_unit_test(test_what_the_configuration_says_must_be_what_is_there),
        cmocka_unit_test(test_another_repository_in_the_place_of_a_known_one_is_refused),
        cmocka_unit_test(test_a_slot_that_anybody_can_make_hides_no_genuine_one),
        cmocka_unit_test(
            test_a_repository_of_the_same_id_with_other_keys_is_refused_where_it_was_used),
    };
    return cmocka_run_group_tests_name("key_forgery", tests, NULL, NULL);
}
