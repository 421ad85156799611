#include "postgres/tar.h"

#include "postgres/page.h"

#include <stdlib.h>
#include <string.h>

/* The ustar header, as offsets: no struct, so that nothing depends on padding or alignment. */
enum {
    HEADER_NAME = 0,
    HEADER_NAME_SIZE = 100,
    HEADER_MODE = 100,
    HEADER_MODE_SIZE = 8,
    HEADER_SIZE = 124,
    HEADER_SIZE_SIZE = 12,
    HEADER_CHECKSUM = 148,
    HEADER_CHECKSUM_SIZE = 8,
    HEADER_TYPE = 156,
    HEADER_LINK = 157,
    HEADER_LINK_SIZE = 100,
    HEADER_MAGIC = 257,
    HEADER_MAGIC_SIZE = 8, /* "ustar\0" and the version "00" */
    HEADER_PREFIX = 345,   /* and the unused bytes behind it: to the end of the block */
};

enum { NAME_BUFFER_SIZE = HEADER_NAME_SIZE + 1, ESCAPED_NAME_SIZE = 4 * HEADER_NAME_SIZE + 1 };

/* No file system holds a larger file; the room above keeps every sum below free of overflow. */
#define TAR_MEMBER_LIMIT (UINT64_C(1) << 60)

typedef enum {
    TAR_STATE_HEADER,
    TAR_STATE_DATA,
    TAR_STATE_PADDING,
    TAR_STATE_SECOND_ZERO_BLOCK,
    TAR_STATE_ENDED,
    TAR_STATE_FAILED,
} TarState;

struct TarParser {
    const TarCallbacks *callbacks;
    void *context;
    TarState state;
    uint8_t block[TAR_BLOCK_SIZE]; /* a header that came in pieces */
    size_t block_used;
    uint64_t data_left;
    size_t padding_left;
    char path[NAME_BUFFER_SIZE];
    char target[HEADER_LINK_SIZE + 1];
    CairnError failure; /* what every call answers once state is FAILED */
};

TarParser *
tar_parser_new(const TarCallbacks *callbacks, void *context, CairnError *err)
{
    TarParser *parser = calloc(1, sizeof *parser);
    if (parser == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    parser->callbacks = callbacks;
    parser->context = context;
    return parser;
}

void
tar_parser_free(TarParser *parser)
{
    free(parser);
}

bool
path_is_clean(const char *path, size_t size)
{
    if (size == 0 || size > TAR_PATH_LIMIT || memchr(path, '\0', size) != NULL)
        return false;

    size_t start = 0;
    while (start <= size) {
        const char *slash = start < size ? memchr(path + start, '/', size - start) : NULL;
        const size_t length = (slash == NULL ? size : (size_t)(slash - path)) - start;
        const char *component = path + start;

        /* An empty component is a leading, doubled or trailing slash. */
        if (length == 0 || (length == 1 && component[0] == '.') ||
            (length == 2 && component[0] == '.' && component[1] == '.')) {
            return false;
        }
        start += length + 1;
    }
    return true;
}

/* The name field for people: what is not printable ASCII as \ooo, so that no terminal obeys it. */
static void
escape_name(char escaped[ESCAPED_NAME_SIZE], const uint8_t *name)
{
    size_t size = HEADER_NAME_SIZE;
    while (size > 0 && name[size - 1] == '\0')
        size--;

    char *out = escaped;
    for (size_t i = 0; i < size; i++) {
        const uint8_t c = name[i];
        if (c >= ' ' && c <= '~' && c != '\\' && c != '\'') {
            *out++ = (char)c;
        } else {
            *out++ = '\\';
            *out++ = (char)('0' + (c >> 6));
            *out++ = (char)('0' + ((c >> 3) & 7));
            *out++ = (char)('0' + (c & 7));
        }
    }
    *out = '\0';
}

static bool
refuse(const uint8_t *header, const char *why, CairnError *err)
{
    char escaped[ESCAPED_NAME_SIZE];
    escape_name(escaped, header + HEADER_NAME);
    return cairn_error(err, CAIRN_CORRUPT, "unable to accept tar member '%s': %s", escaped, why);
}

/* Octal digits closed by spaces or NULs, or GNU base-256 with a positive value. */
static bool
parse_number(const uint8_t *field, size_t size, uint64_t *value_out)
{
    uint64_t value = 0;
    if (field[0] == 0x80) {
        for (size_t i = 1; i < size; i++) {
            if (value >> 56 != 0)
                return false;
            value = value << 8 | field[i];
        }
        *value_out = value;
        return true;
    }

    size_t at = 0;
    while (at < size && field[at] >= '0' && field[at] <= '7')
        value = value << 3 | (uint64_t)(field[at++] - '0'); /* at most 36 bits */
    if (at == 0)
        return false;
    for (; at < size; at++) {
        if (field[at] != ' ' && field[at] != '\0')
            return false;
    }
    *value_out = value;
    return true;
}

static bool
header_checksum_matches(const uint8_t *header)
{
    uint64_t stored;
    if (!parse_number(header + HEADER_CHECKSUM, HEADER_CHECKSUM_SIZE, &stored))
        return false;

    uint64_t sum = 0;
    for (size_t i = 0; i < TAR_BLOCK_SIZE; i++) {
        const bool in_checksum = i >= HEADER_CHECKSUM && i < HEADER_CHECKSUM + HEADER_CHECKSUM_SIZE;
        sum += in_checksum ? ' ' : header[i];
    }
    return sum == stored;
}

/* Copies a text field; false when bytes follow its NUL: two readers could see two names. */
static bool
copy_text_field(const uint8_t *field, size_t size, char *text)
{
    const size_t length = strnlen((const char *)field, size);
    if (!bytes_are_zero(field + length, size - length))
        return false;
    memcpy(text, field, length);
    text[length] = '\0';
    return true;
}

/* "pg_tblspc/<oid>", the only place where PostgreSQL sends a symbolic link. */
static bool
is_tablespace_link(const char *path)
{
    static const char directory[] = "pg_tblspc/";
    if (strncmp(path, directory, sizeof directory - 1) != 0)
        return false;

    const char *digits = path + sizeof directory - 1;
    if (*digits < '1' || *digits > '9')
        return false;
    uint64_t oid = 0;
    for (; *digits >= '0' && *digits <= '9' && oid <= UINT32_MAX; digits++)
        oid = oid * 10 + (uint64_t)(*digits - '0');
    return *digits == '\0' && oid <= UINT32_MAX;
}

static bool
check_header_form(const uint8_t *header, CairnError *err)
{
    if (!header_checksum_matches(header))
        return refuse(header, "its header checksum is wrong", err);
    if (memcmp(header + HEADER_MAGIC,
               "ustar\0"
               "00",
               HEADER_MAGIC_SIZE) != 0) {
        return refuse(header, "its header is not POSIX ustar", err);
    }
    if (!bytes_are_zero(header + HEADER_PREFIX, TAR_BLOCK_SIZE - HEADER_PREFIX))
        return refuse(header, "its header has a name prefix", err);
    return true;
}

static bool
parse_type(const uint8_t *header, TarMemberType *type_out, CairnError *err)
{
    switch (header[HEADER_TYPE]) {
    case '0':
        *type_out = TAR_FILE;
        return true;
    case '2':
        *type_out = TAR_SYMLINK;
        return true;
    case '5':
        *type_out = TAR_DIRECTORY;
        return true;
    default:
        return refuse(header, "it is neither file, directory nor tablespace link", err);
    }
}

static bool
parse_numbers(const uint8_t *header, TarMember *member, CairnError *err)
{
    uint64_t mode;
    if (!parse_number(header + HEADER_MODE, HEADER_MODE_SIZE, &mode) || mode > 07777)
        return refuse(header, "its mode is invalid", err);
    member->mode = (uint32_t)mode;

    if (!parse_number(header + HEADER_SIZE, HEADER_SIZE_SIZE, &member->size_bytes) ||
        member->size_bytes > TAR_MEMBER_LIMIT) {
        return refuse(header, "its size is invalid", err);
    }
    if (member->type != TAR_FILE && member->size_bytes != 0)
        return refuse(header, "it has data but is no file", err);
    return true;
}

/* Fills parser->path and parser->target; *skip_out for the root directory itself. */
static bool
parse_names(TarParser *parser, const uint8_t *header, TarMember *member, bool *skip_out,
            CairnError *err)
{
    if (!copy_text_field(header + HEADER_NAME, HEADER_NAME_SIZE, parser->path))
        return refuse(header, "its name contains a NUL byte", err);
    if (!copy_text_field(header + HEADER_LINK, HEADER_LINK_SIZE, parser->target))
        return refuse(header, "its link target contains a NUL byte", err);
    if ((member->type == TAR_SYMLINK) != (parser->target[0] != '\0'))
        return refuse(header, "type and link target contradict each other", err);

    size_t size = strlen(parser->path);
    if (member->type != TAR_FILE && size > 1 && parser->path[size - 1] == '/')
        parser->path[--size] = '\0';
    if (member->type == TAR_DIRECTORY && strcmp(parser->path, ".") == 0) {
        *skip_out = true;
        return true;
    }

    member->path = strncmp(parser->path, "./", 2) == 0 ? parser->path + 2 : parser->path;
    if (!path_is_clean(member->path, strlen(member->path)))
        return refuse(header, "its name is not a clean relative path", err);
    if (member->type == TAR_SYMLINK && !is_tablespace_link(member->path))
        return refuse(header, "a symbolic link that is no tablespace", err);

    member->target = member->type == TAR_SYMLINK ? parser->target : NULL;
    *skip_out = false;
    return true;
}

static bool
end_member(TarParser *parser, CairnError *err)
{
    parser->state = TAR_STATE_HEADER;
    return parser->callbacks->end(parser->context, err);
}

static bool
take_header(TarParser *parser, const uint8_t *header, CairnError *err)
{
    const bool is_zero = bytes_are_zero(header, TAR_BLOCK_SIZE);
    if (parser->state == TAR_STATE_SECOND_ZERO_BLOCK) {
        if (!is_zero)
            return cairn_error(err, CAIRN_CORRUPT, "tar archive goes on after a block of zeros");
        parser->state = TAR_STATE_ENDED;
        return true;
    }
    if (is_zero) {
        parser->state = TAR_STATE_SECOND_ZERO_BLOCK;
        return true;
    }

    TarMember member = {0};
    bool skip = false;
    if (!check_header_form(header, err) || !parse_type(header, &member.type, err) ||
        !parse_numbers(header, &member, err) || !parse_names(parser, header, &member, &skip, err)) {
        return false;
    }
    if (skip)
        return true;

    if (!parser->callbacks->begin(parser->context, &member, err))
        return false;
    if (member.size_bytes == 0)
        return end_member(parser, err);

    parser->state = TAR_STATE_DATA;
    parser->data_left = member.size_bytes;
    parser->padding_left = (size_t)(-member.size_bytes % TAR_BLOCK_SIZE);
    return true;
}

/* Each feed_* consumes what it can of data and says how much: never more than size. */
static bool
feed_header(TarParser *parser, const uint8_t *data, size_t size, size_t *used_out, CairnError *err)
{
    if (parser->block_used == 0 && size >= TAR_BLOCK_SIZE) {
        *used_out = TAR_BLOCK_SIZE;
        return take_header(parser, data, err);
    }

    const size_t missing = TAR_BLOCK_SIZE - parser->block_used;
    const size_t used = size < missing ? size : missing;
    memcpy(parser->block + parser->block_used, data, used);
    parser->block_used += used;
    *used_out = used;
    if (parser->block_used < TAR_BLOCK_SIZE)
        return true;

    parser->block_used = 0;
    return take_header(parser, parser->block, err);
}

static bool
feed_data(TarParser *parser, const uint8_t *data, size_t size, size_t *used_out, CairnError *err)
{
    const size_t used = size < parser->data_left ? size : (size_t)parser->data_left;
    *used_out = used;
    if (!parser->callbacks->data(parser->context, data, used, err))
        return false;

    parser->data_left -= used;
    if (parser->data_left > 0)
        return true;
    if (parser->padding_left == 0)
        return end_member(parser, err);
    parser->state = TAR_STATE_PADDING;
    return true;
}

static bool
feed_padding(TarParser *parser, const uint8_t *data, size_t size, size_t *used_out, CairnError *err)
{
    const size_t used = size < parser->padding_left ? size : parser->padding_left;
    *used_out = used;
    if (!bytes_are_zero(data, used))
        return cairn_error(err, CAIRN_CORRUPT, "padding of a tar member is not zero");

    parser->padding_left -= used;
    return parser->padding_left > 0 || end_member(parser, err);
}

static bool
feed_some(TarParser *parser, const uint8_t *data, size_t size, size_t *used_out, CairnError *err)
{
    switch (parser->state) {
    case TAR_STATE_HEADER:
    case TAR_STATE_SECOND_ZERO_BLOCK:
        return feed_header(parser, data, size, used_out, err);
    case TAR_STATE_DATA:
        return feed_data(parser, data, size, used_out, err);
    case TAR_STATE_PADDING:
        return feed_padding(parser, data, size, used_out, err);
    case TAR_STATE_ENDED:
        /* POSIX pads archives to a record of 20 blocks; PostgreSQL does not, but might. */
        *used_out = size;
        return bytes_are_zero(data, size) ||
               cairn_error(err, CAIRN_CORRUPT, "tar archive goes on after its end");
    case TAR_STATE_FAILED:
        break;
    }
    *err = parser->failure;
    return false;
}

static bool
fail(TarParser *parser, const CairnError *err)
{
    parser->state = TAR_STATE_FAILED;
    parser->failure = *err;
    return false;
}

bool
tar_parser_feed(TarParser *parser, const uint8_t *data, size_t size, CairnError *err)
{
    while (size > 0) {
        size_t used = 0;
        if (!feed_some(parser, data, size, &used, err))
            return fail(parser, err);
        CAIRN_ASSERT(used > 0 && used <= size);
        data += used;
        size -= used;
    }
    return true;
}

bool
tar_parser_finish(TarParser *parser, CairnError *err)
{
    if (parser->state == TAR_STATE_FAILED) {
        *err = parser->failure;
        return false;
    }
    if (parser->state != TAR_STATE_ENDED) {
        cairn_error(err, CAIRN_CORRUPT, "tar archive is incomplete");
        return fail(parser, err);
    }
    parser->state = TAR_STATE_HEADER;
    return true;
}
