#include "repository/descriptor.h"

#include "common/libcrypto.h"
#include "repository/json.h"
#include "repository/object.h"

#include <stdio.h>
#include <string.h>

#define DESCRIPTOR_KEY_INFO "pgcairn1 descriptor"

static const char *const encryption_names[] = {
    [ENCRYPTION_NONE] = "none", [ENCRYPTION_KEYS] = "keys", [ENCRYPTION_SEALED] = "sealed"};
enum { ENCRYPTION_COUNT = sizeof encryption_names / sizeof encryption_names[0] };

const char *
encryption_name(Encryption encryption)
{
    return encryption_names[encryption];
}

static bool
mac_of(const Descriptor *descriptor, const uint8_t meta_root[KEY_SIZE],
       uint8_t mac_out[SHA256_SIZE], CairnError *err)
{
    char id[2 * REPOSITORY_ID_SIZE + 1], text[256];
    uint8_t key[KEY_SIZE];
    hex_encode(id, descriptor->id, sizeof descriptor->id);
    const int size =
        snprintf(text, sizeof text, "pgcairn1 descriptor\n%s\n%d\n%s\n%s\n", id, REPOSITORY_FORMAT,
                 descriptor->created, encryption_names[descriptor->encryption]);
    CAIRN_ASSERT(size > 0 && (size_t)size < sizeof text);
    const bool done = hkdf_sha256(meta_root, descriptor->id, sizeof descriptor->id,
                                  DESCRIPTOR_KEY_INFO, key, sizeof key, err) &&
                      hmac_sha256(key, sizeof key, text, (size_t)size, mac_out, err);
    OPENSSL_cleanse(key, sizeof key);
    return done;
}

bool
descriptor_sign(Descriptor *descriptor, const uint8_t meta_root[KEY_SIZE], CairnError *err)
{
    return mac_of(descriptor, meta_root, descriptor->mac, err);
}

bool
descriptor_verify(const Descriptor *descriptor, const uint8_t meta_root[KEY_SIZE], CairnError *err)
{
    uint8_t mac[SHA256_SIZE];
    if (!mac_of(descriptor, meta_root, mac, err))
        return false;
    if (CRYPTO_memcmp(mac, descriptor->mac, sizeof mac) == 0)
        return true;
    cairn_error(err, CAIRN_CORRUPT,
                "'" DESCRIPTOR_NAME "' was changed: what it says is not what "
                "the holder of the key wrote");
    return cairn_error_hint(err,
                            "somebody who can write to the storage did this, or it is damaged: "
                            "restore this one object from a copy of the repository");
}

bool
descriptor_write(Repository *repository, const Descriptor *descriptor, CairnError *err)
{
    char id[2 * REPOSITORY_ID_SIZE + 1];
    hex_encode(id, descriptor->id, sizeof descriptor->id);
    SCOPED_JSON json_t *json = json_pack("{s:s, s:i, s:s, s:s}", "repository_id", id, "format",
                                         REPOSITORY_FORMAT, "created_at", descriptor->created,
                                         "encryption", encryption_names[descriptor->encryption]);
    if (json != NULL && descriptor->encryption == ENCRYPTION_NONE)
        json_object_set_new(json, "root_key", json_hex(descriptor->root_key, KEY_SIZE));
    else if (json != NULL)
        json_object_set_new(json, "mac", json_hex(descriptor->mac, SHA256_SIZE));
    return json_put(repository, DESCRIPTOR_NAME, OBJECT_REPOSITORY, 0, json, NULL, err);
}

static Encryption
read_encryption(JsonReader *fields)
{
    const char *text = json_read_text(fields, "encryption");
    for (size_t i = 0; i < ENCRYPTION_COUNT && !fields->failed; i++) {
        if (strcmp(text, encryption_names[i]) == 0)
            return (Encryption)i;
    }
    if (!fields->failed) {
        fields->failed = true;
        cairn_error(fields->err, CAIRN_UNSUPPORTED,
                    "the repository is encrypted by a method ('%.32s') that this version does not "
                    "know",
                    text);
        cairn_error_hint(fields->err, "use the pgcairn that made it, or a newer one");
    }
    return ENCRYPTION_NONE;
}

static void
check_format(JsonReader *fields)
{
    const int64_t format = json_read_integer(fields, "format", 1, INT32_MAX);
    if (fields->failed || format <= REPOSITORY_FORMAT)
        return;
    fields->failed = true;
    cairn_error(fields->err, CAIRN_UNSUPPORTED,
                "the repository has format %d, this version knows %d", (int)format,
                REPOSITORY_FORMAT);
    cairn_error_hint(fields->err, "use the pgcairn that made it, or a newer one");
}

bool
descriptor_read(Repository *repository, Descriptor *descriptor_out, CairnError *err)
{
    SCOPED_JSON json_t *json = json_get(repository, DESCRIPTOR_NAME, OBJECT_REPOSITORY, NULL, err);
    if (json == NULL)
        return false;

    Descriptor descriptor = {0};
    JsonReader fields = json_reader(json, DESCRIPTOR_NAME, err);
    check_format(&fields);
    descriptor.encryption = read_encryption(&fields);
    json_read_hex(&fields, "repository_id", descriptor.id, sizeof descriptor.id);
    const char *created = json_read_text(&fields, "created_at");
    if (!fields.failed && strlen(created) >= sizeof descriptor.created)
        json_reader_fail(&fields, "created_at");
    snprintf(descriptor.created, sizeof descriptor.created, "%s", created);
    if (descriptor.encryption == ENCRYPTION_NONE)
        json_read_hex(&fields, "root_key", descriptor.root_key, sizeof descriptor.root_key);
    else
        json_read_hex(&fields, "mac", descriptor.mac, sizeof descriptor.mac);
    if (!fields.failed)
        *descriptor_out = descriptor;
    OPENSSL_cleanse(descriptor.root_key, sizeof descriptor.root_key);
    return !fields.failed;
}
