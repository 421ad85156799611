/*
 * Which bytes to fetch for a read: requests cost tens of milliseconds, bytes next to nothing.
 *
 * Pure. Threads: any.
 */
#ifndef PGCAIRN_STORAGE_S3_READ_PLAN_H
#define PGCAIRN_STORAGE_S3_READ_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    S3_FIRST_READ = 64 << 10,   /* at open: all of a small object, the header of another */
    S3_TAIL_READ = 128 << 10,   /* who reads near the end wants a trailer, then what it points to */
    S3_RANDOM_READ = 64 << 10,  /* a small read out of order */
    S3_AHEAD_FIRST = 256 << 10, /* reads in order: twice as much each time ... */
    S3_AHEAD_LIMIT = 2 << 20,   /* ... up to this */
    S3_DIRECT_MIN = 256 << 10,  /* who asks for so much at once has a window of its own */
};

/* Of one open object: what was read and fetched last. */
typedef struct {
    uint64_t object_size;
    uint64_t next_offset; /* behind the last read */
    size_t ahead;         /* fetched last in order; 0: not in order */
} S3ReadState;

typedef struct {
    uint64_t offset;
    size_t size;
    bool direct; /* just what was asked for, into the caller's buffer */
} S3ReadPlan;

/* For a read of [offset, offset + size) that nothing at hand covers; it lies within the object. */
S3ReadPlan s3_read_plan(const S3ReadState *state, uint64_t offset, size_t size);

/* "bytes 0-99/1234" of an answer to a ranged GET; false for anything else. */
bool s3_content_range_parse(const char *text, uint64_t *first_out, uint64_t *last_out,
                            uint64_t *total_out);

#endif
