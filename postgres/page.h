/*
 * Data pages (facts 9): header, checksum, zero test.
 */
#ifndef PGCAIRN_POSTGRES_PAGE_H
#define PGCAIRN_POSTGRES_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PAGE_SIZE_BYTES = 8192, PAGE_SEGMENT_BLOCKS = 131072 };

/* block: number within the relation fork. AVX2 where the CPU has it. */
uint16_t page_checksum(const void *page, uint32_t block);
/* The same on any CPU; for tests, which compare the two. */
uint16_t page_checksum_generic(const void *page, uint32_t block);
bool bytes_are_zero(const void *data, size_t size);
uint64_t page_lsn(const void *page);

typedef enum { PAGE_GOOD, PAGE_NEW, PAGE_BAD } PageVerdict;

/*
 * The rule of facts 9.3 for a page that was read from a live cluster: all zero or upper == 0 with
 * all zero is PAGE_NEW; a right checksum, or an LSN at or after the backup's start (may be torn,
 * WAL replaces it), is PAGE_GOOD; the rest PAGE_BAD.
 */
PageVerdict page_verify(const void *page, uint32_t block, uint64_t backup_start_lsn);

/* A relation file's parts from its cluster path ("base/5/16384_fsm.2", "global/1262",
   "pg_tblspc/16400/PG_15_202209061/5/16385"); false for every other file, temporary relations too.
   In postgres/relation_file.c. */
typedef struct {
    uint32_t tablespace; /* 1663 base, 1664 global */
    uint32_t database;   /* 0 in global/ */
    uint32_t relfilenode;
    int fork; /* 0 main 1 fsm 2 vm 3 init */
    uint32_t segment;
} RelationFile;

bool relation_file_parse(const char *path, RelationFile *file_out);

#endif
