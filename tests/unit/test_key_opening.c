/* A repository is made with keys, and opened with each kind of them. */
#include "agent/keys.h"
#include "common/log.h"
#include "repository/descriptor.h"
#include "tests/unit/support/key_site.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void
test_each_kind_of_key_opens_its_slot_and_gives_the_same_roots(void **state)
{
    (void)state;
    const KeySite *site = key_site_new("key-file");
    uint8_t meta_root[KEY_SIZE];
    CairnError err = {0};
    {
        KEY_ROOM(room, site);
        memcpy(meta_root, room.roots.meta_root, KEY_SIZE);
        key_room_add_passphrase(&room, "words", "correct horse battery staple");
        const KeyChoice recipient = {.recipient = site->recipients};
        assert_true(keys_add(world_real(), &site->config, "safe", &recipient, &err));
    }
    static const char *const opened[] = {"key-file", "words", "safe"};
    RepositoryConfig configs[3] = {site->config, site->config, site->config};
    configs[1].encryption = "passphrase";
    configs[1].keys = (KeyConfig){.passphrase_file = site->passphrase};
    configs[2].keys.key_file = site->private_key;
    for (size_t i = 0; i < 3; i++) {
        SCOPED(Repository) repository = repository_open(world_real(), &configs[i], &err);
        if (repository == NULL)
            fail_msg("%s", err.message);
        assert_string_equal(repository_key_slot(repository), opened[i]);
        assert_int_equal(repository_encryption(repository), ENCRYPTION_KEYS);
        const Keyring *keyring = repository_keyring(repository);
        assert_memory_equal(keyring_meta_root(keyring), meta_root, KEY_SIZE);
        assert_true(keyring_reads_data(keyring));
    }
}

static void
test_a_wrong_key_gets_one_answer_whatever_is_wrong(void **state)
{
    (void)state;
    const KeySite *site = key_site_new("key-file");
    {
        KEY_ROOM(room, site);
        key_room_add_passphrase(&room, "words", "correct horse battery staple");
    }
    static const char answer[] = "unable to open repository 'main': wrong key";
    RepositoryConfig wrong = site->config;
    wrong.keys.key_file = site->other_key;
    key_site_refused(&wrong, CAIRN_DENIED, answer);
    wrong.keys.key_file = site->private_key;
    key_site_refused(&wrong, CAIRN_DENIED, answer);
    wrong.encryption = "passphrase";
    wrong.keys = (KeyConfig){.passphrase_command = "echo incorrect horse"};
    key_site_refused(&wrong, CAIRN_DENIED, answer);
    /* Another repository's key, and its slots in place of ours. */
    char foreign[512];
    snprintf(foreign, sizeof foreign, "%s", site->key);
    uint8_t bytes[KEY_SITE_OBJECT_LIMIT];
    const size_t size = key_site_read(site, "keys/key-file", bytes);
    const KeySite *second = key_site_new("key-file");
    wrong = second->config;
    wrong.keys.key_file = foreign;
    key_site_refused(&wrong, CAIRN_DENIED, answer);
    key_site_write(second, "keys/key-file", bytes, size);
    key_site_refused(&wrong, CAIRN_DENIED, answer);
}

static void
test_a_key_file_is_tried_before_the_passphrase_and_may_be_missing_then(void **state)
{
    (void)state;
    KeySite *site = key_site_new("key-file");
    CairnError err = {0};
    {
        KEY_ROOM(room, site);
        key_room_add_passphrase(&room, "words", "correct horse battery staple");
    }
    site->config.encryption = "passphrase";
    site->config.keys.passphrase_command = "echo correct horse battery staple";
    SCOPED(Repository) both = key_site_open(site);
    assert_string_equal(repository_key_slot(both), "key-file");
    unlink(site->key);
    log_set_level(LOG_LEVEL_ERROR);
    SCOPED(Repository) one = repository_open(world_real(), &site->config, &err);
    log_set_level(LOG_LEVEL_INFO);
    assert_non_null(one);
    assert_string_equal(repository_key_slot(one), "words");
    site->config.keys.passphrase_command = NULL;
    key_site_refused(&site->config, CAIRN_USAGE, "passphrase");
}

static void
test_sealed_hosts_hold_the_metadata_root_only(void **state)
{
    (void)state;
    const KeySite *site = key_site_new("sealed");
    CairnError err = {0};
    SCOPED(Repository) host = key_site_open(site);
    assert_string_equal(repository_key_slot(host), "host");
    assert_int_equal(keyring_mode(repository_keyring(host)), KEY_MODE_SEALED);
    assert_false(keyring_reads_data(repository_keyring(host)));

    RepositoryConfig elsewhere = site->config;
    elsewhere.keys = (KeyConfig){.key_file = site->private_key};
    elsewhere.spool_path = NULL;
    SCOPED(Repository) restore = repository_open(world_real(), &elsewhere, &err);
    assert_non_null(restore);
    assert_int_equal(strncmp(repository_key_slot(restore), "recipient-", 10), 0);
    assert_true(keyring_reads_data(repository_keyring(restore)));
    assert_memory_equal(keyring_meta_root(repository_keyring(restore)),
                        keyring_meta_root(repository_keyring(host)), KEY_SIZE);

    KeyStore *store = key_store_read(host, &err);
    for (size_t i = 0; i < store->slot_count; i++) {
        const KeyStoreSlot *slot = key_store_slot(store, i);
        assert_true(slot->readable);
        assert_int_equal(key_slot_opens_all(&slot->slot), slot->slot.type == SLOT_RECIPIENT);
    }
    key_store_free(store);
}

static void
test_an_init_that_was_interrupted_before_the_descriptor_locks_nothing(void **state)
{
    (void)state;
    KeySite *site = key_site_new("sealed");
    CairnError err = {0};
    key_site_remove(site, DESCRIPTOR_NAME);
    assert_true(repository_init(world_real(), &site->config, &err));
    SCOPED(Repository) repository = key_site_open(site);
    assert_string_equal(repository_key_slot(repository), "host-2");
}

static void
test_a_second_init_is_refused_and_leaves_nothing(void **state)
{
    (void)state;
    KeySite *site = key_site_new("key-file");
    CairnError err = {0};
    assert_false(repository_init(world_real(), &site->config, &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    CairnError list_err = {0};
    SCOPED(Repository) repository = key_site_open(site);
    SCOPED(KeyStore) store = key_store_read(repository, &list_err);
    assert_int_equal(store->slot_count, 1);
}

static void
test_init_says_what_is_missing(void **state)
{
    (void)state;
    KeySite *site = key_site_new("none");
    static const struct {
        const char *encryption;
        bool key_file, recipients;
        const char *words;
    } cases[] = {
        {NULL, true, true, "not decided"},
        {"key-file", false, false, "needs key-file"},
        {"passphrase", true, false, "there is none"},
        {"sealed", true, false, "needs recipients"},
        {"sealed", false, true, "needs key-file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CairnError err = {0};
        RepositoryConfig config = site->config;
        char path[600];
        snprintf(path, sizeof path, "%s-%zu", site->root, i);
        config.path = path;
        config.encryption = cases[i].encryption;
        config.keys = (KeyConfig){.key_file = cases[i].key_file ? site->key : NULL,
                                  .recipients = cases[i].recipients ? site->recipients : NULL};
        assert_false(repository_init(world_real(), &config, &err));
        assert_int_equal(err.kind, CAIRN_USAGE);
        if (strstr(err.message, cases[i].words) == NULL)
            fail_msg("%s", err.message);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind_of_key_opens_its_slot_and_gives_the_same_roots),
        cmocka_unit_test(test_a_wrong_key_gets_one_answer_whatever_is_wrong),
        cmocka_unit_test(test_a_key_file_is_tried_before_the_passphrase_and_may_be_missing_then),
        cmocka_unit_test(test_sealed_hosts_hold_the_metadata_root_only),
        cmocka_unit_test(test_an_init_that_was_interrupted_before_the_descriptor_locks_nothing),
        cmocka_unit_test(test_a_second_init_is_refused_and_leaves_nothing),
        cmocka_unit_test(test_init_says_what_is_missing),
    };
    return cmocka_run_group_tests_name("key_opening", tests, NULL, NULL);
}
