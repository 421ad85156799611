#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "postgres/recovery_settings.h"

static void
assert_filtered(const char *text, const char *expected)
{
    SCOPED_BYTES ByteWriter filtered = {0};
    settings_filter(text, strlen(text), recovery_setting_names, &filtered);
    byte_writer_u8(&filtered, '\0');
    assert_string_equal((const char *)filtered.data, expected);
}

static void
assert_found(const char *text, const char *name, const char *expected)
{
    char *value = settings_find(text, strlen(text), name);
    if (expected == NULL) {
        assert_null(value);
    } else {
        assert_non_null(value);
        assert_string_equal(value, expected);
    }
    free(value);
}

static void
test_settings_append_quotes_what_needs_it(void **state)
{
    (void)state;
    SCOPED_BYTES ByteWriter text = {0};
    CairnError err = {0};
    assert_true(settings_append(&text, "restore_command", "cp 'a b' \\\"%p\\\"", &err));
    assert_true(settings_append(&text, "recovery_target_name", "", &err));
    byte_writer_u8(&text, '\0');
    assert_string_equal(
        (const char *)text.data,
        "restore_command = 'cp ''a b'' \\\\\"%p\\\\\"'\nrecovery_target_name = ''\n");
}

static void
test_settings_append_refuses_line_breaks(void **state)
{
    (void)state;
    static const char *const values[] = {"\n", "a\nrecovery_target = 'immediate'", "x\r"};
    for (size_t i = 0; i < 3; i++) {
        SCOPED_BYTES ByteWriter text = {0};
        CairnError err = {0};
        assert_false(settings_append(&text, "restore_command", values[i], &err));
        assert_int_equal(err.kind, CAIRN_USAGE);
        assert_int_equal(text.size, 0);
    }
}

static void
test_settings_append_is_read_back_by_find(void **state)
{
    (void)state;
    static const char *const values[] = {
        "", "x", "'", "''", "\\", "\\'", "\\n", "\\101", "a = 'b' # c", "\xff\xfe \t", "'\\''",
    };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        SCOPED_BYTES ByteWriter text = {0};
        CairnError err = {0};
        assert_true(settings_append(&text, "primary_conninfo", values[i], &err));
        char *value = settings_find((const char *)text.data, text.size, "primary_conninfo");
        assert_non_null(value);
        assert_string_equal(value, values[i]);
        free(value);
    }
}

static void
test_settings_filter_drops_every_form_of_a_setting(void **state)
{
    (void)state;
    assert_filtered("a = 1\n"
                    "recovery_target_time = '2026-01-01'\n"
                    "  Recovery_Target_XID   17\n"
                    "\tRESTORE_COMMAND='x'\n"
                    "\r primary_conninfo = 'x' # comment\n"
                    "recovery_target = 'immediate\n" /* broken: the server would not start */
                    "b = 2\n",
                    "a = 1\nb = 2\n");
}

static void
test_settings_filter_keeps_everything_else(void **state)
{
    (void)state;
    static const char text[] = "# recovery_target = 'x'\n"
                               "\n"
                               "#restore_command = ''\n"
                               "recovery_targets = 1\n"
                               "recovery_target.x = 1\n"
                               "my.recovery_target = 1\n"
                               "archive_command = 'restore_command'\n"
                               "x = 'a''\\\\\\'b'   # y\n"
                               "include 'recovery_target.conf'\n"
                               "= = =\n"
                               "hot_standby = on\n";
    assert_filtered(text, text);
}

static void
test_settings_filter_ends_the_last_line(void **state)
{
    (void)state;
    assert_filtered("a = 1", "a = 1\n");
    assert_filtered("", "");
    assert_filtered("recovery_target = ''", "");
    assert_filtered("\n\n", "\n\n");
}

static void
test_settings_filter_knows_every_recovery_setting(void **state)
{
    (void)state;
    size_t count = 0;
    for (const char *const *name = recovery_setting_names; *name != NULL; name++, count++) {
        SCOPED_BYTES ByteWriter text = {0};
        CairnError err = {0};
        assert_true(settings_append(&text, *name, "x", &err));
        SCOPED_BYTES ByteWriter filtered = {0};
        settings_filter((const char *)text.data, text.size, recovery_setting_names, &filtered);
        assert_int_equal(filtered.size, 0);
    }
    assert_int_equal(count, 15);
}

static void
test_settings_filter_obeys_the_names_given(void **state)
{
    (void)state;
    static const char text[] = "archive_mode = on\nrestore_command = 'x'\n";
    static const char *const names[] = {"archive_mode", NULL};
    SCOPED_BYTES ByteWriter filtered = {0};
    settings_filter(text, sizeof text - 1, names, &filtered);
    byte_writer_u8(&filtered, '\0');
    assert_string_equal((const char *)filtered.data, "restore_command = 'x'\n");
}

static void
test_settings_filter_value_leaves_other_values(void **state)
{
    (void)state;
    static const char text[] = "archive_mode = 'always'\nport = 1\narchive_mode=OFF # ours\n"
                               "#archive_mode = off\n\narchive_mode = 'off'";
    SCOPED_BYTES ByteWriter filtered = {0};
    settings_filter_value(text, sizeof text - 1, "archive_mode", "off", &filtered);
    byte_writer_u8(&filtered, '\0');
    assert_string_equal((const char *)filtered.data,
                        "archive_mode = 'always'\nport = 1\n#archive_mode = off\n\n");
}

static void
test_settings_find_takes_the_last_valid_line(void **state)
{
    (void)state;
    assert_found("port = 1\nport = 2\nport 3 # four\n", "port", "3");
    assert_found("port = 1\nport =\n", "port", "1");
    assert_found("port = 1\nport = 2 3\n", "port", "1");
    assert_found("port = 1\n#port = 2\n", "PORT", "1");
    assert_found("port = 1\nports = 2\n", "port", "1");
    assert_found("port = 1", "port", "1");
    assert_found("port", "port", NULL);
    assert_found("", "port", NULL);
}

static void
test_settings_take_an_empty_text_without_memory(void **state)
{
    (void)state;
    SCOPED_BYTES ByteWriter filtered = {0};
    settings_filter(NULL, 0, recovery_setting_names, &filtered);
    assert_int_equal(filtered.size, 0);
    assert_null(settings_find(NULL, 0, "port"));
}

static void
test_settings_find_unquotes_as_the_server_does(void **state)
{
    (void)state;
    assert_found("x = 'a''b'", "x", "a'b");
    assert_found("x = 'a\\'b'", "x", "a'b");
    assert_found("x = 'a\\\\b'", "x", "a\\b");
    assert_found("x = '\\101\\x\\t\\7'", "x", "Ax\t\7");
    assert_found("x='y'#z", "x", "y");
    assert_found("x 'y'\r\n", "x", "y");
    assert_found("x = ''", "x", "");
    assert_found("x = 16MB\r\n", "x", "16MB");
    assert_found("x = 'open", "x", NULL);
    assert_found("x = 'open\\", "x", NULL);
    assert_found("x = 'a' 'b'", "x", NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_settings_append_quotes_what_needs_it),
        cmocka_unit_test(test_settings_append_refuses_line_breaks),
        cmocka_unit_test(test_settings_append_is_read_back_by_find),
        cmocka_unit_test(test_settings_filter_drops_every_form_of_a_setting),
        cmocka_unit_test(test_settings_filter_keeps_everything_else),
        cmocka_unit_test(test_settings_filter_ends_the_last_line),
        cmocka_unit_test(test_settings_filter_knows_every_recovery_setting),
        cmocka_unit_test(test_settings_filter_obeys_the_names_given),
        cmocka_unit_test(test_settings_filter_value_leaves_other_values),
        cmocka_unit_test(test_settings_find_takes_the_last_valid_line),
        cmocka_unit_test(test_settings_take_an_empty_text_without_memory),
        cmocka_unit_test(test_settings_find_unquotes_as_the_server_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
