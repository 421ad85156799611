/*
 * The directory that a restore fills, and its tablespaces': opened once, written below by
 * descriptor, never through a symbolic link.
 *
 * States: EMPTY, or OURS: the marker `.pgcairn-restore-in-progress` lies in it and
 * global/pg_control does not, so an earlier restore was interrupted and all below is ours. CLUSTER:
 * a data directory. FOREIGN: anything else; never touched. Crash: the marker is durable before the
 * first file. pg_control gets its name last (commit), so what lies there before that cannot be
 * started and is done again by the next restore. Threads: `enter` and directories from one thread;
 * a DirectoryHandle's fd from any.
 */
#ifndef PGCAIRN_RESTORE_TARGET_DIRECTORY_H
#define PGCAIRN_RESTORE_TARGET_DIRECTORY_H

#include "common/scoped.h"
#include "common/world.h"
#include "postgres/backup_label.h"

#include <stdbool.h>
#include <stdint.h>

#define RESTORE_MARKER ".pgcairn-restore-in-progress"

typedef enum {
    DIRECTORY_EMPTY,
    DIRECTORY_OURS,
    DIRECTORY_CLUSTER,
    DIRECTORY_FOREIGN
} DirectoryState;

typedef struct TargetDirectory TargetDirectory;

/* A missing directory is described (EMPTY); it and its tablespaces' are made by
   target_directory_create, before which nothing may be written. */
TargetDirectory *target_directory_open(const World *world, const char *path,
                                       CairnError *err) MUST_CHECK;
/* Also keeps other restores out: REFUSED when one is at work there. */
bool target_directory_create(TargetDirectory *directory, CairnError *err) MUST_CHECK;
void target_directory_free(TargetDirectory *directory);
SCOPED_TYPE(TargetDirectory, target_directory_free);

DirectoryState target_directory_state(const TargetDirectory *directory);
const char *target_directory_path(const TargetDirectory *directory); /* absolute, links resolved */
int target_directory_fd(const TargetDirectory *directory);           /* -1 when it is missing */

/* REFUSED when postmaster.pid names a live process. */
bool target_directory_refuse_running(const TargetDirectory *directory, CairnError *err) MUST_CHECK;

/* A tablespace's place, an absolute path. The same rules: empty or ours, or, where replace says so
   and the cluster in the data directory has this very tablespace, its directories PG_<major>_*,
   which clear removes. */
bool target_directory_add_tablespace(TargetDirectory *directory, uint32_t oid, const char *path,
                                     int major, bool replace, CairnError *err) MUST_CHECK;

/*
 * True when pg_wal is a symbolic link that clear will keep: what is written below pg_wal goes to
 * the directory behind it, which is emptied like the rest. check: REFUSED when that must not be.
 */
bool target_directory_wal_is_linked(const TargetDirectory *directory);
bool target_directory_check_wal(const TargetDirectory *directory, CairnError *err) MUST_CHECK;

/* Needs and has, per file system; oid TARGET_WAL_OID: behind a linked pg_wal; *_bytes by tablespace
   oid, 0 the data directory. NO_SPACE names it. What clear will remove counts as free. */
#define TARGET_WAL_OID UINT32_MAX
typedef struct {
    uint32_t oid;
    uint64_t bytes;
} SpaceNeed;
bool target_directory_check_space(const TargetDirectory *directory, const SpaceNeed *needs,
                                  size_t count, CairnError *err) MUST_CHECK;

/* Begins: all markers down, then, in a directory that is not empty, pg_control first and all else
   after it is removed. Symbolic links are removed, not followed, but for pg_wal. */
bool target_directory_clear(TargetDirectory *directory, CairnError *err) MUST_CHECK;

/* An open directory below the target, counted. path "" is the data directory itself;
   "pg_tblspc/<oid>/..." leads into an added tablespace. Missing directories are made. */
typedef struct DirectoryHandle DirectoryHandle;
DirectoryHandle *target_directory_enter(TargetDirectory *directory, const char *path,
                                        CairnError *err) MUST_CHECK;
int directory_handle_fd(const DirectoryHandle *handle);
void directory_handle_share(DirectoryHandle *handle);
void directory_handle_release(DirectoryHandle *handle);
/* Splits "a/b/c" into the handle of "a/b" (shared for the caller) and "c", which points into path.
 */
DirectoryHandle *target_directory_parent(TargetDirectory *directory, const char *path,
                                         const char **name_out, CairnError *err) MUST_CHECK;
/* Makes one with this mode, or sets the mode of one that is there. */
bool target_directory_make(TargetDirectory *directory, const char *path, uint32_t mode,
                           CairnError *err) MUST_CHECK;
/* A small file, whole; mode as given. Not durable by itself: commit syncs the file systems. */
bool target_directory_write(TargetDirectory *directory, const char *path, const void *data,
                            size_t size, uint32_t mode, CairnError *err) MUST_CHECK;
/* Links pg_tblspc/<oid> of the added tablespaces. */
bool target_directory_link_tablespaces(TargetDirectory *directory, CairnError *err) MUST_CHECK;

/* pg_control's content waits under this name until commit. */
#define CONTROL_TEMPORARY_PATH "global/.pg_control.pgcairn"
/* Everything durable, then global/pg_control in place, then the markers away. mode: of the data
   directory, 0700 or 0750. */
bool target_directory_commit(TargetDirectory *directory, uint32_t mode, CairnError *err) MUST_CHECK;

#endif
