#include "postgres/wal_name.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { SEGMENT_NAME_DIGITS = 24, GROUP_DIGITS = 8 };

/* The smallest segment, 1 MiB, divides 4 GiB into 4096: no larger third group can exist. */
enum { LOW_PART_LIMIT = 0x1000 };

static int
hex_digit(char c, bool lower_too)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    if (lower_too && c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

/* Reads 1 to 8 hex digits of either case; NULL when there are none or more. */
static const char *
parse_lsn_half(const char *text, uint32_t *value_out)
{
    uint32_t value = 0;
    int digits = 0;

    for (int digit; (digit = hex_digit(*text, true)) >= 0; text++) {
        if (++digits > GROUP_DIGITS)
            return NULL;
        value = value << 4 | (uint32_t)digit;
    }
    if (digits == 0)
        return NULL;
    *value_out = value;
    return text;
}

bool
wal_digits_parse(const char *text, uint32_t *value_out)
{
    uint32_t value = 0;

    for (int i = 0; i < GROUP_DIGITS; i++) {
        int digit = hex_digit(text[i], false);
        if (digit < 0)
            return false;
        value = value << 4 | (uint32_t)digit;
    }
    *value_out = value;
    return true;
}

/* The 24 digits that begin three of the four kinds of names. */
static bool
parse_three_groups(const char *name, WalFileName *file_out)
{
    return wal_digits_parse(name, &file_out->timeline) &&
           wal_digits_parse(name + GROUP_DIGITS, &file_out->log) &&
           wal_digits_parse(name + 2 * GROUP_DIGITS, &file_out->low) && file_out->timeline != 0 &&
           file_out->low < LOW_PART_LIMIT;
}

void
lsn_format(char text[LSN_TEXT_SIZE], uint64_t lsn)
{
    snprintf(text, LSN_TEXT_SIZE, "%" PRIX32 "/%" PRIX32, (uint32_t)(lsn >> 32), (uint32_t)lsn);
}

bool
lsn_parse(const char *text, uint64_t *lsn_out)
{
    uint32_t high;
    uint32_t low;

    text = parse_lsn_half(text, &high);
    if (text == NULL || *text != '/')
        return false;
    text = parse_lsn_half(text + 1, &low);
    if (text == NULL || *text != '\0')
        return false;
    *lsn_out = (uint64_t)high << 32 | low;
    return true;
}

bool
wal_segment_size_valid(uint64_t segment_size)
{
    return segment_size >= UINT64_C(1) << 20 && segment_size <= UINT64_C(1) << 30 &&
           (segment_size & (segment_size - 1)) == 0;
}

void
wal_segment_name(char name[WAL_NAME_SIZE], uint32_t timeline, uint64_t segment_number,
                 uint32_t segment_size)
{
    CAIRN_ASSERT(wal_segment_size_valid(segment_size));

    const uint64_t segments_per_log = wal_segments_per_log(segment_size);
    CAIRN_ASSERT(segment_number / segments_per_log <= UINT32_MAX);

    snprintf(name, WAL_NAME_SIZE, "%08" PRIX32 "%08" PRIX32 "%08" PRIX32, timeline,
             (uint32_t)(segment_number / segments_per_log),
             (uint32_t)(segment_number % segments_per_log));
}

bool
wal_segment_parse(const char *name, uint32_t segment_size, uint32_t *timeline_out,
                  uint64_t *segment_number_out)
{
    WalFileName file;

    CAIRN_ASSERT(wal_segment_size_valid(segment_size));
    if (!parse_three_groups(name, &file) || name[SEGMENT_NAME_DIGITS] != '\0')
        return false;

    const uint64_t segments_per_log = wal_segments_per_log(segment_size);
    if (file.low >= segments_per_log)
        return false;
    *timeline_out = file.timeline;
    *segment_number_out = file.log * segments_per_log + file.low;
    return true;
}

static bool
parse_file_name(const char *name, WalFileName *file_out)
{
    WalFileName file = {0};

    if (parse_three_groups(name, &file)) {
        const char *rest = name + SEGMENT_NAME_DIGITS;
        uint32_t backup_offset;

        if (*rest == '\0')
            file.kind = WAL_FILE_SEGMENT;
        else if (strcmp(rest, ".partial") == 0)
            file.kind = WAL_FILE_PARTIAL;
        else if (*rest == '.' && wal_digits_parse(rest + 1, &backup_offset) &&
                 strcmp(rest + 1 + GROUP_DIGITS, ".backup") == 0)
            file.kind = WAL_FILE_BACKUP_HISTORY;
        else
            return false;
    } else if (wal_digits_parse(name, &file.timeline) && file.timeline != 0 &&
               strcmp(name + GROUP_DIGITS, ".history") == 0) {
        file = (WalFileName){.kind = WAL_FILE_HISTORY, .timeline = file.timeline};
    } else {
        return false;
    }

    *file_out = file;
    return true;
}

bool
wal_file_name_parse(const char *name, WalFileName *file_out, CairnError *err)
{
    if (!parse_file_name(name, file_out)) {
        return cairn_error(err, CAIRN_USAGE, "'%.*s' is not the name of a WAL file",
                           WAL_FILE_NAME_LIMIT, name);
    }
    return true;
}

/* XLOG_PAGE_MAGIC of each supported major version. */
static const struct {
    int major;
    uint16_t magic;
} wal_magics[] = {{15, 0xD110}, {16, 0xD113}, {17, 0xD116}, {18, 0xD118}};

enum { WAL_MAGIC_COUNT = sizeof wal_magics / sizeof wal_magics[0] };

uint16_t
wal_magic_of_major(int major)
{
    for (size_t i = 0; i < WAL_MAGIC_COUNT; i++) {
        if (wal_magics[i].major == major)
            return wal_magics[i].magic;
    }
    return 0;
}

int
wal_major_of_magic(uint16_t magic)
{
    for (size_t i = 0; i < WAL_MAGIC_COUNT; i++) {
        if (wal_magics[i].magic == magic)
            return wal_magics[i].major;
    }
    return 0;
}
