/*
 * Which records of systems there are. In bounded memory, however many somebody made: names are
 * gathered, put in order of what speaks for them, and read until there is no more room.
 */
#include "repository/incarnation.h"

#include "common/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES_LIMIT = 4096 };

/* A record by its name; whether it can be read is another question. */
typedef struct {
    IncarnationId id;
    bool wished;
    bool has_wal;
    int64_t stored_us; /* as the storage says */
} Candidate;

typedef struct {
    Repository *repository;
    const char *cluster;
    const IncarnationWish *wish;
    Candidate *candidates; /* room for twice NAMES_LIMIT */
    size_t count;
    Incarnation *incarnations;
    size_t read_count;
    size_t left_out;
    IncarnationTrouble *trouble; /* NULL: not wanted */
} Listing;

static bool
parse_name(const char *name, IncarnationId *id_out)
{
    char expected[INCARNATION_NAME_SIZE];
    if (sscanf(name, "%16" SCNx64 "-%d", &id_out->system_id, &id_out->major) != 2)
        return false;
    incarnation_name(expected, id_out->system_id, id_out->major);
    return strcmp(expected, name) == 0;
}

static int
by_id(const void *a, const void *b)
{
    const Candidate *left = a, *right = b;
    if (left->id.system_id != right->id.system_id)
        return left->id.system_id < right->id.system_id ? -1 : 1;
    return (left->id.major > right->id.major) - (left->id.major < right->id.major);
}

/* What speaks most for it comes first. */
static int
by_claim(const void *a, const void *b)
{
    const Candidate *left = a, *right = b;
    if (left->wished != right->wished)
        return left->wished ? -1 : 1;
    if (left->has_wal != right->has_wal)
        return left->has_wal ? -1 : 1;
    if (left->stored_us != right->stored_us)
        return left->stored_us < right->stored_us ? -1 : 1;
    return by_id(a, b);
}

static bool
is_wished(const IncarnationWish *wish, const IncarnationId *id)
{
    for (size_t i = 0; wish != NULL && i < wish->first_count; i++) {
        if (wish->first[i].system_id == id->system_id && wish->first[i].major == id->major)
            return true;
    }
    return false;
}

static StorageListNext
gather_record(void *context, const StorageEntry *entry, CairnError *err)
{
    Listing *listing = context;
    Candidate candidate = {.stored_us = entry->modified_us};
    (void)err;
    if (!parse_name(entry->name, &candidate.id))
        return STORAGE_LIST_GO_ON;
    candidate.wished = is_wished(listing->wish, &candidate.id);
    listing->candidates[listing->count++] = candidate;
    if (listing->count == 2 * (size_t)NAMES_LIMIT) {
        qsort(listing->candidates, listing->count, sizeof *listing->candidates, by_claim);
        listing->left_out += listing->count - NAMES_LIMIT;
        listing->count = NAMES_LIMIT;
    }
    return STORAGE_LIST_GO_ON;
}

static StorageListNext
note_wal(void *context, const StorageEntry *entry, CairnError *err)
{
    Listing *listing = context;
    Candidate wanted = {0};
    (void)err;
    if (!entry->is_directory || !parse_name(entry->name, &wanted.id))
        return STORAGE_LIST_GO_ON;
    Candidate *found =
        bsearch(&wanted, listing->candidates, listing->count, sizeof *listing->candidates, by_id);
    if (found != NULL)
        found->has_wal = true;
    return STORAGE_LIST_GO_ON;
}

static bool
gather(Listing *listing, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT];
    snprintf(prefix, sizeof prefix, "c/%s/i", listing->cluster);
    if (!storage_list(repository_storage(listing->repository), prefix, gather_record, listing, err))
        return false;
    if (listing->count <= INCARNATION_LIMIT)
        return true;
    qsort(listing->candidates, listing->count, sizeof *listing->candidates, by_id);
    snprintf(prefix, sizeof prefix, "c/%s/w", listing->cluster);
    if (!storage_list(repository_storage(listing->repository), prefix, note_wal, listing, err))
        return false;
    qsort(listing->candidates, listing->count, sizeof *listing->candidates, by_claim);
    return true;
}

/* Storage that cannot be reached says nothing of the object. */
static bool
is_about_the_object(CairnErrorKind kind)
{
    return kind == CAIRN_CORRUPT || kind == CAIRN_UNSUPPORTED || kind == CAIRN_MISMATCH;
}

bool
incarnation_note_trouble(IncarnationTrouble *trouble, const char *cluster, const IncarnationId *id,
                         CairnError *err)
{
    char name[INCARNATION_NAME_SIZE];
    if (!is_about_the_object(err->kind))
        return false;
    if (trouble->count == 0) {
        incarnation_name(name, id->system_id, id->major);
        snprintf(trouble->object, sizeof trouble->object, "c/%s/i/%s", cluster, name);
        trouble->problem = *err;
    }
    trouble->count++;
    cairn_error_clear(err);
    return true;
}

static bool
note_trouble(Listing *listing, const IncarnationId *id, CairnError *err)
{
    return listing->trouble != NULL &&
           incarnation_note_trouble(listing->trouble, listing->cluster, id, err);
}

static bool
note_left_out(Listing *listing, const Candidate *first, CairnError *err)
{
    char name[INCARNATION_NAME_SIZE];
    incarnation_name(name, first->id.system_id, first->id.major);
    cairn_error(err, CAIRN_UNSUPPORTED,
                "cluster '%s' has more than %d incarnations: '%s' is one too many",
                listing->cluster, INCARNATION_LIMIT, name);
    if (!note_trouble(listing, &first->id, err))
        return false;
    listing->trouble->count += listing->left_out - 1;
    listing->trouble->left_out = listing->left_out;
    return true;
}

/* Names that found no room at all were left out before; the last one read stands for them. */
static bool
read_records(Listing *listing, CairnError *err)
{
    size_t i = 0;
    for (; i < listing->count && listing->read_count < INCARNATION_LIMIT; i++) {
        const IncarnationId *id = &listing->candidates[i].id;
        Incarnation found;
        if (incarnation_get(listing->repository, listing->cluster, id->system_id, id->major, &found,
                            err))
            listing->incarnations[listing->read_count++] = found;
        else if (!note_trouble(listing, id, err))
            return false;
    }
    listing->left_out += listing->count - i;
    return listing->left_out == 0 ||
           note_left_out(listing, &listing->candidates[i < listing->count ? i : i - 1], err);
}

static int
by_age(const void *a, const void *b)
{
    const Incarnation *left = a, *right = b;
    return (left->created_us > right->created_us) - (left->created_us < right->created_us);
}

bool
incarnation_list_first(Repository *repository, const char *cluster, const IncarnationWish *wish,
                       Incarnation incarnations_out[INCARNATION_LIMIT], size_t *count_out,
                       IncarnationTrouble *trouble_out, CairnError *err)
{
    SCOPED_MEMORY Candidate *candidates = calloc(2 * (size_t)NAMES_LIMIT, sizeof *candidates);
    Listing listing = {.repository = repository,
                       .cluster = cluster,
                       .wish = wish,
                       .candidates = candidates,
                       .incarnations = incarnations_out,
                       .trouble = trouble_out};
    if (candidates == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (trouble_out != NULL)
        *trouble_out = (IncarnationTrouble){0};
    if (!gather(&listing, err) || !read_records(&listing, err))
        return false;
    qsort(incarnations_out, listing.read_count, sizeof *incarnations_out, by_age);
    *count_out = listing.read_count;
    return true;
}

bool
incarnation_list(Repository *repository, const char *cluster,
                 Incarnation incarnations_out[INCARNATION_LIMIT], size_t *count_out,
                 IncarnationTrouble *trouble_out, CairnError *err)
{
    return incarnation_list_first(repository, cluster, NULL, incarnations_out, count_out,
                                  trouble_out, err);
}

const char *
incarnation_remedy(const CairnError *problem)
{
    return problem->kind == CAIRN_UNSUPPORTED && problem->hint[0] != '\0'
               ? problem->hint
               : "if nobody here made that record, remove it on the repository host, else bring it "
                 "back from a copy";
}

void
incarnation_warn(const IncarnationTrouble *trouble)
{
    if (trouble->left_out > 0)
        log_warn("%zu records of systems are more than there is room for, which is %d: those with "
                 "backups or WAL come first, then the oldest",
                 trouble->left_out, INCARNATION_LIMIT);
    if (trouble->count > trouble->left_out)
        log_warn("%zu records of systems cannot be read, the first is '%s' (%s); what is stored of "
                 "these systems is left as it is: %s",
                 trouble->count - trouble->left_out, trouble->object, trouble->problem.message,
                 incarnation_remedy(&trouble->problem));
}
