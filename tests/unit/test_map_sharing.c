/* What walks over several maps share when they go on at the same time. */
#include "codec/aead.h"
#include "repository/map_cache.h"
#include "repository/map_packs.h"
#include "repository/pack.h"
#include "repository/pack_slots.h"
#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

enum { THREADS = 8, NODES = 200, NODE_SIZE = 1000, PACKS = 30, ROUNDS = 40 };

static MapNodeRef
node_ref(uint32_t number, uint32_t size)
{
    MapNodeRef ref = {.creator = test_backup_id(1), .pack = number, .raw_size = size};
    put_u32(ref.digest, number);
    return ref;
}

/* Threads that all walk over the same nodes. */
typedef struct {
    MapCache *cache;
    uint32_t node_size;
    bool fail_first;         /* whoever comes to a node first cannot read it */
    pthread_barrier_t *step; /* nobody goes on to the next node before all have this one; or NULL */
    atomic_uint reads[NODES];
    atomic_uint wrong;
} Walks;

static void
walk_node(Walks *walks, uint32_t number)
{
    uint8_t raw[NODE_SIZE];
    const MapNodeRef ref = node_ref(number, walks->node_size);
    memset(raw, (int)number, sizeof raw);
    SCOPED_MEMORY uint8_t *cached = map_cache_get(walks->cache, &ref);
    if (cached != NULL) {
        atomic_fetch_add(&walks->wrong, memcmp(cached, raw, walks->node_size) != 0);
        return;
    }
    const unsigned before = atomic_fetch_add(&walks->reads[number], 1);
    sched_yield();                        /* others come to it meanwhile */
    if (walks->fail_first && before == 0) /* the storage failed, this once */
        map_cache_give_up(walks->cache, &ref);
    else
        map_cache_keep(walks->cache, &ref, raw);
}

static void *
walk(void *context)
{
    Walks *walks = context;
    for (uint32_t i = 0; i < NODES; i++) {
        if (walks->step != NULL)
            pthread_barrier_wait(walks->step);
        walk_node(walks, i);
    }
    return NULL;
}

static void
in_threads(void *(*function)(void *), void *context)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, function, context), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void
run_walks(Walks *walks, size_t limit)
{
    CairnError err = {0};
    SCOPED(MapCache) cache = map_cache_new(limit, &err);
    assert_non_null(cache);
    walks->cache = cache;
    in_threads(walk, walks);
    assert_int_equal(walks->wrong, 0);
    assert_true(map_cache_bytes(cache) <= limit);
}

static void
test_a_node_is_read_by_one_walk_and_given_to_all(void **state)
{
    (void)state;
    static Walks walks;
    walks = (Walks){.node_size = NODE_SIZE};
    run_walks(&walks, (size_t)NODES * NODE_SIZE);
    for (size_t i = 0; i < NODES; i++)
        assert_int_equal(walks.reads[i], 1);
}

static void
test_a_node_that_one_walk_cannot_read_is_left_to_the_next(void **state)
{
    (void)state;
    static Walks walks;
    walks = (Walks){.node_size = NODE_SIZE, .fail_first = true};
    run_walks(&walks, (size_t)NODES * NODE_SIZE);
    for (size_t i = 0; i < NODES; i++)
        assert_int_equal(walks.reads[i], 2);
}

static void
test_where_there_is_no_room_each_walk_reads_for_itself(void **state)
{
    (void)state;
    static Walks walks;
    walks = (Walks){.node_size = NODE_SIZE};
    run_walks(&walks, NODE_SIZE - 1);
    for (size_t i = 0; i < NODES; i++)
        assert_int_equal(walks.reads[i], THREADS);
    walks = (Walks){.node_size = NODE_SIZE};
    run_walks(&walks, 7 * NODE_SIZE); /* some are pushed out before all have had them */
    for (size_t i = 0; i < NODES; i++)
        assert_true(walks.reads[i] >= 1);
}

/* However few stay: the last one read is among them. */
static void
test_walks_in_step_share_each_node_where_few_stay(void **state)
{
    (void)state;
    static Walks walks;
    pthread_barrier_t step;
    for (size_t room = 1; room <= 7; room += 6) {
        assert_int_equal(pthread_barrier_init(&step, NULL, THREADS), 0);
        walks = (Walks){.node_size = NODE_SIZE, .step = &step};
        run_walks(&walks, room * NODE_SIZE);
        pthread_barrier_destroy(&step);
        for (size_t i = 0; i < NODES; i++)
            assert_int_equal(walks.reads[i], 1);
    }
}

/* Threads that all read from the same packs. */
typedef struct {
    MapPacks *packs;
    BackupId bid;
    uint32_t count;
    uint32_t tag_size;
    CairnErrorKind expected;
    pthread_barrier_t *step; /* nobody reads the next pack before all have read this one; or NULL */
    atomic_uint wrong;
} Readers;

static void *
read_packs(void *context)
{
    Readers *readers = context;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        CairnError err = {0};
        uint8_t body[PACKS + 64];
        const uint32_t pack = i * 7 % readers->count;
        if (readers->step != NULL)
            pthread_barrier_wait(readers->step);
        const ObjectReader *reader = map_packs_get(readers->packs, &readers->bid, pack, &err);
        if (err.kind != readers->expected) {
            atomic_fetch_add(&readers->wrong, 1);
        } else if (reader != NULL) {
            /* Each has a body of its own length; encrypted, a tag follows. */
            const uint64_t start = object_body_start(reader),
                           size = object_body_end(reader) - start;
            const bool good = size == pack + 1 + readers->tag_size &&
                              object_pread(reader, body, size, start, &err);
            atomic_fetch_add(&readers->wrong, !good);
        }
        if (reader != NULL)
            map_packs_give_back(readers->packs, reader);
    }
    return NULL;
}

static void
write_packs(Repository *repository, const BackupId *bid)
{
    for (uint32_t pack = 0; pack < PACKS; pack++) {
        CairnError err = {0};
        ObjectFrame frame;
        char name[STORAGE_NAME_LIMIT];
        static const uint8_t body[PACKS];
        map_pack_name(name, "main", bid, pack);
        SCOPED(ObjectWriter) writer = object_create(repository, name, OBJECT_MAP, 1, &err);
        assert_non_null(writer);
        const ObjectBlock block = {.data = body, .size = pack + 1, .raw_size = pack + 1};
        assert_true(object_append(writer, &block, &frame, &err));
        assert_true(object_finish(writer, "index", 5, NULL, &err));
    }
}

static const StorageOps *real_ops;
static StorageOps counting_ops;
static atomic_uint openings;

static StorageReader *
count_opening(Storage *storage, const char *name, CairnError *err)
{
    atomic_fetch_add(&openings, 1);
    return real_ops->open(storage, name, err);
}

static Repository *
counted_repository(const BackupId *bid)
{
    Repository *repository = memory_repository("lz4");
    Storage *storage = repository_storage(repository);
    write_packs(repository, bid);
    real_ops = storage->ops;
    counting_ops = *real_ops;
    counting_ops.open = count_opening;
    storage->ops = &counting_ops;
    openings = 0;
    return repository;
}

static void
read_in_threads(Readers *readers, Repository *repository)
{
    CairnError err = {0};
    SCOPED(MapPacks) packs = map_packs_new(repository, "main", THREADS, &err);
    assert_non_null(packs);
    readers->packs = packs;
    readers->tag_size = repository_is_encrypted(repository) ? AEAD_TAG_SIZE : 0;
    in_threads(read_packs, readers);
    assert_int_equal(readers->wrong, 0);
}

static void
test_a_map_pack_is_opened_by_one_walk_for_all(void **state)
{
    (void)state;
    Readers readers = {.bid = test_backup_id(1), .count = THREADS};
    SCOPED(Repository) repository = counted_repository(&readers.bid);
    read_in_threads(&readers, repository);
    assert_int_equal(openings, THREADS);
}

/* Those that nobody has in hand make room. */
static void
test_more_map_packs_than_stay_open_are_all_read(void **state)
{
    (void)state;
    Readers readers = {.bid = test_backup_id(1), .count = PACKS};
    SCOPED(Repository) repository = counted_repository(&readers.bid);
    read_in_threads(&readers, repository);
    assert_true(openings >= PACKS);
}

/* One opening a round, also of those that come again after they made room. */
static void
test_walks_in_step_open_each_map_pack_once_a_round(void **state)
{
    (void)state;
    pthread_barrier_t step;
    Readers readers = {.bid = test_backup_id(1), .count = PACKS, .step = &step};
    SCOPED(Repository) repository = counted_repository(&readers.bid);
    assert_int_equal(pthread_barrier_init(&step, NULL, THREADS), 0);
    read_in_threads(&readers, repository);
    pthread_barrier_destroy(&step);
    assert_int_equal(openings, ROUNDS);
}

static void
test_a_map_pack_that_is_not_there_is_missed_by_each_walk(void **state)
{
    (void)state;
    Readers readers = {.bid = test_backup_id(2), .count = PACKS, .expected = CAIRN_NOT_FOUND};
    const BackupId other = test_backup_id(1);
    SCOPED(Repository) repository = counted_repository(&other);
    read_in_threads(&readers, repository);
}

/* Each of many threads would take memory for it. */
static void
test_a_map_pack_with_a_larger_index_than_any_has_is_refused(void **state)
{
    (void)state;
    enum { SIZE = OBJECT_SMALL_LIMIT + 1 };
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    const BackupId bid = test_backup_id(1);
    SCOPED(Repository) repository = memory_repository("lz4");
    SCOPED_MEMORY uint8_t *index = calloc(1, SIZE);
    map_pack_name(name, "main", &bid, 0);
    SCOPED(ObjectWriter) object = object_create(repository, name, OBJECT_MAP, 1, &err);
    assert_true(index != NULL && object != NULL);
    assert_true(object_finish(object, index, SIZE, NULL, &err));
    SCOPED(MapPacks) packs = map_packs_new(repository, "main", THREADS, &err);
    assert_non_null(packs);
    assert_null(map_packs_get(packs, &bid, 0, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    assert_non_null(strstr(err.message, "index would have"));
}

static void
test_slots_of_packs_are_remembered_by_creator_and_number(void **state)
{
    (void)state;
    CairnError err = {0};
    uint32_t count = 77;
    const BackupId first = test_backup_id(1), second = test_backup_id(2);
    SCOPED(PackSlots) slots = pack_slots_new(&err);
    assert_non_null(slots);
    assert_false(pack_slots_find(slots, &first, 0, &count));
    pack_slots_put(slots, &first, 0, 10);
    assert_true(pack_slots_find(slots, &first, 0, &count));
    assert_int_equal(count, 10);
    assert_false(pack_slots_find(slots, &first, 1, &count));
    assert_false(pack_slots_find(slots, &second, 0, &count));
    assert_int_equal(count, 10);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_node_is_read_by_one_walk_and_given_to_all),
        cmocka_unit_test(test_a_node_that_one_walk_cannot_read_is_left_to_the_next),
        cmocka_unit_test(test_where_there_is_no_room_each_walk_reads_for_itself),
        cmocka_unit_test(test_walks_in_step_share_each_node_where_few_stay),
        cmocka_unit_test(test_a_map_pack_is_opened_by_one_walk_for_all),
        cmocka_unit_test(test_more_map_packs_than_stay_open_are_all_read),
        cmocka_unit_test(test_walks_in_step_open_each_map_pack_once_a_round),
        cmocka_unit_test(test_a_map_pack_that_is_not_there_is_missed_by_each_walk),
        cmocka_unit_test(test_a_map_pack_with_a_larger_index_than_any_has_is_refused),
        cmocka_unit_test(test_slots_of_packs_are_remembered_by_creator_and_number),
    };
    return cmocka_run_group_tests_name("map_sharing", tests, NULL, NULL);
}
