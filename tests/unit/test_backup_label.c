#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "postgres/backup_label.h"

#define START "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n"
#define CHECKPOINT "CHECKPOINT LOCATION: 0/2000060\n"
#define METHOD "BACKUP METHOD: streamed\n"
#define FROM "BACKUP FROM: primary\n"
#define TIME "START TIME: 2026-11-23 06:14:07 UTC\n"
#define LABEL "LABEL: pg_basebackup base backup\n"
#define TIMELINE "START TIMELINE: 1\n"

enum { TEXT_SIZE = 1024 };

/* Parses a copy of exactly size bytes, so that a read past the end is seen by the sanitizer. */
static CairnErrorKind
parse(const char *text, size_t size, BackupLabel *label)
{
    char *copy = malloc(size > 0 ? size : 1);
    assert_non_null(copy);
    memcpy(copy, text, size);
    CairnError err = {0};
    const bool good = backup_label_parse(copy, size, label, &err);
    free(copy);
    assert_int_equal(good, err.kind == CAIRN_OK);
    return err.kind;
}

static CairnErrorKind
kind_of(const char *text)
{
    BackupLabel label;
    return parse(text, strlen(text), &label);
}

static void
test_backup_label_parse_reads_what_the_server_wrote(void **state)
{
    (void)state;
    BackupLabel label;
    const char *text = START CHECKPOINT METHOD FROM TIME LABEL TIMELINE;
    assert_int_equal(parse(text, strlen(text), &label), CAIRN_OK);
    assert_true(label.start_lsn == 0x2000028);
    assert_true(label.checkpoint_lsn == 0x2000060);
    assert_int_equal(label.start_timeline, 1);
    assert_false(label.from_standby);
}

static void
test_backup_label_parse_reads_standby_and_other_segment_sizes(void **state)
{
    (void)state;
    /* 1 GiB segments: the low part counts gigabytes. */
    const char *text = "START WAL LOCATION: 1A/C0000028 (file 0000000B0000001A00000003)\n"
                       "CHECKPOINT LOCATION: 1A/D0000060\n" METHOD "BACKUP FROM: standby\n" TIME
                       "LABEL: \nSTART TIMELINE: 11\n";
    BackupLabel label;
    assert_int_equal(parse(text, strlen(text), &label), CAIRN_OK);
    assert_true(label.start_lsn == UINT64_C(0x1AC0000028));
    assert_int_equal(label.start_timeline, 11);
    assert_true(label.from_standby);
}

static void
append(char text[TEXT_SIZE], const char *line)
{
    const size_t size = strlen(text);
    snprintf(text + size, TEXT_SIZE - size, "%s", line);
}

static void
test_backup_label_parse_refuses_every_missing_or_moved_line(void **state)
{
    (void)state;
    static const char *const lines[] = {START, CHECKPOINT, METHOD, FROM, TIME, LABEL, TIMELINE};
    enum { LINES = sizeof lines / sizeof lines[0] };

    for (size_t missing = 0; missing < LINES; missing++) {
        char text[TEXT_SIZE] = "";
        char swapped[TEXT_SIZE] = "";
        for (size_t i = 0; i < LINES; i++) {
            if (i != missing)
                append(text, lines[i]);
            append(swapped, lines[i == missing ? (i + 1) % LINES : i]);
        }
        assert_int_equal(kind_of(text), CAIRN_CORRUPT);
        assert_int_equal(kind_of(swapped), CAIRN_CORRUPT);
    }
}

static void
test_backup_label_parse_refuses_every_truncation(void **state)
{
    (void)state;
    const char *text = START CHECKPOINT METHOD FROM TIME LABEL TIMELINE;
    BackupLabel label;
    for (size_t size = 0; size < strlen(text); size++)
        assert_int_equal(parse(text, size, &label), CAIRN_CORRUPT);
}

static void
test_backup_label_parse_refuses_lies(void **state)
{
    (void)state;
#define REST METHOD FROM TIME LABEL TIMELINE
    static const char *const texts[] = {
        /* file and LSN, file and timeline contradict each other */
        "START WAL LOCATION: 0/2000028 (file 000000010000000000000003)\n" CHECKPOINT REST,
        "START WAL LOCATION: 0/2000028 (file 000000010000000100000002)\n" CHECKPOINT REST,
        "START WAL LOCATION: 0/2000028 (file 000000020000000000000002)\n" CHECKPOINT REST,
        START CHECKPOINT METHOD FROM TIME LABEL "START TIMELINE: 2\n",
        "START WAL LOCATION: 0/2000028 (file 00000001000000000000002)\n" CHECKPOINT REST,
        "START WAL LOCATION: 0/2000028 (file 0000000100000000000000022)\n" CHECKPOINT REST,
        "START WAL LOCATION: 0/2000028 (file 000000010000000000000002\n" CHECKPOINT REST,
        "START WAL LOCATION: 0/2000028 (file 000000010000000000000002) \n" CHECKPOINT REST,
        "START WAL LOCATION: 000000000000/2000028 (file 000000010000000000000002)\n" CHECKPOINT
            REST,
        "START WAL LOCATION: x/2000028 (file 000000010000000000000002)\n" CHECKPOINT REST,
        /* the redo point lies behind its checkpoint */
        START "CHECKPOINT LOCATION: 0/2000020\n" REST,
        START "CHECKPOINT LOCATION: 0/2000060 \n" REST,
        START CHECKPOINT "BACKUP METHOD: pg_start_backup\n" FROM TIME LABEL TIMELINE,
        START CHECKPOINT METHOD "BACKUP FROM: standbyx\n" TIME LABEL TIMELINE,
        START CHECKPOINT METHOD "BACKUP FROM: \n" TIME LABEL TIMELINE,
        START CHECKPOINT METHOD FROM TIME LABEL "START TIMELINE: \n",
        START CHECKPOINT METHOD FROM TIME LABEL "START TIMELINE: 4294967297\n",
        START CHECKPOINT METHOD FROM TIME LABEL "START TIMELINE: 1x\n",
        START CHECKPOINT METHOD FROM TIME LABEL TIMELINE "\n",
        START CHECKPOINT METHOD FROM TIME LABEL TIMELINE TIMELINE,
        START CHECKPOINT METHOD FROM TIME LABEL TIMELINE "garbage",
        "",
        "\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (kind_of(texts[i]) != CAIRN_CORRUPT)
            fail_msg("wrong answer to case %zu:\n%s", i, texts[i]);
    }
}

static void
test_backup_label_parse_refuses_a_label_too_long(void **state)
{
    (void)state;
    char label_text[1100];
    char text[2048];
    for (size_t size = 1024; size <= 1025; size++) {
        memset(label_text, 'x', size);
        label_text[size] = '\0';
        snprintf(text, sizeof text, "%sLABEL: %s\n%s", START CHECKPOINT METHOD FROM TIME,
                 label_text, TIMELINE);
        assert_int_equal(kind_of(text), size == 1024 ? CAIRN_OK : CAIRN_CORRUPT);
    }
}

static void
test_backup_label_parse_names_an_incremental(void **state)
{
    (void)state;
    assert_int_equal(kind_of(START CHECKPOINT METHOD FROM TIME LABEL TIMELINE
                             "INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n"),
                     CAIRN_UNSUPPORTED);
}

typedef struct {
    size_t count;
    Tablespace tablespaces[8];
} Collected;

static bool
collect(void *context, const Tablespace *tablespace, CairnError *err)
{
    Collected *collected = context;
    if (collected->count == 8)
        return cairn_error(err, CAIRN_CANCELLED, "enough");
    collected->tablespaces[collected->count++] = *tablespace;
    return true;
}

static CairnErrorKind
parse_map(const char *text, size_t size, Collected *collected)
{
    CairnError err = {0};
    *collected = (Collected){0};
    const bool good = tablespace_map_parse(text, size, collect, collected, &err);
    assert_int_equal(good, err.kind == CAIRN_OK);
    return err.kind;
}

static void
test_tablespace_map_round_trips_every_path(void **state)
{
    (void)state;
    static const Tablespace tablespaces[] = {
        {16389, "/srv/ts1"},      {16390, "/srv/ts\\two\n x"}, {1, "/ leading and trailing "},
        {4294967295, "/\r\n\\n"}, {16400, "pg_tblspc/16400"},
    };
    enum { COUNT = sizeof tablespaces / sizeof tablespaces[0] };
    SCOPED_BYTES ByteWriter map = {0};
    for (size_t i = 0; i < COUNT; i++)
        tablespace_map_append(&map, &tablespaces[i]);

    Collected collected;
    assert_int_equal(parse_map((const char *)map.data, map.size, &collected), CAIRN_OK);
    assert_int_equal(collected.count, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(collected.tablespaces[i].oid, tablespaces[i].oid);
        assert_string_equal(collected.tablespaces[i].path, tablespaces[i].path);
    }
}

static void
test_tablespace_map_escapes_as_the_server_does(void **state)
{
    (void)state;
    /* tablespace_map of a real backup */
    static const char real[] = "16389 /var/ts1\n16390 /var/ts\\\\two\\\n x\n";
    static const Tablespace tablespaces[] = {{16389, "/var/ts1"}, {16390, "/var/ts\\two\n x"}};
    SCOPED_BYTES ByteWriter map = {0};
    for (size_t i = 0; i < 2; i++)
        tablespace_map_append(&map, &tablespaces[i]);
    assert_int_equal(map.size, sizeof real - 1);
    assert_memory_equal(map.data, real, sizeof real - 1);
}

static void
test_tablespace_map_may_be_empty(void **state)
{
    (void)state;
    Collected collected;
    assert_int_equal(parse_map("", 0, &collected), CAIRN_OK);
    assert_int_equal(collected.count, 0);
}

static void
test_tablespace_map_refuses_what_recovery_would_not_read(void **state)
{
    (void)state;
    static const char *const maps[] = {
        "16389",
        "16389\n",
        "16389 \n",
        "16389 /x",   /* incomplete last line */
        "16389 /x\\", /* and one that ends in an escape */
        "16389 /x\\\n",
        " 16389 /x\n",
        "x /x\n",
        "0 /x\n",
        "016389 /x\n",
        "-1 /x\n",
        "4294967296 /x\n",
        "16389/x\n",
        "16389 relative\n",
        "16389 pg_tblspc/16390\n",
        "16389 ../x\n",
        "16389  /x\n", /* the path would be " /x" */
        "16389 /x\n16389 /y\n",
    };
    for (size_t i = 0; i < sizeof maps / sizeof maps[0]; i++) {
        Collected collected;
        if (parse_map(maps[i], strlen(maps[i]), &collected) != CAIRN_CORRUPT)
            fail_msg("accepted case %zu: %s", i, maps[i]);
    }
    Collected collected;
    assert_int_equal(parse_map("16389 /x\0y\n", 12, &collected), CAIRN_CORRUPT);
}

static void
test_tablespace_map_limits_the_path(void **state)
{
    (void)state;
    for (size_t size = TABLESPACE_PATH_LIMIT - 1; size <= 3 * TABLESPACE_PATH_LIMIT;
         size += TABLESPACE_PATH_LIMIT / 2 + 1) {
        char *text = malloc(size + 16);
        assert_non_null(text);
        memcpy(text, "4294967295 ", 11);
        memset(text + 11, 'x', size);
        text[11] = '/';
        text[11 + size] = '\n';
        Collected collected;
        assert_int_equal(parse_map(text, size + 12, &collected),
                         size < TABLESPACE_PATH_LIMIT ? CAIRN_OK : CAIRN_CORRUPT);
        free(text);
    }
}

static bool
count_only(void *context, const Tablespace *tablespace, CairnError *err)
{
    (void)tablespace;
    (void)err;
    ++*(size_t *)context;
    return true;
}

static void
test_tablespace_map_limits_the_number(void **state)
{
    (void)state;
    SCOPED_BYTES ByteWriter map = {0};
    for (uint32_t i = 1; i <= TABLESPACE_LIMIT + 1; i++) {
        const Tablespace tablespace = {.oid = i, .path = "/x"};
        tablespace_map_append(&map, &tablespace);
    }
    size_t count = 0;
    CairnError err = {0};
    assert_false(tablespace_map_parse((const char *)map.data, map.size, count_only, &count, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    assert_int_equal(count, TABLESPACE_LIMIT);
}

static void
test_tablespace_map_hands_on_the_callbacks_error(void **state)
{
    (void)state;
    SCOPED_BYTES ByteWriter map = {0};
    for (uint32_t i = 1; i <= 9; i++) {
        const Tablespace tablespace = {.oid = i, .path = "/x"};
        tablespace_map_append(&map, &tablespace);
    }
    Collected collected;
    assert_int_equal(parse_map((const char *)map.data, map.size, &collected), CAIRN_CANCELLED);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backup_label_parse_reads_what_the_server_wrote),
        cmocka_unit_test(test_backup_label_parse_reads_standby_and_other_segment_sizes),
        cmocka_unit_test(test_backup_label_parse_refuses_every_missing_or_moved_line),
        cmocka_unit_test(test_backup_label_parse_refuses_every_truncation),
        cmocka_unit_test(test_backup_label_parse_refuses_lies),
        cmocka_unit_test(test_backup_label_parse_refuses_a_label_too_long),
        cmocka_unit_test(test_backup_label_parse_names_an_incremental),
        cmocka_unit_test(test_tablespace_map_round_trips_every_path),
        cmocka_unit_test(test_tablespace_map_escapes_as_the_server_does),
        cmocka_unit_test(test_tablespace_map_may_be_empty),
        cmocka_unit_test(test_tablespace_map_refuses_what_recovery_would_not_read),
        cmocka_unit_test(test_tablespace_map_limits_the_path),
        cmocka_unit_test(test_tablespace_map_limits_the_number),
        cmocka_unit_test(test_tablespace_map_hands_on_the_callbacks_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
