/*
 * Synthetic WAL in memory, for tests: as a server would have written it, ready to be damaged.
 *
 * Ownership: the builder owns its bytes until wal_builder_free. Failures of any kind abort.
 * wal_builder_source is a WalPageSource whose context is the builder.
 */
#ifndef PGCAIRN_TESTS_WAL_BUILDER_H
#define PGCAIRN_TESTS_WAL_BUILDER_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int major;
    uint32_t segment_size;
    uint64_t system_id;
    uint32_t timeline; /* of the pages that are begun from now on */

    uint64_t base_lsn;
    uint64_t next_lsn;
    uint64_t previous_lsn;
    uint8_t *data; /* whole pages from base_lsn on, zero where nothing was written */
    size_t size;
    size_t capacity;
} WalBuilder;

/* base_lsn: where a segment begins. */
void wal_builder_init(WalBuilder *builder, int major, uint32_t segment_size, uint64_t base_lsn);
void wal_builder_free(WalBuilder *builder);

/* Appends a record and returns where it begins. The body follows its header as it is. */
uint64_t wal_builder_raw(WalBuilder *builder, uint8_t resource_manager, uint8_t info, uint32_t xid,
                         const void *body, size_t size);
/* The same, with the main data's own header put before it. */
uint64_t wal_builder_add(WalBuilder *builder, uint8_t resource_manager, uint8_t info, uint32_t xid,
                         const void *main_data, size_t size);
/* A record of no interest (heap), total_size bytes long (24, or 26 and more). */
uint64_t wal_builder_filler(WalBuilder *builder, uint32_t total_size);
/* Fillers until exactly `left` bytes (a multiple of 8) of the current page are free. */
void wal_builder_fill_page(WalBuilder *builder, uint32_t left);
uint64_t wal_builder_commit(WalBuilder *builder, uint32_t xid, int64_t time_us);
uint64_t wal_builder_restore_point(WalBuilder *builder, int64_t time_us, const char *name);
uint64_t wal_builder_switch(WalBuilder *builder);

/* Begins a record that does not fit its page and loses its rest, as in a crash; the next page
   carries the overwrite flag, but no record yet. */
uint64_t wal_builder_interrupt(WalBuilder *builder);
uint64_t wal_builder_declare_void(WalBuilder *builder, uint64_t void_lsn);

uint8_t *wal_builder_at(WalBuilder *builder, uint64_t lsn);
/* Computes the CRC anew of a record that lies within one page. */
void wal_builder_seal(WalBuilder *builder, uint64_t lsn);

bool wal_builder_source(void *context, uint64_t lsn, uint8_t page[8192], bool *present_out,
                        CairnError *err);

#endif
