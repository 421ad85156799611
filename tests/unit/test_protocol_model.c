/*
 * The protocol of commit and collect (docs/format.md, "Collect"; ARCHITECTURE.md) as a model of one
 * pack p, checked over all interleavings: the protocol as built is safe with up to three
 * collectors, and each broken variant is found unsafe.
 *
 * q is a backup that owns p, b one that is being made and takes p over from it: from its parent q,
 * or, in the salvage story, from the dead attempt q. Every actor may stop anywhere, for ever. A
 * step is one atomic operation on one object, as storages give it.
 *
 * Safety: p is there whenever b is committed; whenever q is a backup that readers may see; and as
 * long as a reader that was let in reads it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* q's marks. Pending is alive for collectors and expired for readers. */
enum { MARKS_NONE, MARKS_EXPIRE, MARKS_PENDING, MARKS_UNEXPIRE };
/* A fate. Abandoned: revoked by its own writer, which removes the packs itself. */
enum { FATE_NONE, FATE_COMMITTED, FATE_REVOKED, FATE_ABANDONED };

enum { COLLECTORS_MAX = 3, STOPPED = 31 };

typedef struct {
    bool salvage; /* the story: q is a dead attempt, not a parent */
    bool intent_after_checks, no_condemn_check, no_last_look, no_fence;
    bool writer_deletes_intent, fates_before_intents;
    bool no_second_look, no_doom, no_mark_recheck, sweep_deletes_fate, shared_doom;
    bool doomed_removed_before_refs, condemned_removed_first;
    bool one_step_unexpire, unexpire_before_doom_check, unexpire_over_others;
    bool pin_after_check, no_pin_recheck, pins_before_marks;
    bool abandon_without_saying;
} Variant;

typedef struct {
    uint8_t at;
    uint8_t pin, intent, fate; /* what it saw last */
    uint8_t doomed, condemned; /* its objects */
} Collector;

typedef union {
    struct {
        uint8_t intent, fate; /* of b */
        uint8_t q_fate, marks;
        uint8_t doomed; /* one object for all, in the variant that has no other */
        uint8_t pack, refs, pin;
        uint8_t writer, reader, unexpirer, expirer, revoker, abandoner;
        Collector collectors[COLLECTORS_MAX];
    };
    uint64_t words[4];
} State;

/* --- a set of states, and a queue: the states in the order of their finding --- */

typedef struct {
    State *states;
    uint32_t *from; /* the state before */
    uint32_t current;
    size_t count, capacity;
    uint32_t *table; /* index + 1 */
    size_t table_size;
} Search;

static uint64_t
hash_of(const State *state)
{
    uint64_t hash = 0;
    for (size_t i = 0; i < 4; i++)
        hash = (hash ^ state->words[i]) * UINT64_C(0x9e3779b97f4a7c15), hash ^= hash >> 29;
    return hash;
}

static void
insert_index(Search *search, size_t index)
{
    size_t place = hash_of(&search->states[index]) % search->table_size;
    while (search->table[place] != 0)
        place = (place + 1) % search->table_size;
    search->table[place] = (uint32_t)index + 1;
}

static void
grow(Search *search)
{
    search->capacity = search->capacity == 0 ? 1 << 12 : 2 * search->capacity;
    search->states = realloc(search->states, search->capacity * sizeof *search->states);
    search->from = realloc(search->from, search->capacity * sizeof *search->from);
    assert_true(search->states != NULL && search->from != NULL);
    free(search->table);
    search->table_size = 2 * search->capacity + 1;
    search->table = calloc(search->table_size, sizeof *search->table);
    assert_non_null(search->table);
    for (size_t i = 0; i < search->count; i++)
        insert_index(search, i);
}

/* Collectors are alike: which of them is where makes no difference. */
static State
sorted(const State *state)
{
    State s = *state;
    for (size_t i = 1; i < COLLECTORS_MAX; i++) {
        for (size_t k = i; k > 0; k--) {
            const Collector swap = s.collectors[k];
            if (memcmp(&s.collectors[k - 1], &swap, sizeof swap) <= 0)
                break;
            s.collectors[k] = s.collectors[k - 1];
            s.collectors[k - 1] = swap;
        }
    }
    return s;
}

static void
find(Search *search, const State *found)
{
    const State whole = sorted(found), *state = &whole;
    if (search->count == search->capacity)
        grow(search);
    size_t place = hash_of(state) % search->table_size;
    while (search->table[place] != 0) {
        if (memcmp(&search->states[search->table[place] - 1], state, sizeof *state) == 0)
            return;
        place = (place + 1) % search->table_size;
    }
    search->states[search->count] = *state;
    search->from[search->count] = search->current;
    search->table[place] = (uint32_t)++search->count;
}

/* --- the actors: each step is a function of the state; false: not possible now --- */

enum {
    WRITE_INTENT,
    CHECK_SOURCE,
    CHECK_DOOMED,
    CHECK_REFS,
    CHECK_CONDEMNED,
    COPY,
    LOOK_AT_SOURCE,
    LOOK_AT_DOOMED,
    LOOK_AT_CONDEMNED,
    COMMIT,
    DELETE_INTENT,
};

static bool
is_doomed(const State *s)
{
    bool any = s->doomed != 0;
    for (size_t i = 0; i < COLLECTORS_MAX; i++)
        any |= s->collectors[i].doomed != 0;
    return any;
}

static bool
is_condemned(const State *s)
{
    bool any = false;
    for (size_t i = 0; i < COLLECTORS_MAX; i++)
        any |= s->collectors[i].condemned != 0;
    return any;
}

static bool
source_is_good(const Variant *variant, const State *s)
{
    if (variant->salvage)
        return s->q_fate == FATE_REVOKED;
    return s->marks == MARKS_NONE || s->marks == MARKS_UNEXPIRE;
}

static bool
step_writer(const Variant *variant, State *s)
{
    switch (s->writer++) {
    case WRITE_INTENT:
        s->intent = !variant->intent_after_checks;
        return true;
    case CHECK_SOURCE:
        return source_is_good(variant, s);
    case CHECK_DOOMED:
        return !is_doomed(s);
    case CHECK_REFS:
        return variant->salvage || s->refs;
    case CHECK_CONDEMNED:
        return variant->no_condemn_check || !is_condemned(s);
    case COPY:
        s->intent = 1;
        if (variant->no_last_look)
            s->writer = COMMIT;
        /* A parent's refs are believed, a dead attempt's packs are opened. */
        return !variant->salvage || s->pack;
    case LOOK_AT_SOURCE:
        return source_is_good(variant, s);
    case LOOK_AT_DOOMED:
        return !is_doomed(s);
    case LOOK_AT_CONDEMNED:
        return !is_condemned(s) || variant->no_condemn_check;
    case COMMIT:
        if (s->fate != FATE_NONE && !variant->no_fence)
            return false;
        s->fate = FATE_COMMITTED;
        return true;
    case DELETE_INTENT:
        s->intent = 0;
        return variant->writer_deletes_intent;
    default:
        return false;
    }
}

enum {
    READ_PINS,
    READ_INTENTS,
    READ_FATES,
    CONDEMN,
    READ_PINS_AGAIN,
    READ_INTENTS_AGAIN,
    READ_FATES_AGAIN,
    LOOK_2,
    DOOM,
    RECHECK_FIRST, /* marks */
    RECHECK_THEN,  /* pins */
    WITHDRAW_CONDEMNED,
    SWEEP,
    REMOVE_REFS,
    REMOVE_DOOMED,
    REMOVE_CONDEMNED,
};

static bool
q_is_alive(const Variant *variant, const State *s)
{
    if (variant->salvage)
        return s->q_fate == FATE_NONE;
    return s->marks != MARKS_EXPIRE;
}

/* What the reads found, with the marks read now. */
static bool
pack_is_alive(const Variant *variant, const State *s, const Collector *c)
{
    return q_is_alive(variant, s) || c->pin || c->fate == FATE_COMMITTED ||
           (c->intent && c->fate == FATE_NONE);
}

static void
read_one(const Variant *variant, const State *s, Collector *c, bool first)
{
    if (first != variant->fates_before_intents)
        c->intent = s->intent;
    else
        c->fate = s->fate;
}

static bool
step_looks(const Variant *variant, State *s, Collector *c)
{
    const unsigned at = c->at++;
    switch (at) {
    case READ_PINS:
    case READ_PINS_AGAIN:
        c->pin = s->pin;
        return true;
    case READ_INTENTS:
    case READ_INTENTS_AGAIN:
        read_one(variant, s, c, true);
        return true;
    case READ_FATES:
    case READ_FATES_AGAIN:
        read_one(variant, s, c, false);
        return true;
    case CONDEMN:
        if (pack_is_alive(variant, s, c))
            return false;
        c->condemned = 1;
        c->pin = c->intent = c->fate = 0;
        c->at = variant->no_second_look ? DOOM : READ_PINS_AGAIN;
        return true;
    case LOOK_2: {
        const bool alive = pack_is_alive(variant, s, c);
        c->pin = c->intent = c->fate = 0;
        if (alive) {
            c->condemned = 0;
            c->at = STOPPED;
        }
        return true;
    }
    default:
        return false;
    }
}

static bool
step_deletes(const Variant *variant, State *s, Collector *c)
{
    uint8_t *doomed = variant->shared_doom ? &s->doomed : &c->doomed;
    const unsigned at = c->at++;
    switch (at) {
    case DOOM:
        if (!variant->no_doom)
            *doomed = 1;
        else
            c->at = SWEEP;
        return true;
    case RECHECK_FIRST:
    case RECHECK_THEN: {
        const bool is_marks = (at == RECHECK_FIRST) != variant->pins_before_marks;
        c->pin |= is_marks ? q_is_alive(variant, s) && !variant->no_mark_recheck
                           : s->pin && !variant->no_pin_recheck;
        if (at == RECHECK_FIRST)
            return true;
        if (c->pin)
            *doomed = 0;
        c->at = c->pin ? WITHDRAW_CONDEMNED : SWEEP;
        c->pin = 0;
        if (c->at == SWEEP && variant->condemned_removed_first)
            c->condemned = 0;
        return true;
    }
    case WITHDRAW_CONDEMNED:
        c->condemned = 0;
        c->at = STOPPED;
        return true;
    case SWEEP:
        s->pack = 0;
        if (variant->sweep_deletes_fate && s->fate == FATE_REVOKED)
            s->fate = FATE_NONE;
        return true;
    case REMOVE_REFS:
    case REMOVE_DOOMED:
        if ((at == REMOVE_REFS) != variant->doomed_removed_before_refs)
            s->refs = 0;
        else
            *doomed = 0;
        return true;
    case REMOVE_CONDEMNED:
        c->condemned = 0;
        c->at = STOPPED;
        return true;
    default:
        return false;
    }
}

/* Twice: also into an un-expire that is under way. */
static bool
step_expirer(State *s)
{
    if (s->expirer == 2 || s->marks == MARKS_EXPIRE)
        return false;
    s->expirer++;
    s->marks = MARKS_EXPIRE;
    return true;
}

/* Doomed first, then refs: a collector removes them in the other order. */
static bool
step_unexpirer(const Variant *variant, State *s)
{
    switch (s->unexpirer++) {
    case 0:
        if (s->marks != MARKS_EXPIRE)
            return false;
        if (variant->unexpire_before_doom_check)
            return !is_doomed(s);
        s->marks = variant->one_step_unexpire ? MARKS_UNEXPIRE : MARKS_PENDING;
        return true;
    case 1:
        if (variant->unexpire_before_doom_check) {
            s->marks = MARKS_UNEXPIRE;
            s->unexpirer = 3;
            return true;
        }
        if (is_doomed(s)) {
            s->marks = MARKS_EXPIRE;
            s->unexpirer = 3;
        }
        return true;
    case 2:
        if (s->marks != MARKS_PENDING && !variant->unexpire_over_others)
            return false; /* the next mark's number is taken */
        s->marks = s->refs ? MARKS_UNEXPIRE : MARKS_EXPIRE;
        return true;
    default:
        return false;
    }
}

enum { PIN = 1, LOOK_IN, READING, DONE };

/* It has seen q not expired, at some time before; then pins it, and is let in or not. */
static bool
step_reader(const Variant *variant, State *s)
{
    const unsigned at = s->reader++;
    switch (at) {
    case 0:
        return s->marks == MARKS_NONE || s->marks == MARKS_UNEXPIRE;
    case PIN:
    case LOOK_IN:
        if ((at == PIN) != variant->pin_after_check) {
            s->pin = 1;
            return true;
        }
        return s->refs && (!is_doomed(s) || source_is_good(variant, s));
    case READING:
        s->pin = 0;
        return true;
    default:
        return false;
    }
}

static bool
step_revoker(const Variant *variant, State *s)
{
    if (s->revoker || s->fate != FATE_NONE || !s->intent)
        return false;
    (void)variant;
    s->revoker = 1;
    s->fate = FATE_REVOKED;
    return true;
}

/* q's own writer gives up; or somebody else revokes q. */
static bool
step_abandoner(const Variant *variant, State *s)
{
    if (s->abandoner == 0 && s->q_fate == FATE_NONE) {
        s->q_fate = variant->abandon_without_saying ? FATE_REVOKED : FATE_ABANDONED;
        s->abandoner = 1;
        return true;
    }
    if (s->abandoner == 1) {
        s->pack = 0;
        s->abandoner = 2;
        return true;
    }
    return false;
}

static bool
step_q_revoker(State *s)
{
    if (s->q_fate != FATE_NONE)
        return false;
    s->q_fate = FATE_REVOKED;
    return true;
}

/* --- the search --- */

static bool
is_safe(const Variant *variant, const State *s)
{
    if (s->pack)
        return true;
    if (s->fate == FATE_COMMITTED)
        return false;
    if (variant->salvage)
        return true;
    return s->marks != MARKS_NONE && s->marks != MARKS_UNEXPIRE && s->reader != READING;
}

static void
find_if(Search *search, bool possible, const State *state)
{
    if (possible)
        find(search, state);
}

static void
find_successors(Search *search, const Variant *variant, const State *from)
{
    State s = *from;
    find_if(search, step_writer(variant, &s), &s);
    for (unsigned i = 0; i < COLLECTORS_MAX; i++) {
        s = *from;
        Collector *c = &s.collectors[i];
        find_if(search, c->at <= LOOK_2 ? step_looks(variant, &s, c) : step_deletes(variant, &s, c),
                &s);
    }
    s = *from;
    find_if(search, step_revoker(variant, &s), &s);
    if (variant->salvage) {
        s = *from;
        find_if(search, step_abandoner(variant, &s), &s);
        s = *from;
        find_if(search, step_q_revoker(&s), &s);
        return;
    }
    s = *from;
    find_if(search, step_expirer(&s), &s);
    s = *from;
    find_if(search, step_unexpirer(variant, &s), &s);
    s = *from;
    find_if(search, step_reader(variant, &s), &s);
}

/* How it came to this, the last state first. */
static void
print_way(const Search *search, uint32_t index)
{
    for (;; index = search->from[index]) {
        const State *s = &search->states[index];
        print_message("pack %u refs %u | b: intent %u fate %u | q: fate %u marks %u pin %u | "
                      " writer %u reader %u unexpirer %u expirer %u "
                      "collectors",
                      s->pack, s->refs, s->intent, s->fate, s->q_fate, s->marks, s->pin, s->writer,
                      s->reader, s->unexpirer, s->expirer);
        for (size_t i = 0; i < COLLECTORS_MAX; i++)
            print_message(" %u(saw %u%u%u, doomed %u, condemned %u)", s->collectors[i].at,
                          s->collectors[i].pin, s->collectors[i].intent, s->collectors[i].fate,
                          s->collectors[i].doomed, s->collectors[i].condemned);
        print_message("\n");
        if (index == 0)
            return;
    }
}

/* True when no interleaving loses the pack. */
static bool
model_is_safe(const Variant *variant, unsigned collectors, bool expected, size_t *states_out)
{
    Search search = {0};
    State start;
    memset(&start, 0, sizeof start);
    for (unsigned i = collectors; i < COLLECTORS_MAX; i++)
        start.collectors[i].at = STOPPED;
    start.pack = start.refs = 1;
    start.q_fate = variant->salvage ? FATE_NONE : FATE_COMMITTED;
    find(&search, &start);
    bool safe = true;
    for (size_t i = 0; i < search.count && safe; i++) {
        const State state = search.states[i];
        search.current = (uint32_t)i;
        safe = is_safe(variant, &state);
        if (!safe && expected)
            print_way(&search, search.current);
        if (safe)
            find_successors(&search, variant, &state);
    }
    *states_out = search.count;
    free(search.states);
    free(search.from);
    free(search.table);
    return safe;
}

static void
expect(const char *title, Variant variant, unsigned collectors, bool safe)
{
    size_t states;
    if (model_is_safe(&variant, collectors, safe, &states) != safe)
        fail_msg("%s, %u collectors: found %s in %zu states", title, collectors,
                 safe ? "unsafe" : "safe", states);
    print_message("%s, %u collectors: %s, %zu states\n", title, collectors,
                  safe ? "safe" : "unsafe", states);
}

/* --- claims --- */

static void
test_the_protocol_is_safe_with_up_to_three_collectors(void **state)
{
    (void)state;
    for (unsigned collectors = 1; collectors <= COLLECTORS_MAX; collectors++) {
        expect("as built", (Variant){0}, collectors, true);
        expect("as built, salvage", (Variant){.salvage = true}, collectors, true);
    }
}

static const struct {
    const char *title;
    Variant variant;
    unsigned collectors;
} broken[] = {
    {"intent after the checks", {.intent_after_checks = true}, 1},
    {"no last look", {.no_last_look = true}, 1},
    {"no condemn check by the writer", {.no_condemn_check = true}, 1},
    {"no second look", {.no_second_look = true}, 1},
    {"fates before intents, which writers delete",
     {.fates_before_intents = true, .writer_deletes_intent = true},
     1},
    {"a fate that can be overwritten", {.no_fence = true}, 1},
    {"no doomed object", {.no_doom = true}, 1},
    {"no look at the marks after it", {.no_mark_recheck = true}, 1},
    {"sweeping deletes a revoked fate", {.sweep_deletes_fate = true}, 1},
    {"one doomed object for all runs", {.shared_doom = true}, 2},
    {"doomed removed before refs", {.doomed_removed_before_refs = true}, 1},
    {"un-expire in one step", {.one_step_unexpire = true}, 1},
    {"un-expire after its look at doomed", {.unexpire_before_doom_check = true}, 1},
    {"un-expire over somebody's later expire", {.unexpire_over_others = true}, 1},
    {"pins before marks after doomed", {.pins_before_marks = true}, 1},
    {"a reader that looks before it pins", {.pin_after_check = true}, 1},
    {"no look at the pins after doomed", {.no_pin_recheck = true}, 1},
    {"salvage: intent after the checks", {.salvage = true, .intent_after_checks = true}, 1},
    {"salvage: no condemn check", {.salvage = true, .no_condemn_check = true}, 1},
    {"salvage: no second look", {.salvage = true, .no_second_look = true}, 1},
    {"salvage: a fate that can be overwritten", {.salvage = true, .no_fence = true}, 1},
    {"salvage: an abandoned attempt does not say so",
     {.salvage = true, .abandon_without_saying = true},
     1},
};

static void
test_each_broken_variant_loses_data(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        expect(broken[i].title, broken[i].variant, broken[i].collectors, false);
}

/* Intents before fates is enough where writers delete their intents. */
static void
test_reading_intents_before_fates_bears_writers_that_delete_them(void **state)
{
    (void)state;
    expect("writers delete their intents", (Variant){.writer_deletes_intent = true}, 2, true);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_protocol_is_safe_with_up_to_three_collectors),
        cmocka_unit_test(test_each_broken_variant_loses_data),
        cmocka_unit_test(test_reading_intents_before_fates_bears_writers_that_delete_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
