/* Adding, removing and rotating keys. */
#include "agent/keys.h"
#include "codec/seal.h"
#include "common/log.h"
#include "repository/json.h"
#include "tests/unit/support/key_site.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static void
test_nobody_can_lock_everybody_out(void **state)
{
    (void)state;
    KeySite *site = key_site_new("key-file");
    CairnError err = {0};
    assert_false(keys_remove(world_real(), &site->config, "key-file", true, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
    cairn_error_clear(&err);
    const KeyChoice second = {.key_file = site->other_key};
    assert_true(keys_add(world_real(), &site->config, "second", &second, &err));
    assert_false(keys_add(world_real(), &site->config, "second", &second, &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    cairn_error_clear(&err);
    assert_false(keys_remove(world_real(), &site->config, "key-file", false, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
    cairn_error_clear(&err);
    /* A slot that is damaged is none. */
    uint8_t bytes[KEY_SITE_OBJECT_LIMIT];
    const size_t size = key_site_read(site, "keys/second", bytes);
    key_site_write(site, "keys/second", bytes, size - 1);
    assert_false(keys_remove(world_real(), &site->config, "key-file", true, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
    cairn_error_clear(&err);
    key_site_write(site, "keys/second", bytes, size);
    assert_true(keys_remove(world_real(), &site->config, "key-file", true, &err));
    key_site_refused(&site->config, CAIRN_DENIED, "wrong key");
    site->config.keys.key_file = site->other_key;
    repository_close(key_site_open(site));
    assert_false(keys_remove(world_real(), &site->config, "nowhere", true, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
}

static KeySlotCount
count_slots(const KeySite *site)
{
    CairnError err = {0};
    KeySlotCount count;
    KEY_ROOM(room, site);
    assert_true(key_store_count(room.store, room.roots.meta_root,
                                repository_key_slot(room.repository), NULL, &count, &err));
    return count;
}

static void
test_a_slot_that_no_holder_of_a_key_made_is_no_other_way_in(void **state)
{
    (void)state;
    KeySite *site = key_site_new("key-file");
    CairnError err = {0};
    KeyRoots enemy = {0};
    key_site_forge_slot(site, "escrow", &enemy);
    KeySlotCount count = count_slots(site);
    assert_int_equal(count.whole, 1);
    assert_int_equal(count.proven, 1);
    assert_int_equal(count.forged, 1);
    assert_string_equal(count.forged_name, "escrow");
    assert_false(keys_remove(world_real(), &site->config, "key-file", true, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
    cairn_error_clear(&err);
    assert_true(keys_remove(world_real(), &site->config, "escrow", false, &err));

    /* Nor one of ours that was changed afterwards. */
    const KeyChoice second = {.key_file = site->other_key};
    assert_true(keys_add(world_real(), &site->config, "second", &second, &err));
    assert_int_equal(count_slots(site).proven, 2);
    json_t *json = key_site_json(site, "keys/second", OBJECT_KEY);
    json_object_set_new(json, "created_at", json_string("2026-11-22 23:31:40+00"));
    key_site_forge(site, "keys/second", OBJECT_KEY, json);
    json_decref(json);
    count = count_slots(site);
    assert_int_equal(count.proven, 1);
    assert_int_equal(count.forged, 1);
}

/* As pgcairn made them before, and as anybody can make one. */
static void
test_the_last_proven_slot_goes_by_force_only(void **state)
{
    (void)state;
    KeySite *site = key_site_new("key-file");
    CairnError err = {0};
    const KeyChoice second = {.key_file = site->other_key};
    assert_true(keys_add(world_real(), &site->config, "second", &second, &err));
    json_t *json = key_site_json(site, "keys/second", OBJECT_KEY);
    json_object_del(json, "mac");
    key_site_forge(site, "keys/second", OBJECT_KEY, json);
    json_decref(json);
    const KeySlotCount count = count_slots(site);
    assert_int_equal(count.whole, 2);
    assert_int_equal(count.proven, 1);
    assert_string_equal(count.unproven_name, "second");

    KeySite other = *site;
    other.config.path = other.root;
    other.config.keys.key_file = other.other_key;
    assert_true(count_slots(&other).proven == 2); /* with its key it is proven, and key-file is */
    assert_false(keys_remove(world_real(), &site->config, "key-file", false, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
    assert_non_null(strstr(err.message, "none is left that is proven"));
    cairn_error_clear(&err);
    assert_true(keys_remove(world_real(), &site->config, "key-file", true, &err));
    site->config.keys.key_file = site->other_key;
    repository_close(key_site_open(site));
}

/* Takes the proof from all slots that open everything, as in a repository from before it. */
static void
drop_proofs(const KeySite *site)
{
    KEY_ROOM(room, site);
    for (size_t i = 0; i < room.store->slot_count; i++) {
        const KeyStoreSlot *entry = key_store_slot(room.store, i);
        char name[STORAGE_NAME_LIMIT];
        if (!key_slot_opens_all(&entry->slot))
            continue;
        snprintf(name, sizeof name, "keys/%s", entry->name);
        json_t *json = key_site_json(site, name, OBJECT_KEY);
        json_object_del(json, "mac");
        key_site_forge(site, name, OBJECT_KEY, json);
        json_decref(json);
    }
}

/* It opened the metadata only: whoever could read the backups still can. */
static void
test_a_sealed_hosts_slot_goes_though_no_way_in_is_proven(void **state)
{
    (void)state;
    KeySite *site = key_site_new("sealed");
    CairnError err = {0};
    const KeyChoice second = {.key_file = site->other_key};
    assert_true(keys_add(world_real(), &site->config, "second-host", &second, &err));
    drop_proofs(site);
    const KeySlotCount count = count_slots(site);
    assert_int_equal(count.whole, 1);
    assert_int_equal(count.proven, 0);
    if (!keys_remove(world_real(), &site->config, "second-host", false, &err))
        fail_msg("%s", err.message);
    /* Not the one way in, for all that it is not proven. */
    assert_false(keys_remove(world_real(), &site->config, count.unproven_name, true, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
}

static void
test_whoever_took_the_last_slot_beside_another_puts_it_back(void **state)
{
    (void)state;
    KeySite *site = key_site_new("key-file");
    CairnError err = {0};
    const KeyChoice second = {.key_file = site->other_key};
    assert_true(keys_add(world_real(), &site->config, "second", &second, &err));
    {
        KEY_ROOM(room, site);
        const KeyRemoval removal = {.name = "key-file", .force = true, .roots = &room.roots};
        assert_true(key_store_may_remove(room.store, &removal, &err));
        key_site_remove(site, "keys/second"); /* by somebody else, who saw key-file */
        assert_false(key_store_remove(room.store, &removal, &err));
        assert_int_equal(err.kind, CAIRN_REFUSED);
        assert_non_null(strstr(err.message, "was put back"));
    }
    repository_close(key_site_open(site));
}

static void
test_the_last_recipient_of_a_sealed_repository_stays(void **state)
{
    (void)state;
    KeySite *site = key_site_new("sealed");
    CairnError err = {0};
    char private_key[600], public_key[700], name[KEY_SLOT_NAME_LIMIT + 1] = "";
    snprintf(private_key, sizeof private_key, "%s-2", site->private_key);
    snprintf(public_key, sizeof public_key, "%s.pub", private_key);
    key_site_new_key(private_key, KEY_FILE_PRIVATE);
    {
        KEY_ROOM(room, site);
        for (size_t i = 0; i < room.store->slot_count; i++) {
            if (strncmp(room.store->slots[i].name, "recipient-", 10) == 0)
                snprintf(name, sizeof name, "%s", room.store->slots[i].name);
        }
        assert_false(keys_remove(world_real(), &site->config, name, true, &err));
        assert_int_equal(err.kind, CAIRN_REFUSED);
        cairn_error_clear(&err);
    }
    const KeyChoice second = {.recipient = public_key};
    assert_true(keys_add(world_real(), &site->config, "second", &second, &err));
    {
        KeyRecipients recipients;
        KEY_ROOM(room, site);
        assert_true(key_store_recipients(room.store, &room.roots, &recipients, &err));
        assert_int_equal(recipients.count, 2);
    }
    assert_true(keys_remove(world_real(), &site->config, name, false, &err));
    KeyRecipients recipients;
    KEY_ROOM(room, site);
    assert_true(key_store_recipients(room.store, &room.roots, &recipients, &err));
    assert_int_equal(recipients.count, 1);
    RepositoryConfig elsewhere = site->config;
    elsewhere.keys.key_file = private_key;
    SCOPED(Repository) opened = repository_open(world_real(), &elsewhere, &err);
    assert_non_null(opened);
    elsewhere.keys.key_file = site->private_key;
    key_site_refused(&elsewhere, CAIRN_DENIED, "wrong key");
}

static void
test_a_recipient_whose_list_was_changed_by_another_is_told_what_is_left_to_do(void **state)
{
    (void)state;
    KeySite *site = key_site_new("sealed");
    CairnError err = {0};
    uint8_t private_key[KEY_SIZE] = {7}, public_key[KEY_SIZE];
    assert_true(seal_public_key(private_key, public_key, &err));
    const KeySlotPlan plan = {.name = "late", .secret = {SLOT_RECIPIENT, public_key, KEY_SIZE}};
    KEY_ROOM(room, site);
    const Keyring *keyring = repository_keyring(room.repository);
    SCOPED_JSON json_t *json = key_site_json(site, "keys/recipients.1", OBJECT_KEY);
    key_site_forge(site, "keys/recipients.2", OBJECT_KEY, json); /* by somebody else, just now */
    assert_false(key_store_add(room.store, &plan, &room.roots, &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    assert_non_null(strstr(err.message, "nothing is sealed to its key yet"));
    assert_non_null(strstr(err.hint, "key remove late"));
    assert_false(keyring_seals_to(keyring, public_key));
}

static void
test_a_list_of_recipients_that_nobody_with_a_key_made_stops_writers(void **state)
{
    (void)state;
    KeySite *site = key_site_new("sealed");
    SCOPED_JSON json_t *json = key_site_json(site, "keys/recipients.1", OBJECT_KEY);
    json_object_set_new(json, "number", json_integer(2));
    key_site_forge(site, "keys/recipients.2", OBJECT_KEY, json);
    key_site_refused(&site->config, CAIRN_CORRUPT, "keys/recipients.2");
    /* A restore goes on. */
    CairnError err = {0};
    RepositoryConfig elsewhere = site->config;
    elsewhere.keys.key_file = site->private_key;
    log_set_level(LOG_LEVEL_ERROR);
    SCOPED(Repository) opened = repository_open(world_real(), &elsewhere, &err);
    log_set_level(LOG_LEVEL_INFO);
    assert_non_null(opened);
    assert_true(keyring_reads_data(repository_keyring(opened)));
}

static void
test_rotation_begins_an_epoch_and_a_forged_one_counts_for_nothing(void **state)
{
    (void)state;
    KeySite *site = key_site_new("key-file");
    CairnError err = {0};
    uint16_t epoch = 0;
    assert_true(keys_rotate(world_real(), &site->config, &epoch, &err));
    assert_int_equal(epoch, 2);
    assert_true(keys_rotate(world_real(), &site->config, &epoch, &err));
    assert_int_equal(epoch, 3);
    SCOPED_JSON json_t *json = key_site_json(site, "keys/epoch.3", OBJECT_KEY);
    json_object_set_new(json, "number", json_integer(900));
    key_site_forge(site, "keys/epoch.900", OBJECT_KEY, json);
    log_set_level(LOG_LEVEL_ERROR);
    SCOPED(Repository) repository = key_site_open(site);
    assert_int_equal(keyring_epoch(repository_keyring(repository)), 3);
    assert_true(keys_rotate(world_real(), &site->config, &epoch, &err));
    assert_int_equal(epoch, 901);
    log_set_level(LOG_LEVEL_INFO);
    SCOPED(Repository) again = key_site_open(site);
    assert_int_equal(keyring_epoch(repository_keyring(again)), 901);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_can_lock_everybody_out),
        cmocka_unit_test(test_a_slot_that_no_holder_of_a_key_made_is_no_other_way_in),
        cmocka_unit_test(test_the_last_proven_slot_goes_by_force_only),
        cmocka_unit_test(test_a_sealed_hosts_slot_goes_though_no_way_in_is_proven),
        cmocka_unit_test(test_whoever_took_the_last_slot_beside_another_puts_it_back),
        cmocka_unit_test(test_the_last_recipient_of_a_sealed_repository_stays),
        cmocka_unit_test(
            test_a_recipient_whose_list_was_changed_by_another_is_told_what_is_left_to_do),
        cmocka_unit_test(test_a_list_of_recipients_that_nobody_with_a_key_made_stops_writers),
        cmocka_unit_test(test_rotation_begins_an_epoch_and_a_forged_one_counts_for_nothing),
    };
    return cmocka_run_group_tests_name("key_slots", tests, NULL, NULL);
}
