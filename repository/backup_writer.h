/*
 * Making a backup in the repository: intent, packs, map, refs, fate, in that order.
 *
 * The caller streams files from one thread; N workers check, fingerprint and compress frames, one
 * writer thread appends them to packs in order and grows the map. backup_writer_commit publishes.
 * Memory: a fixed number of frames in flight plus the map's sort memory and two packs' directories.
 * Errors: the first failure of any thread is the one reported, by the next call. Sticky.
 * Crash: before the fate exists there is no backup; what lies there is unreachable and swept later.
 *
 *     begin, { file_begin, data..., file_end | directory }..., finish_data, commit
 */
#ifndef PGCAIRN_REPOSITORY_BACKUP_WRITER_H
#define PGCAIRN_REPOSITORY_BACKUP_WRITER_H

#include "repository/backup_id.h"
#include "repository/fate.h"
#include "repository/map.h"
#include "repository/repository.h"

#include <stdint.h>

/* Called by workers for units of one file: units consecutive pages (the last one may be short). */
typedef void UnitCheck(void *context, const char *path, uint64_t first_unit, const uint8_t *data,
                       uint32_t units, uint32_t tail_bytes);

/* How much of a cluster a backup may store anew to gather what has become scattered, in percent. */
enum { BACKUP_REFRESH_PERCENT = 10 };

typedef struct {
    const char *cluster;
    uint64_t system_id;
    int major;
    const char *type;   /* "incr" or "diff" where there is a parent; NULL: "full" */
    const Fate *parent; /* whom to compare with; NULL: none. Borrowed for the call */
    unsigned refresh_percent;
    uint64_t wal_floor_lsn; /* 0: unknown */
    int jobs;
    uint64_t max_memory_bytes; /* 0: default */
    const char *scratch_directory;
    UnitCheck *check; /* may be NULL; must be thread-safe */
    void *check_context;
} BackupWriterOptions;

typedef struct BackupWriter BackupWriter;

BackupWriter *backup_writer_begin(Repository *repository, const BackupWriterOptions *options,
                                  CairnError *err) MUST_CHECK;
void backup_writer_free(
    BackupWriter *writer); /* not committed: stops the threads, revokes the attempt */
const BackupId *backup_writer_id(const BackupWriter *writer);
/* "full" also when the parent that was asked for could not be used: then *why_full_out says why,
   else it is NULL. Borrowed from the writer. */
const char *backup_writer_type(const BackupWriter *writer, const char **why_full_out);

/* Units (pages) of a backup, valid after finish_data. */
typedef struct {
    uint64_t compared;     /* that the parent had in the same place */
    uint64_t stored;       /* changed, new, or refreshed */
    uint64_t refreshed;    /* stored anew to gather them */
    uint64_t salvaged;     /* found in what a revoked attempt had left */
    uint64_t shared_nodes; /* of the parent's map */
    uint64_t lost; /* packs and map nodes that could not be used: what they held was stored anew */
} BackupCounts;
const BackupCounts *backup_writer_counts(const BackupWriter *writer);

bool backup_writer_directory(BackupWriter *writer, MapClass class, const char *path, uint32_t mode,
                             CairnError *err) MUST_CHECK;
bool backup_writer_file_begin(BackupWriter *writer, MapClass class, const char *path, uint32_t mode,
                              CairnError *err) MUST_CHECK;
bool backup_writer_data(BackupWriter *writer, const void *data, size_t size,
                        CairnError *err) MUST_CHECK;
/* size_out and crc32c_out: of what was given since file_begin. */
bool backup_writer_file_end(BackupWriter *writer, uint64_t *size_out, uint32_t *crc32c_out,
                            CairnError *err) MUST_CHECK;

/* Ends the pipeline: every pack, the map and refs are durable; fills the fate's fields about them.
 */
bool backup_writer_finish_data(BackupWriter *writer, Fate *fate, CairnError *err) MUST_CHECK;
/* Last look, then the single-use fate. REFUSED when somebody revoked us. */
bool backup_writer_commit(BackupWriter *writer, Fate *fate, CairnError *err) MUST_CHECK;
SCOPED_TYPE(BackupWriter, backup_writer_free);

#endif
