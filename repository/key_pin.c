#include "repository/key_pin.h"

#include "common/file.h"
#include "storage/connect.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_DIRECTORY "/var/spool/pgcairn"

enum { PIN_LIMIT = 512, NAME_BYTES = 12 };

static bool
pin_path(const RepositoryConfig *config, char path[PATH_MAX])
{
    char place[STORAGE_PLACE_TEXT_SIZE], line[STORAGE_PLACE_TEXT_SIZE + 64];
    char hex[2 * NAME_BYTES + 1];
    uint8_t digest[SHA256_SIZE];
    CairnError ignored = {0}; /* without a name there is no pin */
    storage_place_text(config, place);
    const int size =
        snprintf(line, sizeof line, "user %u\nrepository %s\n", (unsigned)geteuid(), place);
    if (size < 0 || !sha256_of(line, (size_t)size, digest, &ignored))
        return false;
    hex_encode(hex, digest, NAME_BYTES);
    return snprintf(path, PATH_MAX, "%s/pin-%s",
                    config->spool_path != NULL ? config->spool_path : DEFAULT_DIRECTORY,
                    hex) < PATH_MAX;
}

/* True when text begins with this line; then *text goes on behind it. */
static bool
read_line(char **text, const char *key, char *value, size_t value_size)
{
    const size_t key_size = strlen(key);
    char *end = strchr(*text, '\n');
    if (end == NULL || strncmp(*text, key, key_size) != 0 ||
        (size_t)(end - *text) - key_size >= value_size)
        return false;
    memcpy(value, *text + key_size, (size_t)(end - *text) - key_size);
    value[(size_t)(end - *text) - key_size] = '\0';
    *text = end + 1;
    return true;
}

static bool
parse(char *text, KeyPin *pin)
{
    char id[2 * REPOSITORY_ID_SIZE + 1], encryption[16], slot[KEY_SLOT_NAME_LIMIT + 1];
    char mac[2 * SHA256_SIZE + 1];
    if (!read_line(&text, "repository = ", id, sizeof id) ||
        !read_line(&text, "encryption = ", encryption, sizeof encryption) ||
        !read_line(&text, "slot = ", slot, sizeof slot) ||
        strlen(id) != (size_t)2 * REPOSITORY_ID_SIZE || !hex_decode(pin->id, sizeof pin->id, id))
        return false;
    if (strcmp(encryption, encryption_name(ENCRYPTION_KEYS)) == 0)
        pin->encryption = ENCRYPTION_KEYS;
    else if (strcmp(encryption, encryption_name(ENCRYPTION_SEALED)) == 0)
        pin->encryption = ENCRYPTION_SEALED;
    else
        return false;
    if (key_slot_name_valid(slot))
        snprintf(pin->slot, sizeof pin->slot, "%s", slot);
    pin->has_mac = read_line(&text, "descriptor = ", mac, sizeof mac) &&
                   strlen(mac) == (size_t)2 * SHA256_SIZE &&
                   hex_decode(pin->mac, sizeof pin->mac, mac);
    return true;
}

void
key_pin_read(const World *world, const RepositoryConfig *config, KeyPin *pin_out)
{
    const Disk *disk = world->disk;
    char path[PATH_MAX], text[PIN_LIMIT];
    struct stat status;
    size_t size = 0;
    CairnError ignored = {0}; /* what cannot be read is no pin */
    *pin_out = (KeyPin){0};
    if (!pin_path(config, path))
        return;
    const int fd =
        disk->openat(disk, AT_FDCWD, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
    if (fd < 0)
        return;
    const bool ours = disk->fstat(disk, fd, &status) == 0 && S_ISREG(status.st_mode) &&
                      status.st_uid == geteuid() && (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
    if (ours && file_read(world, fd, text, sizeof text - 1, &size, path, &ignored)) {
        text[size] = '\0';
        pin_out->found = parse(text, pin_out);
    }
    disk->close(disk, fd);
}

bool
key_pin_check(const RepositoryConfig *config, const KeyPin *pin,
              const uint8_t id[REPOSITORY_ID_SIZE], Encryption encryption, CairnError *err)
{
    char path[PATH_MAX] = "", before[2 * REPOSITORY_ID_SIZE + 1], now[2 * REPOSITORY_ID_SIZE + 1];
    if (!pin->found ||
        (memcmp(pin->id, id, REPOSITORY_ID_SIZE) == 0 && pin->encryption == encryption))
        return true;
    hex_encode(before, pin->id, REPOSITORY_ID_SIZE);
    hex_encode(now, id, REPOSITORY_ID_SIZE);
    cairn_error(
        err, CAIRN_MISMATCH,
        "repository '%s' is not the one that this host used before: that was %s (encryption "
        "%s), this is %s (encryption %s)",
        config->name, before, encryption_name(pin->encryption), now, encryption_name(encryption));
    return cairn_error_hint(err,
                            "somebody may have put another one in its place. If you did: rm '%s'",
                            pin_path(config, path) ? path : "the pin");
}

bool
key_pin_check_mac(const RepositoryConfig *config, const KeyPin *pin, const uint8_t mac[SHA256_SIZE],
                  CairnError *err)
{
    char path[PATH_MAX];
    if (!pin->found || !pin->has_mac || memcmp(pin->mac, mac, SHA256_SIZE) == 0)
        return true;
    cairn_error(err, CAIRN_MISMATCH,
                "repository '%s' is not the one that this host used before: it says the same id, "
                "and has other keys",
                config->name);
    return cairn_error_hint(
        err,
        "somebody put another one in its place. Compare with a copy before you go on; then: "
        "rm '%s'",
        pin_path(config, path) ? path : "the pin");
}

void
key_pin_keep(const World *world, const RepositoryConfig *config, const KeyPin *pin)
{
    char path[PATH_MAX], text[PIN_LIMIT];
    char id[2 * REPOSITORY_ID_SIZE + 1], mac[2 * SHA256_SIZE + 1];
    CairnError ignored = {0}; /* best effort */
    struct stat status;
    const char *directory = config->spool_path != NULL ? config->spool_path : DEFAULT_DIRECTORY;
    if (world->disk->fstatat(world->disk, AT_FDCWD, directory, &status, 0) != 0 ||
        !pin_path(config, path))
        return;
    hex_encode(id, pin->id, REPOSITORY_ID_SIZE);
    hex_encode(mac, pin->mac, sizeof pin->mac);
    const int size = snprintf(text, sizeof text,
                              "repository = %s\nencryption = %s\nslot = %s\ndescriptor = %s\n", id,
                              encryption_name(pin->encryption), pin->slot, mac);
    if (!file_replace(world, AT_FDCWD, path, text, (size_t)size, 0600, &ignored))
        return;
}

void
key_pin_forget(const World *world, const RepositoryConfig *config)
{
    char path[PATH_MAX];
    if (pin_path(config, path))
        world->disk->unlinkat(world->disk, AT_FDCWD, path, 0);
}
