/*
 * The same done with each of several things by some threads: for small requests to what answers
 * after tens of milliseconds.
 *
 * Threads: `each` is called in any of them, once for each index below count; what it shares is its
 * own affair. With one job, or one thing, all is done by the caller, in order. Errors: where
 * several fail, the lowest index is reported; after a failure nothing more is begun.
 */
#ifndef PGCAIRN_COMMON_PARALLEL_H
#define PGCAIRN_COMMON_PARALLEL_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>

enum { PARALLEL_JOBS_LIMIT = 16 };

typedef bool ParallelEach(void *context, size_t index, CairnError *err);
bool parallel_each(size_t count, int jobs, ParallelEach *each, void *context,
                   CairnError *err) MUST_CHECK;

#endif
