#include "common/plain_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

static void
test_what_moves_a_terminal_is_spelt_out(void **state)
{
    (void)state;
    static const struct {
        const char *text, *plain;
    } CASES[] = {
        {"", ""},
        {"plain text, ~!", "plain text, ~!"},
        {"\x1b[2J\a\t\r\n", "\\033[2J\\007\\011\\015\\012"},
        {"\x7f", "\\177"},
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x98", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x98"},
        {"\xc2\x80 \xc2\x9b \xc2\x9f \xc2\xa0", "\\302\\200 \\302\\233 \\302\\237 \xc2\xa0"},
        {"\x9b", "\\233"},                            /* Latin-1's CSI */
        {"\xc0\x9b", "\\300\\233"},                   /* ESC in two bytes */
        {"\xe0\x82\x9b", "\\340\\202\\233"},          /* CSI in three */
        {"\xf0\x80\x82\x9b", "\\360\\200\\202\\233"}, /* and in four */
        {"\xed\xa0\x80", "\\355\\240\\200"},          /* half a surrogate pair */
        {"\xf4\x90\x80\x80", "\\364\\220\\200\\200"}, /* beyond Unicode */
        {"\xff\xfe", "\\377\\376"},
        {"a\xe2\x82", "a\\342\\202"}, /* cut short */
        {"\xe2(\xac", "\\342(\\254"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        char plain[64], again[64];
        plain_text(plain, sizeof plain, CASES[i].text, "");
        assert_string_equal(plain, CASES[i].plain);
        plain_text(again, sizeof again, plain, "");
        assert_string_equal(again, plain);
    }
}

static void
test_kept_controls_stay_and_only_those(void **state)
{
    (void)state;
    char plain[32];
    plain_text(plain, sizeof plain, "a\nb\tc", "\n");
    assert_string_equal(plain, "a\nb\\011c");
}

static void
test_text_is_cut_between_characters(void **state)
{
    (void)state;
    static const char TEXT[] = "a\xc3\xa4\x1b"
                               "b";
    static const char *const WHOLE[] = {"", "a", "a", "a\xc3\xa4"};
    for (size_t size = 1; size <= 7; size++) {
        char plain[16];
        memset(plain, 'x', sizeof plain);
        plain_text(plain, size, TEXT, "");
        assert_string_equal(plain, WHOLE[size < 4 ? size - 1 : 3]);
    }
}

static void
test_a_stream_gets_the_same_and_no_byte_beyond(void **state)
{
    (void)state;
    char *seen = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&seen, &size);
    assert_non_null(out);
    /* Exactly these bytes, so that the sanitizer sees a read past them. */
    char *text = malloc(5);
    assert_non_null(text);
    memcpy(text, "a\0\n\xe2\x82", 5);
    plain_print(out, text, 5, "\n");
    fclose(out);
    assert_string_equal(seen, "a\\000\n\\342\\202");
    free(seen);
    free(text);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_moves_a_terminal_is_spelt_out),
        cmocka_unit_test(test_kept_controls_stay_and_only_those),
        cmocka_unit_test(test_text_is_cut_between_characters),
        cmocka_unit_test(test_a_stream_gets_the_same_and_no_byte_beyond),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
