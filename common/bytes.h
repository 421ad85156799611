/*
 * Little-endian bytes: unaligned get and put, a bounded reader for foreign bytes, a growing writer.
 *
 * ByteReader: parse as if an enemy wrote it. A read past the end, an over-long varint or a length
 * over its limit makes the reader fail for good: further reads return 0 or NULL, `failed` is
 * checked once at the end (style: failure is sticky). ByteWriter: memory grows by doubling; an
 * allocation failure is sticky too. Varints: LEB128, at most 10 bytes, shortest form required.
 * Ownership: a reader borrows its bytes; a writer owns its buffer until byte_writer_free.
 * Threads: one object, one thread.
 */
#ifndef PGCAIRN_COMMON_BYTES_H
#define PGCAIRN_COMMON_BYTES_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t
get_u16(const void *data)
{
    uint16_t value;
    memcpy(&value, data, sizeof value);
    return value; /* little-endian machines only; asserted in common/bytes.c */
}

static inline uint32_t
get_u32(const void *data)
{
    uint32_t value;
    memcpy(&value, data, sizeof value);
    return value;
}

static inline uint64_t
get_u64(const void *data)
{
    uint64_t value;
    memcpy(&value, data, sizeof value);
    return value;
}

static inline void
put_u16(void *data, uint16_t value)
{
    memcpy(data, &value, sizeof value);
}

static inline void
put_u32(void *data, uint32_t value)
{
    memcpy(data, &value, sizeof value);
}

static inline void
put_u64(void *data, uint64_t value)
{
    memcpy(data, &value, sizeof value);
}

typedef struct {
    const uint8_t *data;
    size_t size;
    size_t at;
    bool failed;
} ByteReader;

static inline ByteReader
byte_reader(const void *data, size_t size)
{
    return (ByteReader){.data = data, .size = size};
}

uint8_t byte_reader_u8(ByteReader *reader);
uint16_t byte_reader_u16(ByteReader *reader);
uint32_t byte_reader_u32(ByteReader *reader);
uint64_t byte_reader_u64(ByteReader *reader);
uint64_t byte_reader_varint(ByteReader *reader);

/* A varint that must not exceed limit; fails the reader when it does. */
uint64_t byte_reader_varint_max(ByteReader *reader, uint64_t limit);

/* Borrowed pointer to the next size bytes, NULL when they are not there. */
const uint8_t *byte_reader_bytes(ByteReader *reader, size_t size);

static inline size_t
byte_reader_left(const ByteReader *reader)
{
    return reader->failed ? 0 : reader->size - reader->at;
}

/* True when nothing failed and every byte was read. */
static inline bool
byte_reader_done(const ByteReader *reader)
{
    return !reader->failed && reader->at == reader->size;
}

typedef struct {
    uint8_t *data;
    size_t size;
    size_t capacity;
    bool failed;
} ByteWriter;

void byte_writer_u8(ByteWriter *writer, uint8_t value);
void byte_writer_u16(ByteWriter *writer, uint16_t value);
void byte_writer_u32(ByteWriter *writer, uint32_t value);
void byte_writer_u64(ByteWriter *writer, uint64_t value);
void byte_writer_varint(ByteWriter *writer, uint64_t value);
void byte_writer_bytes(ByteWriter *writer, const void *data, size_t size);
/* Text, whole however long it becomes; no NUL is kept behind it. */
void byte_writer_format(ByteWriter *writer, const char *format, ...) PRINTF_LIKE(2, 3);
void byte_writer_reset(ByteWriter *writer); /* size 0, keeps the memory */
void byte_writer_free(ByteWriter *writer);

/* False with INTERNAL "out of memory" when an append failed. */
bool byte_writer_check(const ByteWriter *writer, CairnError *err) MUST_CHECK;

/* Release by scope: `SCOPED_BYTES ByteWriter body = {0};` */
#define SCOPED_BYTES __attribute__((cleanup(byte_writer_free)))

/* Lower-case hex of size bytes into text (2 * size + 1 chars), and back from exactly 2 * size chars
   (what follows them is the caller's to check); false on any other char. */
void hex_encode(char *text, const void *data, size_t size);
bool hex_decode(void *data, size_t size, const char *text);

#endif
