/*
 * Marks: what people and retention decided about a backup, `mark.<n>` below it, each created once
 * (docs/format.md, "Mark"). The highest of {expire, unexpire-pending, unexpire} wins, and the
 * highest of {keep, release}. They are never changed and never deleted.
 *
 * Units: n counts from 0. Errors: CORRUPT, MISMATCH and UNSUPPORTED name the mark that cannot be
 * read: it is never taken for absent. Threads: one thread. Crash: a mark is there, durable, or not.
 */
#ifndef PGCAIRN_REPOSITORY_MARK_H
#define PGCAIRN_REPOSITORY_MARK_H

#include "repository/backup_id.h"
#include "repository/repository.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MARK_LIMIT = 1000000, MARKS_LISTED = 1024 };

typedef enum {
    MARK_EXPIRE,
    MARK_UNEXPIRE_PENDING,
    MARK_UNEXPIRE,
    MARK_KEEP,
    MARK_RELEASE
} MarkKind;

/* "expire", "unexpire-pending", ...: as stored. */
const char *mark_kind_name(MarkKind kind);

/* Numbers of the marks that a listing of c/<cluster>/b/<BID> showed. */
typedef struct {
    uint32_t numbers[MARKS_LISTED];
    size_t count;
} MarkNames;

/* Takes a name of such a listing; what is no mark is passed over. UNSUPPORTED: too many. */
bool mark_names_add(MarkNames *names, const char *name, CairnError *err) MUST_CHECK;

typedef struct {
    bool expired; /* the highest of its kind is expire: for collectors the backup is gone */
    bool pending; /* it is unexpire-pending: expired for readers, alive for collectors */
    bool kept;
    bool released; /* looked at by a person, and handed to the policy like any other */
    uint32_t next; /* the number after the highest listed mark */
} MarkState;

/* Reads the marks listed, from the highest down to where both kinds are decided. Sorts names. */
bool mark_state(Repository *repository, const char *cluster, const BackupId *bid, MarkNames *names,
                MarkState *state_out, CairnError *err) MUST_CHECK;
/* The same after a listing of its own. */
bool mark_read(Repository *repository, const char *cluster, const BackupId *bid,
               MarkState *state_out, CairnError *err) MUST_CHECK;

/*
 * Adds mark.<highest + 1>; where somebody takes that number meanwhile, the next one. True: durable.
 * reason may be "".
 */
bool mark_add(Repository *repository, const char *cluster, const BackupId *bid, MarkKind kind,
              const char *reason, CairnError *err) MUST_CHECK;
/* Adds exactly mark.<number>: CONFLICT when it is taken. For decisions that rest on the marks below
 * it being the last word. */
bool mark_add_at(Repository *repository, const char *cluster, const BackupId *bid, uint32_t number,
                 MarkKind kind, const char *reason, CairnError *err) MUST_CHECK;

#endif
