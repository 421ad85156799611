/*
 * Where WAL waits that was fetched ahead: one directory for one recovery, written by the background
 * process (prefetch.h), emptied by get.
 *
 * Where: `base/pgsql_tmp/pgsql_tmp_pgcairn_get.<token>` of the data directory. That is PostgreSQL's
 * own place for temporary files: base backups, pg_rewind and pg_checksums pass it over, each start
 * of the server empties it, and it mostly is pg_wal's file system, so that delivering is a rename.
 * Or below a configured directory: `<spool-path>/pgsql_tmp_pgcairn_get.<token>`.
 *
 * Whose: the token is a digest of the data directory's identity (device and inode, and those of
 * PG_VERSION with its change time, which a new restore makes anew), the system, and the
 * repositories and cluster asked. Recoveries side by side have different ones and never meet.
 *
 * Names in it are all the state there is, changed by rename alone:
 *     want.<segment>           what recovery is expected to ask for next
 *     <segment>.<CRC-32C>.<mtime>  fetched, verified against the repository, not yet asked for
 *     <segment>.<16 hex>.tmp   being fetched
 *     lock                     held (flock) by the background process
 * Nothing is synced: after a crash the CRC tells what is whole. It is looked at unless the file was
 * written within the last minute and has not been touched since: then it is as good as one that get
 * itself has just fetched, and reading it again is most of a call.
 *
 * Errors: none. A spool is a help that may be missing, full, damaged or somebody else's; then it is
 * not used, and get works without it. Threads: one thread a Spool.
 */
#ifndef PGCAIRN_WALARCHIVE_GET_SPOOL_H
#define PGCAIRN_WALARCHIVE_GET_SPOOL_H

#include "common/config.h"
#include "common/world.h"
#include "postgres/control.h"
#include "postgres/wal_name.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GET_SPOOL_FILES_LIMIT = 256, GET_SPOOL_TOKEN_SIZE = 17, GET_SPOOL_NAME_SIZE = 64 };

typedef struct {
    const RepositoryConfig *const *repositories;
    size_t repository_count;
    const char *cluster;
    const ControlFile *control;
    int pgdata_fd;
    mode_t file_mode;       /* of the files that PostgreSQL will own */
    const char *spool_path; /* NULL: in the data directory */
} GetSpoolOptions;

typedef struct {
    const World *world;
    uint32_t segment_size;
    mode_t file_mode;
    int base_fd; /* the directory above; -1: not usable */
    int fd;      /* -1: not usable, or not there */
    char name[GET_SPOOL_NAME_SIZE];
} GetSpool;

/* Opens the spool of this recovery; create: makes it when it is not there. Look at fd. */
void get_spool_open(const World *world, const GetSpoolOptions *options, bool create,
                    GetSpool *spool_out);
void get_spool_close(GetSpool *spool);

typedef struct {
    uint32_t timeline;
    uint64_t segment;
    uint32_t crc;
    uint64_t written_ns; /* its modification time, as the file system keeps it */
} GetSpoolFile;

/* What one reading of the directory shows. */
typedef struct {
    bool wants;
    uint32_t want_timeline;
    uint64_t want_segment;
    GetSpoolFile files[GET_SPOOL_FILES_LIMIT];
    size_t file_count;
    bool busy; /* the wanted segment is being fetched */
} GetSpoolState;

/* False when it cannot be read: it was removed, most likely. */
bool get_spool_read(const GetSpool *spool, GetSpoolState *state_out) MUST_CHECK;

void get_spool_file_name(const GetSpool *spool, const GetSpoolFile *file,
                         char name_out[GET_SPOOL_NAME_SIZE]);
void get_spool_remove_file(const GetSpool *spool, const GetSpoolFile *file);

/*
 * Moves the segment to `target` below target_fd, if it is the one that is wanted next, is there,
 * and is whole. Waits a moment for one that is just being
 * fetched. False: not delivered, nothing is at target; the spool was emptied where something else
 * had been expected, and a damaged file is gone.
 */
bool get_spool_take(const GetSpool *spool, const char *segment_name, int target_fd,
                    const char *target) MUST_CHECK;

/* Says what recovery will ask for next: the segment after this one, of its timeline. */
void get_spool_want_after(const GetSpool *spool, const char *segment_name);

/* -1 when somebody holds it. The descriptor is the caller's; closing it frees the lock. */
int get_spool_lock(const GetSpool *spool);

/* Removes this recovery's spool, and what other ones left behind an hour ago. */
void get_spool_remove(GetSpool *spool);
void get_spool_sweep(GetSpool *spool);

/* Fills crc and written_ns from the file; false when it has not exactly the size of a segment. */
bool get_spool_look(const GetSpool *spool, int fd, GetSpoolFile *file) MUST_CHECK;

#endif
