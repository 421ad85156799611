/*
 * Facts of a segment as bytes: section 1 of a WAL object's index (docs/format.md, "WAL").
 *
 * What: writes facts and reads them back as hostile bytes: every count has the limit that
 * postgres/wal_facts.h states, every LSN lies in the segment. Errors: CORRUPT for bytes that
 * contradict themselves, UNSUPPORTED for a newer layout; whoever reads treats both as no facts.
 * Threads: any.
 */
#ifndef PGCAIRN_REPOSITORY_WAL_FACTS_FORMAT_H
#define PGCAIRN_REPOSITORY_WAL_FACTS_FORMAT_H

#include "common/bytes.h"
#include "postgres/wal_facts.h"

#include <stddef.h>
#include <stdint.h>

enum { WAL_FACTS_SIZE_LIMIT = 4 << 20 };

void wal_facts_format(const WalFacts *facts, ByteWriter *bytes);

/* Returned owned. What the bytes do not say comes from the segment's identity. */
WalFacts *wal_facts_parse(const void *data, size_t size, const WalIdentity *segment,
                          CairnError *err) MUST_CHECK;

#endif
