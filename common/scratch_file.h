/*
 * Temporary files without a name, on local scratch: a crash leaves nothing to clean up.
 */
#ifndef PGCAIRN_COMMON_SCRATCH_FILE_H
#define PGCAIRN_COMMON_SCRATCH_FILE_H

#include "common/error.h"
#include "common/world.h"

/* $TMPDIR, else /var/tmp: on disk, where /tmp may be memory. */
const char *scratch_file_directory(void);

/* Open for reading and writing, unlinked already; -1 and an error. */
int scratch_file_open(const World *world, const char *directory, CairnError *err) MUST_CHECK;

#endif
