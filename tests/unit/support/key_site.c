#include "tests/unit/support/key_site.h"

#include "agent/keys.h"
#include "repository/json.h"
#include "tests/unit/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const StretchCost cheap = {.n = 1024, .r = 8, .p = 1};

void
key_site_new_key(const char *path, KeyFileType type)
{
    CairnError err = {0};
    uint8_t public_key[KEY_SIZE];
    if (!key_file_generate(world_real(), path, type, public_key, &err))
        fail_msg("%s", err.message);
}

static void
write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, 0600), 0);
}

KeySite *
key_site_new(const char *encryption)
{
    static unsigned number;
    static KeySite site;
    char name[32];
    snprintf(name, sizeof name, "site%u", ++number);
    const char *directory = scratch_path(scratch_directory(), name);
    assert_int_equal(mkdir(directory, 0700), 0);
    site = (KeySite){0};
    snprintf(site.root, sizeof site.root, "%s/repository", directory);
    snprintf(site.key, sizeof site.key, "%s/key", directory);
    snprintf(site.other_key, sizeof site.other_key, "%s/other", directory);
    snprintf(site.private_key, sizeof site.private_key, "%s/private", directory);
    snprintf(site.recipients, sizeof site.recipients, "%s/private.pub", directory);
    snprintf(site.passphrase, sizeof site.passphrase, "%s/passphrase", directory);
    snprintf(site.spool, sizeof site.spool, "%s/spool", directory);
    assert_int_equal(mkdir(site.spool, 0700), 0);
    key_site_new_key(site.key, KEY_FILE_SYMMETRIC);
    key_site_new_key(site.other_key, KEY_FILE_SYMMETRIC);
    key_site_new_key(site.private_key, KEY_FILE_PRIVATE);
    write_text(site.passphrase, "correct horse battery staple\n");
    site.config = (RepositoryConfig){.name = "main",
                                     .path = site.root,
                                     .encryption = encryption,
                                     .keys = {.key_file = site.key},
                                     .spool_path = site.spool};
    if (strcmp(encryption, "sealed") == 0)
        site.config.keys.recipients = site.recipients;
    CairnError err = {0};
    if (!repository_init(world_real(), &site.config, &err))
        fail_msg("%s", err.message);
    return &site;
}

Repository *
key_site_open(const KeySite *site)
{
    CairnError err = {0};
    Repository *repository = repository_open(world_real(), &site->config, &err);
    if (repository == NULL)
        fail_msg("%s", err.message);
    return repository;
}

/* Opening must fail so. */
void
key_site_refused(const RepositoryConfig *config, CairnErrorKind kind, const char *words)
{
    CairnError err = {0};
    Repository *repository = repository_open(world_real(), config, &err);
    assert_null(repository);
    if (err.kind != kind || strstr(err.message, words) == NULL)
        fail_msg("kind %d: %s (%s)", err.kind, err.message, err.hint);
}

void
key_room_close(KeyRoom *room)
{
    key_store_free(room->store);
    repository_close(room->repository);
}

void
key_room_open(KeyRoom *room, const KeySite *site)
{
    CairnError err = {0};
    char opened[KEY_SLOT_NAME_LIMIT + 1];
    SCOPED_KEY_SOURCE source = {.world = world_real(), .config = &site->config.keys};
    room->repository = key_site_open(site);
    room->store = key_store_read(room->repository, &err);
    assert_non_null(room->store);
    assert_true(descriptor_read(room->repository, &room->descriptor, &err));
    room->store->descriptor = &room->descriptor;
    assert_true(key_store_open(room->store, &source, NULL, &room->roots, opened, &err));
}

void
key_room_add_passphrase(KeyRoom *room, const char *name, const char *passphrase)
{
    CairnError err = {0};
    const KeySlotPlan plan = {
        .name = name,
        .cost = cheap,
        .secret = {SLOT_PASSPHRASE, (const uint8_t *)passphrase, strlen(passphrase)}};
    assert_true(key_slot_create(room->repository, &plan, &room->roots, &err));
}

size_t
key_site_read(const KeySite *site, const char *name, uint8_t bytes[KEY_SITE_OBJECT_LIMIT])
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", site->root, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    const size_t size = fread(bytes, 1, KEY_SITE_OBJECT_LIMIT, file);
    fclose(file);
    return size;
}

void
key_site_write(const KeySite *site, const char *name, const uint8_t *bytes, size_t size)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", site->root, name);
    unlink(path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

void
key_site_remove(const KeySite *site, const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", site->root, name);
    assert_int_equal(unlink(path), 0);
}

/* An enemy who owns the storage: an object with other content in a container that is right. */
void
key_site_forge(const KeySite *site, const char *name, ObjectKind kind, json_t *json)
{
    CairnError err = {0};
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", site->root, name);
    SCOPED(Repository) repository = repository_open_locked(world_real(), &site->config, &err);
    assert_non_null(repository);
    assert_true(unlink(path) == 0 || errno == ENOENT);
    if (!json_put(repository, name, kind, 0, json, NULL, &err))
        fail_msg("%s", err.message);
}

json_t *
key_site_json(const KeySite *site, const char *name, ObjectKind kind)
{
    CairnError err = {0};
    SCOPED(Repository) repository = repository_open_locked(world_real(), &site->config, &err);
    json_t *json = json_get(repository, name, kind, NULL, &err);
    assert_non_null(json);
    return json;
}

/* An enemy who owns the storage and knows a public key: roots of its own, in a slot that the
   private one opens. */
void
key_site_forge_slot(const KeySite *site, const char *name, KeyRoots *roots)
{
    CairnError err = {0};
    uint8_t public_keys[KEYRING_RECIPIENT_LIMIT][KEY_SIZE];
    size_t count;
    SCOPED(Repository) repository = repository_open_locked(world_real(), &site->config, &err);
    assert_true(public_keys_read(world_real(), site->recipients, public_keys, &count, &err));
    memset(roots->meta_root, 0x66, KEY_SIZE);
    memset(roots->data_root, 0x66, KEY_SIZE);
    roots->mode = KEY_MODE_EPOCH;
    const KeySlotPlan plan = {.name = name, .secret = {SLOT_RECIPIENT, public_keys[0], KEY_SIZE}};
    assert_true(key_slot_create(repository, &plan, roots, &err));
}
