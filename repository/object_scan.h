/*
 * An object read once, from its first byte to its last, by who proves it: frames as they are asked
 * for, and in the end the SHA-256 over all of it.
 *
 * What: bytes come in windows, since a read of an object store takes tens of milliseconds however
 * little it is. Where a window cannot be read, only what was asked for is, so that what lies beside
 * a bad sector is not said to be lost. Memory: OBJECT_SCAN_WINDOW, or the object where that is
 * less. Errors: the storage's; CORRUPT when the digest does not match. Threads: one; the reader may
 * have other scans.
 */
#ifndef PGCAIRN_REPOSITORY_OBJECT_SCAN_H
#define PGCAIRN_REPOSITORY_OBJECT_SCAN_H

#include "repository/object.h"

enum { OBJECT_SCAN_WINDOW = 1 << 20 };

typedef struct ObjectScan ObjectScan;
/* reader is borrowed. */
ObjectScan *object_scan_new(const ObjectReader *reader, CairnError *err) MUST_CHECK;
void object_scan_free(ObjectScan *scan);
SCOPED_TYPE(ObjectScan, object_scan_free);

/* Stored bytes of a frame, unchecked, borrowed until the next call. Each byte is read once as long
 * as frames are asked for in order. After a failure other frames may still be had. */
bool object_scan_frame(ObjectScan *scan, uint64_t offset, uint32_t size, const uint8_t **data_out,
                       CairnError *err) MUST_CHECK;
/* Reads what is left, and what could not be read before, and compares the SHA-256. */
bool object_scan_finish(ObjectScan *scan, CairnError *err) MUST_CHECK;

#endif
