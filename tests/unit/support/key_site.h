/*
 * Repositories with keys in a scratch directory, and an enemy who owns their storage: for tests of
 * slots, epochs, recipients, descriptor and pin. Failures are cmocka's. Threads: one.
 */
#ifndef PGCAIRN_TESTS_KEY_SITE_H
#define PGCAIRN_TESTS_KEY_SITE_H

#include "repository/descriptor.h"
#include "repository/key_store.h"
#include "repository/object.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum { KEY_SITE_OBJECT_LIMIT = 8192 };

/* One repository's section and the files that it names. */
typedef struct {
    char root[512];
    char key[512];
    char other_key[512];
    char private_key[512];
    char recipients[512];
    char passphrase[512];
    char spool[512];
    RepositoryConfig config;
} KeySite;

/* A new repository, in a static buffer until the next. */
KeySite *key_site_new(const char *encryption);
void key_site_new_key(const char *path, KeyFileType type);
/* Returned owned. */
Repository *key_site_open(const KeySite *site);
/* Opening must fail so. */
void key_site_refused(const RepositoryConfig *config, CairnErrorKind kind, const char *words);

/* A key room with its roots. */
typedef struct {
    Repository *repository;
    KeyStore *store;
    Descriptor descriptor;
    KeyRoots roots;
} KeyRoom;

void key_room_open(KeyRoom *room, const KeySite *site);
void key_room_close(KeyRoom *room);

#define KEY_ROOM(name, site)                                                                       \
    __attribute__((cleanup(key_room_close))) KeyRoom name;                                         \
    key_room_open(&name, site)

void key_room_add_passphrase(KeyRoom *room, const char *name, const char *passphrase);

/* Behind the storage's back. */
size_t key_site_read(const KeySite *site, const char *name, uint8_t bytes[KEY_SITE_OBJECT_LIMIT]);
void key_site_write(const KeySite *site, const char *name, const uint8_t *bytes, size_t size);
void key_site_remove(const KeySite *site, const char *name);

/* An enemy who owns the storage: an object with other content in a container that is right. */
void key_site_forge(const KeySite *site, const char *name, ObjectKind kind, json_t *json);
/* Returned owned. */
json_t *key_site_json(const KeySite *site, const char *name, ObjectKind kind);
/* One who knows a public key, too: roots of its own, in a slot that the private one opens. */
void key_site_forge_slot(const KeySite *site, const char *name, KeyRoots *roots);

#endif
