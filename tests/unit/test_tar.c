#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/bytes.h"
#include "postgres/tar.h"

enum { AT_MODE = 100, AT_SIZE = 124, AT_CHECKSUM = 148, AT_TYPE = 156, AT_LINK = 157 };
enum { AT_MAGIC = 257, AT_PREFIX = 345 };

/* A header as PostgreSQL writes it, before its checksum. */
static void
make_header(uint8_t header[TAR_BLOCK_SIZE], const char *name, char type, uint64_t size)
{
    memset(header, 0, TAR_BLOCK_SIZE);
    memcpy(header, name, strnlen(name, 100));
    memcpy(header + AT_MODE, "0000600 ", 8);
    memcpy(header + 108, "0001750 0001750 ", 16);
    char number[32];
    snprintf(number, sizeof number, "%011llo ", (unsigned long long)size);
    memcpy(header + AT_SIZE, number, 12);
    memcpy(header + 136, "14612345670 ", 12);
    header[AT_TYPE] = (uint8_t)type;
    memcpy(header + AT_MAGIC,
           "ustar\0"
           "00"
           "postgres",
           16);
    memcpy(header + 297, "postgres", 8);
}

static void
seal(uint8_t header[TAR_BLOCK_SIZE])
{
    unsigned sum = 0;
    memset(header + AT_CHECKSUM, ' ', 8);
    for (size_t i = 0; i < TAR_BLOCK_SIZE; i++)
        sum += header[i];
    char number[32];
    snprintf(number, sizeof number, "%07o ", sum);
    memcpy(header + AT_CHECKSUM, number, 8);
}

static void
add_member(ByteWriter *archive, const char *name, char type, const char *target, const void *data,
           size_t size)
{
    static const uint8_t zeros[TAR_BLOCK_SIZE];
    uint8_t header[TAR_BLOCK_SIZE];
    make_header(header, name, type, size);
    memcpy(header + AT_LINK, target, strlen(target));
    seal(header);
    byte_writer_bytes(archive, header, sizeof header);
    if (size > 0)
        byte_writer_bytes(archive, data, size);
    byte_writer_bytes(archive, zeros, (size_t)(-size % TAR_BLOCK_SIZE));
}

static void
add_end(ByteWriter *archive)
{
    static const uint8_t zeros[2 * TAR_BLOCK_SIZE];
    byte_writer_bytes(archive, zeros, sizeof zeros);
}

/* What the callbacks saw, as text: "f 600 3 path=abc;" and so on. */
typedef struct {
    ByteWriter text;
    bool open;
    uint64_t left;
    int fail_at; /* 1 begin, 2 data, 3 end */
} Seen;

static bool
on_begin(void *context, const TarMember *member, CairnError *err)
{
    Seen *seen = context;
    char text[TAR_PATH_LIMIT + 300];
    assert_false(seen->open);
    seen->open = true;
    seen->left = member->size_bytes;
    const int size = snprintf(text, sizeof text, "%c %o %llu %s%s%s=", "fdl"[member->type],
                              member -> mode, (unsigned long long)member -> size_bytes,
                              member -> path, member -> type == TAR_SYMLINK ? ">" : "",
                              member->type == TAR_SYMLINK ? member->target : "");
    byte_writer_bytes(&seen->text, text, (size_t)size);
    return seen->fail_at != 1 || cairn_error(err, CAIRN_CANCELLED, "begin");
}

static bool
on_data(void *context, const uint8_t *data, size_t size, CairnError *err)
{
    Seen *seen = context;
    assert_true(seen->open && size > 0 && size <= seen->left);
    seen->left -= size;
    byte_writer_bytes(&seen->text, data, size);
    return seen->fail_at != 2 || cairn_error(err, CAIRN_CANCELLED, "data");
}

static bool
on_end(void *context, CairnError *err)
{
    Seen *seen = context;
    assert_true(seen->open && seen->left == 0);
    seen->open = false;
    byte_writer_u8(&seen->text, ';');
    return seen->fail_at != 3 || cairn_error(err, CAIRN_CANCELLED, "end");
}

static const TarCallbacks callbacks = {on_begin, on_data, on_end};

/* Feeds pieces of 1 to limit bytes (limit 0: everything at once), each in memory of its own size.
 */
static bool
feed_in_pieces(TarParser *parser, const uint8_t *data, size_t size, size_t limit, CairnError *err)
{
    static uint32_t seed = 1;
    while (size > 0) {
        seed = seed * 1103515245 + 12345;
        size_t piece = limit == 0 ? size : 1 + (seed >> 8) % limit;
        piece = piece < size ? piece : size;
        uint8_t *copy = malloc(piece);
        assert_non_null(copy);
        memcpy(copy, data, piece);
        const bool good = tar_parser_feed(parser, copy, piece, err);
        free(copy);
        if (!good)
            return false;
        data += piece;
        size -= piece;
    }
    return true;
}

static CairnErrorKind
parse(const ByteWriter *archive, size_t limit, Seen *seen, CairnError *err)
{
    SCOPED(TarParser) parser = tar_parser_new(&callbacks, seen, err);
    assert_non_null(parser);
    const bool good = feed_in_pieces(parser, archive->data, archive->size, limit, err) &&
                      tar_parser_finish(parser, err);
    assert_int_equal(good, err->kind == CAIRN_OK);
    if (!good) {
        /* Failure is sticky, and stays the same failure. */
        CairnError again = {0};
        assert_false(tar_parser_feed(parser, archive->data, 1, &again));
        assert_string_equal(again.message, err->message);
        CairnError at_finish = {0};
        assert_false(tar_parser_finish(parser, &at_finish));
        assert_string_equal(at_finish.message, err->message);
    }
    byte_writer_u8(&seen->text, '\0');
    return err->kind;
}

static CairnErrorKind
kind_of(const ByteWriter *archive)
{
    Seen seen = {0};
    CairnError err = {0};
    const CairnErrorKind kind = parse(archive, 0, &seen, &err);
    byte_writer_free(&seen.text);
    return kind;
}

/* An archive of one member with this header and data_blocks of zeros; a refused header is not
 * shown. */
static CairnErrorKind
kind_of_header(const uint8_t header[TAR_BLOCK_SIZE], size_t data_blocks)
{
    static const uint8_t zeros[TAR_BLOCK_SIZE];
    SCOPED_BYTES ByteWriter archive = {0};
    byte_writer_bytes(&archive, header, TAR_BLOCK_SIZE);
    for (size_t i = 0; i < data_blocks; i++)
        byte_writer_bytes(&archive, zeros, sizeof zeros);
    add_end(&archive);

    Seen seen = {0};
    CairnError err = {0};
    const CairnErrorKind kind = parse(&archive, 0, &seen, &err);
    const bool shown = seen.text.data[0] != '\0';
    byte_writer_free(&seen.text);
    assert_true(kind == CAIRN_OK || !shown || data_blocks > 0);
    return kind;
}

static void
add_good_members(ByteWriter *archive)
{
    char block[TAR_BLOCK_SIZE];
    memset(block, 'b', sizeof block);
    add_member(archive, "backup_label", '0', "", "START", 5);
    add_member(archive, "./pg_wal/archive_status/", '5', "", "", 0);
    add_member(archive, "./", '5', "", "", 0);
    add_member(archive, "pg_tblspc/16389/", '2', "/srv/ts 1", "", 0);
    add_member(archive, "base/5/empty", '0', "", "", 0);
    add_member(archive, "base/5/block", '0', "", block, sizeof block);
    add_member(archive, "back\\slash \xff\n..x", '0', "", "q", 1);
}

static const char good_prefix[] = "f 600 5 backup_label=START;"
                                  "d 600 0 pg_wal/archive_status=;"
                                  "l 600 0 pg_tblspc/16389>/srv/ts 1=;"
                                  "f 600 0 base/5/empty=;"
                                  "f 600 512 base/5/block=bbbb";

static void
test_tar_parser_shows_members_however_the_bytes_come(void **state)
{
    (void)state;
    SCOPED_BYTES ByteWriter archive = {0};
    add_good_members(&archive);
    add_end(&archive);

    char *expected = NULL;
    static const size_t limits[] = {0, 1, 2, 7, 511, 512, 513, 1500, 1500, 1500, 1500, 1500};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        Seen seen = {0};
        CairnError err = {0};
        assert_int_equal(parse(&archive, limits[i], &seen, &err), CAIRN_OK);
        const char *text = (const char *)seen.text.data;
        assert_memory_equal(text, good_prefix, sizeof good_prefix - 1);
        assert_non_null(strstr(text, "b;f 600 1 back\\slash \xff\n..x=q;"));
        if (expected == NULL)
            expected = strdup(text);
        assert_string_equal(text, expected);
        byte_writer_free(&seen.text);
    }
    free(expected);
}

static void
test_tar_parser_is_ready_again_after_finish(void **state)
{
    (void)state;
    SCOPED_BYTES ByteWriter archive = {0};
    add_good_members(&archive);
    add_end(&archive);
    Seen seen = {0};
    CairnError err = {0};
    SCOPED(TarParser) parser = tar_parser_new(&callbacks, &seen, &err);
    for (int i = 0; i < 3; i++) {
        assert_true(tar_parser_feed(parser, archive.data, archive.size, &err));
        assert_true(tar_parser_finish(parser, &err));
    }
    byte_writer_free(&seen.text);
}

static void
test_tar_parser_refuses_every_truncation(void **state)
{
    (void)state;
    SCOPED_BYTES ByteWriter archive = {0};
    add_member(&archive, "a", '0', "", "x", 1);
    add_end(&archive);
    const size_t whole = archive.size;
    for (archive.size = 0; archive.size < whole; archive.size++)
        assert_int_equal(kind_of(&archive), CAIRN_CORRUPT);
    assert_int_equal(kind_of(&archive), CAIRN_OK);
}

static void
test_tar_parser_accepts_zeros_but_nothing_else_after_the_end(void **state)
{
    (void)state;
    SCOPED_BYTES ByteWriter archive = {0};
    add_member(&archive, "a", '0', "", "x", 1);
    add_end(&archive);
    add_end(&archive);
    assert_int_equal(kind_of(&archive), CAIRN_OK);
    byte_writer_u8(&archive, 1);
    assert_int_equal(kind_of(&archive), CAIRN_CORRUPT);
}

static void
test_tar_parser_refuses_a_member_after_one_zero_block(void **state)
{
    (void)state;
    static const uint8_t zeros[TAR_BLOCK_SIZE];
    SCOPED_BYTES ByteWriter archive = {0};
    byte_writer_bytes(&archive, zeros, sizeof zeros);
    add_member(&archive, "a", '0', "", "x", 1);
    add_end(&archive);
    assert_int_equal(kind_of(&archive), CAIRN_CORRUPT);
}

static void
test_tar_parser_refuses_padding_with_content(void **state)
{
    (void)state;
    SCOPED_BYTES ByteWriter archive = {0};
    add_member(&archive, "a", '0', "", "x", 1);
    add_end(&archive);
    archive.data[2 * TAR_BLOCK_SIZE - 1] = 1;
    assert_int_equal(kind_of(&archive), CAIRN_CORRUPT);
}

static void
test_tar_parser_refuses_dirty_names(void **state)
{
    (void)state;
    static const char *const names[] = {
        "",      "/",   "/etc/x", "//etc/x", "../x",  "a/../b", "a/..", "..", ".",
        "a/./b", "a/.", "a//b",   ".//a",    "././a", "./../a", "a/",   "./", "./a/",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        uint8_t header[TAR_BLOCK_SIZE];
        make_header(header, names[i], '0', 0);
        seal(header);
        if (kind_of_header(header, 0) != CAIRN_CORRUPT)
            fail_msg("accepted the file '%s'", names[i]);
    }
    static const char *const directories[] = {"",      "/",   "../",   "a//",
                                              "a/../", "/a/", ".././", "./.."};
    for (size_t i = 0; i < sizeof directories / sizeof directories[0]; i++) {
        uint8_t header[TAR_BLOCK_SIZE];
        make_header(header, directories[i], '5', 0);
        seal(header);
        if (kind_of_header(header, 0) != CAIRN_CORRUPT)
            fail_msg("accepted the directory '%s'", directories[i]);
    }
}

static void
test_tar_parser_refuses_a_second_name_behind_a_nul(void **state)
{
    (void)state;
    uint8_t header[TAR_BLOCK_SIZE];
    make_header(header, "good", '0', 0);
    header[5] = 'x';
    seal(header);
    assert_int_equal(kind_of_header(header, 0), CAIRN_CORRUPT);

    make_header(header, "pg_tblspc/1", '2', 0);
    memcpy(header + AT_LINK, "/a\0b", 4);
    seal(header);
    assert_int_equal(kind_of_header(header, 0), CAIRN_CORRUPT);
}

static void
test_tar_parser_takes_names_that_fill_their_field(void **state)
{
    (void)state;
    char name[101];
    memset(name, 'n', 99);
    name[99] = '/';
    name[100] = '\0';
    SCOPED_BYTES ByteWriter archive = {0};
    add_member(&archive, name, '5', "", "", 0);
    name[99] = 'n';
    add_member(&archive, name, '0', "", "", 0);
    add_end(&archive);

    Seen seen = {0};
    CairnError err = {0};
    assert_int_equal(parse(&archive, 0, &seen, &err), CAIRN_OK);
    char expected[300];
    snprintf(expected, sizeof expected, "d 600 0 %.99s=;f 600 0 %.100s=;", name, name);
    assert_string_equal((const char *)seen.text.data, expected);
    byte_writer_free(&seen.text);
}

typedef struct {
    const char *name;
    size_t offset;
    const char *bytes;
    size_t size;
} Damage;

static void
test_tar_parser_refuses_damaged_fields(void **state)
{
    (void)state;
    static const Damage damages[] = {
        {"no ustar", AT_MAGIC, "ustar  ", 8},
        {"no magic", AT_MAGIC, "\0\0\0\0\0\0\0\0", 8},
        {"version 01", AT_MAGIC + 6, "01", 2},
        {"prefix", AT_PREFIX, "x", 1},
        {"late prefix", AT_PREFIX + 154, "x", 1},
        {"behind the header", 511, "x", 1},
        {"hard link", AT_TYPE, "1", 1},
        {"character device", AT_TYPE, "3", 1},
        {"block device", AT_TYPE, "4", 1},
        {"fifo", AT_TYPE, "6", 1},
        {"contiguous", AT_TYPE, "7", 1},
        {"old file", AT_TYPE, "\0", 1},
        {"pax", AT_TYPE, "x", 1},
        {"global pax", AT_TYPE, "g", 1},
        {"GNU long name", AT_TYPE, "L", 1},
        {"GNU long link", AT_TYPE, "K", 1},
        {"GNU sparse", AT_TYPE, "S", 1},
        {"file with link target", AT_LINK, "x", 1},
        {"mode with type", AT_MODE, "0100600 ", 8},
        {"no mode", AT_MODE, "\0\0\0\0\0\0\0\0", 8},
        {"negative size", AT_SIZE, "-0000000001 ", 12},
        {"base-256 negative", AT_SIZE, "\377\377\377\377\377\377\377\377\377\377\377\376", 12},
        {"base-256 past 2^60", AT_SIZE, "\200\0\0\0\020\0\0\0\0\0\0\001", 12},
        {"base-256 past 2^64", AT_SIZE, "\200\0\0\001\0\0\0\0\0\0\0\0", 12},
        {"no size", AT_SIZE, "\0\0\0\0\0\0\0\0\0\0\0\0", 12},
        {"blank size", AT_SIZE, "            ", 12},
        {"leading space", AT_SIZE, " 0000000000 ", 12},
        {"digit 8", AT_SIZE, "00000000008 ", 12},
        {"hole in number", AT_SIZE, "0000000 001 ", 12},
    };
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        uint8_t header[TAR_BLOCK_SIZE];
        make_header(header, "base/5/1", '0', 0);
        memcpy(header + damages[i].offset, damages[i].bytes, damages[i].size);
        seal(header);
        if (kind_of_header(header, 0) != CAIRN_CORRUPT)
            fail_msg("accepted: %s", damages[i].name);
    }
}

static void
test_tar_parser_detects_every_flipped_bit_of_a_header(void **state)
{
    (void)state;
    uint8_t header[TAR_BLOCK_SIZE];
    make_header(header, "base/5/1", '0', 0);
    seal(header);
    assert_int_equal(kind_of_header(header, 0), CAIRN_OK);
    for (size_t bit = 0; bit < TAR_BLOCK_SIZE * 8; bit++) {
        header[bit / 8] ^= (uint8_t)(1 << bit % 8);
        const bool in_terminator = bit / 8 == AT_CHECKSUM + 7 && header[bit / 8] == '\0';
        assert_true(in_terminator || kind_of_header(header, 0) == CAIRN_CORRUPT);
        header[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void
test_tar_parser_reads_base_256_sizes(void **state)
{
    (void)state;
    uint8_t header[TAR_BLOCK_SIZE];
    make_header(header, "base/5/1", '0', 0);
    memcpy(header + AT_SIZE, "\200\0\0\0\0\0\0\0\0\0\002\001", 12);
    seal(header);
    assert_int_equal(kind_of_header(header, 2), CAIRN_OK);
    assert_int_equal(kind_of_header(header, 1), CAIRN_CORRUPT);

    /* The largest one: accepted, but its data never comes. */
    Seen seen = {0};
    CairnError err = {0};
    SCOPED(TarParser) parser = tar_parser_new(&callbacks, &seen, &err);
    memcpy(header + AT_SIZE, "\200\0\0\0\020\0\0\0\0\0\0\0", 12);
    seal(header);
    assert_true(tar_parser_feed(parser, header, sizeof header, &err));
    assert_true(seen.left == UINT64_C(1) << 60);
    assert_false(tar_parser_finish(parser, &err));
    byte_writer_free(&seen.text);
}

static void
test_tar_parser_takes_links_only_for_tablespaces(void **state)
{
    (void)state;
    static const char *const names[] = {
        "pg_tblspc",        "pg_tblspc/",    "pg_tblspc/x",          "pg_tblspc/0",
        "pg_tblspc/016389", "pg_wal",        "pg_tblspc/4294967296", "pg_tblspc/16389/x",
        "base/5/1",         "x/pg_tblspc/1", "pg_tblspc/1x",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        uint8_t header[TAR_BLOCK_SIZE];
        make_header(header, names[i], '2', 0);
        header[AT_LINK] = '/';
        seal(header);
        if (kind_of_header(header, 0) != CAIRN_CORRUPT)
            fail_msg("accepted the link '%s'", names[i]);
    }
    uint8_t header[TAR_BLOCK_SIZE];
    make_header(header, "pg_tblspc/4294967295/", '2', 0);
    seal(header);
    assert_int_equal(kind_of_header(header, 0), CAIRN_CORRUPT); /* no target */
    header[AT_LINK] = '/';
    seal(header);
    assert_int_equal(kind_of_header(header, 0), CAIRN_OK);
}

static void
test_tar_parser_refuses_data_in_directories_and_links(void **state)
{
    (void)state;
    uint8_t header[TAR_BLOCK_SIZE];
    make_header(header, "base/", '5', 1);
    seal(header);
    assert_int_equal(kind_of_header(header, 1), CAIRN_CORRUPT);
    make_header(header, "pg_tblspc/1/", '2', 1);
    header[AT_LINK] = '/';
    seal(header);
    assert_int_equal(kind_of_header(header, 1), CAIRN_CORRUPT);
}

static void
test_tar_parser_escapes_the_name_it_refuses(void **state)
{
    (void)state;
    uint8_t header[TAR_BLOCK_SIZE];
    make_header(header, "/\033[2J\xff'\\", '0', 0);
    seal(header);
    SCOPED_BYTES ByteWriter archive = {0};
    byte_writer_bytes(&archive, header, sizeof header);
    Seen seen = {0};
    CairnError err = {0};
    assert_int_equal(parse(&archive, 0, &seen, &err), CAIRN_CORRUPT);
    assert_non_null(strstr(err.message, "'/\\033[2J\\377\\047\\134'"));
    byte_writer_free(&seen.text);
}

static void
test_tar_parser_hands_on_the_callbacks_error(void **state)
{
    (void)state;
    SCOPED_BYTES ByteWriter archive = {0};
    add_member(&archive, "a", '0', "", "x", 1);
    add_end(&archive);
    for (int fail_at = 1; fail_at <= 3; fail_at++) {
        Seen seen = {.fail_at = fail_at};
        CairnError err = {0};
        assert_int_equal(parse(&archive, 0, &seen, &err), CAIRN_CANCELLED);
        byte_writer_free(&seen.text);
    }
}

static void
test_path_is_clean_limits_the_length(void **state)
{
    (void)state;
    char path[TAR_PATH_LIMIT + 1];
    memset(path, 'p', sizeof path);
    assert_true(path_is_clean(path, TAR_PATH_LIMIT));
    assert_false(path_is_clean(path, TAR_PATH_LIMIT + 1));
    assert_false(path_is_clean(path, 0));
    assert_false(path_is_clean("a\0b", 3));
    assert_true(path_is_clean("...", 3));
    assert_true(path_is_clean("..a/b../.c", 10));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tar_parser_shows_members_however_the_bytes_come),
        cmocka_unit_test(test_tar_parser_is_ready_again_after_finish),
        cmocka_unit_test(test_tar_parser_refuses_every_truncation),
        cmocka_unit_test(test_tar_parser_accepts_zeros_but_nothing_else_after_the_end),
        cmocka_unit_test(test_tar_parser_refuses_a_member_after_one_zero_block),
        cmocka_unit_test(test_tar_parser_refuses_padding_with_content),
        cmocka_unit_test(test_tar_parser_refuses_dirty_names),
        cmocka_unit_test(test_tar_parser_refuses_a_second_name_behind_a_nul),
        cmocka_unit_test(test_tar_parser_takes_names_that_fill_their_field),
        cmocka_unit_test(test_tar_parser_refuses_damaged_fields),
        cmocka_unit_test(test_tar_parser_detects_every_flipped_bit_of_a_header),
        cmocka_unit_test(test_tar_parser_reads_base_256_sizes),
        cmocka_unit_test(test_tar_parser_takes_links_only_for_tablespaces),
        cmocka_unit_test(test_tar_parser_refuses_data_in_directories_and_links),
        cmocka_unit_test(test_tar_parser_escapes_the_name_it_refuses),
        cmocka_unit_test(test_tar_parser_hands_on_the_callbacks_error),
        cmocka_unit_test(test_path_is_clean_limits_the_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
