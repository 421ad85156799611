/*
 * Who is at work in a spool: one process that pushes ahead, and one pusher a name.
 *
 * They are locks of open file descriptions: they end with their process, exclude threads too, and
 * leave nothing behind. Threads: a lock belongs to one.
 */
#ifndef PGCAIRN_WALARCHIVE_SPOOL_LOCK_H
#define PGCAIRN_WALARCHIVE_SPOOL_LOCK_H

#include "walarchive/spool.h"

typedef struct {
    int fd;
    int64_t offset;
} SpoolLock;

#define SPOOL_UNLOCKED                                                                             \
    {                                                                                              \
        .fd = -1                                                                                   \
    }

/* The one process that pushes ahead: name NULL. False when another has it (empty error) or when
   locking fails. */
bool spool_lock_try(const Spool *spool, const char *file_name, SpoolLock *lock_out,
                    CairnError *err) MUST_CHECK;
void spool_unlock(SpoolLock *lock);
#define SCOPED_SPOOL_LOCK __attribute__((cleanup(spool_unlock))) SpoolLock

#endif
