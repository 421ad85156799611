/*
 * The identity file `pgcairn.identity` in a data directory: whose copy it is. A restored clone
 * carries one, and every way of archiving reads it before anything else, so that a copy never
 * archives into the origin's place (design, "clone-safe").
 *
 * Text, one `key = value` a line: role (clone | standby | original), cluster (where it may archive
 * to; empty: nowhere), origin (the cluster it came from), backup (BID), restored-at.
 */
#ifndef PGCAIRN_REPOSITORY_IDENTITY_H
#define PGCAIRN_REPOSITORY_IDENTITY_H

#include "common/bytes.h"
#include "common/world.h"
#include "repository/repository.h"

#define IDENTITY_FILE_NAME "pgcairn.identity"

typedef struct {
    char role[16];
    char cluster[CLUSTER_NAME_LIMIT + 1];
    char origin[CLUSTER_NAME_LIMIT + 1];
    char backup[32];
    char restored_at[48];
} Identity;

/* *present_out false when there is no such file. CORRUPT for one that does not parse: refused, not
 * ignored. */
bool identity_read(const World *world, int pgdata_fd, Identity *identity_out, bool *present_out,
                   CairnError *err) MUST_CHECK;
/* Text of the file, for the writer (restore, adopt). */
bool identity_format(const Identity *identity, ByteWriter *text, CairnError *err) MUST_CHECK;
/* REFUSED, naming `pgcairn adopt`, when this data directory may not archive as `cluster`. No file:
 * allowed. */
bool identity_may_archive(const World *world, int pgdata_fd, const char *cluster,
                          CairnError *err) MUST_CHECK;

#endif
