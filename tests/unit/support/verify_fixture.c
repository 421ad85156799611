#include "tests/unit/support/verify_fixture.h"

#include "repository/json.h"
#include "repository/pack.h"
#include "tests/unit/support/backup_fixture.h"
#include "tests/unit/support/repository_fixture.h"
#include "tests/unit/support/scratch.h"

#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NOON INT64_C(1795435200000000) /* 2026-11-23 12:00:00 UTC */
#define MINUTE INT64_C(60000000)

enum { FILE_UNITS = 40 };

int64_t
verify_fixture_time(uint64_t segment)
{
    return NOON + (int64_t)segment * 10 * MINUTE;
}

static const char *
static_name(const char *format, const char *a, const char *b)
{
    static char names[8][STORAGE_NAME_LIMIT];
    static unsigned next;
    char *name = names[next++ % 8];
    snprintf(name, STORAGE_NAME_LIMIT, format, a, b);
    return name;
}

const char *
verify_fixture_name(const BackupId *bid, const char *below)
{
    return static_name("c/main/b/%s/%s", bid->text, below);
}

const char *
verify_fixture_segment(const VerifyFixture *fixture, uint64_t segment)
{
    char incarnation[INCARNATION_NAME_SIZE], below[64], file[WAL_NAME_SIZE];
    incarnation_name(incarnation, fixture->wal.incarnation.system_id,
                     fixture->wal.incarnation.major);
    wal_segment_name(file, 1, segment, VERIFY_SEGMENT);
    snprintf(below, sizeof below, "00000001/%.8s/%s", file + 8, file);
    return static_name("c/main/w/%s/%s", incarnation, below);
}

static void
store_segment(VerifyFixture *fixture, uint64_t number)
{
    WalBuilder builder;
    char name[WAL_NAME_SIZE];
    uint8_t *segment = calloc(1, VERIFY_SEGMENT);
    CAIRN_ASSERT(segment != NULL);
    wal_builder_init(&builder, fixture->wal.incarnation.major, VERIFY_SEGMENT,
                     number * VERIFY_SEGMENT);
    builder.timeline = 1;
    for (int i = 0; i < 5; i++)
        wal_builder_filler(&builder, 5000);
    wal_builder_commit(&builder, 700, verify_fixture_time(number));
    wal_builder_switch(&builder);
    memcpy(segment, builder.data, builder.size < VERIFY_SEGMENT ? builder.size : VERIFY_SEGMENT);
    wal_builder_free(&builder);
    wal_segment_name(name, 1, number, VERIFY_SEGMENT);
    wal_fixture_store(&fixture->wal, name, segment, VERIFY_SEGMENT);
    free(segment);
}

static Fate *
new_fate(const VerifyFixture *fixture, const BackupId *bid, const char *label, uint64_t segment)
{
    Fate *fate = test_fate(bid, label);
    fate->system_id = fixture->wal.incarnation.system_id;
    fate->major = fixture->wal.incarnation.major;
    fate->wal_segment_size = VERIFY_SEGMENT;
    fate->start_timeline = fate->stop_timeline = 1;
    fate->start_lsn = segment * VERIFY_SEGMENT + 0x28;
    fate->stop_lsn = segment * VERIFY_SEGMENT + 0x4000;
    fate->started_us = verify_fixture_time(segment) - 2 * MINUTE;
    fate->stopped_us = verify_fixture_time(segment) - MINUTE;
    return fate;
}

static TestFile
the_file(void)
{
    TestFile file = {
        .mode = 0600, .size_bytes = FILE_UNITS * UNIT_SIZE - 100, .seed = 1, .zero_percent = 0};
    snprintf(file.path, sizeof file.path, "base/1/100");
    return file;
}

static void
add_full(VerifyFixture *fixture, const char *label, uint64_t segment)
{
    CairnError err = {0};
    const TestFile file = the_file();
    SCOPED(BackupWriter)
    writer = test_backup_begin(fixture->repository, scratch_directory(), 1, &err);
    CAIRN_ASSERT(writer != NULL);
    fixture->bids[FIRST] = *backup_writer_id(writer);
    SCOPED(Fate) fate = new_fate(fixture, backup_writer_id(writer), label, segment);
    const bool made = test_backup_write(writer, &file, 1, 1, &err) &&
                      backup_writer_finish_data(writer, fate, &err) &&
                      backup_writer_commit(writer, fate, &err);
    CAIRN_ASSERT(made);
}

/* Where the first backup has the file. */
static MapRun
run_of_first(const VerifyFixture *fixture)
{
    CairnError err = {0};
    MapEntry entry;
    bool found;
    const MapRun *runs;
    size_t count;
    uint64_t unit;
    SCOPED(Fate)
    fate = fate_read(fixture->repository, "main", &fixture->bids[FIRST], NULL, &err);
    CAIRN_ASSERT(fate != NULL);
    SCOPED(MapReader) map = map_reader_open(fixture->repository, "main", &fate->map_root, &err);
    CAIRN_ASSERT(map != NULL);
    const bool read = map_reader_next(map, &entry, &found, &err) && found &&
                      map_reader_region(map, &runs, &count, &unit, &err);
    CAIRN_ASSERT(read && count == 1 && runs[0].units == FILE_UNITS && runs[0].pack == 0);
    return runs[0];
}

/* A leaf with the one file, whose units are the first backup's. */
static MapNodeRef
raw_leaf(RawMap *map, const VerifyFixture *fixture)
{
    SCOPED_BYTES ByteWriter leaf = {0};
    const TestFile file = the_file();
    MapRun run = run_of_first(fixture);
    run.creator = 0; /* in the node's own table */
    node_start(&leaf, NODE_LEAF, &fixture->bids[FIRST]);
    byte_writer_varint(&leaf, 1);
    byte_writer_varint(&leaf, 0);
    byte_writer_varint(&leaf, 1 + strlen(file.path));
    byte_writer_u8(&leaf, MAP_CLASS_CLUSTER);
    byte_writer_bytes(&leaf, file.path, strlen(file.path));
    byte_writer_u8(&leaf, MAP_FILE);
    byte_writer_varint(&leaf, file.mode);
    byte_writer_varint(&leaf, file.size_bytes);
    byte_writer_u8(&leaf, 0);
    byte_writer_varint(&leaf, 1);
    byte_writer_u8(&leaf, 0);
    node_runs_append(&leaf, &run, 1, NULL);
    return raw_map_node(map, leaf.data, leaf.size);
}

static MapNodeRef
raw_root(RawMap *map, const MapNodeRef *leaf)
{
    SCOPED_BYTES ByteWriter root = {0};
    node_start(&root, NODE_ROOT, &leaf->creator);
    byte_writer_varint(&root, 0);
    node_ref_append(&root, leaf, 0);
    byte_writer_varint(&root, 0);
    byte_writer_varint(&root, 1);
    byte_writer_varint(&root, 0);
    byte_writer_varint(&root, the_file().size_bytes);
    return raw_map_node(map, root.data, root.size);
}

typedef struct {
    const BackupId *creator;
    bool data, map; /* pack 0 of either */
} Needs;

static void
put_refs(VerifyFixture *fixture, const BackupId *bid, const Needs *needs, size_t count,
         uint8_t digest[SHA256_SIZE])
{
    CairnError err = {0};
    SCOPED_BYTES ByteWriter refs = {0};
    byte_writer_u16(&refs, 1);
    byte_writer_u16(&refs, 0);
    byte_writer_varint(&refs, count);
    for (size_t i = 0; i < count; i++) {
        byte_writer_bytes(&refs, needs[i].creator->text, BACKUP_ID_LENGTH);
        for (int m = 0; m < 2; m++) {
            const bool needed = m == 0 ? needs[i].data : needs[i].map;
            byte_writer_varint(&refs, needed);
            for (int k = 0; needed && k < 3; k++)
                byte_writer_varint(&refs, k == 1); /* gap 0, one pack, no count of units */
        }
    }
    const bool put =
        object_put_small(fixture->repository, verify_fixture_name(bid, "refs"), OBJECT_REFS,
                         backup_id_sequence(bid), refs.data, refs.size, digest, &err);
    CAIRN_ASSERT(put);
}

static void
commit(VerifyFixture *fixture, Fate *fate, const MapNodeRef *root)
{
    CairnError err = {0};
    fate->map_root = *root;
    fate->file_count = 1;
    fate->size_bytes = the_file().size_bytes;
    fate->pack_count = 0;
    fate->map_pack_count = 1;
    const bool committed = fate_commit(fixture->repository, fate, &err);
    CAIRN_ASSERT(committed);
}

/* leaf_out (may be NULL): where the leaf lies. */
static BackupId
add_sharing(VerifyFixture *fixture, const char *label, uint64_t segment, uint64_t last,
            bool with_refs, MapNodeRef *leaf_out)
{
    const BackupId bid = test_backup_id(fixture->next_sequence++);
    SCOPED(Fate) fate = new_fate(fixture, &bid, label, segment);
    RawMap map;
    fate->stop_lsn += (last - segment) * VERIFY_SEGMENT;
    raw_map_begin(&map, fixture->repository, &bid);
    const MapNodeRef leaf = raw_leaf(&map, fixture);
    const MapNodeRef root = raw_root(&map, &leaf);
    raw_map_finish(&map);
    const Needs needs[] = {{&bid, false, true}, {&fixture->bids[FIRST], true, false}};
    put_refs(fixture, &bid, needs, with_refs ? 2 : 1, fate->refs_sha256);
    commit(fixture, fate, &root);
    if (leaf_out != NULL)
        *leaf_out = leaf;
    return bid;
}

BackupId
verify_fixture_add(VerifyFixture *fixture, const char *label, uint64_t segment, bool with_refs)
{
    return add_sharing(fixture, label, segment, segment, with_refs, NULL);
}

BackupId
verify_fixture_add_long(VerifyFixture *fixture, const char *label, uint64_t first, uint64_t last)
{
    return add_sharing(fixture, label, first, last, true, NULL);
}

static void
add_third(VerifyFixture *fixture, const char *label, uint64_t segment, const MapNodeRef *leaf)
{
    const BackupId bid = test_backup_id(fixture->next_sequence++);
    SCOPED(Fate) fate = new_fate(fixture, &bid, label, segment);
    RawMap map;
    fixture->bids[THIRD] = bid;
    raw_map_begin(&map, fixture->repository, &bid);
    const MapNodeRef root = raw_root(&map, leaf);
    raw_map_finish(&map);
    const Needs needs[] = {{&fixture->bids[FIRST], true, false},
                           {&fixture->bids[SECOND], false, true},
                           {&bid, false, true}};
    put_refs(fixture, &bid, needs, 3, fate->refs_sha256);
    commit(fixture, fate, &root);
}

void
verify_fixture_open(VerifyFixture *fixture)
{
    MapNodeRef leaf;
    memset(fixture, 0, sizeof *fixture);
    wal_fixture_open(&fixture->wal, VERIFY_SEGMENT);
    fixture->wal.disk.pretend_sync = true;
    fixture->repository = fixture->wal.repository;
    fixture->next_sequence = 2;
    for (uint64_t segment = 1; segment <= VERIFY_SEGMENTS; segment++)
        store_segment(fixture, segment);
    add_full(fixture, "first", 1);
    fixture->bids[SECOND] = add_sharing(fixture, "second", 3, 3, true, &leaf);
    add_third(fixture, "third", 5, &leaf);
}

int
verify_fixture_setup(void **state)
{
    VerifyFixture *fixture = malloc(sizeof *fixture);
    CAIRN_ASSERT(fixture != NULL);
    verify_fixture_open(fixture);
    *state = fixture;
    return 0;
}

int
verify_fixture_setup_far(void **state)
{
    verify_fixture_setup(state);
    verify_fixture_move_away(*state);
    return 0;
}

int
verify_fixture_teardown(void **state)
{
    verify_fixture_close(*state);
    free(*state);
    return 0;
}

void
verify_fixture_expire(VerifyFixture *fixture, const BackupId *bid)
{
    CairnError err = {0};
    SCOPED_JSON json_t *json = json_pack("{s:s}", "mark", "expire");
    const bool put = json_put(fixture->repository, verify_fixture_name(bid, "mark.1"), OBJECT_MARK,
                              backup_id_sequence(bid), json, NULL, &err);
    CAIRN_ASSERT(put);
}

static size_t counted;

static int
count_file(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)path;
    (void)status;
    (void)place;
    counted += type == FTW_F;
    return 0;
}

size_t
verify_fixture_count(const VerifyFixture *fixture)
{
    counted = 0;
    const int walked = nftw(fixture->wal.root, count_file, 16, FTW_PHYS);
    CAIRN_ASSERT(walked == 0);
    return counted;
}

/* The storage's own operations, and what stands in front of them: one
 * hook at a time, which may open others. */
static pthread_mutex_t hook_lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static const StorageOps *real_ops;
static StorageOps hooked_ops;
static VerifyOnOpen *open_hook;
static void *open_context;
static const char *refused;

/* Who opens or looks for what is asked for several at a time. */
static pthread_mutex_t meeting_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t meeting_begun = PTHREAD_COND_INITIALIZER;
static const char *meeting_end; /* NULL: nobody waits */
static bool meeting_asks;       /* nobody but who asks for a segment */
static int meeting_size, meeting_count, meetings;

static void
meet(const char *name, bool asks)
{
    enum { PATIENCE_S = 30 };
    struct timespec until;
    pthread_mutex_lock(&meeting_lock);
    const size_t size = meeting_end != NULL ? strlen(meeting_end) : 0;
    if (meeting_end == NULL || asks != meeting_asks || strlen(name) < size ||
        strcmp(name + strlen(name) - size, meeting_end) != 0) {
        pthread_mutex_unlock(&meeting_lock);
        return;
    }
    const int number = meetings;
    if (++meeting_count == meeting_size) {
        meetings++;
        meeting_count = 0;
        pthread_cond_broadcast(&meeting_begun);
    }
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    while (meetings == number) {
        if (pthread_cond_timedwait(&meeting_begun, &meeting_lock, &until) == ETIMEDOUT &&
            meetings == number) {
            meetings = -1;
            meeting_end = NULL;
            pthread_cond_broadcast(&meeting_begun);
        }
    }
    pthread_mutex_unlock(&meeting_lock);
}

static StorageReader *
hooked_open(Storage *storage, const char *name, CairnError *err)
{
    meet(name, false);
    pthread_mutex_lock(&hook_lock);
    if (open_hook != NULL)
        open_hook(open_context, name);
    pthread_mutex_unlock(&hook_lock);
    if (refused != NULL && strcmp(refused, name) == 0) {
        cairn_error(err, CAIRN_IO, "unable to read '%s': broken on purpose", name);
        return NULL;
    }
    return real_ops->open(storage, name, err);
}

static bool
hooked_exists(Storage *storage, const char *name, uint64_t *size_out, CairnError *err)
{
    if (strstr(name, "/w/") != NULL)
        meet(name, true);
    return real_ops->exists(storage, name, size_out, err);
}

static void
hook(VerifyFixture *fixture)
{
    Storage *storage = repository_storage(fixture->repository);
    if (storage->ops == &hooked_ops)
        return;
    real_ops = storage->ops;
    hooked_ops = *real_ops;
    hooked_ops.open = hooked_open;
    hooked_ops.exists = hooked_exists;
    storage->ops = &hooked_ops;
}

static int
several_at_once(Storage *storage)
{
    (void)storage;
    return 8;
}

void
verify_fixture_move_away(VerifyFixture *fixture)
{
    hook(fixture);
    hooked_ops.requests_at_once = several_at_once;
}

void
verify_fixture_meet(VerifyFixture *fixture, const char *end, int count)
{
    hook(fixture);
    meeting_end = end;
    meeting_asks = false;
    meeting_size = count;
    meeting_count = 0;
    meetings = 0;
}

void
verify_fixture_meet_asking(VerifyFixture *fixture, int count)
{
    verify_fixture_meet(fixture, "", count);
    meeting_asks = true;
}

int
verify_fixture_meetings(void)
{
    return meetings;
}

void
verify_fixture_on_open(VerifyFixture *fixture, VerifyOnOpen *on_open, void *context)
{
    hook(fixture);
    open_hook = on_open;
    open_context = context;
}

void
verify_fixture_refuse(VerifyFixture *fixture, const char *name)
{
    hook(fixture);
    refused = name;
}

void
verify_fixture_close(VerifyFixture *fixture)
{
    open_hook = NULL;
    refused = NULL;
    meeting_end = NULL;
    wal_fixture_close(&fixture->wal);
}

VerifyReport *
verify_fixture_run(VerifyFixture *fixture, VerifyScope scope, uint32_t slices)
{
    CairnError err = {0};
    VerifyReport *report =
        verify_run(fixture->repository,
                   &(VerifyOptions){.cluster = "main", .scope = scope, .slices = slices}, &err);
    if (report == NULL)
        fprintf(stderr, "%s\n", err.message);
    CAIRN_ASSERT(report != NULL);
    return report;
}

const VerifyFinding *
verify_find(const VerifyReport *report, const char *object)
{
    for (size_t i = 0; i < report->listed; i++) {
        if (strcmp(report->findings[i].object, object) == 0)
            return &report->findings[i];
    }
    return NULL;
}

CatalogBackup
verify_fixture_look_up(const VerifyFixture *fixture, const BackupId *bid)
{
    CairnError err = {0};
    SCOPED(Catalog) catalog = catalog_read(fixture->repository, "main", &err);
    CAIRN_ASSERT(catalog != NULL);
    for (size_t i = 0; i < catalog->count; i++) {
        if (backup_id_equal(&catalog->backups[i].bid, bid))
            return catalog->backups[i]; /* only the flags are looked at */
    }
    CAIRN_ASSERT(!"a backup of the fixture");
    return (CatalogBackup){0};
}

bool
verify_fixture_is_verified(const VerifyFixture *fixture, int backup)
{
    return verify_fixture_look_up(fixture, &fixture->bids[backup]).verified;
}

bool
verify_fixture_is_damaged(const VerifyFixture *fixture, int backup)
{
    return verify_fixture_look_up(fixture, &fixture->bids[backup]).damaged;
}

const char *
verify_fixture_first_pack(const VerifyFixture *fixture)
{
    return verify_fixture_name(&fixture->bids[FIRST], "p/000/00000000");
}

bool
verify_fixture_is_suspect(const VerifyFixture *fixture, const BackupId *bid, uint32_t pack)
{
    CairnError err = {0};
    SCOPED_DAMAGED_PACKS DamagedPacks packs = {0};
    const bool read = damage_read(fixture->repository, "main", bid, &packs, &err);
    CAIRN_ASSERT(read && !packs.all);
    return damaged_packs_contain(&packs, &fixture->bids[FIRST], pack);
}

const VerifyVictim verify_victims[VERIFY_VICTIMS] = {
    {"data pack", FIRST, "p/000/00000000", 0, "first, second, third"},
    {"map pack of the first", FIRST, "m/00000000", 0, "first"},
    {"map pack with a shared leaf", SECOND, "m/00000000", 0, "second, third"},
    {"map pack of the third", THIRD, "m/00000000", 0, "third"},
    {"reference summary", SECOND, "refs", 0, "second"},
    {"WAL of a backup", -1, NULL, 3, "second"},
    {"WAL between backups", -1, NULL, 4, ""},
};

const char *
verify_victim_name(const VerifyFixture *fixture, const VerifyVictim *victim)
{
    return victim->backup < 0 ? verify_fixture_segment(fixture, victim->segment)
                              : verify_fixture_name(&fixture->bids[victim->backup], victim->below);
}
