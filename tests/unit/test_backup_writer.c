#include "repository/backup_writer.h"

#include "repository/attempts.h"
#include "repository/frame_job.h"
#include "repository/json.h"
#include "repository/pack.h"
#include "tests/unit/support/backup_fixture.h"
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
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static const char *scratch;

static TestFile
a_file(const char *path, uint64_t size_bytes, unsigned zero_percent)
{
    static uint64_t seed = 1;
    TestFile file = {
        .mode = 0600, .size_bytes = size_bytes, .seed = seed++, .zero_percent = zero_percent};
    snprintf(file.path, sizeof file.path, "%s", path);
    return file;
}

static void
test_files_of_all_sizes_are_read_back(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {0,       1,      8191,   8192,   8193,
                                     65536,   131071, 131072, 131073, 262144,
                                     1000000, 524288, 700001, 5,      8192 * 3 + 1};
    enum { COUNT = sizeof sizes / sizeof *sizes * 3 };
    static const char *const codecs[] = {"lz4", "zstd", "none"};
    for (int c = 0; c < 3; c++) {
        SCOPED(Repository) repository = memory_repository(codecs[c]);
        CairnError err = {0};
        SCOPED_MEMORY TestFile *files = calloc(COUNT, sizeof *files);
        assert_non_null(files);
        for (size_t i = 0; i < COUNT; i++) {
            char path[64];
            snprintf(path, sizeof path, "base/%zu/%zu", i % 7, i * 31 % 100);
            files[i] = a_file(path, sizes[i / 3], (unsigned)(i % 3) * 50);
            if (i % 10 == 9)
                files[i].class = MAP_CLASS_OURS;
        }
        SCOPED(BackupWriter) writer = test_backup_begin(repository, scratch, 1 + c, &err);
        SCOPED(Fate) fate = NULL;
        assert_non_null(writer);
        assert_true(test_backup_write(writer, files, COUNT, 99 + (uint64_t)c, &err));
        assert_true(test_backup_commit(writer, &fate, &err));
        test_backup_compare(repository, fate, files, COUNT);
    }
}

static void
test_a_file_of_several_regions_is_read_back(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    /* Mostly zeros, for speed; enough runs to need region nodes. */
    TestFile files[] = {
        a_file("base/1/1", (uint64_t)REGION_UNITS * UNIT_SIZE + 5 * UNIT_SIZE + 17, 97),
        a_file("base/1/2", (uint64_t)REGION_UNITS * UNIT_SIZE, 100)};
    SCOPED(BackupWriter) writer = test_backup_begin(repository, scratch, 2, &err);
    SCOPED(Fate) fate = NULL;
    assert_non_null(writer);
    assert_true(test_backup_write(writer, files, 2, 5, &err));
    assert_true(test_backup_commit(writer, &fate, &err));
    assert_int_equal(fate->file_count, 2);
    assert_int_equal(fate->size_bytes, files[0].size_bytes + files[1].size_bytes);
    test_backup_compare(repository, fate, files, 2);
}

static void
test_a_hundred_thousand_directories_are_read_back_in_order(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    char path[200], expected[200];
    SCOPED(BackupWriter) writer = test_backup_begin(repository, scratch, 1, &err);
    SCOPED(Fate) fate = NULL;
    assert_non_null(writer);
    for (unsigned i = 0; i < COUNT; i++) {
        snprintf(path, sizeof path,
                 "a_name_that_is_long_enough_to_make_the_sorter_spill_its_memory/%06u",
                 i * 7919 % COUNT);
        assert_true(backup_writer_directory(writer, MAP_CLASS_CLUSTER, path, 0700, &err));
    }
    assert_true(test_backup_commit(writer, &fate, &err));
    SCOPED(MapReader) map = map_reader_open(repository, "main", &fate->map_root, &err);
    assert_non_null(map);
    for (unsigned i = 0; i < COUNT; i++) {
        MapEntry entry;
        bool found;
        snprintf(expected, sizeof expected,
                 "a_name_that_is_long_enough_to_make_the_sorter_spill_its_memory/%06u", i);
        assert_true(map_reader_next(map, &entry, &found, &err) && found);
        assert_string_equal(entry.path, expected);
    }
    uint64_t file_count, directory_count, size_bytes;
    map_reader_totals(map, &file_count, &directory_count, &size_bytes);
    assert_true(file_count == 0 && directory_count == COUNT && size_bytes == 0);
}

static void
test_long_names_end_a_pack_early(void **state)
{
    (void)state;
    enum { COUNT = 6000 };
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    SCOPED(BackupWriter) writer = test_backup_begin(repository, scratch, 1, &err);
    SCOPED(Fate) fate = NULL;
    assert_non_null(writer);
    char path[MAP_KEY_LIMIT];
    memset(path, 'x', sizeof path);
    path[sizeof path - 1] = '\0';
    for (unsigned i = 0; i < COUNT; i++) {
        uint64_t size;
        uint32_t crc;
        memcpy(path + 100, "000000", 6);
        for (unsigned rest = i, at = 105; rest > 0; rest /= 10)
            path[at--] = (char)('0' + rest % 10);
        assert_true(backup_writer_file_begin(writer, MAP_CLASS_CLUSTER, path, 0600, &err) &&
                    backup_writer_data(writer, "x", 1, &err) &&
                    backup_writer_file_end(writer, &size, &crc, &err));
    }
    assert_true(test_backup_commit(writer, &fate, &err));
    assert_true(fate->pack_count > 1);
}

static void
test_a_name_sent_twice_fails_the_backup(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const TestFile files[] = {a_file("base/1/1", 10000, 0), a_file("base/1/1", 10000, 0)};
    BackupId bid;
    assert_false(test_backup(repository, scratch, files, 2, &bid, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
}

typedef struct {
    atomic_uint units;
    atomic_uint wrong;
    const TestFile *file;
} CheckCount;

static void
count_unit(void *context, const char *path, uint64_t first_unit, const uint8_t *data,
           uint32_t units, uint32_t tail_bytes)
{
    CheckCount *count = context;
    uint8_t expected[UNIT_SIZE];
    for (uint32_t i = 0; i < units; i++) {
        test_file_unit(count->file, first_unit + i, expected);
        if (memcmp(data + (size_t)i * UNIT_SIZE, expected, UNIT_SIZE) != 0)
            count->wrong++;
    }
    const bool is_last = first_unit + units == units_of_size(count->file->size_bytes);
    if (strcmp(path, count->file->path) != 0 ||
        tail_bytes != (is_last ? count->file->size_bytes % UNIT_SIZE : 0))
        count->wrong++;
    count->units += units;
}

static void
test_workers_check_each_unit_of_the_cluster_once(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    TestFile files[] = {a_file("base/1/1", 3000001, 0), a_file("backup_manifest", 100000, 0)};
    files[1].class = MAP_CLASS_OURS;
    CheckCount count = {.file = &files[0]};
    const BackupWriterOptions options = {.cluster = "main",
                                         .system_id = 1,
                                         .major = 17,
                                         .jobs = 3,
                                         .scratch_directory = scratch,
                                         .check = count_unit,
                                         .check_context = &count};
    SCOPED(BackupWriter) writer = backup_writer_begin(repository, &options, &err);
    assert_non_null(writer);
    assert_true(test_backup_write(writer, files, 2, 5, &err));
    assert_true(test_backup_commit(writer, NULL, &err));
    assert_int_equal(count.units, units_of_size(3000001));
    assert_int_equal(count.wrong, 0);
}

static void
test_too_little_memory_is_refused_with_advice(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupWriterOptions options = {.cluster = "main",
                                         .system_id = 1,
                                         .major = 17,
                                         .jobs = 8,
                                         .scratch_directory = scratch,
                                         .max_memory_bytes = 1 << 20};
    assert_null(backup_writer_begin(repository, &options, &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
    assert_non_null(strstr(err.hint, "--max-memory"));
}

static CairnErrorKind
fate_kind(Repository *repository, const BackupId *bid, bool *committed_out)
{
    CairnError err = {0};
    SCOPED(Fate) fate = fate_read(repository, "main", bid, NULL, &err);
    *committed_out = fate != NULL && fate->committed;
    return err.kind;
}

static bool
is_committed(Repository *repository, const BackupId *bid)
{
    bool committed;
    fate_kind(repository, bid, &committed);
    return committed;
}

static void
test_an_abandoned_backup_is_revoked_and_its_packs_stay(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const TestFile files[] = {a_file("base/1/1", 3000000, 0)};
    BackupId bid;
    bool committed;
    {
        SCOPED(BackupWriter) writer = test_backup_begin(repository, scratch, 2, &err);
        assert_non_null(writer);
        bid = *backup_writer_id(writer);
        assert_true(test_backup_write(writer, files, 1, 5, &err));
    }
    assert_int_equal(fate_kind(repository, &bid, &committed), CAIRN_OK);
    assert_false(committed);
    /* descriptor, intent, fate; no pack was durable yet */
    assert_int_equal(memory_storage_count(repository_storage(repository)), 3);
}

static void
test_a_file_left_open_is_abandoned_with_the_rest(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    static uint8_t data[UNIT_SIZE * 50 + 1];
    memset(data, 1, sizeof data);
    SCOPED(BackupWriter) writer = test_backup_begin(repository, scratch, 2, &err);
    assert_non_null(writer);
    assert_true(backup_writer_file_begin(writer, MAP_CLASS_CLUSTER, "base/1/1", 0600, &err));
    assert_true(backup_writer_data(writer, data, sizeof data, &err));
}

static void
test_our_own_commit_in_the_slot_is_success(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const TestFile files[] = {a_file("base/1/1", 100000, 0)};
    SCOPED(BackupWriter) writer = test_backup_begin(repository, scratch, 1, &err);
    assert_non_null(writer);
    assert_true(test_backup_write(writer, files, 1, 5, &err));
    SCOPED(Fate) fate = test_fate(backup_writer_id(writer), "label");
    assert_true(backup_writer_finish_data(writer, fate, &err));
    assert_true(fate_commit(repository, fate, &err)); /* the answer to this was lost */
    assert_true(backup_writer_commit(writer, fate, &err));
}

static void
test_a_writer_that_was_revoked_meanwhile_is_refused(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const TestFile files[] = {a_file("base/1/1", 100000, 0)};
    BackupId bid;
    {
        SCOPED(BackupWriter) writer = test_backup_begin(repository, scratch, 1, &err);
        assert_non_null(writer);
        bid = *backup_writer_id(writer);
        assert_true(test_backup_write(writer, files, 1, 5, &err));
        assert_true(fate_revoke(repository, "main", &bid, "another", "too slow", &err));
        assert_false(test_backup_commit(writer, NULL, &err));
        assert_int_equal(err.kind, CAIRN_REFUSED);
    }
    assert_false(is_committed(repository, &bid));
    /* descriptor, intent, refs, fate, and the packs, which others may have salvaged since */
    assert_int_equal(memory_storage_count(repository_storage(repository)), 6);
}

static void
test_a_writer_whose_intent_changed_does_not_commit(void **state)
{
    (void)state;
    for (int replaced = 0; replaced < 2; replaced++) {
        SCOPED(Repository) repository = memory_repository("lz4");
        CairnError err = {0};
        char name[STORAGE_NAME_LIMIT];
        SCOPED(BackupWriter) writer = test_backup_begin(repository, scratch, 1, &err);
        assert_non_null(writer);
        const BackupId bid = *backup_writer_id(writer);
        snprintf(name, sizeof name, "c/main/b/%s/intent", bid.text);
        assert_true(storage_remove(repository_storage(repository), name, &err));
        if (replaced) {
            SCOPED_JSON json_t *other = json_pack("{s:s}", "token", "somebody's");
            assert_true(json_put(repository, name, OBJECT_INTENT, 1, other, NULL, &err));
        }
        assert_false(test_backup_commit(writer, NULL, &err));
        assert_int_equal(err.kind, replaced ? CAIRN_REFUSED : CAIRN_NOT_FOUND);
        assert_false(is_committed(repository, &bid));
    }
}

static void
test_each_backup_names_the_one_before(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const TestFile files[] = {a_file("base/1/1", 100000, 0)};
    BackupId ids[3];
    for (int i = 0; i < 3; i++)
        assert_true(test_backup(repository, scratch, files, 1, &ids[i], &err));
    uint8_t digest[SHA256_SIZE];
    SCOPED(Fate) first = fate_read(repository, "main", &ids[0], NULL, &err);
    SCOPED(Fate) second = fate_read(repository, "main", &ids[1], digest, &err);
    SCOPED(Fate) third = fate_read(repository, "main", &ids[2], NULL, &err);
    assert_true(first != NULL && second != NULL && third != NULL);
    assert_string_equal(first->previous_bid.text, "");
    assert_string_equal(third->previous_bid.text, second->bid.text);
    assert_memory_equal(third->previous_sha256, digest, SHA256_SIZE);
}

/* On a disk that fails. */

enum { LINK_LIMIT = 32 };

static struct {
    char names[LINK_LIMIT][128];
    size_t count;
    int (*linkat)(const Disk *disk, int fromfd, const char *from, int tofd, const char *to);
} links;

static int
note_link(const Disk *disk, int fromfd, const char *from, int tofd, const char *to)
{
    assert_true(links.count < LINK_LIMIT);
    snprintf(links.names[links.count++], sizeof links.names[0], "%s", to);
    return links.linkat(disk, fromfd, from, tofd, to);
}

static Repository *
open_on(FaultDisk *disk)
{
    fault_disk_init(disk);
    disk->pretend_sync = true;
    static unsigned number;
    char root[512];
    snprintf(root, sizeof root, "%s/repository-%u", scratch, number++);
    Repository *repository = scratch_repository(&disk->world, root);
    fault_disk_reset(disk);
    return repository;
}

static void
test_each_object_is_synced_before_its_name_and_its_directory_after(void **state)
{
    (void)state;
    static FaultDisk disk;
    SCOPED(Repository) repository = open_on(&disk);
    CairnError err = {0};
    const TestFile files[] = {a_file("base/1/1", 100000, 0)};
    links.count = 0;
    links.linkat = disk.disk.linkat;
    disk.disk.linkat = note_link;
    assert_true(test_backup(repository, scratch, files, 1, NULL, &err));

    assert_int_equal(links.count, 5);
    assert_string_equal(links.names[0], "intent");
    assert_string_equal(links.names[1], "00000000");
    assert_string_equal(links.names[2], "00000000");
    assert_string_equal(links.names[3], "refs");
    assert_string_equal(links.names[4], "fate");
    bool synced = false, owed = false; /* the bytes; the directory, since a link */
    unsigned directories = 0, links_seen = 0;
    assert_true(disk.log_size < FAULT_LOG_LIMIT);
    for (size_t i = 0; i < disk.log_size; i++) {
        switch (disk.log[i]) {
        case FAULT_WRITE:
            assert_false(owed); /* nothing is begun before the name of the last is durable */
            synced = false;
            break;
        case FAULT_FSYNC:
            synced = true;
            break;
        case FAULT_LINK:
            assert_true(synced);
            assert_false(owed);
            owed = true;
            /* The commit rests on b/<BID>, b, main, c and the root, whoever made them. */
            if (++links_seen == links.count)
                assert_true(directories >= 1 + 5);
            directories = 0;
            break;
        case FAULT_FSYNC_DIRECTORY:
            owed = false;
            directories++;
            break;
        default:
            break;
        }
    }
    assert_false(owed);
}

static void
test_our_own_commit_in_the_slot_is_synced_before_it_counts(void **state)
{
    (void)state;
    static FaultDisk disk;
    SCOPED(Repository) repository = open_on(&disk);
    CairnError err = {0};
    SCOPED(BackupWriter) writer = test_backup_begin(repository, scratch, 1, &err);
    assert_non_null(writer);
    SCOPED(Fate) fate = test_fate(backup_writer_id(writer), "label");
    assert_true(backup_writer_finish_data(writer, fate, &err));
    assert_true(fate_commit(repository, fate, &err)); /* by us, before we lost the answer */
    fault_disk_reset(&disk);
    assert_true(backup_writer_commit(writer, fate, &err));
    bool file = false, directory = false; /* synced since the link that failed */
    for (size_t i = 0; i < disk.log_size; i++) {
        if (disk.log[i] == FAULT_LINK)
            file = directory = false;
        file |= disk.log[i] == FAULT_FSYNC;
        directory |= disk.log[i] == FAULT_FSYNC_DIRECTORY;
    }
    assert_true(file && directory);
}

/* A worker that is inside its check of the second file until it is told to go on. */
typedef struct {
    sem_t second_entered, go;
    atomic_bool path_was_right;
} SlowCheck;

static void
slow_check(void *context, const char *path, uint64_t first_unit, const uint8_t *data,
           uint32_t units, uint32_t tail_bytes)
{
    SlowCheck *slow = context;
    (void)data;
    (void)units;
    (void)tail_bytes;
    if (first_unit > 0)
        return;
    if (strcmp(path, "first") == 0) { /* its job fails in the writer, but not yet */
        sem_wait(&slow->second_entered);
        return;
    }
    sem_post(&slow->second_entered);
    sem_wait(&slow->go);
    slow->path_was_right = strcmp(path, "second") == 0;
}

/* The pipeline fails while a worker holds the file that the feeding thread is ending. */
static void
test_a_file_in_a_worker_outlives_the_failure(void **state)
{
    (void)state;
    enum { SIZE = JOB_SLOTS * UNIT_SIZE };
    static FaultDisk disk;
    static uint8_t data[SIZE];
    memset(data, 1, sizeof data);
    SCOPED(Repository) repository = open_on(&disk);
    CairnError err = {0}, later = {0};
    uint64_t size;
    uint32_t crc;
    SlowCheck slow = {.path_was_right = false};
    assert_int_equal(sem_init(&slow.second_entered, 0, 0) + sem_init(&slow.go, 0, 0), 0);
    const BackupWriterOptions options = {.cluster = "main",
                                         .system_id = 1,
                                         .major = 17,
                                         .jobs = 2,
                                         .scratch_directory = scratch,
                                         .check = slow_check,
                                         .check_context = &slow};
    BackupWriter *writer = backup_writer_begin(repository, &options, &err);
    assert_non_null(writer);
    disk.fail[FAULT_WRITE] = (Fault){.at_call = disk.calls[FAULT_WRITE] + 1, .error = ENOSPC};
    assert_true(backup_writer_file_begin(writer, MAP_CLASS_CLUSTER, "first", 0600, &err));
    assert_true(backup_writer_data(writer, data, SIZE, &err));
    assert_true(backup_writer_file_end(writer, &size, &crc, &err));
    assert_true(backup_writer_file_begin(writer, MAP_CLASS_CLUSTER, "second", 0600, &err));
    assert_true(backup_writer_data(writer, data, SIZE, &err));
    while (backup_writer_directory(writer, MAP_CLASS_CLUSTER, "until it fails", 0700, &err))
        ;
    assert_int_equal(err.kind, CAIRN_NO_SPACE);
    assert_false(backup_writer_file_end(writer, &size, &crc, &later));
    sem_post(&slow.go);
    backup_writer_free(writer);
    assert_true(slow.path_was_right);
    sem_destroy(&slow.second_entered);
    sem_destroy(&slow.go);
}

static const struct {
    const char *title;
    FaultKind kind;
    Fault fault;
    bool fate_may_stand; /* though the commit failed: the failure can come after its link */
    bool may_succeed;    /* a lost reply is found out */
} failures[] = {
    {"write, no space", FAULT_WRITE, {.error = ENOSPC}, false, false},
    {"write, I/O error", FAULT_WRITE, {.error = EIO}, false, false},
    {"fsync", FAULT_FSYNC, {.error = EIO}, false, false},
    {"fsync of a directory", FAULT_FSYNC_DIRECTORY, {.error = EIO}, true, false},
    {"link, no space", FAULT_LINK, {.error = ENOSPC}, false, false},
    {"link, I/O error", FAULT_LINK, {.error = EIO}, false, false},
    {"link, reply lost", FAULT_LINK, {.error = EIO, .after = true}, false, true},
    {"link, repeated by the network", FAULT_LINK, {.error = EEXIST, .after = true}, false, true},
    {"open, no space", FAULT_OPEN, {.error = ENOSPC}, true, false},
    {"open, I/O error", FAULT_OPEN, {.error = EIO}, true, false},
    {"read", FAULT_READ, {.error = EIO}, true, false},
    {"mkdir", FAULT_MKDIR, {.error = ENOSPC}, false, false},
    {"readdir", FAULT_READDIR, {.error = EIO}, false, false},
};

/* One backup that fails at call number `call`, and one after it. False when there is no such call.
 */
static bool
fail_at(size_t failure, unsigned call)
{
    static FaultDisk disk;
    SCOPED(Repository) repository = open_on(&disk);
    CairnError err = {0}, later = {0};
    TestFile files[] = {a_file("base/1/1", 300000, 0), a_file("base/1/2", 100, 0)};
    BackupId bid = {""}, next;
    disk.fail[failures[failure].kind] = failures[failure].fault;
    disk.fail[failures[failure].kind].at_call = call;
    const bool done = test_backup(repository, scratch, files, 2, &bid, &err);
    const bool struck = disk.calls[failures[failure].kind] >= call;
    fault_disk_reset(&disk);

    assert_int_equal(done, err.kind == CAIRN_OK);
    if (done && struck && !failures[failure].may_succeed)
        fail_msg("%s, call %u: the failure went unnoticed", failures[failure].title, call);
    if (!done && (!struck || failures[failure].may_succeed ||
                  err.kind != cairn_error_kind_of_errno(failures[failure].fault.error)))
        fail_msg("%s, call %u: %s", failures[failure].title, call, err.message);
    const bool stands = bid.text[0] != '\0' && is_committed(repository, &bid);
    if (stands != done && !(stands && failures[failure].fate_may_stand))
        fail_msg("%s, call %u: committed %d, said %d", failures[failure].title, call, stands, done);
    if (stands) { /* then it is whole, whatever was said */
        SCOPED(Fate) fate = fate_read(repository, "main", &bid, NULL, &later);
        test_backup_compare(repository, fate, files, 2);
    }
    if (!test_backup(repository, scratch, files, 2, &next, &later))
        fail_msg("%s, call %u: the next backup failed: %s", failures[failure].title, call,
                 later.message);
    assert_true(is_committed(repository, &next));
    return struck;
}

static void
test_a_failure_anywhere_is_reported_and_publishes_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        unsigned call = 1;
        while (fail_at(i, call))
            call++;
        if (call < 3)
            fail_msg("%s: only %u calls", failures[i].title, call - 1);
    }
}

/* Small files, so that failures meet files at every stage between begin and end. */
static void
test_a_failure_reaches_the_feeding_thread_amid_the_stream(void **state)
{
    (void)state;
    enum { COUNT = 400, ROUNDS = 25 };
    SCOPED_MEMORY TestFile *files = calloc(COUNT, sizeof *files);
    assert_non_null(files);
    for (unsigned i = 0; i < COUNT; i++) {
        char path[64];
        snprintf(path, sizeof path, "base/1/%u", i);
        files[i] = a_file(path, 3 * UNIT_SIZE + 100 + i, 20);
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        static FaultDisk disk;
        SCOPED(Repository) repository = open_on(&disk);
        CairnError err = {0};
        SCOPED(BackupWriter) writer = test_backup_begin(repository, scratch, 3, &err);
        assert_non_null(writer);
        disk.fail[FAULT_WRITE] =
            (Fault){.at_call = disk.calls[FAULT_WRITE] + 2 + 2 * round, .error = ENOSPC};
        assert_false(test_backup_write(writer, files, COUNT, round + 1, &err) &&
                     test_backup_commit(writer, NULL, &err));
        assert_int_equal(err.kind, CAIRN_NO_SPACE);
    }
}

static int
set_up(void **state)
{
    (void)state;
    scratch = scratch_directory();
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_of_all_sizes_are_read_back),
        cmocka_unit_test(test_a_file_of_several_regions_is_read_back),
        cmocka_unit_test(test_a_hundred_thousand_directories_are_read_back_in_order),
        cmocka_unit_test(test_long_names_end_a_pack_early),
        cmocka_unit_test(test_a_name_sent_twice_fails_the_backup),
        cmocka_unit_test(test_workers_check_each_unit_of_the_cluster_once),
        cmocka_unit_test(test_too_little_memory_is_refused_with_advice),
        cmocka_unit_test(test_an_abandoned_backup_is_revoked_and_its_packs_stay),
        cmocka_unit_test(test_a_file_left_open_is_abandoned_with_the_rest),
        cmocka_unit_test(test_our_own_commit_in_the_slot_is_success),
        cmocka_unit_test(test_a_writer_that_was_revoked_meanwhile_is_refused),
        cmocka_unit_test(test_a_writer_whose_intent_changed_does_not_commit),
        cmocka_unit_test(test_each_backup_names_the_one_before),
        cmocka_unit_test(test_each_object_is_synced_before_its_name_and_its_directory_after),
        cmocka_unit_test(test_our_own_commit_in_the_slot_is_synced_before_it_counts),
        cmocka_unit_test(test_a_file_in_a_worker_outlives_the_failure),
        cmocka_unit_test(test_a_failure_reaches_the_feeding_thread_amid_the_stream),
        cmocka_unit_test(test_a_failure_anywhere_is_reported_and_publishes_nothing),
    };
    return cmocka_run_group_tests_name("backup_writer", tests, set_up, NULL);
}
