#include "common/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { PACKET_SIZE = 4096 };

/* Standard error is a pipe that keeps each write apart. */
typedef struct {
    int ends[2];
    int before;
} Capture;

static void
capture_begin(Capture *capture)
{
    assert_int_equal(pipe2(capture->ends, O_DIRECT | O_NONBLOCK | O_CLOEXEC), 0);
    capture->before = dup(STDERR_FILENO);
    assert_true(capture->before >= 0);
    assert_int_equal(dup2(capture->ends[1], STDERR_FILENO), STDERR_FILENO);
}

/* The one write that there was. */
static void
capture_end(Capture *capture, char text[PACKET_SIZE])
{
    assert_int_equal(dup2(capture->before, STDERR_FILENO), STDERR_FILENO);
    close(capture->before);
    close(capture->ends[1]);
    const ssize_t size = read(capture->ends[0], text, PACKET_SIZE - 1);
    char more;
    assert_true(size > 0);
    text[size] = '\0';
    assert_int_equal(read(capture->ends[0], &more, 1), 0);
    close(capture->ends[0]);
}

static void
test_a_message_is_one_write(void **state)
{
    Capture capture;
    char text[PACKET_SIZE];

    (void)state;
    capture_begin(&capture);
    log_warn("%s of %d", "two\nlines", 2);
    capture_end(&capture, text);
    assert_string_equal(text, "WARNING: two\\012lines of 2\n");
}

static void
test_an_error_and_its_hint_are_one_write(void **state)
{
    Capture capture;
    char text[PACKET_SIZE];
    CairnError err = {0};

    (void)state;
    assert_false(cairn_error(&err, CAIRN_REFUSED, "no"));
    assert_false(cairn_error_hint(&err, "try\nagain"));
    capture_begin(&capture);
    log_error(&err);
    capture_end(&capture, text);
    assert_string_equal(text, "ERROR: no\nHINT: try\nagain\n");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_message_is_one_write),
        cmocka_unit_test(test_an_error_and_its_hint_are_one_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
