/*
 * One restore under way: what its steps share. (Part of restore; see restore.h.)
 *
 * restore.c           the list of steps; plan, role, backup, files, WAL
 * restore_directory.c the directory: may it be filled, what of the old cluster is rescued, is there
 * room restore_ours.c      what restore itself lays down: settings, signal, identity, manifest
 */
#ifndef PGCAIRN_RESTORE_RESTORE_JOB_H
#define PGCAIRN_RESTORE_RESTORE_JOB_H

#include "postgres/control.h"
#include "repository/pin.h"
#include "restore/config_files.h"
#include "restore/restore.h"
#include "restore/restore_memory.h"
#include "restore/tablespaces.h"
#include "restore/target_directory.h"
#include "restore/wal_files.h"

#define CONTROL_PATH "global/pg_control"

typedef struct Restore {
    const RestoreOptions *options;
    RestoreResult *result;
    RestoreMemory memory;
    const RestorePlan *plan;
    const Fate *backup;
    Pin *pin; /* keeps a collector from the backup; NULL in a dry run, or where none can be */
    MapReader *map;
    FrameSource *frame_source;
    FrameReader *frames;
    TargetDirectory *directory;
    TablespaceOptions tablespaces;
    bool tablespaces_moved;
    bool was_clone; /* the backup has an identity file */
    Rescued rescued;
    bool wal_rescued;        /* the old pg_wal was this cluster's, and is safe */
    int old_tail_fd;         /* open on its unfinished segment, which clear will unlink; or -1 */
    ControlFile old_control; /* of a cluster that is replaced; zeros otherwise */
    uint32_t directory_mode;
    uint32_t file_mode;
    char *control_text;
    size_t control_size;
    ControlFile control;
    ConfigFiles config;
    ByteWriter auto_conf;
    ByteWriter identity;
    ByteWriter tablespace_map;
} Restore;

/* Finds out what lies there; REFUSED when it may not be filled. */
bool restore_open_directory(Restore *restore, CairnError *err) MUST_CHECK;
/*
 * What the old cluster had not archived is stored before anything changes, and before the plan is
 * made: the target may lie in it.
 */
bool restore_rescue_wal(Restore *restore, CairnError *err) MUST_CHECK;
/* The segment that the old cluster was writing, held until it can be laid. Needs the plan. */
bool restore_find_tail(Restore *restore, CairnError *err) MUST_CHECK;
/* What is replaced must be this cluster. */
bool restore_check_replaced(const Restore *restore, CairnError *err) MUST_CHECK;
bool restore_open_tablespaces(Restore *restore, CairnError *err) MUST_CHECK;
bool restore_check_space(Restore *restore, CairnError *err) MUST_CHECK;

/* The texts, made before a byte is written; then written, with the manifest that knows of them. */
bool restore_make_ours(Restore *restore, CairnError *err) MUST_CHECK;
bool restore_write_ours(Restore *restore, CairnError *err) MUST_CHECK;

#endif
