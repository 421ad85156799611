#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "postgres/connection.h"

#include <stdlib.h>
#include <string.h>

static void
expect_shown(const char *conninfo, const char *shown)
{
    SCOPED_MEMORY char *redacted = connection_conninfo_redacted(conninfo);
    assert_non_null(redacted);
    assert_string_equal(redacted, shown);
}

static void
passwords_are_never_shown(void **state)
{
    (void)state;
    expect_shown("host=/run/x user=backup password=hunter2", "user=backup host=/run/x");
    expect_shown("host=h sslpassword=hunter2", "host=h");
    expect_shown("postgresql://u:hunter2@db.example:5433/d",
                 "user=u dbname=d host=db.example port=5433");
}

static void
a_conninfo_that_does_not_parse_is_not_quoted(void **state)
{
    (void)state;
    expect_shown("hunter2", "(does not parse)");

    CairnError err = {0};
    assert_null(connection_open("password=a hunter2", CONNECTION_SQL, "test", &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
    assert_null(strstr(err.message, "hunter2"));
    assert_null(strstr(err.hint, "hunter2"));
}

static void
values_with_blanks_are_quoted(void **state)
{
    (void)state;
    expect_shown("host='/a b' user='it\\'s'", "user='it\\'s' host='/a b'");
    expect_shown("", "(libpq's environment)");
    expect_shown(NULL, "(libpq's environment)");
}

static void
a_server_that_is_not_there_is_unavailable(void **state)
{
    (void)state;
    CairnError err = {0};
    assert_null(
        connection_open("host=/nonexistent user=u password=hunter2", CONNECTION_SQL, "test", &err));
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    assert_null(strstr(err.message, "hunter2"));
    assert_null(strchr(err.message, '\n'));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passwords_are_never_shown),
        cmocka_unit_test(a_conninfo_that_does_not_parse_is_not_quoted),
        cmocka_unit_test(values_with_blanks_are_quoted),
        cmocka_unit_test(a_server_that_is_not_there_is_unavailable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
