/*
 * What this host remembers of WAL between two calls of push: which files are durable in the
 * repository although the server has not asked for them yet, and which could not be stored.
 *
 * One directory below the spool path for each (user, repository, cluster, data directory), named by
 * a hash of them, so that two servers or two repositories never meet. In it
 *
 *   <name>.ok      "this very file is durable": a text that names repository id and descriptor (its
 *                  inode, where it is a file of this host), incarnation, cluster, boot, and the
 *                  file's identity (device, inode, size, times, CRC of its first page). The text is
 *                  made again from what is there now, and only equal bytes count. Whatever differs
 *                  or is damaged means: push anew.
 *
 *   <name>.failed  the message of a failed attempt ahead of time, for the next call of that name
 *
 *   absent         when and why the repository did not answer, for those that need not wait for it
 *
 *   about          for people: whose spool it is
 *
 *   lock           byte 0 is held by the process that pushes ahead, others by who pushes a name
 *
 * An .ok is not synced, on purpose: the object that it speaks of is, and an .ok of an earlier boot
 * is not believed, so a crash of the machine costs only another look at some segments.
 *
 * The directory must belong to the effective user and be writable to no one else; anything else is
 * no spool. Errors: what makes a spool unusable is told, and push goes on without it.
 * Threads: a Spool may be shared.
 */
#ifndef PGCAIRN_WALARCHIVE_SPOOL_H
#define PGCAIRN_WALARCHIVE_SPOOL_H

#include "common/config.h"
#include "common/error.h"
#include "common/scoped.h"
#include "common/world.h"
#include "repository/incarnation.h"
#include "repository/repository.h"
#include "walarchive/file_identity.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct Spool Spool;

typedef struct {
    const char *path; /* NULL: the default, which is used only where it exists */
    const RepositoryConfig *repository;
    const char *cluster;
    int pgdata_fd;
} SpoolPlace;

/* NULL with an empty error: there is none, and none was asked for. NULL with an error: the
   configured one is not usable. */
Spool *spool_open(const World *world, const SpoolPlace *place, CairnError *err) MUST_CHECK;
void spool_free(Spool *spool);
SCOPED_TYPE(Spool, spool_free);

/* What an .ok says. All borrowed. */
typedef struct {
    const uint8_t *repository_id;
    const char *cluster;
    const Incarnation *incarnation;
    const char *file_name;
    FileIdentity file;
    RepositoryMark mark;  /* zeros where the repository is no directory */
    uint64_t object_size; /* of what is stored: an NFS server may lose the end of it in a crash */
} SpoolClaim;

/* True only when exactly this was remembered, in this boot. */
bool spool_remembers(const Spool *spool, const SpoolClaim *claim);
/* The same for who has not opened the repository: of the one that stood at this place when it was
   remembered, and that is `age_limit_us` ago at most, by the wall clock. The claim's repository_id
   and object_size are not looked at; the size that was remembered is told. */
bool spool_recalls(const Spool *spool, const SpoolClaim *claim, int64_t age_limit_us,
                   uint64_t *object_size_out);
/* Only for what is durable in the repository. */
bool spool_remember(const Spool *spool, const SpoolClaim *claim, CairnError *err) MUST_CHECK;
/* Something is remembered under this name, of whatever file. */
bool spool_has(const Spool *spool, const char *file_name);

/* The message of a failure; and taking it, once: "" when there is none. Lost where it cannot be
   written: the call for that file meets the cause itself. */
void spool_note_failure(const Spool *spool, const char *file_name, const CairnError *failure);
void spool_take_failure(const Spool *spool, const char *file_name, char *text, size_t size);

/*
 * That the repository did not answer, for SPOOL_ABSENCE_S: calls whose answer does not rest on it
 * need not wait for it time and again. Of an earlier boot, from the future or too old: not
 * believed. Lost where it cannot be written: the next call waits.
 */
enum { SPOOL_ABSENCE_S = 60 };
typedef struct {
    int64_t at_us;
    int left_s;        /* so long it is believed */
    char message[512]; /* the failure's */
} SpoolAbsence;
void spool_note_absence(const Spool *spool, const CairnError *failure);
bool spool_recalls_absence(const Spool *spool, SpoolAbsence *absence_out);
void spool_forget_absence(const Spool *spool);

/* Removes what is remembered of files for which keep is false. Tidiness only. */
typedef bool SpoolKeep(void *context, const char *file_name);
void spool_sweep(const Spool *spool, SpoolKeep *keep, void *context);

/* How many are remembered, and how many failures wait to be told. */
typedef struct {
    size_t remembered;
    size_t failed;
} SpoolCount;
SpoolCount spool_count(const Spool *spool);

/* Borrowed. */
int spool_directory(const Spool *spool);

#endif
