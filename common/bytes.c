#include "common/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the accessors in bytes.h copy host integers and need a little-endian machine");

enum { VARINT_SIZE_LIMIT = 10, WRITER_FIRST_CAPACITY = 256 };

const uint8_t *
byte_reader_bytes(ByteReader *reader, size_t size)
{
    if (reader->failed || size > reader->size - reader->at) {
        reader->failed = true;
        return NULL;
    }
    const uint8_t *data = reader->data + reader->at;
    reader->at += size;
    return data;
}

uint8_t
byte_reader_u8(ByteReader *reader)
{
    const uint8_t *data = byte_reader_bytes(reader, 1);
    return data != NULL ? *data : 0;
}

uint16_t
byte_reader_u16(ByteReader *reader)
{
    const uint8_t *data = byte_reader_bytes(reader, sizeof(uint16_t));
    return data != NULL ? get_u16(data) : 0;
}

uint32_t
byte_reader_u32(ByteReader *reader)
{
    const uint8_t *data = byte_reader_bytes(reader, sizeof(uint32_t));
    return data != NULL ? get_u32(data) : 0;
}

uint64_t
byte_reader_u64(ByteReader *reader)
{
    const uint8_t *data = byte_reader_bytes(reader, sizeof(uint64_t));
    return data != NULL ? get_u64(data) : 0;
}

uint64_t
byte_reader_varint(ByteReader *reader)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < VARINT_SIZE_LIMIT; i++) {
        const uint8_t byte = byte_reader_u8(reader);
        if (reader->failed)
            return 0;
        /* The tenth byte holds bit 63 only; more would be shifted out unseen. */
        if (i == VARINT_SIZE_LIMIT - 1 && byte > 1)
            break;
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if ((byte & 0x80) == 0) {
            /* One value, one spelling: a closing zero byte would be a longer form of the same. */
            if (byte == 0 && i > 0)
                break;
            return value;
        }
    }
    reader->failed = true;
    return 0;
}

uint64_t
byte_reader_varint_max(ByteReader *reader, uint64_t limit)
{
    const uint64_t value = byte_reader_varint(reader);
    if (value > limit) {
        reader->failed = true;
        return 0;
    }
    return value;
}

/* Room for size more bytes, or NULL with the writer failed for good. */
static uint8_t *
reserve(ByteWriter *writer, size_t size)
{
    if (writer->failed)
        return NULL;
    size_t needed;
    if (__builtin_add_overflow(writer->size, size, &needed)) {
        writer->failed = true;
        return NULL;
    }
    if (needed > writer->capacity) {
        size_t capacity = writer->capacity > 0 ? writer->capacity : WRITER_FIRST_CAPACITY;
        while (capacity < needed && capacity <= SIZE_MAX / 2)
            capacity *= 2;
        if (capacity < needed)
            capacity = needed;
        uint8_t *data = realloc(writer->data, capacity);
        if (data == NULL) {
            writer->failed = true;
            return NULL;
        }
        writer->data = data;
        writer->capacity = capacity;
    }
    uint8_t *place = writer->data + writer->size;
    writer->size = needed;
    return place;
}

void
byte_writer_u8(ByteWriter *writer, uint8_t value)
{
    uint8_t *place = reserve(writer, sizeof value);
    if (place != NULL)
        *place = value;
}

void
byte_writer_u16(ByteWriter *writer, uint16_t value)
{
    uint8_t *place = reserve(writer, sizeof value);
    if (place != NULL)
        put_u16(place, value);
}

void
byte_writer_u32(ByteWriter *writer, uint32_t value)
{
    uint8_t *place = reserve(writer, sizeof value);
    if (place != NULL)
        put_u32(place, value);
}

void
byte_writer_u64(ByteWriter *writer, uint64_t value)
{
    uint8_t *place = reserve(writer, sizeof value);
    if (place != NULL)
        put_u64(place, value);
}

void
byte_writer_varint(ByteWriter *writer, uint64_t value)
{
    uint8_t bytes[VARINT_SIZE_LIMIT];
    size_t count = 0;
    while (value >= 0x80) {
        bytes[count++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    bytes[count++] = (uint8_t)value;
    byte_writer_bytes(writer, bytes, count);
}

void
byte_writer_bytes(ByteWriter *writer, const void *data, size_t size)
{
    if (size == 0)
        return; /* data may be NULL then, which memcpy must not see */
    uint8_t *place = reserve(writer, size);
    if (place != NULL)
        memcpy(place, data, size);
}

void
byte_writer_format(ByteWriter *writer, const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    const int size = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *place = size < 0 ? NULL : (char *)reserve(writer, (size_t)size + 1);
    if (place == NULL)
        writer->failed = true;
    else {
        vsnprintf(place, (size_t)size + 1, format, again);
        writer->size--; /* the NUL */
    }
    va_end(again);
}

void
byte_writer_reset(ByteWriter *writer)
{
    writer->size = 0;
    writer->failed = false;
}

void
byte_writer_free(ByteWriter *writer)
{
    free(writer->data);
    *writer = (ByteWriter){0};
}

bool
byte_writer_check(const ByteWriter *writer, CairnError *err)
{
    if (writer->failed)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    return true;
}

void
hex_encode(char *text, const void *data, size_t size)
{
    static const char DIGITS[] = "0123456789abcdef";
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++) {
        text[2 * i] = DIGITS[bytes[i] >> 4];
        text[2 * i + 1] = DIGITS[bytes[i] & 15];
    }
    text[2 * size] = '\0';
}

static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

bool
hex_decode(void *data, size_t size, const char *text)
{
    uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++) {
        const int high = hex_digit(text[2 * i]);
        if (high < 0)
            return false; /* stops at a NUL before looking past it */
        const int low = hex_digit(text[2 * i + 1]);
        if (low < 0)
            return false;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
