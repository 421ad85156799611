#include "postgres/recovery_settings.h"

#include "common/scoped.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

const char *const recovery_setting_names[] = {
    "restore_command",
    "archive_cleanup_command",
    "recovery_end_command",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "recovery_min_apply_delay",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file", /* 15 only: later servers refuse to start with it */
    NULL,
};

/* A piece of text: from at up to end. A setting never crosses a line, not even inside quotes. */
typedef struct {
    const char *at;
    const char *end;
} Span;

/* An empty text may be NULL, which no arithmetic may touch. */
static Span
span_of(const char *text, size_t size)
{
    return size == 0 ? (Span){0} : (Span){.at = text, .end = text + size};
}

static bool
is_letter(char c)
{
    /* PostgreSQL takes every byte above ASCII for a letter. */
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80;
}

static bool
is_name_char(char c)
{
    return is_letter(c) || (c >= '0' && c <= '9') || c == '$' || c == '.';
}

static void
skip_space(Span *span)
{
    while (span->at < span->end && (*span->at == ' ' || *span->at == '\t' || *span->at == '\r'))
        span->at++;
}

/* The line at *text without its newline; moves *text behind it. */
static Span
take_line(Span *text)
{
    const char *newline = memchr(text->at, '\n', (size_t)(text->end - text->at));
    const Span line = {.at = text->at, .end = newline == NULL ? text->end : newline};
    text->at = newline == NULL ? text->end : newline + 1;
    return line;
}

/* The name that a line sets (empty for comments, blank lines and nonsense); *line moves behind it.
 */
static Span
take_name(Span *line)
{
    skip_space(line);
    const Span start = *line;
    if (line->at == line->end || !is_letter(*line->at))
        return (Span){.at = start.at, .end = start.at};
    while (line->at < line->end && is_name_char(*line->at))
        line->at++;
    return (Span){.at = start.at, .end = line->at};
}

static bool
name_is(Span span, const char *name)
{
    const size_t size = (size_t)(span.end - span.at);
    return size > 0 && size == strlen(name) && strncasecmp(span.at, name, size) == 0;
}

static bool
name_is_any(Span span, const char *const *names)
{
    for (; *names != NULL; names++) {
        if (name_is(span, *names))
            return true;
    }
    return false;
}

bool
settings_append(ByteWriter *text, const char *name, const char *value, CairnError *err)
{
    CAIRN_ASSERT(is_letter(*name));
    for (const char *c = name; *c != '\0'; c++)
        CAIRN_ASSERT(is_name_char(*c));

    if (strpbrk(value, "\r\n") != NULL) {
        return cairn_error(err, CAIRN_USAGE, "value of '%s' must not contain a line break", name);
    }

    byte_writer_bytes(text, name, strlen(name));
    byte_writer_bytes(text, " = '", 4);
    for (const char *c = value; *c != '\0'; c++) {
        if (*c == '\'' || *c == '\\')
            byte_writer_u8(text, (uint8_t)*c);
        byte_writer_u8(text, (uint8_t)*c);
    }
    byte_writer_bytes(text, "'\n", 2);
    return byte_writer_check(text, err);
}

void
settings_filter(const char *text, size_t size, const char *const *names, ByteWriter *filtered)
{
    Span rest = span_of(text, size);
    while (rest.at < rest.end) {
        const Span line = take_line(&rest);
        Span scan = line;
        if (name_is_any(take_name(&scan), names))
            continue;
        byte_writer_bytes(filtered, line.at, (size_t)(line.end - line.at));
        /* Also where the file had none: settings are appended behind it. */
        byte_writer_u8(filtered, '\n');
    }
}

/* The char that stands after a backslash, which may be one to three octal digits. */
static char
take_escaped(Span *span)
{
    const char c = *span->at++;
    switch (c) {
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        break;
    }
    if (c < '0' || c > '7')
        return c;

    unsigned code = (unsigned)(c - '0');
    for (int i = 0; i < 2 && span->at < span->end && *span->at >= '0' && *span->at <= '7'; i++)
        code = code << 3 | (unsigned)(*span->at++ - '0');
    return (char)(unsigned char)code;
}

/* 'text' with '' and backslash sequences; value has room for all that is left of the span. */
static bool
take_quoted(Span *span, char *value)
{
    span->at++;
    while (span->at < span->end) {
        const char c = *span->at++;
        if (c == '\\') {
            if (span->at == span->end)
                return false;
            *value++ = take_escaped(span);
        } else if (c != '\'') {
            *value++ = c;
        } else if (span->at < span->end && *span->at == '\'') {
            *value++ = *span->at++;
        } else {
            *value = '\0';
            return true;
        }
    }
    return false;
}

static bool
take_bare(Span *span, char *value)
{
    const char *start = span->at;
    while (span->at < span->end && strchr(" \t\r#'", *span->at) == NULL)
        span->at++;
    memcpy(value, start, (size_t)(span->at - start));
    value[span->at - start] = '\0';
    return span->at > start;
}

/* The value of `[=] value [# comment]`, malloc'ed; NULL when the line is not so. */
static char *
parse_value(Span line)
{
    skip_space(&line);
    if (line.at < line.end && *line.at == '=')
        line.at++;
    skip_space(&line);

    SCOPED_MEMORY char *value = malloc((size_t)(line.end - line.at) + 1);
    CAIRN_ASSERT(value != NULL); /* a line of a file that is in memory already */
    if (line.at == line.end ||
        !(*line.at == '\'' ? take_quoted(&line, value) : take_bare(&line, value))) {
        return NULL;
    }
    skip_space(&line);
    return line.at == line.end || *line.at == '#' ? take(&value) : NULL;
}

char *
settings_find(const char *text, size_t size, const char *name)
{
    SCOPED_MEMORY char *found = NULL;
    Span rest = span_of(text, size);
    while (rest.at < rest.end) {
        Span line = take_line(&rest);
        if (!name_is(take_name(&line), name))
            continue;
        char *value = parse_value(line);
        if (value != NULL) {
            free(found);
            found = value;
        }
    }
    return take(&found);
}

void
settings_filter_value(const char *text, size_t size, const char *name, const char *value,
                      ByteWriter *filtered)
{
    Span rest = span_of(text, size);
    while (rest.at < rest.end) {
        const Span line = take_line(&rest);
        SCOPED_MEMORY char *found = settings_find(line.at, (size_t)(line.end - line.at), name);
        if (found != NULL && strcasecmp(found, value) == 0)
            continue;
        byte_writer_bytes(filtered, line.at, (size_t)(line.end - line.at));
        byte_writer_u8(filtered, '\n');
    }
}
