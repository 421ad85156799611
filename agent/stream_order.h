/*
 * What the server streamed, in the order in which it did, on local scratch: the manifest lists
 * files in that very order, so it is checked file by file in constant memory, whatever the number
 * of files.
 *
 * Crash: the scratch file has no name once it is open. Threads: one thread.
 */
#ifndef PGCAIRN_AGENT_STREAM_ORDER_H
#define PGCAIRN_AGENT_STREAM_ORDER_H

#include "common/error.h"
#include "common/scoped.h"
#include "common/world.h"
#include "postgres/manifest.h"

#include <stdint.h>

typedef struct StreamOrder StreamOrder;
StreamOrder *stream_order_new(const World *world, const char *scratch_directory,
                              CairnError *err) MUST_CHECK;
void stream_order_free(StreamOrder *order);
/* A file has streamed. */
bool stream_order_add(StreamOrder *order, const char *path, uint64_t size_bytes, uint32_t crc32c,
                      CairnError *err) MUST_CHECK;
/* The manifest's next file must be the next one that streamed: CORRUPT, naming both, when it is
 * not. */
bool stream_order_check(StreamOrder *order, const ManifestFile *file, CairnError *err) MUST_CHECK;
/* Nothing that streamed may be left over. */
bool stream_order_finish(StreamOrder *order, CairnError *err) MUST_CHECK;
SCOPED_TYPE(StreamOrder, stream_order_free);

#endif
