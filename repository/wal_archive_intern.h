/*
 * What the files of the archive share: wal_archive.c loads it, wal_archive_path.c looks along
 * paths, wal_archive_reader.c reads records, wal_archive_tail.c the last ones. Nobody else includes
 * this.
 */
#ifndef PGCAIRN_REPOSITORY_WAL_ARCHIVE_INTERN_H
#define PGCAIRN_REPOSITORY_WAL_ARCHIVE_INTERN_H

#include "repository/wal_archive.h"

struct WalArchive {
    WalStore *store;
    WalTimeline *timelines; /* ascending */
    size_t count;
};

static inline uint32_t
wal_archive_segment_size(const WalArchive *archive)
{
    return wal_store_incarnation(archive->store)->wal_segment_size;
}

/* The stretch that names the file of a segment, for a path that goes on past it; NULL: none. */
const TimelineStretch *wal_archive_stretch(const TimelineHistory *path, uint64_t number,
                                           uint32_t segment_size);

/* Nothing from end_lsn on is looked at. */
void wal_archive_reader_end_at(WalArchiveReader *reader, uint64_t end_lsn);

#endif
