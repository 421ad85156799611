#include "postgres/name_reader.h"

#include <stdlib.h>
#include <string.h>

void
name_reader_begin(NameReader *reader, const NameCallbacks *callbacks)
{
    reader->callbacks = *callbacks;
    reader->length = 0;
    reader->ended = false;
    reader->stopped = false;
}

static bool
malformed(const char *line, CairnError *err)
{
    return cairn_error(err, CAIRN_CORRUPT, "a list of names has a line that is none: '%.80s'",
                       line);
}

/* Undoes COPY's escapes in place. */
static void
unescape(char *field)
{
    static const char LETTERS[] = "bfnrtv";
    static const char MEANT[] = "\b\f\n\r\t\v";
    char *to = field;
    for (const char *from = field; *from != '\0'; from++) {
        if (*from == '\\' && from[1] != '\0') {
            const char *letter = strchr(LETTERS, *++from);
            *to++ = letter != NULL ? MEANT[letter - LETTERS] : *from;
        } else {
            *to++ = *from;
        }
    }
    *to = '\0';
}

/* Cuts a line at its tabs; 0 when there are more than `limit` fields. */
static size_t
split(char *line, char *fields[NAME_FIELDS_LIMIT], size_t limit)
{
    size_t count = 0;
    for (char *at = line; at != NULL;) {
        char *tab = strchr(at, '\t');
        if (count == limit)
            return 0;
        if (tab != NULL)
            *tab++ = '\0';
        fields[count++] = at;
        unescape(at);
        at = tab;
    }
    return count;
}

static bool
parse_oid(const char *text, uint32_t *oid_out)
{
    const size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 10 || text[digits] != '\0')
        return false;
    const unsigned long long value = strtoull(text, NULL, 10);
    *oid_out = (uint32_t)value;
    return value <= UINT32_MAX;
}

static bool
read_relation(NameReader *reader, CairnError *err)
{
    char *fields[NAME_FIELDS_LIMIT];
    RelationName relation;
    if (split(reader->line, fields, 7) != 7 || !parse_oid(fields[0], &relation.oid) ||
        !parse_oid(fields[1], &relation.relfilenode) ||
        !parse_oid(fields[2], &relation.tablespace) || !parse_oid(fields[3], &relation.root) ||
        strlen(fields[4]) != 1)
        return malformed(reader->line, err);
    relation.kind = fields[4][0];
    relation.schema = fields[5];
    relation.name = fields[6];
    reader->stopped = !reader->callbacks.relation(reader->callbacks.context, &relation, err);
    return true;
}

static bool
read_database(NameReader *reader, CairnError *err)
{
    char *fields[NAME_FIELDS_LIMIT];
    DatabaseName database;
    if (split(reader->line, fields, 3) != 3 || !parse_oid(fields[0], &database.oid) ||
        !parse_oid(fields[1], &database.tablespace))
        return malformed(reader->line, err);
    database.name = fields[2];
    reader->stopped = !reader->callbacks.database(reader->callbacks.context, &database, err);
    return true;
}

static bool
read_line(NameReader *reader, CairnError *err)
{
    reader->line[reader->length] = '\0';
    const bool has_nul = strlen(reader->line) != reader->length;
    reader->length = 0;
    if (has_nul || reader->ended)
        return malformed(reader->line, err);
    if (strcmp(reader->line, "\\.") == 0) {
        reader->ended = true;
        return true;
    }
    const bool read = reader->callbacks.relation != NULL ? read_relation(reader, err)
                                                         : read_database(reader, err);
    return read && err->kind == CAIRN_OK;
}

bool
name_reader_feed(void *context, const void *data, size_t size, CairnError *err)
{
    NameReader *reader = context;
    const char *bytes = data;
    while (size > 0 && !reader->stopped) {
        const char *newline = memchr(bytes, '\n', size);
        const size_t piece = newline != NULL ? (size_t)(newline - bytes) : size;
        if (reader->length + piece >= sizeof reader->line)
            return cairn_error(err, CAIRN_CORRUPT, "a list of names has a line of over %d bytes",
                               NAME_LINE_LIMIT);
        memcpy(reader->line + reader->length, bytes, piece);
        reader->length += piece;
        if (newline == NULL)
            return true;
        bytes += piece + 1;
        size -= piece + 1;
        if (!read_line(reader, err))
            return false;
    }
    return true;
}

bool
name_reader_finish(const NameReader *reader, bool *whole_out, CairnError *err)
{
    if (!reader->stopped && reader->length > 0)
        return cairn_error(err, CAIRN_CORRUPT, "a list of names ends in the middle of a line");
    *whole_out = reader->stopped || reader->ended;
    return true;
}
