/*
 * Loads a storage driver from the file that it is in (storage/driver.h).
 *
 * Looked for beside the program, then in ../lib/pgcairn from there; nowhere else, and the
 * environment has no say. Loaded once, never unloaded. Errors: UNSUPPORTED when it is missing, does
 * not load, or belongs to another version. Threads: any.
 */
#ifndef PGCAIRN_STORAGE_DRIVER_LOAD_H
#define PGCAIRN_STORAGE_DRIVER_LOAD_H

#include "storage/driver.h"

/* The S3 driver. Borrowed for ever. */
const StorageDriver *storage_driver_s3(CairnError *err) MUST_CHECK;

#endif
