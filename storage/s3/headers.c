/* Headers of what is created: class, encryption, lock, checksum, condition. */
#include "common/digest.h"
#include "storage/s3/s3_intern.h"

#include <openssl/evp.h>
#include <string.h>

void
s3_header_add(S3CreateHeaders *headers, const char *name, const char *value)
{
    CAIRN_ASSERT(headers->count < S3_CREATE_HEADERS_LIMIT);
    headers->pairs[headers->count++] = (S3Pair){name, value};
}

static bool
is_google(const S3Storage *storage)
{
    return s3_client_scheme(storage->client) == S3_SIGN_GOOG4;
}

void
s3_create_headers(const S3Storage *storage, S3CreateHeaders *headers)
{
    const S3Config *config = &storage->config.s3;
    const bool google = is_google(storage);
    if (config->storage_class != NULL)
        s3_header_add(headers, google ? "x-goog-storage-class" : "x-amz-storage-class",
                      config->storage_class);
    if (google) {
        if (config->server_encryption_key != NULL)
            s3_header_add(headers, "x-goog-encryption-kms-key-name", config->server_encryption_key);
        return;
    }
    if (config->server_encryption != NULL)
        s3_header_add(headers, "x-amz-server-side-encryption", config->server_encryption);
    if (config->server_encryption_key != NULL)
        s3_header_add(headers, "x-amz-server-side-encryption-aws-kms-key-id",
                      config->server_encryption_key);
    if (config->lock_mode != NULL) {
        s3_lock_time(s3_lock_horizon_us(storage), headers->retain_until);
        s3_header_add(headers, "x-amz-object-lock-mode", s3_lock_mode(storage));
        s3_header_add(headers, "x-amz-object-lock-retain-until-date", headers->retain_until);
    }
}

static void
base64(char *text, const void *data, size_t size)
{
    EVP_EncodeBlock((unsigned char *)text, data, (int)size);
}

bool
s3_md5_header(const void *data, size_t size, S3CreateHeaders *headers, CairnError *err)
{
    uint8_t md5[EVP_MAX_MD_SIZE];
    unsigned md5_size;
    if (EVP_Digest(data, size, md5, &md5_size, EVP_md5(), NULL) != 1)
        return cairn_error(err, CAIRN_UNSUPPORTED, "this system's OpenSSL refuses MD5");
    base64(headers->checksum, md5, md5_size);
    s3_header_add(headers, "content-md5", headers->checksum);
    return true;
}

/*
 * The payload's SHA-256 is signed in any case; these are for stores that verify or keep a checksum
 * of their own. A part may only carry an x-amz-checksum that the upload was begun with: there it is
 * Content-MD5, where one is needed (object lock) or asked for.
 */
bool
s3_checksum_header(const S3Storage *storage, const void *data, size_t size, const uint8_t *digest,
                   bool for_part, S3CreateHeaders *headers, CairnError *err)
{
    const S3Config *config = &storage->config.s3;
    const char *checksum = config->checksum != NULL ? config->checksum : "sha256";
    if (strcmp(checksum, "md5") == 0 || (for_part && config->lock_mode != NULL))
        return s3_md5_header(data, size, headers, err) ||
               cairn_error_hint(err, "set checksum = sha256 or crc32c");
    if (strcmp(checksum, "none") == 0 || for_part || is_google(storage))
        return true;
    if (strcmp(checksum, "crc32c") == 0) {
        const uint32_t crc = crc32c(0, data, size);
        const uint8_t bytes[] = {(uint8_t)(crc >> 24), (uint8_t)(crc >> 16), (uint8_t)(crc >> 8),
                                 (uint8_t)crc};
        base64(headers->checksum, bytes, sizeof bytes);
        s3_header_add(headers, "x-amz-checksum-crc32c", headers->checksum);
        s3_header_add(headers, "x-amz-sdk-checksum-algorithm", "CRC32C");
        return true;
    }
    base64(headers->checksum, digest, SHA256_SIZE);
    s3_header_add(headers, "x-amz-checksum-sha256", headers->checksum);
    s3_header_add(headers, "x-amz-sdk-checksum-algorithm", "SHA256");
    return true;
}

void
s3_condition_header(const S3Storage *storage, S3CreateHeaders *headers)
{
    if (storage->one_writer)
        return;
    if (is_google(storage))
        s3_header_add(headers, "x-goog-if-generation-match", "0");
    else
        s3_header_add(headers, "if-none-match", "*");
}
