/*
 * Ten thousand backups and ten million WAL names: what info and a plan cost. The storage is the one
 * in memory; names of WAL are made up while they are listed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/expire.h"
#include "common/calendar.h"
#include "common/timestamp.h"
#include "repository/mark.h"
#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/repository_fixture.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BACKUPS = 10000, WAL_NAMES = 10000000, PER_LOG = 256, SEGMENT_SIZE = 16 << 20 };

#define HOUR (CALENDAR_DAY_US / 24)
#define SYSTEM_ID UINT64_C(0x1122334455667788)
#define WAL_PREFIX "c/main/w/1122334455667788-17/00000001"
#define SEGMENTS_PER_BACKUP (WAL_NAMES / BACKUPS)

/* Everything is the memory's, but listings below WAL_PREFIX. */
typedef struct {
    StorageOps ops;
    Storage base;
    Storage *memory;
    int64_t now_us;
} WideStorage;

static WideStorage *
wide(Storage *storage)
{
    return (WideStorage *)((char *)storage - offsetof(WideStorage, base));
}

static void
wide_close(Storage *storage)
{
    storage_close(wide(storage)->memory);
    free(wide(storage));
}

static StorageWriter *
wide_create(Storage *storage, const char *name, CairnError *err)
{
    return storage_create(wide(storage)->memory, name, err);
}

static StorageReader *
wide_open(Storage *storage, const char *name, CairnError *err)
{
    return storage_open(wide(storage)->memory, name, err);
}

static bool
wide_exists(Storage *storage, const char *name, uint64_t *size_out, CairnError *err)
{
    return storage_exists(wide(storage)->memory, name, size_out, err);
}

static StorageListNext
give(StorageListCallback *callback, void *context, const char *name, bool is_directory,
     int64_t modified_us, CairnError *err)
{
    return callback(context,
                    &(StorageEntry){.name = name,
                                    .is_directory = is_directory,
                                    .size_bytes = is_directory ? 0 : 4096,
                                    .modified_us = modified_us},
                    err);
}

static bool
wide_list(Storage *storage, const char *prefix, StorageListCallback *callback, void *context,
          CairnError *err)
{
    char name[64];
    const size_t size = strlen(WAL_PREFIX);
    if (strcmp(prefix, "c/main/w/1122334455667788-17") == 0)
        return give(callback, context, "00000001", true, 0, err) != STORAGE_LIST_FAILED;
    if (strncmp(prefix, WAL_PREFIX, size) != 0)
        return storage_list(wide(storage)->memory, prefix, callback, context, err);
    StorageListNext next = STORAGE_LIST_GO_ON;
    if (prefix[size] == '\0') {
        for (unsigned log = 0; log <= WAL_NAMES / PER_LOG && next == STORAGE_LIST_GO_ON; log++) {
            snprintf(name, sizeof name, "%08X", log);
            next = give(callback, context, name, true, 0, err);
        }
        return next != STORAGE_LIST_FAILED;
    }
    static const char DIGITS[] = "0123456789ABCDEF";
    snprintf(name, sizeof name, "00000001%.8s00000000", prefix + size + 1);
    for (unsigned i = 0; i < PER_LOG && next == STORAGE_LIST_GO_ON; i++) {
        name[22] = DIGITS[i / 16]; /* ten million times: no printf */
        name[23] = DIGITS[i % 16];
        next = give(callback, context, name, false, wide(storage)->now_us - HOUR, err);
    }
    return next != STORAGE_LIST_FAILED;
}

static Repository *
wide_repository(int64_t now_us)
{
    CairnError err = {0};
    WideStorage *storage = calloc(1, sizeof *storage);
    assert_non_null(storage);
    storage->memory = memory_storage_new();
    storage->now_us = now_us;
    storage->ops = *storage->memory->ops;
    storage->ops.close = wide_close;
    storage->ops.create = wide_create;
    storage->ops.open = wide_open;
    storage->ops.exists = wide_exists;
    storage->ops.list = wide_list;
    storage->base.ops = &storage->ops;
    const RepositoryConfig config = {
        .name = "memory", .path = "/", .encryption = "none", .compression = "none"};
    Repository *repository =
        repository_open_storage(world_real(), &config, &storage->base, true, &err);
    assert_non_null(repository);
    test_encrypt_as_asked(repository);
    return repository;
}

/* Hourly for more than a year, the newest an hour ago; each hundredth kept, some expired. */
static void
fill(Repository *repository, int64_t now_us)
{
    CairnError err = {0};
    const Incarnation incarnation = {
        .system_id = SYSTEM_ID, .major = 17, .wal_segment_size = SEGMENT_SIZE};
    assert_true(incarnation_record(repository, "main", &incarnation, &err));
    BackupId previous = {""};
    for (uint64_t i = 0; i < BACKUPS; i++) {
        char label[TIMESTAMP_TEXT_SIZE + 2];
        const BackupId bid = test_backup_id(i + 1);
        const int64_t stopped_us = now_us - (int64_t)(BACKUPS - i) * HOUR;
        timestamp_format_label(label, stopped_us);
        memcpy(label + strlen(label), "F", sizeof "F");
        SCOPED(Fate) fate = test_fate(&bid, label);
        fate->system_id = SYSTEM_ID;
        fate->start_timeline = fate->stop_timeline = 1;
        fate->wal_segment_size = SEGMENT_SIZE;
        fate->start_lsn = (i * SEGMENTS_PER_BACKUP + 1) * SEGMENT_SIZE + 40;
        fate->stop_lsn = fate->start_lsn + 0x100;
        fate->started_us = fate->stopped_us = stopped_us;
        fate->previous_bid = previous;
        previous = bid;
        assert_true(fate_commit(repository, fate, &err));
        if (i % 100 == 0)
            assert_true(mark_add(repository, "main", &bid, MARK_KEEP, "", &err));
        if (i % 100 == 1)
            assert_true(mark_add(repository, "main", &bid, MARK_EXPIRE, "", &err));
    }
}

static double
cpu_seconds(void)
{
    struct timespec now;
    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now), 0);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void
ten_thousand_backups_are_shown_and_planned_in_seconds(void **state)
{
    (void)state;
    CairnError err = {0};
    const Clock *clock = world_real()->clock;
    const int64_t now_us = clock->wall_us(clock);
    double start = cpu_seconds();
    SCOPED(Repository) repository = wide_repository(now_us);
    fill(repository, now_us);
    const double fill_s = cpu_seconds() - start;

    start = cpu_seconds();
    SCOPED(Info) info = info_read(repository, "main", &err);
    if (info == NULL)
        fail_msg("%s", err.message);
    SCOPED_BYTES ByteWriter info_text = {0};
    info_format_text(info, &info_text);
    const double info_s = cpu_seconds() - start;
    assert_int_equal(info->clusters[0].backup_count, BACKUPS);
    assert_int_equal(info->clusters[0].backups[5].state, INFO_WAL_COMPLETE);
    assert_true(info->clusters[0].backups[5].reach_lsn >=
                (uint64_t)WAL_NAMES / PER_LOG * PER_LOG * SEGMENT_SIZE);

    start = cpu_seconds();
    RetentionPolicy policy;
    assert_true(retention_policy_parse("pitr 14d; hourly 48; daily 30; weekly 12; monthly 24; "
                                       "yearly 7; min 2",
                                       &policy, &err));
    SCOPED(ExpirePlan) plan = expire_plan(repository, "main", &policy, 1U << ANOMALY_COUNT, &err);
    assert_non_null(plan);
    SCOPED(RetentionForecast) forecast = retention_forecast(&plan->input);
    SCOPED_BYTES ByteWriter text = {0};
    expire_format_text(plan, forecast, &text);
    const double plan_s = cpu_seconds() - start;

    print_message("info %.2f s, expire --plan %.2f s of CPU, and %.2f s to make them\n", info_s,
                  plan_s, fill_s);
    assert_false(plan->plan->frozen);
    assert_int_equal(plan->plan->live_count, BACKUPS - BACKUPS / 100);
    /* 14 days of hours, 100 by hand, and some days, weeks and months beside them. */
    assert_true(plan->plan->keep_count >= 14 * 24 + 100 - 4 &&
                plan->plan->keep_count <= 14 * 24 + 100 + 16 + 12 + 14 + 2);
    assert_int_equal(forecast->cadence_us, HOUR);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    /* A machine that needs long to make them has longer: six times that is two seconds elsewhere.
     */
    assert_true(info_s < (fill_s > 1.0 / 3 ? 6 * fill_s : 2));
    assert_true(plan_s < (fill_s > 1.0 / 3 ? 30 * fill_s : 10));
#endif
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_thousand_backups_are_shown_and_planned_in_seconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
