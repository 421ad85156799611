/*
 * A scratch directory for a test program, below TMPDIR or /tmp: made on first use, emptied and
 * removed at exit. Threads: one.
 */
#ifndef PGCAIRN_TESTS_SCRATCH_H
#define PGCAIRN_TESTS_SCRATCH_H

/* A new empty directory of this program's own, returned borrowed until exit. */
const char *scratch_directory(void);
/* "<directory>/<name>", in a static buffer of its own for each of the last 8 calls. */
const char *scratch_path(const char *directory, const char *name);

#endif
