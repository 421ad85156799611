/*
 * One directory that restore may fill: the data directory or a tablespace. (Part of
 * target_directory.)
 */
#ifndef PGCAIRN_RESTORE_PLACE_H
#define PGCAIRN_RESTORE_PLACE_H

#include "restore/target_directory.h"

#include <limits.h>

typedef struct {
    uint32_t oid; /* 0: the data directory */
    char path[PATH_MAX];
    int fd; /* -1: missing, not to be made */
    dev_t device;
    DirectoryState state;
    bool marked;         /* the marker lies there, from an earlier attempt or from us */
    bool is_wal;         /* where the data directory's pg_wal leads, on another disk */
    bool keeps_wal_link; /* of the data directory: pg_wal is that link, which stays */
    int major;           /* of a tablespace: only directories of this version are ours to remove */
} Place;

bool place_open(const World *world, const char *path, bool create, Place *place_out,
                CairnError *err) MUST_CHECK;
/* Keeps other restores out until closed, and looks again: REFUSED when somebody is at work there,
   or was since place_open. */
bool place_lock(const World *world, Place *place, CairnError *err) MUST_CHECK;
void place_close(const World *world, Place *place);
bool place_mark(const World *world, Place *place, CairnError *err) MUST_CHECK;
/*
 * Where pg_wal is a symbolic link: the directory behind it, wal_out->fd -1 when there is none. It
 * is emptied and used, and the link stays: who put WAL on a disk of its own wants it there.
 */
bool place_open_wal(const World *world, Place *root, Place *wal_out, CairnError *err) MUST_CHECK;
/* REFUSED when anything lies there that is not PostgreSQL's, or it is in the data directory. */
bool place_check_wal(const World *world, const Place *root, const Place *wal,
                     CairnError *err) MUST_CHECK;
/* Everything but the marker is removed; of a tablespace, which servers of several versions may
 * share, only PG_<major>_*. */
bool place_clear(const World *world, Place *place, CairnError *err) MUST_CHECK;
/* Bytes on disk that place_clear will free. */
bool place_used_bytes(const World *world, const Place *place, uint64_t *bytes_out,
                      CairnError *err) MUST_CHECK;
/* Bytes that the file system still takes. */
bool place_free_bytes(const World *world, const Place *place, dev_t *device_out,
                      uint64_t *bytes_out, CairnError *err) MUST_CHECK;

#endif
