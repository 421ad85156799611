#include "postgres/manifest_line.h"

#include "common/bytes.h"
#include "postgres/wal_name.h"

#include <string.h>

/* What is left of the line. */
typedef struct {
    const char *at;
    const char *end;
} Cursor;

enum { KEY_LIMIT = 64, LAST_MODIFIED_LIMIT = 64, CHECKSUM_TEXT_LIMIT = 128 };

static bool
corrupt(CairnError *err, const char *why)
{
    return cairn_error(err, CAIRN_CORRUPT, "%s", why);
}

static void
skip_space(Cursor *cursor)
{
    while (cursor->at < cursor->end && (*cursor->at == ' ' || *cursor->at == '\t'))
        cursor->at++;
}

static bool
take_char(Cursor *cursor, char expected)
{
    skip_space(cursor);
    if (cursor->at == cursor->end || *cursor->at != expected)
        return false;
    cursor->at++;
    return true;
}

static bool
at_end(Cursor *cursor)
{
    skip_space(cursor);
    return cursor->at == cursor->end;
}

/* Length of the UTF-8 sequence at data, 0 when it is none. */
static size_t
utf8_sequence(const uint8_t *data, size_t size)
{
    const uint8_t first = data[0];
    if (first < 0x80)
        return 1;

    const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || length > size)
        return 0;
    /* The second byte's range keeps out over-long forms, surrogates and what lies past U+10FFFF. */
    const uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    const uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (data[1] < low || data[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++) {
        if ((data[i] & 0xc0) != 0x80)
            return 0;
    }
    return length;
}

bool
utf8_is_valid(const void *data, size_t size)
{
    const uint8_t *bytes = data;
    for (size_t at = 0; at < size;) {
        const size_t length = utf8_sequence(bytes + at, size - at);
        if (length == 0)
            return false;
        at += length;
    }
    return true;
}

static size_t
utf8_encode(uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

static bool
take_hex4(Cursor *cursor, uint32_t *value_out)
{
    uint32_t value = 0;
    if (cursor->end - cursor->at < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        const char c = *cursor->at++;
        if (c >= '0' && c <= '9')
            value = value << 4 | (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value << 4 | (uint32_t)(c - 'a' + 10);
        else if (c >= 'A' && c <= 'F')
            value = value << 4 | (uint32_t)(c - 'A' + 10);
        else
            return false;
    }
    *value_out = value;
    return true;
}

/* After "\u": four digits, or two times four for what lies beyond 16 bits. NUL never passes. */
static size_t
take_unicode(Cursor *cursor, char out[4])
{
    uint32_t code;
    if (!take_hex4(cursor, &code) || code == 0 || (code >= 0xdc00 && code <= 0xdfff))
        return 0;
    if (code < 0xd800 || code > 0xdbff)
        return utf8_encode(code, out);

    uint32_t low;
    if (cursor->end - cursor->at < 2 || cursor->at[0] != '\\' || cursor->at[1] != 'u')
        return 0;
    cursor->at += 2;
    if (!take_hex4(cursor, &low) || low < 0xdc00 || low > 0xdfff)
        return 0;
    return utf8_encode(0x10000 + ((code - 0xd800) << 10 | (low - 0xdc00)), out);
}

/* The bytes that a backslash sequence stands for; 0 when it is none. */
static size_t
take_escape(Cursor *cursor, char out[4])
{
    static const char names[] = "\"\\/bfnrt";
    static const char values[] = "\"\\/\b\f\n\r\t";

    if (cursor->at == cursor->end)
        return 0;
    const char c = *cursor->at++;
    if (c == 'u')
        return take_unicode(cursor, out);
    const char *name = c == '\0' ? NULL : strchr(names, c);
    if (name == NULL)
        return 0;
    out[0] = values[name - names];
    return 1;
}

/* A JSON string into text (capacity includes the NUL). */
static bool
take_string(Cursor *cursor, char *text, size_t capacity, size_t *size_out)
{
    size_t size = 0;
    if (!take_char(cursor, '"'))
        return false;
    while (cursor->at < cursor->end && *cursor->at != '"') {
        char decoded[4];
        const char *from = cursor->at;
        size_t length = 1;
        if (*cursor->at == '\\') {
            cursor->at++;
            from = decoded;
            length = take_escape(cursor, decoded);
        } else if ((unsigned char)*cursor->at < ' ') {
            return false;
        } else {
            length = utf8_sequence((const uint8_t *)from, (size_t)(cursor->end - from));
            cursor->at += length;
        }
        if (length == 0 || length >= capacity - size)
            return false;
        memcpy(text + size, from, length);
        size += length;
    }
    text[size] = '\0';
    *size_out = size;
    return take_char(cursor, '"');
}

static bool
take_u64(Cursor *cursor, uint64_t *value_out)
{
    skip_space(cursor);
    const char *start = cursor->at;
    uint64_t value = 0;
    for (; cursor->at < cursor->end && *cursor->at >= '0' && *cursor->at <= '9'; cursor->at++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*cursor->at - '0'), &value)) {
            return false;
        }
    }
    const size_t digits = (size_t)(cursor->at - start);
    *value_out = value;
    return digits == 1 || (digits > 1 && *start != '0');
}

/* `"key":` whatever the key is; key_out has room for KEY_LIMIT. */
static bool
take_key(Cursor *cursor, char *key_out)
{
    size_t size;
    return take_string(cursor, key_out, KEY_LIMIT, &size) && strlen(key_out) == size &&
           take_char(cursor, ':');
}

static bool
take_this_key(Cursor *cursor, const char *key)
{
    char found[KEY_LIMIT];
    return take_key(cursor, found) && strcmp(found, key) == 0;
}

static bool
take_lsn(Cursor *cursor, uint64_t *lsn_out)
{
    char text[LSN_TEXT_SIZE];
    size_t size;
    return take_string(cursor, text, sizeof text, &size) && lsn_parse(text, lsn_out);
}

/* One more key of an object: its bit must not be set yet. */
static bool
claim(unsigned *seen, unsigned key)
{
    const bool is_new = (*seen & 1u << key) == 0;
    *seen |= 1u << key;
    return is_new;
}

enum { FILE_PATH, FILE_SIZE, FILE_MODIFIED, FILE_ALGORITHM, FILE_CHECKSUM };

/* What the keys of one file object add up to, until all are there. */
typedef struct {
    unsigned seen;
    char algorithm[16];
    char checksum[CHECKSUM_TEXT_LIMIT + 1];
    size_t checksum_size;
} FileKeys;

static bool
take_encoded_path(Cursor *cursor, ManifestLine *line)
{
    char hex[2 * TAR_PATH_LIMIT + 1];
    size_t size;
    if (!take_string(cursor, hex, sizeof hex, &size) || size % 2 != 0 ||
        !hex_decode(line->path_bytes, size / 2, hex)) {
        return false;
    }
    line->path_bytes[size / 2] = '\0';
    line->file.path_size = size / 2;
    return true;
}

/* start: where the key stands, for the spans that the rewriter copies. */
static bool
take_file_value(Cursor *cursor, const char *key, const char *start, ManifestLine *line,
                FileKeys *keys)
{
    size_t ignored_size;
    if (strcmp(key, "Path") == 0 || strcmp(key, "Encoded-Path") == 0) {
        if (!claim(&keys->seen, FILE_PATH) ||
            !(key[0] == 'E' ? take_encoded_path(cursor, line)
                            : take_string(cursor, line->path_bytes, sizeof line->path_bytes,
                                          &line->file.path_size))) {
            return false;
        }
        line->path = (ManifestSpan){.data = start, .size = (size_t)(cursor->at - start)};
        return true;
    }
    if (strcmp(key, "Size") == 0)
        return claim(&keys->seen, FILE_SIZE) && take_u64(cursor, &line->file.size_bytes);
    if (strcmp(key, "Last-Modified") == 0) {
        char ignored[LAST_MODIFIED_LIMIT];
        if (!claim(&keys->seen, FILE_MODIFIED) ||
            !take_string(cursor, ignored, sizeof ignored, &ignored_size)) {
            return false;
        }
        line->modified = (ManifestSpan){.data = start, .size = (size_t)(cursor->at - start)};
        return true;
    }
    if (strcmp(key, "Checksum-Algorithm") == 0) {
        return claim(&keys->seen, FILE_ALGORITHM) &&
               take_string(cursor, keys->algorithm, sizeof keys->algorithm, &ignored_size);
    }
    if (strcmp(key, "Checksum") == 0) {
        return claim(&keys->seen, FILE_CHECKSUM) &&
               take_string(cursor, keys->checksum, sizeof keys->checksum, &keys->checksum_size);
    }
    return false;
}

static bool
check_file_checksum(const FileKeys *keys, ManifestFile *file)
{
    static const struct {
        const char *name;
        size_t size;
    } algorithms[] = {
        {"CRC32C", 4}, {"SHA224", 28}, {"SHA256", 32}, {"SHA384", 48}, {"SHA512", 64}};

    const bool has_algorithm = (keys->seen & 1u << FILE_ALGORITHM) != 0;
    const bool has_checksum = (keys->seen & 1u << FILE_CHECKSUM) != 0;
    if (!has_algorithm || !has_checksum)
        return has_algorithm == has_checksum;

    for (size_t i = 0; i < sizeof algorithms / sizeof algorithms[0]; i++) {
        uint8_t bytes[64];
        if (strcmp(keys->algorithm, algorithms[i].name) != 0)
            continue;
        if (keys->checksum_size != 2 * algorithms[i].size ||
            !hex_decode(bytes, algorithms[i].size, keys->checksum)) {
            return false;
        }
        /* CRC-32C is printed in the order of the server's memory. */
        file->has_crc32c = i == 0;
        file->crc32c = i == 0 ? get_u32(bytes) : 0;
        return true;
    }
    return false;
}

static bool
parse_file(Cursor *cursor, ManifestLine *line, CairnError *err)
{
    FileKeys keys = {0};
    const char *start = cursor->at;

    if (!take_char(cursor, '{'))
        return corrupt(err, "expected a file");
    do {
        char key[KEY_LIMIT];
        skip_space(cursor);
        const char *key_start = cursor->at;
        if (!take_key(cursor, key) || !take_file_value(cursor, key, key_start, line, &keys))
            return corrupt(err, "a file's key or value is unknown, invalid or given twice");
    } while (take_char(cursor, ','));
    if (!take_char(cursor, '}'))
        return corrupt(err, "a file's object is not closed");
    line->object = (ManifestSpan){.data = start, .size = (size_t)(cursor->at - start)};

    const unsigned required = 1u << FILE_PATH | 1u << FILE_SIZE | 1u << FILE_MODIFIED;
    if ((keys.seen & required) != required)
        return corrupt(err, "a file without path, size or time");
    if (!check_file_checksum(&keys, &line->file))
        return corrupt(err, "a file's checksum is invalid");
    if (!path_is_clean(line->path_bytes, line->file.path_size))
        return corrupt(err, "a file's name is not a clean relative path");
    line->file.path = line->path_bytes;
    return true;
}

enum { RANGE_TIMELINE, RANGE_START, RANGE_END, RANGE_KEYS };

static bool
take_range_value(Cursor *cursor, const char *key, ManifestWalRange *range, unsigned *seen)
{
    if (strcmp(key, "Timeline") == 0) {
        uint64_t timeline;
        if (!claim(seen, RANGE_TIMELINE) || !take_u64(cursor, &timeline) || timeline == 0 ||
            timeline > UINT32_MAX) {
            return false;
        }
        range->timeline = (uint32_t)timeline;
        return true;
    }
    if (strcmp(key, "Start-LSN") == 0)
        return claim(seen, RANGE_START) && take_lsn(cursor, &range->start_lsn);
    if (strcmp(key, "End-LSN") == 0)
        return claim(seen, RANGE_END) && take_lsn(cursor, &range->end_lsn);
    return false;
}

static bool
parse_range(Cursor *cursor, ManifestLine *line, CairnError *err)
{
    unsigned seen = 0;
    if (!take_char(cursor, '{'))
        return corrupt(err, "expected a WAL range");
    do {
        char key[KEY_LIMIT];
        if (!take_key(cursor, key) || !take_range_value(cursor, key, &line->range, &seen))
            return corrupt(err, "a WAL range's key or value is unknown, invalid or given twice");
    } while (take_char(cursor, ','));
    if (!take_char(cursor, '}') || seen != (1u << RANGE_KEYS) - 1)
        return corrupt(err, "a WAL range is incomplete");
    if (line->range.start_lsn == 0 || line->range.start_lsn > line->range.end_lsn)
        return corrupt(err, "a WAL range ends before it starts");
    return true;
}

static bool
parse_checksum(Cursor *cursor, ManifestLine *line)
{
    char hex[2 * sizeof line->checksum + 1];
    size_t size;
    return take_this_key(cursor, "Manifest-Checksum") &&
           take_string(cursor, hex, sizeof hex, &size) && size == sizeof hex - 1 &&
           hex_decode(line->checksum, sizeof line->checksum, hex) && take_char(cursor, '}');
}

/* The lines that hold no list entry. */
static bool
parse_frame(Cursor *cursor, ManifestLine *line)
{
    switch (line->kind) {
    case MANIFEST_LINE_VERSION:
        return take_char(cursor, '{') &&
               take_this_key(cursor, "PostgreSQL-Backup-Manifest-Version") &&
               take_u64(cursor, &line->number) && take_char(cursor, ',');
    case MANIFEST_LINE_SYSTEM_ID:
        return take_this_key(cursor, "System-Identifier") && take_u64(cursor, &line->number) &&
               take_char(cursor, ',');
    case MANIFEST_LINE_FILES:
        return take_this_key(cursor, "Files") && take_char(cursor, '[');
    case MANIFEST_LINE_RANGES:
        return take_this_key(cursor, "WAL-Ranges") && take_char(cursor, '[');
    case MANIFEST_LINE_FILES_END:
    case MANIFEST_LINE_RANGES_END:
        return take_char(cursor, ']') && take_char(cursor, ',');
    case MANIFEST_LINE_CHECKSUM:
        return parse_checksum(cursor, line);
    case MANIFEST_LINE_FILE:
    case MANIFEST_LINE_RANGE:
        break;
    }
    CAIRN_ASSERT(false);
}

static bool
parse_entry(Cursor *cursor, ManifestLine *line, CairnError *err)
{
    if (!(line->kind == MANIFEST_LINE_FILE ? parse_file(cursor, line, err)
                                           : parse_range(cursor, line, err))) {
        return false;
    }
    line->more = take_char(cursor, ',');
    return true;
}

bool
manifest_line_parse(ManifestLineKind kind, const char *text, size_t size, ManifestLine *line_out,
                    CairnError *err)
{
    Cursor cursor = {.at = text, .end = text + size};
    skip_space(&cursor);

    const bool closes = cursor.at < cursor.end && *cursor.at == ']';
    if (closes && kind == MANIFEST_LINE_FILE)
        kind = MANIFEST_LINE_FILES_END;
    else if (closes && kind == MANIFEST_LINE_RANGE)
        kind = MANIFEST_LINE_RANGES_END;

    /* Not the whole struct: clearing path_bytes for each of a million files would be felt. */
    line_out->kind = kind;
    line_out->more = false;
    line_out->file = (ManifestFile){0};

    if (kind == MANIFEST_LINE_FILE || kind == MANIFEST_LINE_RANGE) {
        if (!parse_entry(&cursor, line_out, err))
            return false;
    } else if (!parse_frame(&cursor, line_out)) {
        return corrupt(err, "not the line that PostgreSQL writes here");
    }
    return at_end(&cursor) || corrupt(err, "something stands behind the end of the line");
}
