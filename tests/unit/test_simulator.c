/* Stories of the simulator, by their seeds: tests/sim/README.md says what they are and check. */
#include "tests/sim/sim.h"

#include "codec/aead.h"
#include "common/bytes.h"
#include "common/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MANY_SEEDS = 2000, FEW_SEEDS = 200 };

/* Sanitizers make a step several times as long; and no story depends on the server's version, so
 * there is no need of all of them in each chroot (tests/matrix). */
static unsigned
count_seeds(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return FEW_SEEDS;
#else
    const char *is_short = getenv("PGCAIRN_TEST_SHORT");
    return is_short == NULL || strcmp(is_short, "") == 0 || strcmp(is_short, "0") == 0 ? MANY_SEEDS
                                                                                       : FEW_SEEDS;
#endif
}

typedef struct {
    unsigned commits, revocations, crashes, power_cuts, restores, expiries, unexpiries, collections;
} Sums;

static void
test_no_story_breaks_an_invariant(void **state)
{
    (void)state;
    const unsigned seeds = count_seeds();
    Sums sums = {0};
    Sim *sim = malloc(sizeof *sim);
    assert_non_null(sim);
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        if (!sim_run(sim, seed, false))
            fail_msg("seed %" PRIu64 ": %s (again: simulate --seed %" PRIu64 " --trace)", seed,
                     sim->failure, seed);
        sums.commits += sim->commits;
        sums.revocations += sim->revocations;
        sums.crashes += sim->crashes;
        sums.power_cuts += sim->power_cuts;
        sums.restores += sim->restores;
        sums.expiries += sim->expiries;
        sums.unexpiries += sim->unexpiries;
        sums.collections += sim->collections;
        sim_free(sim);
    }
    free(sim);
    /* Stories in which nothing happens would prove nothing. */
    assert_true(sums.commits > 4 * seeds && sums.collections > seeds && sums.restores > seeds / 2);
    assert_true(sums.revocations > seeds / 4 && sums.crashes > seeds / 2);
    assert_true(sums.power_cuts > seeds / 10);
    assert_true(sums.expiries > seeds && sums.unexpiries > seeds / 5);
}

static void
test_the_same_seed_is_the_same_story(void **state)
{
    (void)state;
    Sim *first = malloc(sizeof *first), *second = malloc(sizeof *second);
    assert_true(first != NULL && second != NULL);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        assert_true(sim_run(first, seed, false) && sim_run(second, seed, false));
        assert_int_equal(first->steps, second->steps);
        assert_int_equal(first->now_us, second->now_us);
        assert_int_equal(first->random, second->random);
        assert_int_equal(first->object_count, second->object_count);
        sim_free(first);
        sim_free(second);
    }
    free(first);
    free(second);
}

/* What was sealed so far: a digest of key, section and counter each, in an open table. */
enum { SEALS_ROOM = 1 << 18 };
typedef struct {
    uint8_t (*digests)[SHA256_SIZE];
    size_t count;
    bool repeated;
} Seals;

/* Actors take turns: no two threads are in here at once. */
static void
note_seal(void *context, const AeadSeal *seal)
{
    static const uint8_t empty[SHA256_SIZE];
    Seals *seals = context;
    uint8_t bytes[KEY_SIZE + 12], digest[SHA256_SIZE];
    CairnError err = {0};
    memcpy(bytes, seal->key, KEY_SIZE);
    put_u32(bytes + KEY_SIZE, seal->section);
    put_u64(bytes + KEY_SIZE + 4, seal->counter);
    assert_true(sha256_of(bytes, sizeof bytes, digest, &err));
    size_t at = get_u32(digest) % SEALS_ROOM;
    while (memcmp(seals->digests[at], empty, sizeof empty) != 0) {
        if (memcmp(seals->digests[at], digest, sizeof digest) == 0)
            seals->repeated = true;
        at = (at + 1) % SEALS_ROOM;
    }
    memcpy(seals->digests[at], digest, sizeof digest);
    assert_true(++seals->count < SEALS_ROOM / 2);
}

/* All objects of all actors of a story, those that were cut short by a crash too. */
static void
test_no_key_and_nonce_are_used_twice(void **state)
{
    (void)state;
    enum { STORIES = 40 };
    static const char *const modes[] = {"epoch", "sealed"};
    const char *before = getenv("PGCAIRN_TEST_ENCRYPTION");
    SCOPED_MEMORY char *kept = strdup(before != NULL ? before : "");
    SCOPED_MEMORY Sim *sim = malloc(sizeof *sim);
    unsigned crashes = 0;
    assert_true(kept != NULL && sim != NULL);
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        Seals seals = {.digests = calloc(SEALS_ROOM, SHA256_SIZE)};
        assert_non_null(seals.digests);
        setenv("PGCAIRN_TEST_ENCRYPTION", modes[m], 1);
        aead_observe(note_seal, &seals);
        for (uint64_t seed = 1; seed <= STORIES; seed++) {
            if (!sim_run(sim, seed, false))
                fail_msg("seed %" PRIu64 ": %s", seed, sim->failure);
            crashes += sim->crashes;
            sim_free(sim);
        }
        aead_observe(NULL, NULL);
        assert_false(seals.repeated);
        assert_true(seals.count > 1000);
        free(seals.digests);
    }
    assert_true(crashes > STORIES / 2);
    setenv("PGCAIRN_TEST_ENCRYPTION", kept, 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_story_breaks_an_invariant),
        cmocka_unit_test(test_the_same_seed_is_the_same_story),
        cmocka_unit_test(test_no_key_and_nonce_are_used_twice),
    };
    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
