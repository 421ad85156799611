/*
 * Whole reads and writes, and durable publishing, over a World's disk: the one place where short
 * transfers and EINTR are handled.
 *
 * Errors: by errno (see cairn_error_kind_of_errno); the message names the path given as `name`.
 * Crash: file_publish is the only way a finished file gets its name in a repository: link, never
 * rename, so nothing that exists is ever overwritten.
 * Threads: any.
 */
#ifndef PGCAIRN_COMMON_FILE_H
#define PGCAIRN_COMMON_FILE_H

#include "common/error.h"
#include "common/world.h"

#include <stdint.h>

/* Write all bytes at the current position, or at offset. */
bool file_write(const World *world, int fd, const void *data, size_t size, const char *name,
                CairnError *err) MUST_CHECK;
bool file_pwrite(const World *world, int fd, const void *data, size_t size, uint64_t offset,
                 const char *name, CairnError *err) MUST_CHECK;

/* Read up to size bytes until end of file; *size_out is what came. */
bool file_read(const World *world, int fd, void *data, size_t size, size_t *size_out,
               const char *name, CairnError *err) MUST_CHECK;
/* Read exactly size bytes at offset; CORRUPT when the file ends earlier. */
bool file_pread(const World *world, int fd, void *data, size_t size, uint64_t offset,
                const char *name, CairnError *err) MUST_CHECK;

/* fsync and close, both checked; the descriptor is gone either way. A failed fsync is final. */
bool file_sync_close(const World *world, int fd, const char *name, CairnError *err) MUST_CHECK;
bool file_sync(const World *world, int fd, const char *name, CairnError *err) MUST_CHECK;
/* fsync the directory `path` below dirfd ("." for dirfd itself). */
bool file_sync_directory(const World *world, int dirfd, const char *path,
                         CairnError *err) MUST_CHECK;

/* The whole of a small file below dirfd, NUL-terminated, malloc'ed (returned owned). Refuses what
   is no regular file and what is larger than limit (UNSUPPORTED). */
char *file_read_all(const World *world, int dirfd, const char *path, size_t limit, size_t *size_out,
                    CairnError *err) MUST_CHECK;

/* Create or replace a small file below dirfd durably: temporary name, write, fsync, rename, fsync
   of its directory. Only for directories that are ours (restore targets), never in a repository. */
bool file_replace(const World *world, int dirfd, const char *path, const void *data, size_t size,
                  mode_t mode, CairnError *err) MUST_CHECK;

/* mkdir -p of path below dirfd, each new directory's parent synced; mode whatever the umask. A
   relative path goes through no symbolic link. */
bool file_make_directories(const World *world, int dirfd, const char *path, mode_t mode,
                           CairnError *err) MUST_CHECK;

#endif
