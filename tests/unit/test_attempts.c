#include "repository/attempts.h"

#include "common/bytes.h"
#include "repository/fate.h"
#include "repository/host.h"
#include "repository/json.h"
#include "repository/pack.h"
#include "tests/unit/support/fault_disk.h"
#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/repository_fixture.h"
#include "tests/unit/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static void
put_intent(Repository *repository, const BackupId *bid, const Host *host)
{
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "c/main/b/%s/intent", bid->text);
    SCOPED_JSON json_t *intent = json_pack(
        "{s:s, s:s, s:s, s:s, s:i, s:o, s:o, s:s, s:s, s:i, s:s, s:n, s:[], s:n}", "token",
        "0011223344556677", "host", host->host, "machine_id", host->machine_id, "boot_id",
        host->boot_id, "pid", host->pid, "process_start", json_u64_text(host->process_start),
        "started_at", json_time(1700000000000000), "program", "test", "system_id", "1", "major", 17,
        "type", "full", "parent", "salvage", "wal_floor");
    assert_true(json_put(repository, name, OBJECT_INTENT, 1, intent, NULL, &err));
}

/* A data pack and a map pack, as far as names go. */
static void
put_packs(Repository *repository, const BackupId *bid)
{
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    pack_name(name, "main", bid, 0);
    assert_true(storage_put(repository_storage(repository), name, "pack", 4, &err));
    pack_name(name, "main", bid, 1024);
    assert_true(storage_put(repository_storage(repository), name, "pack", 4, &err));
    map_pack_name(name, "main", bid, 0);
    assert_true(storage_put(repository_storage(repository), name, "map", 3, &err));
}

static bool
has_packs(Repository *repository, const BackupId *bid)
{
    char names[3][STORAGE_NAME_LIMIT];
    int found = 0;
    pack_name(names[0], "main", bid, 0);
    pack_name(names[1], "main", bid, 1024);
    map_pack_name(names[2], "main", bid, 0);
    for (size_t i = 0; i < 3; i++) {
        CairnError err = {0};
        uint64_t size;
        found += storage_exists(repository_storage(repository), names[i], &size, &err);
    }
    assert_true(found == 0 || found == 3);
    return found == 3;
}

typedef enum { NO_FATE, REVOKED, COMMITTED } Verdict;

static Verdict
verdict_of(Repository *repository, const BackupId *bid)
{
    CairnError err = {0};
    SCOPED(Fate) fate = fate_read(repository, "main", bid, NULL, &err);
    if (fate == NULL) {
        assert_int_equal(err.kind, CAIRN_NOT_FOUND);
        return NO_FATE;
    }
    return fate->committed ? COMMITTED : REVOKED;
}

static void
commit_backup(Repository *repository, const BackupId *bid)
{
    CairnError err = {0};
    SCOPED(Fate) fate = test_fate(bid, "label");
    assert_true(fate_commit(repository, fate, &err));
}

/* Like us, but this process number belongs to another process by now. */
static Host
dead_host(void)
{
    Host host;
    host_self(&host);
    host.process_start++;
    return host;
}

static const struct {
    const char *title;
    const char *host, *machine_id, *boot_id; /* NULL: ours */
    bool same_process;
    bool dead;
} hosts[] = {
    {"this very process", NULL, NULL, NULL, true, false},
    {"a process of ours that is gone", NULL, NULL, NULL, false, true},
    {"another container on this kernel", "other", NULL, NULL, false, false},
    {"another machine", "other", "11111111111111111111111111111111",
     "22222222-2222-2222-2222-222222222222", false, false},
    {"another machine of the same name", NULL, "11111111111111111111111111111111",
     "22222222-2222-2222-2222-222222222222", false, false},
    {"nobody who says where", NULL, "", "", false, false},
};

static void
test_only_dead_attempts_of_this_host_are_revoked(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        SCOPED(Repository) repository = memory_repository("lz4");
        CairnError err = {0};
        const BackupId bid = test_backup_id(1);
        Host host = dead_host();
        host.process_start -= hosts[i].same_process;
        if (hosts[i].host != NULL)
            snprintf(host.host, sizeof host.host, "%s", hosts[i].host);
        if (hosts[i].machine_id != NULL)
            snprintf(host.machine_id, sizeof host.machine_id, "%s", hosts[i].machine_id);
        if (hosts[i].boot_id != NULL)
            snprintf(host.boot_id, sizeof host.boot_id, "%s", hosts[i].boot_id);
        put_intent(repository, &bid, &host);
        put_packs(repository, &bid);
        assert_true(attempts_revoke_dead(repository, "main", &err));
        if (verdict_of(repository, &bid) != (hosts[i].dead ? REVOKED : NO_FATE) ||
            !has_packs(repository, &bid)) /* salvage, or a collector's business */
            fail_msg("%s was judged wrongly", hosts[i].title);
    }
}

static void
test_backups_are_left_alone(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    const Host host = dead_host();
    put_intent(repository, &bid, &host);
    put_packs(repository, &bid);
    commit_backup(repository, &bid);
    assert_true(attempts_revoke_dead(repository, "main", &err));
    assert_int_equal(verdict_of(repository, &bid), COMMITTED);
    assert_true(has_packs(repository, &bid));
}

static void
test_attempts_without_a_readable_intent_are_left_alone(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    Storage *storage = repository_storage(repository);
    CairnError err = {0};
    const BackupId without = test_backup_id(1), damaged = test_backup_id(2),
                   odd = test_backup_id(3);
    char name[STORAGE_NAME_LIMIT];
    put_packs(repository, &without);
    put_packs(repository, &damaged);
    put_packs(repository, &odd);
    snprintf(name, sizeof name, "c/main/b/%s/intent", damaged.text);
    memory_storage_replace(storage, name, "rubbish", 7);
    snprintf(name, sizeof name, "c/main/b/%s/intent", odd.text);
    SCOPED_JSON json_t *intent = json_pack("{s:s}", "token", "0011223344556677");
    assert_true(json_put(repository, name, OBJECT_INTENT, 1, intent, NULL, &err));

    assert_true(attempts_revoke_dead(repository, "main", &err));
    assert_true(has_packs(repository, &without) && has_packs(repository, &damaged));
    assert_true(has_packs(repository, &odd));
    assert_int_equal(verdict_of(repository, &without), NO_FATE);
}

static void
test_packs_that_a_dead_writer_left_when_it_gave_up_are_removed(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupId backup = test_backup_id(1), abandoned = test_backup_id(2);
    put_packs(repository, &backup);
    commit_backup(repository, &backup);
    put_packs(repository, &abandoned);
    assert_true(fate_abandon(repository, "main", &abandoned, "token", "reason", &err));
    assert_true(attempts_revoke_dead(repository, "main", &err));
    assert_false(has_packs(repository, &abandoned));
    assert_true(has_packs(repository, &backup));
}

/* Somebody may have salvaged them since: a backup that lives would lose them. */
static void
test_packs_of_what_somebody_else_revoked_stay(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupId revoked = test_backup_id(2);
    put_packs(repository, &revoked);
    assert_true(fate_revoke(repository, "main", &revoked, "other", "reason", &err));
    assert_true(attempts_revoke_dead(repository, "main", &err));
    assert_true(has_packs(repository, &revoked));
    attempts_abandon(repository, "main", &revoked, "token", "reason", false);
    assert_true(has_packs(repository, &revoked));
}

static void
test_giving_up_leaves_the_packs_to_be_salvaged_where_it_should(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupId kept = test_backup_id(1), dropped = test_backup_id(2);
    put_packs(repository, &kept);
    put_packs(repository, &dropped);
    attempts_abandon(repository, "main", &kept, "token", "reason", true);
    attempts_abandon(repository, "main", &dropped, "token", "reason", false);
    assert_true(has_packs(repository, &kept));
    assert_false(has_packs(repository, &dropped));
    SCOPED_MEMORY BackupId *salvage = NULL;
    size_t count = 0;
    assert_true(attempts_salvage(repository, "main", &salvage, &count, &err));
    assert_int_equal(count, 1);
    assert_string_equal(salvage[0].text, kept.text);
}

/* Revoked, committed, revoked, unfinished, revoked without packs, revoked: newest first, and
 * nothing older than the newest backup. */
static void
test_revoked_attempts_since_the_newest_backup_are_salvage(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupId ids[] = {test_backup_id(1), test_backup_id(2), test_backup_id(3),
                            test_backup_id(4), test_backup_id(5), test_backup_id(6)};
    for (size_t i = 0; i < 6; i++) {
        if (i != 4)
            put_packs(repository, &ids[i]);
        if (i != 1 && i != 3)
            assert_true(fate_revoke(repository, "main", &ids[i], "token", "reason", &err));
    }
    commit_backup(repository, &ids[1]);
    SCOPED_MEMORY BackupId *salvage = NULL;
    size_t count = 0;
    assert_true(attempts_salvage(repository, "main", &salvage, &count, &err));
    assert_int_equal(count, 2);
    assert_string_equal(salvage[0].text, ids[5].text);
    assert_string_equal(salvage[1].text, ids[2].text);
}

static void
test_a_damaged_fate_counts_as_one(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    const Host host = dead_host();
    char name[STORAGE_NAME_LIMIT];
    put_intent(repository, &bid, &host);
    put_packs(repository, &bid);
    snprintf(name, sizeof name, "c/main/b/%s/fate", bid.text);
    memory_storage_replace(repository_storage(repository), name, "rubbish", 7);
    assert_true(attempts_revoke_dead(repository, "main", &err));
    assert_true(has_packs(repository, &bid));
    attempts_abandon(repository, "main", &bid, "token", "reason", false);
    assert_true(has_packs(repository, &bid));
}

static ssize_t
full_disk_write(const Disk *disk, int fd, const void *data, size_t size)
{
    (void)disk;
    (void)fd;
    (void)data;
    (void)size;
    errno = ENOSPC;
    return -1;
}

/* On a full disk the revocation cannot be written. */
static void
test_a_full_disk_costs_a_dead_attempt_only_its_temporary_files(void **state)
{
    (void)state;
    static FaultDisk disk;
    fault_disk_init(&disk);
    char root[256], temporary[512];
    snprintf(root, sizeof root, "%s", scratch_path(scratch_directory(), "repo"));
    SCOPED(Repository) repository = scratch_repository(&disk.world, root);
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    const Host host = dead_host();
    put_intent(repository, &bid, &host);
    put_packs(repository, &bid);
    snprintf(temporary, sizeof temporary, "%s/c/main/b/%s/p/001/.00000401.0123456789abcdef.tmp",
             root, bid.text);
    const int fd = open(temporary, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    const struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    assert_int_equal(futimens(fd, times), 0);
    close(fd);

    ssize_t (*write_as_before)(const Disk *, int, const void *, size_t) = disk.disk.write;
    disk.disk.write = full_disk_write;
    assert_true(attempts_revoke_dead(repository, "main", &err));
    assert_true(has_packs(repository, &bid));
    assert_int_equal(access(temporary, F_OK), -1);
    assert_int_equal(verdict_of(repository, &bid), NO_FATE);

    /* Our own attempt may lose everything: nobody else can commit it. */
    attempts_abandon(repository, "main", &bid, "token", "reason", false);
    assert_false(has_packs(repository, &bid));

    disk.disk.write = write_as_before;
    assert_true(attempts_revoke_dead(repository, "main", &err));
    assert_int_equal(verdict_of(repository, &bid), REVOKED);
}

/* No revocation of ours finds room, but somebody else's stands already. */
static void
test_on_a_full_disk_packs_of_what_somebody_else_revoked_stay(void **state)
{
    (void)state;
    static FaultDisk disk;
    fault_disk_init(&disk);
    char root[256];
    snprintf(root, sizeof root, "%s", scratch_path(scratch_directory(), "repo"));
    SCOPED(Repository) repository = scratch_repository(&disk.world, root);
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    put_packs(repository, &bid);
    assert_true(fate_revoke(repository, "main", &bid, "other", "reason", &err));
    disk.disk.write = full_disk_write;
    attempts_abandon(repository, "main", &bid, "token", "reason", false);
    assert_true(has_packs(repository, &bid));
}

static void
test_abandoning_twice_removes_the_packs_of_no_backup(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupId abandoned = test_backup_id(1), committed = test_backup_id(2);
    put_packs(repository, &abandoned);
    put_packs(repository, &committed);
    assert_true(fate_abandon(repository, "main", &abandoned, "token", "reason", &err));
    commit_backup(repository, &committed);
    attempts_abandon(repository, "main", &abandoned, "token", "reason", false);
    attempts_abandon(repository, "main", &committed, "token", "reason", false);
    assert_false(has_packs(repository, &abandoned));
    assert_true(has_packs(repository, &committed));
}

static void
test_ids_go_up_whatever_stands_beside_them(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    BackupId first, next;
    assert_true(attempts_next_id(repository, "main", &first, &err));
    assert_int_equal(backup_id_sequence(&first), 1);
    const BackupId high = test_backup_id(41);
    put_packs(repository, &high);
    memory_storage_replace(repository_storage(repository), "c/main/b/lost+found/x", "", 0);
    memory_storage_replace(repository_storage(repository), "c/main/b/99999999999-x/x", "", 0);
    assert_true(attempts_next_id(repository, "main", &next, &err));
    assert_int_equal(backup_id_sequence(&next), 42);
    const BackupId last = test_backup_id(9999999999);
    put_packs(repository, &last);
    assert_false(attempts_next_id(repository, "main", &next, &err));
    assert_int_equal(err.kind, CAIRN_UNSUPPORTED);
}

static void
test_the_newest_committed_is_found_behind_others(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    BackupId found;
    uint8_t digest[SHA256_SIZE], zeros[SHA256_SIZE] = {0};
    char name[STORAGE_NAME_LIMIT];
    assert_true(attempts_newest_committed(repository, "main", &found, digest, &err));
    assert_string_equal(found.text, "");
    assert_memory_equal(digest, zeros, sizeof digest);

    const BackupId ids[] = {test_backup_id(1), test_backup_id(2), test_backup_id(3),
                            test_backup_id(4), test_backup_id(5)};
    commit_backup(repository, &ids[0]);
    commit_backup(repository, &ids[1]);
    assert_true(fate_revoke(repository, "main", &ids[2], "token", "reason", &err));
    snprintf(name, sizeof name, "c/main/b/%s/fate", ids[3].text);
    memory_storage_replace(repository_storage(repository), name, "rubbish", 7);
    put_packs(repository, &ids[4]);
    assert_true(attempts_newest_committed(repository, "main", &found, digest, &err));
    assert_string_equal(found.text, ids[1].text);
    SCOPED(Fate) fate = fate_read(repository, "main", &ids[1], zeros, &err);
    assert_non_null(fate);
    assert_memory_equal(digest, zeros, sizeof digest);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_dead_attempts_of_this_host_are_revoked),
        cmocka_unit_test(test_backups_are_left_alone),
        cmocka_unit_test(test_attempts_without_a_readable_intent_are_left_alone),
        cmocka_unit_test(test_packs_that_a_dead_writer_left_when_it_gave_up_are_removed),
        cmocka_unit_test(test_packs_of_what_somebody_else_revoked_stay),
        cmocka_unit_test(test_giving_up_leaves_the_packs_to_be_salvaged_where_it_should),
        cmocka_unit_test(test_revoked_attempts_since_the_newest_backup_are_salvage),
        cmocka_unit_test(test_a_damaged_fate_counts_as_one),
        cmocka_unit_test(test_a_full_disk_costs_a_dead_attempt_only_its_temporary_files),
        cmocka_unit_test(test_on_a_full_disk_packs_of_what_somebody_else_revoked_stay),
        cmocka_unit_test(test_abandoning_twice_removes_the_packs_of_no_backup),
        cmocka_unit_test(test_ids_go_up_whatever_stands_beside_them),
        cmocka_unit_test(test_the_newest_committed_is_found_behind_others),
    };
    return cmocka_run_group_tests_name("attempts", tests, NULL, NULL);
}
