#include "repository/commit.h"

#include "repository/condemned.h"
#include "repository/intent.h"
#include "repository/mark.h"
#include "repository/object.h"
#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

/* A summary of a backup that names so many packs of one creator. */
static void
put_summary(Repository *repository, const BackupId *bid, const BackupId *creator, unsigned packs,
            uint8_t digest_out[SHA256_SIZE])
{
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    SCOPED_BYTES ByteWriter refs = {0};
    byte_writer_u16(&refs, 1);
    byte_writer_u16(&refs, 0);
    byte_writer_varint(&refs, 1);
    byte_writer_bytes(&refs, creator->text, BACKUP_ID_LENGTH);
    byte_writer_varint(&refs, 1);
    byte_writer_varint(&refs, 0);
    byte_writer_varint(&refs, packs);
    byte_writer_varint(&refs, 10);
    byte_writer_varint(&refs, 0);
    snprintf(name, sizeof name, "c/main/b/%s/refs", bid->text);
    assert_true(object_put_small(repository, name, OBJECT_REFS, backup_id_sequence(bid), refs.data,
                                 refs.size, digest_out, &err));
}

/* A committed backup of two packs and a summary that names them. */
static BackupId
make_parent(Repository *repository, uint64_t sequence)
{
    CairnError err = {0};
    const BackupId bid = test_backup_id(sequence);
    SCOPED(Fate) fate = test_fate(&bid, "parent");
    put_summary(repository, &bid, &bid, 2, fate->refs_sha256);
    assert_true(fate_commit(repository, fate, &err));
    return bid;
}

static Commit *
begin(Repository *repository, const BackupId *parent, const BackupId *salvage, CairnError *err)
{
    return commit_begin(repository,
                        &(CommitOptions){.cluster = "main",
                                         .system_id = 1,
                                         .major = 17,
                                         .type = "incr",
                                         .parent = parent,
                                         .salvage = salvage,
                                         .salvage_count = salvage != NULL},
                        err);
}

static bool
publish(Commit *commit, CairnError *err)
{
    SCOPED(Fate) fate = test_fate(commit_id(commit), "child");
    return commit_publish(commit, fate, err);
}

/* A list of some collector's run that names a pack of a backup. */
static void
condemn(Repository *repository, const BackupId *bid, bool is_map, uint32_t pack)
{
    static uint32_t number; /* each list has its own */
    CairnError err = {0};
    SCOPED_PACK_SET packs = {0};
    SCOPED_CONDEMNED lists = {0};
    const PackRange range = {
        .creator = *bid, .is_map = is_map, .first_pack = pack, .pack_count = 1};
    assert_true(pack_set_add(&packs, range, &err));
    pack_set_settle(&packs);
    assert_true(condemned_put(repository, "main", "00112233aabbccdd", &number, &packs, NULL, 0,
                              &lists, &err));
}

typedef enum { EXPIRED, PENDING, DOOMED, CONDEMNED, HARMLESS } Trouble;

static void
make_trouble(Repository *repository, const BackupId *bid, Trouble trouble)
{
    CairnError err = {0};
    const BackupId other = test_backup_id(77);
    switch (trouble) {
    case EXPIRED:
    case PENDING:
        assert_true(mark_add(repository, "main", bid, MARK_EXPIRE, "", &err));
        if (trouble == PENDING)
            assert_true(mark_add(repository, "main", bid, MARK_UNEXPIRE_PENDING, "", &err));
        break;
    case DOOMED:
        assert_true(doomed_put(repository, "main", bid, "00112233aabbccdd", &err));
        break;
    case CONDEMNED:
        condemn(repository, bid, false, 1);
        break;
    case HARMLESS: /* packs that the backup does not name, of itself and of others */
        condemn(repository, bid, false, 2);
        condemn(repository, bid, true, 1);
        condemn(repository, &other, false, 1);
        break;
    }
}

static void
test_a_parent_in_trouble_is_refused_at_the_start(void **state)
{
    (void)state;
    for (Trouble trouble = EXPIRED; trouble < HARMLESS; trouble++) {
        SCOPED(Repository) repository = memory_repository("none");
        CairnError err = {0};
        const BackupId parent = make_parent(repository, 1);
        make_trouble(repository, &parent, trouble);
        SCOPED(Commit) commit = begin(repository, &parent, NULL, &err);
        assert_null(commit);
        assert_int_equal(err.kind, CAIRN_REFUSED);
    }
}

static void
test_a_parent_that_gets_into_trouble_is_refused_at_the_end(void **state)
{
    (void)state;
    for (Trouble trouble = EXPIRED; trouble < HARMLESS; trouble++) {
        SCOPED(Repository) repository = memory_repository("none");
        CairnError err = {0};
        const BackupId parent = make_parent(repository, 1);
        SCOPED(Commit) commit = begin(repository, &parent, NULL, &err);
        assert_non_null(commit);
        make_trouble(repository, &parent, trouble);
        assert_false(publish(commit, &err));
        assert_int_equal(err.kind, CAIRN_REFUSED);
    }
}

static void
test_what_a_parent_does_not_name_may_be_condemned(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("none");
    CairnError err = {0};
    const BackupId parent = make_parent(repository, 1);
    make_trouble(repository, &parent, HARMLESS);
    SCOPED(Commit) commit = begin(repository, &parent, NULL, &err);
    assert_non_null(commit);
    assert_true(publish(commit, &err));
}

/* A refused attempt says so itself; nobody has to find out that it is dead. What it stored stays
 * for the next one to salvage, unless it failed for want of space. */
static void
refuse_at_the_end(Repository *repository, bool drop_packs, BackupId *bid_out)
{
    CairnError err = {0};
    const BackupId parent = make_parent(repository, 1);
    SCOPED(Commit) commit = begin(repository, &parent, NULL, &err);
    *bid_out = *commit_id(commit);
    make_trouble(repository, &parent, EXPIRED);
    if (drop_packs)
        commit_drop_packs(commit);
    assert_false(publish(commit, &err));
}

static void
test_a_refused_attempt_is_decided(void **state)
{
    (void)state;
    for (int drop_packs = 0; drop_packs <= 1; drop_packs++) {
        SCOPED(Repository) repository = memory_repository("none");
        CairnError err = {0};
        BackupId bid;
        refuse_at_the_end(repository, drop_packs, &bid);
        SCOPED(Fate) fate = fate_read(repository, "main", &bid, NULL, &err);
        assert_true(fate != NULL && !fate->committed && fate->packs_go == drop_packs);
    }
}

static void
test_the_intent_names_parent_and_salvage(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("none");
    CairnError err = {0};
    const BackupId parent = make_parent(repository, 1), dead = test_backup_id(2);
    assert_true(fate_revoke(repository, "main", &dead, "token", "dead", &err));
    SCOPED(Commit) commit = begin(repository, &parent, &dead, &err);
    assert_non_null(commit);
    SCOPED(Intent) intent = intent_read(repository, "main", commit_id(commit), &err);
    assert_non_null(intent);
    assert_string_equal(intent->parent.text, parent.text);
    assert_int_equal(intent->salvage_count, 1);
    assert_string_equal(intent->salvage[0].text, dead.text);
    assert_string_equal(intent->token, commit_token(commit));
    assert_string_equal(intent->type, "incr");
}

static const struct {
    const char *title;
    bool revoke, abandon, commit;
    bool doomed, condemned;
    bool good;
} sources[] = {
    {.title = "revoked by somebody else", .revoke = true, .good = true},
    {.title = "abandoned by its own writer", .abandon = true},
    {.title = "a backup", .commit = true},
    {.title = "unfinished"},
    {.title = "doomed", .revoke = true, .doomed = true},
    {.title = "condemned", .revoke = true, .condemned = true},
};

static void
test_only_attempts_that_others_revoked_are_salvaged(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        SCOPED(Repository) repository = memory_repository("none");
        CairnError err = {0};
        const BackupId dead = test_backup_id(2);
        if (sources[i].revoke)
            assert_true(fate_revoke(repository, "main", &dead, "token", "dead", &err));
        if (sources[i].abandon)
            assert_true(fate_abandon(repository, "main", &dead, "token", "given up", &err));
        if (sources[i].commit)
            make_parent(repository, 2);
        if (sources[i].doomed)
            make_trouble(repository, &dead, DOOMED);
        if (sources[i].condemned)
            make_trouble(repository, &dead, CONDEMNED);
        SCOPED(Commit) commit = begin(repository, NULL, &dead, &err);
        if ((commit != NULL) != sources[i].good || (commit == NULL && err.kind != CAIRN_REFUSED))
            fail_msg("a source that is %s was judged wrongly", sources[i].title);
    }
}

/* --- order, as the storage sees it --- */

typedef struct {
    Storage base; /* first */
    Storage *inner;
    char log[256][STORAGE_NAME_LIMIT + 16];
    size_t count;
} Recorder;

static void
note(Storage *base, const char *what, const char *name)
{
    Recorder *recorder = (Recorder *)base;
    assert_true(recorder->count < sizeof recorder->log / sizeof *recorder->log);
    snprintf(recorder->log[recorder->count++], sizeof *recorder->log, "%s %s", what, name);
}

static Storage *
inner_of(Storage *base)
{
    return ((Recorder *)base)->inner;
}

static void
recorder_close(Storage *base)
{
    storage_close(inner_of(base));
    free(base);
}

static StorageWriter *
recorder_create(Storage *base, const char *name, CairnError *err)
{
    note(base, "create", name);
    return storage_create(inner_of(base), name, err);
}

static StorageReader *
recorder_open(Storage *base, const char *name, CairnError *err)
{
    note(base, "open", name);
    return storage_open(inner_of(base), name, err);
}

static bool
recorder_list(Storage *base, const char *prefix, StorageListCallback *callback, void *context,
              CairnError *err)
{
    note(base, "list", prefix);
    return storage_list(inner_of(base), prefix, callback, context, err);
}

static bool
recorder_exists(Storage *base, const char *name, uint64_t *size_out, CairnError *err)
{
    return storage_exists(inner_of(base), name, size_out, err);
}

static bool
recorder_make_durable(Storage *base, const char *name, CairnError *err)
{
    note(base, "sync", name);
    return storage_make_durable(inner_of(base), name, err);
}

static bool
recorder_remove(Storage *base, const char *name, CairnError *err)
{
    return storage_remove(inner_of(base), name, err);
}

static bool
recorder_sweep(Storage *base, const char *prefix, int64_t older_than_us, CairnError *err)
{
    return storage_sweep(inner_of(base), prefix, older_than_us, err);
}

static const StorageOps RECORDER_OPS = {
    .close = recorder_close,
    .create = recorder_create,
    .open = recorder_open,
    .list = recorder_list,
    .exists = recorder_exists,
    .make_durable = recorder_make_durable,
    .remove = recorder_remove,
    .sweep = recorder_sweep,
};

/* Place of the first or last line that begins so; fails when there is none. */
static size_t
place_of(const Recorder *recorder, const char *line, bool last)
{
    size_t found = SIZE_MAX;
    for (size_t i = 0; i < recorder->count && (last || found == SIZE_MAX); i++) {
        if (strncmp(recorder->log[i], line, strlen(line)) == 0)
            found = i;
    }
    if (found == SIZE_MAX)
        fail_msg("there is no '%s'", line);
    return found;
}

static void
test_the_intent_stands_before_the_sources_are_looked_at(void **state)
{
    (void)state;
    CairnError err = {0};
    const RepositoryConfig config = {.name = "memory", .path = "/", .encryption = "none"};
    Recorder *recorder = calloc(1, sizeof *recorder);
    assert_non_null(recorder);
    recorder->base.ops = &RECORDER_OPS;
    recorder->inner = memory_storage_new();
    SCOPED(Repository)
    repository = repository_open_storage(world_real(), &config, &recorder->base, true, &err);
    assert_non_null(repository);
    test_encrypt_as_asked(repository);
    const BackupId parent = make_parent(repository, 1), dead = test_backup_id(2);
    assert_true(fate_revoke(repository, "main", &dead, "token", "dead", &err));
    char pack[STORAGE_NAME_LIMIT], line[STORAGE_NAME_LIMIT + 16];
    snprintf(pack, sizeof pack, "c/main/b/%s/p/000/00000000", dead.text);
    assert_true(storage_put(repository_storage(repository), pack, "pack", 4, &err));
    recorder->count = 0;

    SCOPED(Commit) commit = begin(repository, &parent, &dead, &err);
    assert_non_null(commit);
    snprintf(line, sizeof line, "create c/main/b/%s/intent", commit_id(commit)->text);
    const size_t intent = place_of(recorder, line, false);
    snprintf(line, sizeof line, "open c/main/b/%s/refs", parent.text);
    assert_true(intent < place_of(recorder, line, false));
    assert_true(intent < place_of(recorder, "list c/main/gc", false));

    /* And before the fate: what is salvaged is synced, the sources are looked at once more. */
    recorder->count = 0;
    SCOPED(Fate) child = test_fate(commit_id(commit), "child");
    put_summary(repository, commit_id(commit), &dead, 1, child->refs_sha256);
    assert_true(commit_publish(commit, child, &err));
    snprintf(line, sizeof line, "create c/main/b/%s/fate", commit_id(commit)->text);
    const size_t fate = place_of(recorder, line, false);
    snprintf(line, sizeof line, "sync %s", pack);
    assert_true(place_of(recorder, line, true) < fate);
    snprintf(line, sizeof line, "sync c/main/b/%s/intent", commit_id(commit)->text);
    assert_true(place_of(recorder, line, true) < fate);
    assert_true(place_of(recorder, "list c/main/gc", true) < fate);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_parent_in_trouble_is_refused_at_the_start),
        cmocka_unit_test(test_a_parent_that_gets_into_trouble_is_refused_at_the_end),
        cmocka_unit_test(test_what_a_parent_does_not_name_may_be_condemned),
        cmocka_unit_test(test_a_refused_attempt_is_decided),
        cmocka_unit_test(test_the_intent_names_parent_and_salvage),
        cmocka_unit_test(test_only_attempts_that_others_revoked_are_salvaged),
        cmocka_unit_test(test_the_intent_stands_before_the_sources_are_looked_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
