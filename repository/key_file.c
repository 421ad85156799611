#include "repository/key_file.h"

#include "codec/seal.h"
#include "common/file.h"
#include "common/libcrypto.h"
#include "common/timestamp.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#define SYMMETRIC_MAGIC "pgcairn-key-1"
#define PRIVATE_MAGIC "pgcairn-private-key-1"
#define PUBLIC_MAGIC "pgcairn-public-key-1"

enum { BASE64_SIZE = 44, RECIPIENTS_FILE_LIMIT = 16 << 10, LINE_LIMIT = 160 };

/* The next line that is neither empty nor a comment, without blanks around it; false at the end, or
   when it is too long to be one of ours (then *line is ""). */
static bool
next_line(const char **at, const char *end, char line[LINE_LIMIT])
{
    while (*at < end) {
        const char *newline = memchr(*at, '\n', (size_t)(end - *at));
        const char *stop = newline != NULL ? newline : end;
        const char *start = *at;
        *at = newline != NULL ? newline + 1 : end;
        while (start < stop && (*start == ' ' || *start == '\t'))
            start++;
        while (stop > start && (stop[-1] == ' ' || stop[-1] == '\t' || stop[-1] == '\r'))
            stop--;
        if (start == stop || *start == '#')
            continue;
        const size_t size = (size_t)(stop - start);
        line[0] = '\0';
        if (size < LINE_LIMIT && memchr(start, '\0', size) == NULL) {
            memcpy(line, start, size);
            line[size] = '\0';
        }
        return true;
    }
    return false;
}

static bool
parse_key(const char *line, uint8_t key[KEY_SIZE])
{
    const size_t size = strlen(line);
    if (size == (size_t)2 * KEY_SIZE)
        return hex_decode(key, KEY_SIZE, line);
    uint8_t decoded[BASE64_SIZE / 4 * 3];
    const bool right =
        size == BASE64_SIZE && line[BASE64_SIZE - 1] == '=' && line[BASE64_SIZE - 2] != '=' &&
        EVP_DecodeBlock(decoded, (const uint8_t *)line, BASE64_SIZE) == (int)sizeof decoded;
    if (right)
        memcpy(key, decoded, KEY_SIZE);
    OPENSSL_cleanse(decoded, sizeof decoded);
    return right;
}

static bool
check_matches(const char *text, const uint8_t key[KEY_SIZE])
{
    uint8_t crc[4];
    const uint32_t wanted = crc32c(0, key, KEY_SIZE);
    return strlen(text) == 2 * sizeof crc && hex_decode(crc, sizeof crc, text) &&
           get_u32(crc) == wanted;
}

bool
key_file_parse(const char *text, size_t size, const char *from, KeyFileType *type_out,
               uint8_t key_out[KEY_SIZE], CairnError *err)
{
    const char *at = text, *end = text + size;
    char line[LINE_LIMIT];
    uint8_t key[KEY_SIZE] = {0};
    KeyFileType type = KEY_FILE_SYMMETRIC;

    if (!next_line(&at, end, line) ||
        (strcmp(line, SYMMETRIC_MAGIC) != 0 && strcmp(line, PRIVATE_MAGIC) != 0)) {
        OPENSSL_cleanse(line, sizeof line);
        cairn_error(err, CAIRN_USAGE, "'%s' is no pgcairn key file", from);
        return cairn_error_hint(err, "its first line is " SYMMETRIC_MAGIC " or " PRIVATE_MAGIC
                                     "; pgcairn key generate FILE makes one");
    }
    if (strcmp(line, PRIVATE_MAGIC) == 0)
        type = KEY_FILE_PRIVATE;
    bool good = next_line(&at, end, line) && parse_key(line, key);
    while (good && next_line(&at, end, line))
        good = strncmp(line, "check ", 6) == 0 && check_matches(line + 6, key);
    OPENSSL_cleanse(line, sizeof line);
    if (good) {
        memcpy(key_out, key, KEY_SIZE);
        *type_out = type;
    }
    OPENSSL_cleanse(key, sizeof key);
    if (good)
        return true;
    cairn_error(err, CAIRN_USAGE, "key file '%s' is damaged or was typed wrongly", from);
    return cairn_error_hint(err,
                            "the line below the first one is 64 hex digits or 44 characters of "
                            "base64, the next one their check; take another copy");
}

Secret *
key_file_read(const World *world, const char *path, KeyFileType *type_out, CairnError *err)
{
    SCOPED(Secret) text = secret_read_file(world, path, KEY_FILE_TEXT_SIZE, err);
    SCOPED(Secret) key = text != NULL ? secret_new(KEY_SIZE, err) : NULL;
    if (key == NULL ||
        !key_file_parse((const char *)text->data, text->size, path, type_out, key->data, err))
        return NULL;
    return take(&key);
}

/* A new file with this content. */
static bool
write_new(const World *world, const char *path, const void *text, size_t size, mode_t mode,
          CairnError *err)
{
    const Disk *disk = world->disk;
    const int fd = disk->openat(disk, AT_FDCWD, path,
                                O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        if (errno != EEXIST)
            return cairn_error_errno(err, "unable to create '%s'", path);
        cairn_error(err, CAIRN_CONFLICT, "'%s' exists; a key is never overwritten", path);
        return cairn_error_hint(err, "name another file");
    }
    bool written = file_write(world, fd, text, size, path, err);
    if (written && disk->fchmod(disk, fd, mode) != 0)
        written = cairn_error_errno(err, "unable to set the mode of '%s'", path);
    if (written)
        return file_sync_close(world, fd, path, err);
    disk->close(disk, fd);
    return false;
}

static bool
sync_parent(const World *world, const char *path, CairnError *err)
{
    char directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    const int size = slash == NULL ? 0 : slash == path ? 1 : (int)(slash - path);
    snprintf(directory, sizeof directory, "%.*s", size > 0 ? size : 1, size > 0 ? path : ".");
    return file_sync_directory(world, AT_FDCWD, directory, err);
}

static void
print_key_file(Secret *text, KeyFileType type, const uint8_t *key, const char *now)
{
    char hex[2 * KEY_SIZE + 1];
    char check[9];
    uint8_t crc[4];
    put_u32(crc, crc32c(0, key, KEY_SIZE));
    hex_encode(hex, key, KEY_SIZE);
    hex_encode(check, crc, sizeof crc);
    const int size = snprintf(
        (char *)text->data, text->size,
        "# pgcairn %s key, made %s.  Secret.  Keep a copy off this machine: without it\n"
        "# what is encrypted under it cannot be read by anybody, ever.\n%s\n%s\ncheck %s\n",
        type == KEY_FILE_PRIVATE ? "private" : "repository", now,
        type == KEY_FILE_PRIVATE ? PRIVATE_MAGIC : SYMMETRIC_MAGIC, hex, check);
    CAIRN_ASSERT(size > 0 && (size_t)size < text->size);
    text->size = (size_t)size;
    OPENSSL_cleanse(hex, sizeof hex);
}

static bool
write_public(const World *world, const char *path, const uint8_t key[KEY_SIZE], CairnError *err)
{
    char name[PATH_MAX], line[PUBLIC_KEY_TEXT_SIZE], text[2 * PUBLIC_KEY_TEXT_SIZE];
    public_key_format(line, key);
    const int size =
        snprintf(text, sizeof text, "# pgcairn public key: for recipients\n%s\n", line);
    if (snprintf(name, sizeof name, "%s.pub", path) >= (int)sizeof name)
        return cairn_error(err, CAIRN_USAGE, "'%s' is too long a path", path);
    return write_new(world, name, text, (size_t)size, 0644, err);
}

bool
key_file_generate(const World *world, const char *path, KeyFileType type,
                  uint8_t public_out[KEY_SIZE], CairnError *err)
{
    char now[TIMESTAMP_TEXT_SIZE];
    SCOPED(Secret) key = secret_new(KEY_SIZE, err);
    SCOPED(Secret) text = key != NULL ? secret_new(KEY_FILE_TEXT_SIZE, err) : NULL;
    if (text == NULL)
        return false;
    secret_protect_process();
    if (world->random->fill(world->random, key->data, KEY_SIZE) != 0)
        return cairn_error_errno(err, "unable to draw random bytes");
    if (type == KEY_FILE_PRIVATE && !seal_public_key(key->data, public_out, err))
        return false;
    timestamp_format(now, world->clock->wall_us(world->clock));
    print_key_file(text, type, key->data, now);
    return write_new(world, path, text->data, text->size, 0600, err) &&
           (type == KEY_FILE_SYMMETRIC || write_public(world, path, public_out, err)) &&
           sync_parent(world, path, err);
}

void
public_key_format(char text[PUBLIC_KEY_TEXT_SIZE], const uint8_t key[KEY_SIZE])
{
    char hex[2 * KEY_SIZE + 1], check[9];
    uint8_t crc[4];
    put_u32(crc, crc32c(0, key, KEY_SIZE));
    hex_encode(hex, key, KEY_SIZE);
    hex_encode(check, crc, sizeof crc);
    snprintf(text, PUBLIC_KEY_TEXT_SIZE, PUBLIC_MAGIC " %s %s", hex, check);
}

static bool
parse_public(const char *line, uint8_t key[KEY_SIZE])
{
    const size_t magic_size = strlen(PUBLIC_MAGIC " "), hex_size = (size_t)2 * KEY_SIZE;
    return strncmp(line, PUBLIC_MAGIC " ", magic_size) == 0 &&
           strlen(line) == magic_size + hex_size + 9 && line[magic_size + hex_size] == ' ' &&
           hex_decode(key, KEY_SIZE, line + magic_size) &&
           check_matches(line + magic_size + hex_size + 1, key);
}

bool
public_keys_parse(const char *text, const char *from, uint8_t (*keys_out)[KEY_SIZE],
                  size_t *count_out, CairnError *err)
{
    const char *at = text, *end = text + strlen(text);
    char line[LINE_LIMIT];
    size_t count = 0;
    while (next_line(&at, end, line)) {
        uint8_t key[KEY_SIZE];
        if (!parse_public(line, key)) {
            cairn_error(err, CAIRN_USAGE, "'%s' holds a line that is no public key", from);
            return cairn_error_hint(err,
                                    "lines are " PUBLIC_MAGIC " <64 hex digits> <8 hex digits>, "
                                    "as in the .pub file of pgcairn key generate --recipient");
        }
        for (size_t i = 0; i < count; i++) {
            if (memcmp(keys_out[i], key, KEY_SIZE) == 0)
                return cairn_error(err, CAIRN_USAGE, "'%s' names one public key twice", from);
        }
        if (count == KEYRING_RECIPIENT_LIMIT)
            return cairn_error(err, CAIRN_USAGE, "'%s' names more than %d public keys", from,
                               KEYRING_RECIPIENT_LIMIT);
        memcpy(keys_out[count++], key, KEY_SIZE);
    }
    if (count == 0)
        return cairn_error(err, CAIRN_USAGE, "'%s' names no public key", from);
    *count_out = count;
    return true;
}

bool
public_keys_read(const World *world, const char *path, uint8_t (*keys_out)[KEY_SIZE],
                 size_t *count_out, CairnError *err)
{
    size_t size;
    struct stat status;
    SCOPED_MEMORY char *text =
        file_read_all(world, AT_FDCWD, path, RECIPIENTS_FILE_LIMIT, &size, err);
    if (text != NULL && world->disk->fstatat(world->disk, AT_FDCWD, path, &status, 0) == 0 &&
        (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        cairn_error(err, CAIRN_DENIED,
                    "'%s' says who can read the repository, and others can write to it", path);
        return cairn_error_hint(err, "chmod go-w '%s'", path);
    }
    if (text == NULL)
        return cairn_error_wrap(err, "recipients");
    return public_keys_parse(text, path, keys_out, count_out, err);
}
