/*
 * Incarnations: the (system identifier, major version) pairs that a cluster has had. A WAL file or
 * backup of any other pair is refused: that is the guard against a wrong server.
 */
#ifndef PGCAIRN_REPOSITORY_INCARNATION_H
#define PGCAIRN_REPOSITORY_INCARNATION_H

#include "repository/repository.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { INCARNATION_NAME_SIZE = 32, INCARNATION_LIMIT = 64 };

typedef struct {
    uint64_t system_id;
    int major;
    uint32_t wal_segment_size;
    bool data_checksums;
    int64_t created_us; /* when read */
} Incarnation;

/* "<system id, 16 hex>-<major>" */
void incarnation_name(char name[INCARNATION_NAME_SIZE], uint64_t system_id, int major);
/* Idempotent; CONFLICT when it is recorded with another segment size. */
bool incarnation_record(Repository *repository, const char *cluster, const Incarnation *incarnation,
                        CairnError *err) MUST_CHECK;
/* NOT_FOUND when this cluster of the repository never was that system. */
bool incarnation_get(Repository *repository, const char *cluster, uint64_t system_id, int major,
                     Incarnation *incarnation_out, CairnError *err) MUST_CHECK;

/* Records that are there and tell nothing: damaged, of another format, or rubbish that a host put
   there which may create; whose systems they are nobody knows then. And those that there was no
   room for. */
typedef struct {
    size_t count;                    /* of both */
    size_t left_out;                 /* of these for want of room */
    char object[STORAGE_NAME_LIMIT]; /* the first one */
    CairnError problem;              /* of it */
} IncarnationTrouble;

typedef struct {
    uint64_t system_id;
    int major;
} IncarnationId;
/*
 * Oldest first. Whoever may create can record any number of systems, so where there are more than
 * there is room for, those in `first` (that backups name) come first, then those with WAL, then
 * those that the storage has had longest: nobody can be older than what was there before.
 * trouble_out: what could not be read or had no room is told there; NULL: it is an error.
 */
typedef struct {
    const IncarnationId *first;
    size_t first_count;
} IncarnationWish;
bool incarnation_list_first(Repository *repository, const char *cluster,
                            const IncarnationWish *wish,
                            Incarnation incarnations_out[INCARNATION_LIMIT], size_t *count_out,
                            IncarnationTrouble *trouble_out, CairnError *err) MUST_CHECK;
/* The same for who knows of no backups. */
bool incarnation_list(Repository *repository, const char *cluster,
                      Incarnation incarnations_out[INCARNATION_LIMIT], size_t *count_out,
                      IncarnationTrouble *trouble_out, CairnError *err) MUST_CHECK;
/* When err is about this record and not about the storage, which would say nothing of it: noted,
   err is emptied. */
bool incarnation_note_trouble(IncarnationTrouble *trouble, const char *cluster,
                              const IncarnationId *id, CairnError *err) MUST_CHECK;
/* What to do about a record that cannot be read: a problem's own hint where another version made
   it. Borrowed from the problem, or static. */
const char *incarnation_remedy(const CairnError *problem);
/* For who goes on without them: a warning in the log, with the way out, or nothing. */
void incarnation_warn(const IncarnationTrouble *trouble);

#endif
