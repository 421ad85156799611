/*
 * push: one file from pg_wal into the repository. True means durable, so that PostgreSQL may
 * recycle it.
 *
 * Order: whose data directory this is (identity file), whose WAL this is (first page, or pg_control
 * for history files), then the repository, where that system must be known. Only then bytes move.
 * Errors: REFUSED (a copy that may not archive), MISMATCH (another system, both named), CONFLICT
 * (the name holds other content), and what storage says. After any of them nothing new is visible.
 * Crash: nothing is visible, or the whole file; pushing again settles it.
 * Threads: one call at a time.
 *
 * Batches. Where more files are ready than the one that is asked for, and there is a spool, a
 * process of its own pushes them ahead, `jobs` at a time (wal_push_ahead). A call for a file that
 * is remembered as durable answers at once; one whose file is in that process's hands waits for it;
 * any other pushes its file itself. So a file's answer is always about that file: one that fails
 * fails, whatever came of those behind it.
 */
#ifndef PGCAIRN_WALARCHIVE_PUSH_H
#define PGCAIRN_WALARCHIVE_PUSH_H

#include "common/config.h"
#include "common/error.h"
#include "common/scoped.h"
#include "common/world.h"

enum { PUSH_JOBS_DEFAULT = 2, PUSH_JOBS_LIMIT = 16 };

typedef struct {
    const char *spool_path; /* NULL: the default one, if it exists */
    int jobs;
    char *const *command; /* starts wal_push_ahead for this data directory, see
                             ahead_process_start; NULL: nothing is started */
    int64_t patience_ms;  /* wait so long for a file that another process has in hand */
} WalBatch;

/*
 * What a process that pushes many files keeps open between them: the repository with its keys, and
 * the WAL store of the system whose file came last. It is one configuration's and one cluster's:
 * after a change of either, push_kept_forget. A repository whose path leads elsewhere by now is
 * opened again by itself: what was moved away or unmounted is no place to store in, though it is
 * still open here. One thread.
 */
typedef struct PushKept PushKept;
PushKept *push_kept_new(CairnError *err) MUST_CHECK;
void push_kept_free(PushKept *kept);
SCOPED_TYPE(PushKept, push_kept_free);
/* Closes what is open. */
void push_kept_forget(PushKept *kept);

typedef struct {
    const RepositoryConfig *repository;
    const char *cluster;
    const char *path;          /* %p */
    const char *pgdata;        /* NULL: told by path */
    const WalBatch *batch;     /* NULL: each file by itself */
    const char *overflow_path; /* NULL: none */
    PushKept *kept;            /* NULL: nothing stays open */
    bool is_optional;          /* no answer rests on it: where the repository did not answer a
                                  moment ago, it is not asked (spool_recalls_absence); one that is
                                  required neither, where the file is durable in overflow-path */
    bool ship_later;           /* leave what waits in overflow-path to wal_push_ship; needs kept */
} WalPush;

typedef struct {
    bool existed;      /* identical content was there */
    bool tail_differs; /* the same records, another unused tail */
    bool remembered;   /* it was pushed ahead; now it was only looked at */
    bool overflowed;   /* it is in overflow-path: durable, but not off this host */
    bool skipped;      /* it was given up by `wal skip`: nothing is stored */
    bool not_tried;    /* the repository did not answer a moment ago, and no answer rests on it */
    bool unreachable;  /* it did not answer: could not be opened, or was open from before */
    size_t shipped;    /* files of overflow-path that went into the repository besides */
    /* For the log, "" when there is nothing to say: why pushing this file ahead failed, and why
       there is no batch although one is configured. Set after failures too. */
    char failed_ahead[512];
    char no_batch[512];
    /* With overflowed and skipped: why it could not be stored. Else: why shipping failed. */
    char trouble[512];
} WalPushed;

bool wal_push(const World *world, const WalPush *push, WalPushed *pushed_out,
              CairnError *err) MUST_CHECK;

/*
 * After a file of this path was pushed with ship_later, and answered for: some of what waits in
 * overflow-path, if the push left the repository open. What comes of it is for the log only.
 */
void wal_push_ship(const World *world, const WalPush *push, WalPushed *pushed_out);

/* For who does not wait any longer for an optional one: the next calls will not ask it. */
void wal_push_note_absence(const World *world, const WalPush *push, const CairnError *failure);

/*
 * Push what is ready in the data directory of push->path, in the server's order, until nothing has
 * been ready for a second, AHEAD_LIFE_MS have passed, or one failed; a failure is left in the spool
 * for the call that is about that file. At most READY_LIMIT files and AHEAD_BYTES_LIMIT bytes ahead
 * of the server. A .history file is durable before anything behind it is begun. At once true when
 * another process does it already. Errors: what keeps it from beginning.
 */
bool wal_push_ahead(const World *world, const WalPush *push, CairnError *err) MUST_CHECK;

#endif
