/*
 * Backups for tests of retention, written as text: "F2026-11-01 I2026-11-02! ..." is a full of
 * 1 November, 03:00 UTC, and an incremental of the next day that is damaged. Type F or I, date,
 * then "T05:30" for another time, and flags: ! damaged, ? lacks WAL, ^ kept by hand, ~ expired
 * already, = released, # unreadable, and "/2" for another timeline, "@7" for another system. The
 * label is the text from date to time. Each stands 1 GiB of WAL after the one before it. Failures
 * are cmocka's.
 */
#ifndef PGCAIRN_TESTS_RETENTION_FIXTURE_H
#define PGCAIRN_TESTS_RETENTION_FIXTURE_H

#include "agent/retention_plan.h"

enum { RETENTION_TEST_BACKUPS = 4096, RETENTION_TEST_TIMELINES = 8 };

typedef struct {
    RetentionPolicy policy;
    RetentionInput input;
    RetentionBackup backups[RETENTION_TEST_BACKUPS];
    RetentionTimeline timelines[RETENTION_TEST_TIMELINES];
    RetentionIncarnation incarnations[2];
    char labels[RETENTION_TEST_BACKUPS][24];
} RetentionCase;

#define TEST_LSN_STEP (UINT64_C(1) << 30)

/* "2026-11-01" or "2026-11-01T05:30"; without a time 03:00. */
int64_t retention_test_time(const char *text);
/* Malloc'ed; now as in retention_test_time. Knows system 1 alone, and no timelines. */
RetentionCase *retention_case(const char *policy, const char *now, const char *backups);
/* count more, every step_us, from the time of a first one; each full_one_in-th is a full. */
void retention_case_series(RetentionCase *test, const char *first, int64_t step_us, size_t count,
                           size_t full_one_in);
void retention_case_timeline(RetentionCase *test, uint32_t timeline, uint32_t parent,
                             uint64_t fork_lsn, bool is_leaf);
/* Labels of what a plan keeps, apart by blanks; malloc'ed. */
char *retention_kept(const RetentionPlan *plan);
/* A decision's reasons, apart by ", "; malloc'ed. */
char *retention_reasons(const RetentionPlan *plan, const char *label);

#endif
