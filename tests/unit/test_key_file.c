#include "repository/key_file.h"

#include "codec/seal.h"
#include "tests/unit/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEX "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define BASE64 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
/* CRC-32C of those bytes, little-endian. */
#define CHECK "4e79dd46"

static bool
parse(const char *text, KeyFileType *type, uint8_t key[KEY_SIZE], CairnError *err)
{
    return key_file_parse(text, strlen(text), "file", type, key, err);
}

static void
test_hex_and_base64_comments_and_blanks_are_read(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "pgcairn-key-1\n" HEX "\n",
        "pgcairn-key-1\n" HEX,
        "# mine\n\n  pgcairn-key-1\r\n\t" HEX "  \n# end\n",
        "pgcairn-key-1\n" BASE64 "\n",
        "pgcairn-key-1\n" HEX "\ncheck " CHECK "\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        CairnError err = {0};
        KeyFileType type = KEY_FILE_PRIVATE;
        uint8_t key[KEY_SIZE];
        if (!parse(texts[i], &type, key, &err))
            fail_msg("%zu: %s", i, err.message);
        assert_int_equal(type, KEY_FILE_SYMMETRIC);
        for (size_t k = 0; k < KEY_SIZE; k++)
            assert_int_equal(key[k], k);
    }
    CairnError err = {0};
    KeyFileType type;
    uint8_t key[KEY_SIZE];
    assert_true(parse("pgcairn-private-key-1\n" HEX "\n", &type, key, &err));
    assert_int_equal(type, KEY_FILE_PRIVATE);
}

static void
test_what_is_no_key_file_is_refused_and_never_quoted(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "\n",
        HEX "\n",
        "pgcairn-key-1\n",
        "pgcairn-key-2\n" HEX "\n",
        "pgcairn-public-key-1 " HEX " " CHECK "\n",
        "pgcairn-key-1\n" HEX "00\n",
        "pgcairn-key-1\n0001\n",
        "pgcairn-key-1\ng00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n",
        "pgcairn-key-1\n" HEX "\n" HEX "\n",
        "pgcairn-key-1\n" HEX "\ncheck 00000000\n",
        "pgcairn-key-1\n" HEX "\ncheck " CHECK "00\n",
        "pgcairn-key-1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8!\n",
        "pgcairn-key-1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==\n",
        "pgcairn-key-1 " HEX "\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        CairnError err = {0};
        KeyFileType type;
        uint8_t key[KEY_SIZE];
        assert_false(parse(texts[i], &type, key, &err));
        assert_int_equal(err.kind, CAIRN_USAGE);
        assert_null(strstr(err.message, "0405"));
        assert_null(strstr(err.hint, "0405"));
    }
}

static void
test_a_typing_error_is_found_by_the_check(void **state)
{
    (void)state;
    char text[] = "pgcairn-key-1\n" HEX "\ncheck " CHECK "\n";
    for (size_t at = 14; at < 14 + 64; at++) {
        CairnError err = {0};
        KeyFileType type;
        uint8_t key[KEY_SIZE];
        const char before = text[at];
        text[at] = before == '7' ? '8' : '7';
        assert_false(parse(text, &type, key, &err));
        text[at] = before;
    }
}

static void
test_a_generated_key_is_read_again_and_never_overwritten(void **state)
{
    (void)state;
    CairnError err = {0};
    struct stat status;
    KeyFileType type;
    uint8_t public_key[KEY_SIZE], derived[KEY_SIZE], listed[KEYRING_RECIPIENT_LIMIT][KEY_SIZE];
    size_t count = 0;
    const char *directory = scratch_directory();
    const char *path = scratch_path(directory, "private");
    const char *public_path = scratch_path(directory, "private.pub");
    assert_true(key_file_generate(world_real(), path, KEY_FILE_PRIVATE, public_key, &err));
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    SCOPED(Secret) key = key_file_read(world_real(), path, &type, &err);
    assert_non_null(key);
    assert_int_equal(type, KEY_FILE_PRIVATE);
    assert_true(seal_public_key(key->data, derived, &err));
    assert_memory_equal(derived, public_key, KEY_SIZE);
    if (!public_keys_read(world_real(), public_path, listed, &count, &err))
        fail_msg("%s", err.message);
    assert_int_equal(count, 1);
    assert_memory_equal(listed[0], public_key, KEY_SIZE);

    assert_false(key_file_generate(world_real(), path, KEY_FILE_SYMMETRIC, public_key, &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);

    CairnError other_err = {0};
    const char *other = scratch_path(scratch_directory(), "key");
    assert_true(key_file_generate(world_real(), other, KEY_FILE_SYMMETRIC, public_key, &other_err));
    SCOPED(Secret) second = key_file_read(world_real(), other, &type, &other_err);
    assert_non_null(second);
    assert_int_equal(type, KEY_FILE_SYMMETRIC);
    assert_memory_not_equal(second->data, key->data, KEY_SIZE);
}

static void
test_recipients_are_whole_lines_none_twice_and_nobody_else_may_write_them(void **state)
{
    (void)state;
    uint8_t keys[KEYRING_RECIPIENT_LIMIT][KEY_SIZE], key[KEY_SIZE] = {1};
    char text[64 * PUBLIC_KEY_TEXT_SIZE] = "# ours\n", line[PUBLIC_KEY_TEXT_SIZE];
    size_t count = 0, used = strlen(text);
    for (size_t i = 0; i <= KEYRING_RECIPIENT_LIMIT; i++) {
        CairnError err = {0};
        key[1] = (uint8_t)i;
        public_key_format(line, key);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s\n", line);
        const bool fits = i < KEYRING_RECIPIENT_LIMIT;
        assert_int_equal(public_keys_parse(text, "file", keys, &count, &err), fits);
        assert_int_equal(err.kind, fits ? CAIRN_OK : CAIRN_USAGE);
    }
    CairnError err = {0};
    snprintf(text, sizeof text, "%s\n%s\n", line, line);
    assert_false(public_keys_parse(text, "file", keys, &count, &err));
    for (size_t at = 0; line[at] != '\0'; at++) {
        CairnError flip_err = {0};
        const char before = line[at];
        line[at] = before == '1' ? '2' : '1';
        assert_false(public_keys_parse(line, "file", keys, &count, &flip_err));
        line[at] = before;
    }
    CairnError empty_err = {0};
    assert_false(public_keys_parse("# nobody\n", "file", keys, &count, &empty_err));

    const char *path = scratch_path(scratch_directory(), "recipients");
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "%s\n", line);
    assert_int_equal(fclose(file), 0);
    CairnError mode_err = {0};
    assert_int_equal(chmod(path, 0666), 0);
    assert_false(public_keys_read(world_real(), path, keys, &count, &mode_err));
    assert_int_equal(mode_err.kind, CAIRN_DENIED);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hex_and_base64_comments_and_blanks_are_read),
        cmocka_unit_test(test_what_is_no_key_file_is_refused_and_never_quoted),
        cmocka_unit_test(test_a_typing_error_is_found_by_the_check),
        cmocka_unit_test(test_a_generated_key_is_read_again_and_never_overwritten),
        cmocka_unit_test(test_recipients_are_whole_lines_none_twice_and_nobody_else_may_write_them),
    };
    return cmocka_run_group_tests_name("key file", tests, NULL, NULL);
}
