#include "postgres/backup_label.h"

#include "common/scoped.h"
#include "postgres/wal_name.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room that PostgreSQL gives the two lines of free text; BASE_BACKUP accepts 1024 bytes of label.
 */
enum { LABEL_TEXT_LIMIT = 1024, START_TIME_LIMIT = 127 };

/* The rest of the text, taken line by line. Lines end with \n; the last one too. */
typedef struct {
    const char *at;
    const char *end;
} Lines;

typedef struct {
    const char *at;
    const char *end;
} Line;

static bool
next_line(Lines *lines, Line *line_out)
{
    const size_t left = (size_t)(lines->end - lines->at);
    const char *newline = left == 0 ? NULL : memchr(lines->at, '\n', left);
    if (newline == NULL)
        return false;
    *line_out = (Line){.at = lines->at, .end = newline};
    lines->at = newline + 1;
    return true;
}

static bool
take_text(Line *line, const char *expected)
{
    const size_t size = strlen(expected);
    if ((size_t)(line->end - line->at) < size || memcmp(line->at, expected, size) != 0)
        return false;
    line->at += size;
    return true;
}

static bool
at_end(const Line *line)
{
    return line->at == line->end;
}

/* The next line, when it starts with key: what follows the key. */
static bool
next_value(Lines *lines, const char *key, Line *value_out)
{
    return next_line(lines, value_out) && take_text(value_out, key);
}

static bool
take_lsn(Line *line, uint64_t *lsn_out)
{
    char text[LSN_TEXT_SIZE];
    size_t length = 0;
    while (line->at + length < line->end && line->at[length] != ' ')
        length++;
    if (length >= sizeof text)
        return false;
    memcpy(text, line->at, length);
    text[length] = '\0';
    line->at += length;
    return strlen(text) == length && lsn_parse(text, lsn_out);
}

static bool
take_hex8(Line *line, uint32_t *value_out)
{
    if (line->end - line->at < 8 || !wal_digits_parse(line->at, value_out))
        return false;
    line->at += 8;
    return true;
}

static bool
take_decimal(Line *line, uint32_t *value_out)
{
    uint64_t value = 0;
    if (at_end(line))
        return false;
    for (; line->at < line->end && *line->at >= '0' && *line->at <= '9'; line->at++) {
        value = value * 10 + (uint64_t)(*line->at - '0');
        if (value > UINT32_MAX)
            return false;
    }
    *value_out = (uint32_t)value;
    return true;
}

/* The file is the segment that holds the LSN, in a cluster of one of the possible segment sizes. */
static bool
segment_holds(uint32_t log, uint32_t low, uint64_t lsn)
{
    if (log != lsn >> 32)
        return false;
    for (int bits = 20; bits <= 30; bits++) {
        if (low == (uint32_t)lsn >> bits)
            return true;
    }
    return false;
}

static bool
parse_start(Lines *lines, BackupLabel *label, uint32_t *file_timeline_out)
{
    Line value;
    uint32_t log;
    uint32_t low;
    return next_value(lines, "START WAL LOCATION: ", &value) &&
           take_lsn(&value, &label->start_lsn) && take_text(&value, " (file ") &&
           take_hex8(&value, file_timeline_out) && take_hex8(&value, &log) &&
           take_hex8(&value, &low) && take_text(&value, ")") && at_end(&value) &&
           segment_holds(log, low, label->start_lsn);
}

static bool
parse_method_and_source(Lines *lines, BackupLabel *label)
{
    Line value;
    if (!next_value(lines, "BACKUP METHOD: ", &value) || !take_text(&value, "streamed") ||
        !at_end(&value) || !next_value(lines, "BACKUP FROM: ", &value)) {
        return false;
    }
    label->from_standby = take_text(&value, "standby");
    return (label->from_standby || take_text(&value, "primary")) && at_end(&value);
}

static bool
skip_free_text(Lines *lines, const char *key, size_t limit)
{
    Line value;
    if (!next_value(lines, key, &value))
        return false;
    const size_t size = (size_t)(value.end - value.at);
    return size <= limit && memchr(value.at, '\0', size) == NULL;
}

static bool
parse_lines(Lines *lines, BackupLabel *label)
{
    uint32_t file_timeline;
    Line value;
    return parse_start(lines, label, &file_timeline) &&
           next_value(lines, "CHECKPOINT LOCATION: ", &value) &&
           take_lsn(&value, &label->checkpoint_lsn) && at_end(&value) &&
           parse_method_and_source(lines, label) &&
           skip_free_text(lines, "START TIME: ", START_TIME_LIMIT) &&
           skip_free_text(lines, "LABEL: ", LABEL_TEXT_LIMIT) &&
           next_value(lines, "START TIMELINE: ", &value) &&
           take_decimal(&value, &label->start_timeline) && at_end(&value) &&
           label->start_timeline != 0 && label->start_timeline == file_timeline &&
           label->start_lsn != 0 && label->checkpoint_lsn >= label->start_lsn;
}

bool
backup_label_parse(const char *text, size_t size, BackupLabel *label_out, CairnError *err)
{
    Lines lines = {.at = text, .end = size == 0 ? text : text + size};
    BackupLabel label = {0};

    if (!parse_lines(&lines, &label))
        return cairn_error(err, CAIRN_CORRUPT, "backup_label is not as PostgreSQL writes it");

    if (lines.at != lines.end) {
        Line value;
        if (next_value(&lines, "INCREMENTAL FROM LSN: ", &value)) {
            return cairn_error(err, CAIRN_UNSUPPORTED,
                               "backup_label belongs to an incremental backup of PostgreSQL");
        }
        return cairn_error(err, CAIRN_CORRUPT, "backup_label goes on after its last line");
    }

    *label_out = label;
    return true;
}

/* One unescaped line of tablespace_map and room for what it may hold: "<10 digits> <path>". */
typedef struct {
    char text[11 + TABLESPACE_PATH_LIMIT];
    size_t size;
} MapLine;

static bool
refuse_map(CairnError *err, size_t line_number, const char *why)
{
    return cairn_error(err, CAIRN_CORRUPT, "tablespace_map line %zu: %s", line_number, why);
}

static bool
parse_map_line(const MapLine *line, size_t line_number, Tablespace *tablespace, CairnError *err)
{
    Line rest = {.at = line->text, .end = line->text + line->size};
    if (at_end(&rest) || *rest.at < '1' || *rest.at > '9' ||
        !take_decimal(&rest, &tablespace->oid) || !take_text(&rest, " ")) {
        return refuse_map(err, line_number, "no tablespace number");
    }

    /* Everything after the one space is path, leading spaces too. */
    const size_t path_size = (size_t)(rest.end - rest.at);
    if (path_size == 0 || path_size >= TABLESPACE_PATH_LIMIT)
        return refuse_map(err, line_number, "path is empty or too long");
    memcpy(tablespace->path, rest.at, path_size);
    tablespace->path[path_size] = '\0';

    char in_place[32];
    snprintf(in_place, sizeof in_place, "pg_tblspc/%" PRIu32, tablespace->oid);
    if (tablespace->path[0] != '/' && strcmp(tablespace->path, in_place) != 0)
        return refuse_map(err, line_number, "path is not absolute");
    return true;
}

typedef struct {
    size_t count;
    uint32_t oids[TABLESPACE_LIMIT];
    MapLine line;
    Tablespace tablespace;
} MapParser;

static bool
end_map_line(MapParser *parser, TablespaceCallback *callback, void *context, CairnError *err)
{
    const size_t line_number = parser->count + 1;
    if (parser->count == TABLESPACE_LIMIT)
        return refuse_map(err, line_number, "too many tablespaces");
    if (!parse_map_line(&parser->line, line_number, &parser->tablespace, err))
        return false;
    for (size_t i = 0; i < parser->count; i++) {
        if (parser->oids[i] == parser->tablespace.oid)
            return refuse_map(err, line_number, "tablespace was given before");
    }
    parser->oids[parser->count++] = parser->tablespace.oid;
    parser->line.size = 0;
    return callback(context, &parser->tablespace, err);
}

bool
tablespace_map_parse(const char *text, size_t size, TablespaceCallback *callback, void *context,
                     CairnError *err)
{
    SCOPED_MEMORY MapParser *parser = calloc(1, sizeof *parser);
    if (parser == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");

    bool escaped = false;
    for (size_t i = 0; i < size; i++) {
        const char c = text[i];
        if (!escaped && (c == '\n' || c == '\r')) {
            /* Like recovery, which also takes \r\n for one end of line. */
            if (parser->line.size > 0 && !end_map_line(parser, callback, context, err))
                return false;
        } else if (!escaped && c == '\\') {
            escaped = true;
        } else if (c == '\0' || parser->line.size == sizeof parser->line.text) {
            return refuse_map(err, parser->count + 1, "path is too long or has a NUL byte");
        } else {
            escaped = false;
            parser->line.text[parser->line.size++] = c;
        }
    }
    if (escaped || parser->line.size > 0)
        return refuse_map(err, parser->count + 1, "last line is incomplete");
    return true;
}

void
tablespace_map_append(ByteWriter *map, const Tablespace *tablespace)
{
    char oid[16];
    const int length = snprintf(oid, sizeof oid, "%" PRIu32 " ", tablespace->oid);
    byte_writer_bytes(map, oid, (size_t)length);

    for (const char *c = tablespace->path; *c != '\0'; c++) {
        if (*c == '\n' || *c == '\r' || *c == '\\')
            byte_writer_u8(map, '\\');
        byte_writer_u8(map, (uint8_t)*c);
    }
    byte_writer_u8(map, '\n');
}
