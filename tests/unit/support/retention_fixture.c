#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/timestamp.h"
#include "tests/unit/support/retention_fixture.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int64_t
retention_test_time(const char *text)
{
    char whole[48];
    CairnError err = {0};
    Timestamp timestamp;
    snprintf(whole, sizeof whole, "%s%s+00", text, strchr(text, 'T') == NULL ? "T03:00" : "");
    if (!timestamp_parse(whole, &timestamp, &err))
        fail_msg("%s", err.message);
    return timestamp.time_us;
}

static RetentionBackup *
add_backup(RetentionCase *test, bool is_full, const char *label)
{
    const size_t index = test->input.backup_count++;
    assert_true(index < RETENTION_TEST_BACKUPS);
    snprintf(test->labels[index], sizeof test->labels[index], "%s", label);
    const int64_t stopped_us = retention_test_time(label);
    RetentionBackup *backup = &test->backups[index];
    *backup = (RetentionBackup){
        .label = test->labels[index],
        .is_full = is_full,
        .wal_complete = true,
        .system_id = 1,
        .major = 17,
        .timeline = 1,
        .start_lsn = (index + 1) * TEST_LSN_STEP,
        .stop_lsn = (index + 1) * TEST_LSN_STEP + 0x1000,
        .reach_lsn = UINT64_MAX,
        .started_us = stopped_us - 600 * INT64_C(1000000),
        .stopped_us = stopped_us,
        .size_bytes = UINT64_C(10) << 30,
    };
    snprintf(backup->bid.text, sizeof backup->bid.text, "%010zu-00000000000000aa", index + 1);
    if (index > 0)
        backup->previous = test->backups[index - 1].bid;
    return backup;
}

static void
add_text(RetentionCase *test, const char *text, size_t size)
{
    char label[24] = "";
    const size_t label_size = strcspn(text, " !?^~=#/@");
    assert_true(text[0] == 'F' || text[0] == 'I');
    assert_true(label_size > 1 && label_size <= size && label_size < sizeof label);
    memcpy(label, text + 1, label_size - 1);
    RetentionBackup *backup = add_backup(test, text[0] == 'F', label);
    for (size_t i = label_size; i < size; i++) {
        switch (text[i]) {
        case '!':
            backup->damaged = true;
            break;
        case '?':
            backup->wal_complete = false;
            break;
        case '^':
            backup->kept = true;
            break;
        case '~':
            backup->expired = true;
            break;
        case '=':
            backup->released = true;
            break;
        case '#':
            backup->unreadable = true;
            break;
        case '/':
            backup->timeline = (uint32_t)(text[++i] - '0');
            break;
        case '@':
            backup->system_id = (uint64_t)(text[++i] - '0');
            break;
        default:
            fail_msg("flag '%c'", text[i]);
        }
    }
}

RetentionCase *
retention_case(const char *policy, const char *now, const char *backups)
{
    CairnError err = {0};
    RetentionCase *test = calloc(1, sizeof *test);
    assert_non_null(test);
    if (!retention_policy_parse(policy, &test->policy, &err))
        fail_msg("%s", err.message);
    test->incarnations[0] = (RetentionIncarnation){1, 17};
    test->input = (RetentionInput){
        .policy = &test->policy,
        .now_us = retention_test_time(now),
        .newest_object_us = retention_test_time(now),
        .backups = test->backups,
        .timelines = test->timelines,
        .incarnations = test->incarnations,
        .incarnation_count = 1,
    };
    while (*backups != '\0') {
        const size_t size = strcspn(backups, " ");
        if (size > 0)
            add_text(test, backups, size);
        backups += size + (backups[size] == ' ' ? 1 : 0);
    }
    return test;
}

void
retention_case_series(RetentionCase *test, const char *first, int64_t step_us, size_t count,
                      size_t full_one_in)
{
    const int64_t first_us = retention_test_time(first);
    for (size_t i = 0; i < count; i++) {
        char text[TIMESTAMP_TEXT_SIZE];
        timestamp_format(text, first_us + (int64_t)i * step_us);
        text[10] = 'T';
        text[16] = '\0';
        add_backup(test, i % full_one_in == 0, text);
    }
}

void
retention_case_timeline(RetentionCase *test, uint32_t timeline, uint32_t parent, uint64_t fork_lsn,
                        bool is_leaf)
{
    assert_true(test->input.timeline_count < RETENTION_TEST_TIMELINES);
    test->timelines[test->input.timeline_count++] =
        (RetentionTimeline){1, 17, timeline, parent, fork_lsn, is_leaf, false};
}

static char *
join(char *text, const char *separator, const char *more)
{
    char *joined = NULL;
    assert_true(asprintf(&joined, "%s%s%s", text, text[0] != '\0' ? separator : "", more) >= 0);
    free(text);
    return joined;
}

char *
retention_kept(const RetentionPlan *plan)
{
    char *text = strdup("");
    for (size_t i = 0; i < plan->input->backup_count; i++) {
        if (plan->decisions[i].live && plan->decisions[i].keep)
            text = join(text, " ", plan->input->backups[i].label);
    }
    return text;
}

char *
retention_reasons(const RetentionPlan *plan, const char *label)
{
    char *text = strdup("");
    for (size_t i = 0; i < plan->input->backup_count; i++) {
        if (strcmp(plan->input->backups[i].label, label) != 0)
            continue;
        for (size_t k = 0; k < plan->decisions[i].reason_count; k++)
            text = join(text, ", ", plan->decisions[i].reasons[k]);
        return text;
    }
    fail_msg("no backup %s", label);
    return text;
}
