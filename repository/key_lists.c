/* Epochs and recipients: small objects below keys/ that are authenticated under the metadata root.
 */
#include "repository/key_store.h"

#include "common/libcrypto.h"
#include "common/log.h"
#include "repository/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LISTS_KEY_INFO "pgcairn1 key lists"

/* Head and 16 keys in hex. */
enum { ABOUT_LIMIT = 256 + KEYRING_RECIPIENT_LIMIT * (2 * KEY_SIZE + 1), EPOCH_TRIES = 16 };

static bool
mac_of(const KeyStore *store, const KeyRoots *roots, const char *about, size_t size,
       uint8_t mac_out[SHA256_SIZE], CairnError *err)
{
    uint8_t key[KEY_SIZE];
    const bool done = hkdf_sha256(roots->meta_root, repository_id(store->repository),
                                  REPOSITORY_ID_SIZE, LISTS_KEY_INFO, key, sizeof key, err) &&
                      hmac_sha256(key, sizeof key, about, size, mac_out, err);
    OPENSSL_cleanse(key, sizeof key);
    return done;
}

/* What is authenticated: everything that the object says. recipients NULL: an epoch. */
static size_t
describe(const KeyStore *store, uint16_t number, const char *created,
         const KeyRecipients *recipients, char about[ABOUT_LIMIT])
{
    char id[2 * REPOSITORY_ID_SIZE + 1];
    hex_encode(id, repository_id(store->repository), REPOSITORY_ID_SIZE);
    int size = snprintf(about, ABOUT_LIMIT, "pgcairn1 %s\n%s\n%u\n%s\n",
                        recipients != NULL ? "recipients" : "epoch", id, number, created);
    for (size_t i = 0; recipients != NULL && i < recipients->count; i++) {
        char hex[2 * KEY_SIZE + 1];
        hex_encode(hex, recipients->keys[i], KEY_SIZE);
        size += snprintf(about + size, (size_t)(ABOUT_LIMIT - size), "%s\n", hex);
    }
    CAIRN_ASSERT(size > 0 && size < ABOUT_LIMIT);
    return (size_t)size;
}

static json_t *
recipients_json(const KeyRecipients *recipients)
{
    json_t *array = json_array();
    for (size_t i = 0; i < recipients->count; i++)
        json_array_append_new(array, json_hex(recipients->keys[i], KEY_SIZE));
    return array;
}

/* recipients NULL: an epoch. */
static bool
put(KeyStore *store, const KeyRoots *roots, uint16_t number, const KeyRecipients *recipients,
    CairnError *err)
{
    char name[STORAGE_NAME_LIMIT], now[TIMESTAMP_TEXT_SIZE], about[ABOUT_LIMIT];
    uint8_t mac[SHA256_SIZE];
    const World *world = repository_world(store->repository);
    timestamp_format(now, world->clock->wall_us(world->clock));
    if (!mac_of(store, roots, about, describe(store, number, now, recipients, about), mac, err))
        return false;
    snprintf(name, sizeof name, "keys/%s.%u", recipients != NULL ? "recipients" : "epoch", number);
    SCOPED_JSON json_t *json = json_pack("{s:i, s:s, s:o}", "number", (int)number, "created_at",
                                         now, "mac", json_hex(mac, sizeof mac));
    if (json != NULL && recipients != NULL)
        json_object_set_new(json, "recipients", recipients_json(recipients));
    return json_put(store->repository, name, OBJECT_KEY, 0, json, NULL, err);
}

static void
read_recipients(JsonReader *fields, KeyRecipients *recipients)
{
    const json_t *array = json_read_array(fields, "recipients");
    recipients->count = json_array_size(array);
    if (!fields->failed && (recipients->count < 1 || recipients->count > KEYRING_RECIPIENT_LIMIT))
        json_reader_fail(fields, "recipients");
    for (size_t i = 0; !fields->failed && i < recipients->count; i++) {
        const char *text = json_string_value(json_array_get(array, i));
        if (text == NULL || strlen(text) != (size_t)2 * KEY_SIZE ||
            !hex_decode(recipients->keys[i], KEY_SIZE, text))
            json_reader_fail(fields, "recipients");
    }
}

/* CORRUPT when it is not genuine. */
static bool
get(KeyStore *store, const KeyRoots *roots, uint16_t number, KeyRecipients *recipients,
    CairnError *err)
{
    char name[STORAGE_NAME_LIMIT], about[ABOUT_LIMIT];
    uint8_t stored[SHA256_SIZE], mac[SHA256_SIZE];
    snprintf(name, sizeof name, "keys/%s.%u", recipients != NULL ? "recipients" : "epoch", number);
    SCOPED_JSON json_t *json = json_get(store->repository, name, OBJECT_KEY, NULL, err);
    if (json == NULL)
        return false;
    JsonReader fields = json_reader(json, name, err);
    const int64_t said = json_read_integer(&fields, "number", 1, UINT16_MAX);
    const char *created = json_read_text(&fields, "created_at");
    json_read_hex(&fields, "mac", stored, sizeof stored);
    if (!fields.failed && (said != number || strlen(created) >= TIMESTAMP_TEXT_SIZE))
        json_reader_fail(&fields, "number");
    if (recipients != NULL)
        read_recipients(&fields, recipients);
    if (fields.failed ||
        !mac_of(store, roots, about, describe(store, number, created, recipients, about), mac, err))
        return false;
    if (CRYPTO_memcmp(mac, stored, sizeof mac) != 0)
        return cairn_error(err, CAIRN_CORRUPT,
                           "object '%s' was not made by a holder of the repository's key", name);
    return true;
}

bool
key_store_epoch(KeyStore *store, const KeyRoots *roots, uint16_t *epoch_out, CairnError *err)
{
    /* What cannot be proven is passed over, not an error: else whoever may create one object stops
       every host. An epoch protects nothing that a lower one does not. */
    for (size_t i = 0; i < store->epoch_count && i < EPOCH_TRIES; i++) {
        if (store->epochs[i] <= roots->epoch)
            break;
        if (get(store, roots, store->epochs[i], NULL, err)) {
            *epoch_out = store->epochs[i];
            return true;
        }
        if (err->kind != CAIRN_CORRUPT && err->kind != CAIRN_MISMATCH &&
            err->kind != CAIRN_NOT_FOUND)
            return false;
        log_warn("%s; it is not used", err->message);
        cairn_error_clear(err);
    }
    *epoch_out = roots->epoch;
    return true;
}

bool
key_store_rotate(KeyStore *store, const KeyRoots *roots, uint16_t *epoch_out, CairnError *err)
{
    uint16_t epoch;
    if (!key_store_epoch(store, roots, &epoch, err))
        return false;
    /* Above rubbish too, whose names are taken. */
    const uint16_t highest =
        store->epoch_count > 0 && store->epochs[0] > epoch ? store->epochs[0] : epoch;
    if (highest == UINT16_MAX)
        return cairn_error(err, CAIRN_REFUSED, "the last epoch, 65535, is in use");
    epoch = (uint16_t)(highest + 1);
    if (!put(store, roots, epoch, NULL, err)) {
        if (err->kind == CAIRN_CONFLICT)
            cairn_error_hint(err, "somebody else rotates just now");
        return false;
    }
    *epoch_out = epoch;
    return true;
}

bool
key_store_recipients(KeyStore *store, const KeyRoots *roots, KeyRecipients *recipients_out,
                     CairnError *err)
{
    if (store->list_count == 0) {
        cairn_error(err, CAIRN_CORRUPT, "the repository's list of recipients is missing");
        return cairn_error_hint(err, "put keys/recipients.<n> back from a copy of the repository");
    }
    for (size_t i = 0; i < store->list_count; i++) {
        if (get(store, roots, store->lists[i], recipients_out, err))
            return true;
        /* Left by an init that came too late: of another repository, as if it were not there. */
        if (err->kind != CAIRN_MISMATCH || i + 1 == store->list_count)
            break;
        cairn_error_clear(err);
    }
    if (err->kind != CAIRN_CORRUPT && err->kind != CAIRN_MISMATCH)
        return false;
    err->kind = CAIRN_CORRUPT;
    return cairn_error_hint(err,
                            "nothing is written before it is genuine again: put it back from a "
                            "copy, or remove it if you know how it came there; the one before "
                            "it counts then");
}

bool
key_store_set_recipients(KeyStore *store, const KeyRoots *roots, const KeyRecipients *recipients,
                         CairnError *err)
{
    const uint16_t highest = store->list_count > 0 ? store->lists[0] : 0;
    if (highest == UINT16_MAX)
        return cairn_error(err, CAIRN_REFUSED, "the list of recipients cannot change again");
    if (put(store, roots, (uint16_t)(highest + 1), recipients, err))
        return true;
    if (err->kind == CAIRN_CONFLICT)
        cairn_error_hint(err, "somebody else changes it just now: try again");
    return false;
}
