#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/info.h"
#include "repository/json.h"

#include <string.h>

#define SECOND INT64_C(1000000)
#define NOON (INT64_C(1795435200) * SECOND) /* 2026-11-23 12:00:00 UTC */

/* One cluster, built on the stack, of what a test fills in. */
typedef struct {
    Info info;
    InfoCluster cluster;
    InfoBackup backups[2];
    CatalogBackup stored[2];
    Fate fate;
    FateChecksumFailure failures[2];
    InfoIncarnation incarnation;
    InfoTimeline timeline;
    InfoWindow windows[3];
} Sample;

static void
sample_fill(Sample *sample)
{
    *sample = (Sample){0};
    sample->info.repository_name = "main";
    sample->info.repository_path = "/var/lib/pgcairn";
    memset(sample->info.repository_id, 'a', sizeof sample->info.repository_id - 1);
    sample->info.now_us = NOON;
    sample->info.clusters = &sample->cluster;
    sample->info.cluster_count = 1;
    sample->cluster.name = "sales";
    sample->cluster.backups = sample->backups;
    sample->backups[0].backup = &sample->stored[0];
    assert_true(backup_id_parse("0000000012-3f9a010203040506", &sample->stored[0].bid));
    sample->stored[0].fate = &sample->fate;
    sample->fate.label = "20261123-113000F";
    sample->fate.type = "full";
    sample->fate.cluster = "sales";
    sample->fate.server_version = "15.18";
    sample->fate.system_id = UINT64_MAX;
    sample->fate.start_lsn = 0x3000028;
    sample->fate.stop_lsn = 0x3000100;
    sample->fate.start_timeline = sample->fate.stop_timeline = 1;
    sample->fate.started_us = NOON - 1800 * SECOND;
    sample->fate.stopped_us = NOON - 1700 * SECOND + 1;
    sample->fate.checksum_failures = sample->failures;
    sample->backups[0].state = INFO_WAL_COMPLETE;
    sample->cluster.backup_count = 1;
}

static const char *
text_of(const Sample *sample, ByteWriter *text)
{
    CairnError err = {0};
    info_format_text(&sample->info, text);
    byte_writer_u8(text, '\0');
    assert_true(byte_writer_check(text, &err));
    return (const char *)text->data;
}

static void
expect_text(const Sample *sample, const char *part)
{
    SCOPED_BYTES ByteWriter text = {0};
    if (strstr(text_of(sample, &text), part) == NULL)
        fail_msg("no '%s' in:\n%s", part, (const char *)text.data);
}

static void
the_first_line_says_what_is_recoverable(void **state)
{
    (void)state;
    Sample sample;
    sample_fill(&sample);
    sample.cluster.recoverable = (InfoRecoverable){.possible = true,
                                                   .from_us = NOON - 1700 * SECOND + 1,
                                                   .to_us = NOON - 4 * SECOND,
                                                   .rpo_us = 4 * SECOND};
    SCOPED_BYTES ByteWriter text = {0};
    const char *first =
        "recoverable: 2026-11-23 11:31:40+00 .. 2026-11-23 11:59:56+00 (no gaps), RPO now 4 s, "
        "last proven restore never\n";
    assert_int_equal(strncmp(text_of(&sample, &text), first, strlen(first)), 0);
}

static void
gaps_and_proof_are_said(void **state)
{
    (void)state;
    Sample sample;
    sample_fill(&sample);
    sample.cluster.recoverable = (InfoRecoverable){.possible = true,
                                                   .from_us = NOON,
                                                   .to_us = NOON,
                                                   .gap_count = 2,
                                                   .gap_start_lsn = 0x3000000,
                                                   .gap_end_lsn = 0x4000000,
                                                   .rpo_us = 3 * 3600 * SECOND + 300 * SECOND,
                                                   .last_proven_us = NOON};
    expect_text(&sample, "(2 gaps, the first: 0/3000000 .. 0/4000000), RPO now 3 h 5 min, last "
                         "proven restore 2026-11-23 12:00:00+00\n");
    sample.cluster.recoverable.gap_count = 1;
    expect_text(&sample, "(1 gap: 0/3000000 .. 0/4000000),");
    sample.cluster.recoverable.last_rto_us = 692 * SECOND;
    expect_text(&sample, "last proven restore 2026-11-23 12:00:00+00 (RTO 11m32s)\n");
    sample.cluster.recoverable.last_rto_us = 7260 * SECOND;
    expect_text(&sample, "(RTO 2h01m)\n");
}

static void
nothing_usable_is_said_first(void **state)
{
    (void)state;
    Sample sample;
    sample_fill(&sample);
    expect_text(&sample, "recoverable: nothing (no usable backup), last proven restore never\n");
    sample.info.cluster_count = 0;
    expect_text(&sample, "recoverable: nothing (no cluster is recorded");
}

static void
holes_are_shown_between_runs(void **state)
{
    (void)state;
    Sample sample;
    sample_fill(&sample);
    sample.windows[0] = (InfoWindow){.start_lsn = 0x1000000,
                                     .end_lsn = 0x3000000,
                                     .segment_count = 2,
                                     .first_segment = "000000010000000000000001",
                                     .last_segment = "000000010000000000000002"};
    sample.windows[1] = (InfoWindow){.is_hole = true,
                                     .start_lsn = 0x3000000,
                                     .end_lsn = 0x4000000,
                                     .segment_count = 1,
                                     .first_segment = "000000010000000000000003",
                                     .last_segment = "000000010000000000000003"};
    sample.windows[2] = (InfoWindow){.start_lsn = 0x4000000,
                                     .end_lsn = 0x5000000,
                                     .segment_count = 1,
                                     .first_segment = "000000010000000000000004",
                                     .last_segment = "000000010000000000000004"};
    sample.timeline = (InfoTimeline){.timeline = 2,
                                     .parent = 1,
                                     .fork_lsn = 0x1500000,
                                     .windows = sample.windows,
                                     .window_count = 3,
                                     .hole_count = 1};
    sample.incarnation = (InfoIncarnation){.timelines = &sample.timeline, .timeline_count = 1};
    sample.cluster.incarnations = &sample.incarnation;
    sample.cluster.incarnation_count = 1;
    expect_text(&sample, "timeline 2 (from 1 at 0/1500000)\n");
    expect_text(&sample, "HOLE  0/3000000 .. 0/4000000  1 missing: 000000010000000000000003");

    SCOPED_JSON json_t *json = info_format_json(&sample.info);
    json_t *timeline = json_array_get(
        json_object_get(
            json_array_get(json_object_get(json_array_get(json_object_get(json, "clusters"), 0),
                                           "incarnations"),
                           0),
            "timelines"),
        0);
    assert_int_equal(json_array_size(json_object_get(timeline, "windows")), 2);
    assert_int_equal(json_array_size(json_object_get(timeline, "holes")), 1);
    assert_int_equal(json_integer_value(json_object_get(timeline, "parent")), 1);
}

static void
checksum_failures_are_listed_by_file_and_block(void **state)
{
    (void)state;
    Sample sample;
    sample_fill(&sample);
    sample.backups[0].state = INFO_DAMAGED;
    sample.failures[0] = (FateChecksumFailure){"base/5/16385", 3};
    sample.failures[1] = (FateChecksumFailure){"base/5/16385.1", 131072};
    sample.fate.checksum_failures_listed = 2;
    sample.fate.checksum_failure_count = 5;
    expect_text(&sample, "checksum failure: base/5/16385 block 3\n");
    expect_text(&sample, "checksum failure: base/5/16385.1 block 131072\n");
    expect_text(&sample, "and 3 more\n");
}

static void
a_backup_without_a_fate_has_a_row(void **state)
{
    (void)state;
    Sample sample;
    sample_fill(&sample);
    sample.stored[1] = sample.stored[0];
    sample.stored[1].fate = NULL;
    sample.backups[1] = (InfoBackup){.backup = &sample.stored[1], .state = INFO_UNFINISHED};
    sample.cluster.backup_count = 2;
    expect_text(&sample, "12-3f9a01     full  wal-complete");
    expect_text(&sample, "12-3f9a01     -     unfinished\n");
}

static void
json_keeps_numbers_that_floats_would_lose(void **state)
{
    (void)state;
    Sample sample;
    sample_fill(&sample);
    SCOPED_JSON json_t *json = info_format_backup_json(&sample.backups[0]);
    assert_non_null(json);
    assert_string_equal(json_string_value(json_object_get(json, "system_id")),
                        "18446744073709551615");
    assert_string_equal(json_string_value(json_object_get(json, "start_lsn")), "0/3000028");
    assert_string_equal(json_string_value(json_object_get(json, "state")), "wal-complete");
    assert_true(json_is_null(json_object_get(json, "name")));
    assert_true(json_is_null(json_object_get(json, "drilled_at")));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_line_says_what_is_recoverable),
        cmocka_unit_test(gaps_and_proof_are_said),
        cmocka_unit_test(nothing_usable_is_said_first),
        cmocka_unit_test(holes_are_shown_between_runs),
        cmocka_unit_test(checksum_failures_are_listed_by_file_and_block),
        cmocka_unit_test(a_backup_without_a_fate_has_a_row),
        cmocka_unit_test(json_keeps_numbers_that_floats_would_lose),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
