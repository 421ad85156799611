#include "common/error.h"

#include "common/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool
fail_with(CairnError *err, int system_errno)
{
    errno = system_errno;
    return cairn_error_errno(err, "unable to open '%s'", "x");
}

static void
test_error_keeps_kind_origin_and_message(void **state)
{
    (void)state;
    CairnError err = {0};
    assert_false(cairn_error(&err, CAIRN_CONFLICT, "object '%s' exists", "a"));
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    assert_string_equal(err.message, "object 'a' exists");
    assert_non_null(strstr(err.file, "test_error.c"));
    assert_true(err.line > 0);
    assert_int_equal(err.system_errno, 0);
    assert_string_equal(err.hint, "");
}

static void
test_errno_decides_the_kind_and_is_spelt_out(void **state)
{
    (void)state;
    static const struct {
        int system_errno;
        CairnErrorKind kind;
    } CASES[] = {
        {ENOENT, CAIRN_NOT_FOUND},
        {EEXIST, CAIRN_CONFLICT},
        {EACCES, CAIRN_DENIED},
        {EROFS, CAIRN_DENIED},
        {ENOSPC, CAIRN_NO_SPACE},
        {EDQUOT, CAIRN_NO_SPACE},
        {EIO, CAIRN_IO},
        {ELOOP, CAIRN_CORRUPT},
        {ETIMEDOUT, CAIRN_UNAVAILABLE},
        {EMFILE, CAIRN_UNAVAILABLE},
        {ENOMEM, CAIRN_INTERNAL},
        {ENOTDIR, CAIRN_IO},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        CairnError err = {0};
        assert_false(fail_with(&err, CASES[i].system_errno));
        assert_int_equal(err.kind, CASES[i].kind);
        assert_int_equal(err.system_errno, CASES[i].system_errno);
        char expected[256];
        snprintf(expected, sizeof expected, "unable to open 'x': %s",
                 strerror(CASES[i].system_errno));
        assert_string_equal(err.message, expected);
    }
}

static void
test_wrap_puts_context_in_front_and_keeps_the_rest(void **state)
{
    (void)state;
    CairnError err = {0};
    fail_with(&err, ENOSPC);
    assert_false(cairn_error_hint(&err, "free %d bytes", 7));
    assert_false(cairn_error_wrap(&err, "backup %s", "b"));
    assert_true(strncmp(err.message, "backup b: unable to open 'x': ", 30) == 0);
    assert_int_equal(err.kind, CAIRN_NO_SPACE);
    assert_int_equal(err.system_errno, ENOSPC);
    assert_string_equal(err.hint, "free 7 bytes");
    assert_false(cairn_error_hint(&err, "first %s", err.hint));
    assert_string_equal(err.hint, "first free 7 bytes");
}

static void
test_messages_are_cut_at_their_size(void **state)
{
    (void)state;
    char text[3 * CAIRN_ERROR_MESSAGE_SIZE];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    CairnError err = {0};
    cairn_error(&err, CAIRN_IO, "%s", text);
    assert_int_equal(strlen(err.message), CAIRN_ERROR_MESSAGE_SIZE - 1);
    cairn_error_wrap(&err, "context");
    assert_int_equal(strlen(err.message), CAIRN_ERROR_MESSAGE_SIZE - 1);
    assert_true(strncmp(err.message, "context: aaa", 12) == 0);
    cairn_error_hint(&err, "%s", text);
    assert_int_equal(strlen(err.hint), CAIRN_ERROR_HINT_SIZE - 1);
}

static void
test_texts_from_outside_become_plain(void **state)
{
    (void)state;
    CairnError err = {0};
    cairn_error(&err, CAIRN_IO, "server said '%s'",
                "a\nERROR: b\x1b[2J \xc2\x9b"
                "2J \xff");
    assert_string_equal(err.message, "server said 'a\\012ERROR: b\\033[2J \\302\\2332J \\377'");
    cairn_error_hint(&err, "one\ntwo\x7f");
    assert_string_equal(err.hint, "one\ntwo\\177");
    cairn_error_wrap(&err, "table \x9d\xc3\xa4");
    assert_memory_equal(err.message, "table \\235\xc3\xa4: server said 'a\\012", 32);
}

static void
test_a_long_message_is_cut_between_characters(void **state)
{
    (void)state;
    char text[2 * CAIRN_ERROR_MESSAGE_SIZE + 1] = "";
    for (size_t i = 0; i + 1 < sizeof text; i += 2)
        memcpy(text + i, "\xc3\xa4", 3);
    CairnError err = {0};
    cairn_error(&err, CAIRN_IO, "%s", text + 2);
    cairn_error_wrap(&err, "a");
    cairn_error_wrap(&err, "ab");
    assert_memory_equal(err.message + strlen(err.message) - 2, "\xc3\xa4", 2);
}

static char *
logged(const char *text)
{
    char *seen = NULL;
    size_t size = 0;
    FILE *kept = stderr;
    stderr = open_memstream(&seen, &size);
    assert_non_null(stderr);
    log_warn("it said: %s", text);
    fclose(stderr);
    stderr = kept;
    return seen;
}

static void
test_a_logged_line_is_one_plain_line(void **state)
{
    (void)state;
    char *line = logged("\x1b[1A\nERROR: all is lost \xc2\x85\xe2\x82\xac");
    assert_string_equal(
        line, "WARNING: it said: \\033[1A\\012ERROR: all is lost \\302\\205\xe2\x82\xac\n");
    free(line);
    char text[8000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    line = logged(text);
    assert_int_equal(strlen(line), strlen("WARNING: it said: ") + sizeof text);
    free(line);
}

static void
test_clear_makes_it_usable_again(void **state)
{
    (void)state;
    CairnError err = {0};
    fail_with(&err, EIO);
    cairn_error_clear(&err);
    assert_int_equal(err.kind, CAIRN_OK);
    assert_string_equal(err.message, "");
    assert_false(cairn_error(&err, CAIRN_USAGE, "second"));
    assert_int_equal(err.system_errno, 0);
    assert_string_equal(err.message, "second");
}

static void
test_exit_codes_are_those_of_the_manual(void **state)
{
    (void)state;
    assert_int_equal(cairn_error_exit_code(CAIRN_OK), 0);
    assert_int_equal(cairn_error_exit_code(CAIRN_INTERNAL), 1);
    assert_int_equal(cairn_error_exit_code(CAIRN_USAGE), 2);
    assert_int_equal(cairn_error_exit_code(CAIRN_NOT_FOUND), 3);
    assert_int_equal(cairn_error_exit_code(CAIRN_CONFLICT), 4);
    assert_int_equal(cairn_error_exit_code(CAIRN_REFUSED), 4);
    assert_int_equal(cairn_error_exit_code(CAIRN_CORRUPT), 5);
    assert_int_equal(cairn_error_exit_code(CAIRN_UNAVAILABLE), 6);
    assert_int_equal(cairn_error_exit_code(CAIRN_NO_SPACE), 7);
    assert_int_equal(cairn_error_exit_code(CAIRN_CANCELLED), 130);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_keeps_kind_origin_and_message),
        cmocka_unit_test(test_errno_decides_the_kind_and_is_spelt_out),
        cmocka_unit_test(test_wrap_puts_context_in_front_and_keeps_the_rest),
        cmocka_unit_test(test_messages_are_cut_at_their_size),
        cmocka_unit_test(test_texts_from_outside_become_plain),
        cmocka_unit_test(test_a_long_message_is_cut_between_characters),
        cmocka_unit_test(test_a_logged_line_is_one_plain_line),
        cmocka_unit_test(test_clear_makes_it_usable_again),
        cmocka_unit_test(test_exit_codes_are_those_of_the_manual),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
