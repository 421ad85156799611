#include "repository/identity.h"

#include "common/file.h"

#include <stdio.h>
#include <string.h>

enum { IDENTITY_FILE_LIMIT = 16 << 10 };

typedef struct {
    const char *key;
    size_t offset;
    size_t size;
    bool may_be_empty;
} Field;

#define FIELD(key, member, may_be_empty)                                                           \
    {                                                                                              \
        key, offsetof(Identity, member), sizeof(((Identity *)NULL)->member), may_be_empty          \
    }

static const Field fields[] = {
    FIELD("role", role, false),
    FIELD("cluster", cluster, true),
    FIELD("origin", origin, false),
    FIELD("backup", backup, true),
    FIELD("restored-at", restored_at, true),
};

enum { FIELD_COUNT = sizeof fields / sizeof fields[0] };

/* Cuts blanks off both ends, in place. */
static char *
trim(char *text)
{
    text += strspn(text, " \t\r");
    size_t size = strlen(text);
    while (size > 0 && strchr(" \t\r", text[size - 1]) != NULL)
        text[--size] = '\0';
    return text;
}

/* One line. A key that we do not know was written by a newer version and is passed over. */
static bool
parse_line(char *line, Identity *identity, bool seen[FIELD_COUNT])
{
    char *equals = strchr(line, '=');

    line = trim(line);
    if (line[0] == '\0' || line[0] == '#')
        return true;
    if (equals == NULL)
        return false;
    *equals = '\0';
    const char *key = trim(line);
    const char *value = trim(equals + 1);
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        if (strcmp(key, fields[i].key) != 0)
            continue;
        if (seen[i] || strlen(value) >= fields[i].size)
            return false;
        seen[i] = true;
        memcpy((char *)identity + fields[i].offset, value, strlen(value) + 1);
        return true;
    }
    return true;
}

static bool
is_role(const char *text)
{
    return strcmp(text, "clone") == 0 || strcmp(text, "standby") == 0 ||
           strcmp(text, "original") == 0;
}

static bool
check_identity(const Identity *identity, CairnError *err)
{
    if (!is_role(identity->role))
        return cairn_error(err, CAIRN_CORRUPT, "role '%s' is unknown", identity->role);
    if (!cluster_name_valid(identity->origin))
        return cairn_error(err, CAIRN_CORRUPT, "'%s' is not the name of a cluster",
                           identity->origin);
    if (identity->cluster[0] != '\0' && !cluster_name_valid(identity->cluster))
        return cairn_error(err, CAIRN_CORRUPT, "'%s' is not the name of a cluster",
                           identity->cluster);
    return true;
}

static bool
parse(char *text, size_t size, Identity *identity, CairnError *err)
{
    bool seen[FIELD_COUNT] = {false};
    size_t line_number = 0;

    if (strlen(text) != size)
        return cairn_error(err, CAIRN_CORRUPT, "it holds a zero byte");
    for (char *line = text; line != NULL;) {
        char *newline = strchr(line, '\n');
        if (newline != NULL)
            *newline = '\0';
        line_number++;
        if (!parse_line(line, identity, seen)) {
            return cairn_error(err, CAIRN_CORRUPT, "line %zu is not one `key = value` of its kind",
                               line_number);
        }
        line = newline != NULL ? newline + 1 : NULL;
    }
    /* `cluster` must be said: a file cut short may not read as "nowhere" or as anything else. */
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        if (!seen[i])
            return cairn_error(err, CAIRN_CORRUPT, "'%s' is missing", fields[i].key);
    }
    return check_identity(identity, err);
}

bool
identity_read(const World *world, int pgdata_fd, Identity *identity_out, bool *present_out,
              CairnError *err)
{
    Identity identity = {0};
    size_t size = 0;
    SCOPED_MEMORY char *text =
        file_read_all(world, pgdata_fd, IDENTITY_FILE_NAME, IDENTITY_FILE_LIMIT, &size, err);

    if (text == NULL) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        *present_out = false;
        return true;
    }
    if (!parse(text, size, &identity, err)) {
        cairn_error_wrap(err, "unable to read '%s'", IDENTITY_FILE_NAME);
        return cairn_error_hint(err, "`pgcairn adopt` writes it anew");
    }
    *identity_out = identity;
    *present_out = true;
    return true;
}

bool
identity_format(const Identity *identity, ByteWriter *text, CairnError *err)
{
    static const char head[] =
        "# Whose copy this data directory is. pgcairn reads it before it archives WAL.\n"
        "# Change it with `pgcairn adopt`, not by hand.\n";

    if (!check_identity(identity, err))
        return cairn_error_wrap(err, "unable to write '%s'", IDENTITY_FILE_NAME);
    byte_writer_bytes(text, head, strlen(head));
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        const char *value = (const char *)identity + fields[i].offset;
        CAIRN_ASSERT(strpbrk(value, "\r\n") == NULL);
        byte_writer_bytes(text, fields[i].key, strlen(fields[i].key));
        byte_writer_bytes(text, " = ", 3);
        byte_writer_bytes(text, value, strlen(value));
        byte_writer_bytes(text, "\n", 1);
    }
    return byte_writer_check(text, err);
}

bool
identity_may_archive(const World *world, int pgdata_fd, const char *cluster, CairnError *err)
{
    Identity identity;
    bool present = false;

    if (!identity_read(world, pgdata_fd, &identity, &present, err))
        return false;
    if (!present || strcmp(identity.cluster, cluster) == 0)
        return true;

    if (identity.cluster[0] == '\0') {
        cairn_error(
            err, CAIRN_REFUSED,
            "this data directory is a %s of cluster '%s' (backup %s, restored %s) and may not "
            "archive",
            identity.role, identity.origin, identity.backup, identity.restored_at);
    } else {
        cairn_error(err, CAIRN_REFUSED,
                    "this data directory is a %s of cluster '%s' and archives as '%s', not as '%s'",
                    identity.role, identity.origin, identity.cluster, cluster);
    }
    return cairn_error_hint(
        err, "`pgcairn adopt` gives it an own place in the repository, or makes it the "
             "original");
}
