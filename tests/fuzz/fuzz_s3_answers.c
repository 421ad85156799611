/*
 * What an object store or a token service answers: XML to structs. The same bytes go to every
 * reader; what they hand out keeps its bounds.
 */
#include "storage/s3/answers.h"
#include "storage/s3/version_answers.h"
#include "storage/s3/xml.h"

#include <stdlib.h>
#include <string.h>

static bool
check_entry(void *context, const S3ListEntry *entry, CairnError *err)
{
    (void)err;
    const size_t length = strlen(entry->key);
    CAIRN_ASSERT(length > 0 && length <= S3_KEY_LIMIT);
    CAIRN_ASSERT(!entry->is_prefix || entry->size_bytes == 0);
    ++*(size_t *)context;
    return true;
}

static bool
check_kept(void *context, const char *key, const S3Error *error, CairnError *err)
{
    (void)context;
    (void)err;
    CAIRN_ASSERT(strlen(key) <= S3_KEY_LIMIT && strlen(error->code) < sizeof error->code);
    return true;
}

static bool
check_upload(void *context, const S3UploadEntry *entry, CairnError *err)
{
    (void)context;
    (void)err;
    CAIRN_ASSERT(entry->key[0] != '\0' && entry->upload_id[0] != '\0');
    return true;
}

static bool
check_version(void *context, const S3VersionEntry *entry, CairnError *err)
{
    (void)context;
    (void)err;
    CAIRN_ASSERT(entry->key[0] != '\0' && strlen(entry->key) <= S3_KEY_LIMIT);
    CAIRN_ASSERT(entry->version[0] != '\0' && strlen(entry->version) <= STORAGE_VERSION_LIMIT);
    CAIRN_ASSERT(!entry->is_marker || (entry->size_bytes == 0 && entry->etag[0] == '\0'));
    return true;
}

static void
check_versions(const void *data, size_t size)
{
    static S3VersionPage page;
    char etag[S3_ETAG_SIZE];
    CairnError err = {0};
    if (s3_versions_parse(data, size, check_version, NULL, &page, &err))
        CAIRN_ASSERT(!page.truncated || page.next_key[0] != '\0');
    cairn_error_clear(&err);
    if (s3_copy_parse(data, size, etag, &err))
        CAIRN_ASSERT(etag[0] != '\0');
}

/* Messages go to terminals. */
static void
check_error(const void *data, size_t size)
{
    S3Error error;
    const bool is_error = s3_error_parse(data, size, &error);
    CAIRN_ASSERT(is_error || error.code[0] == '\0');
    for (const char *at = error.message; *at != '\0'; at++)
        CAIRN_ASSERT((unsigned char)*at >= ' ' && *at != '\x7f');
    CAIRN_ASSERT(s3_error_kind(400, error.code) != CAIRN_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CairnError err = {0};
    size_t entries = 0;
    S3ListPage page;
    if (s3_list_parse(data, size, check_entry, &entries, &page, &err)) {
        CAIRN_ASSERT(!page.truncated || page.next_token != NULL);
        free(page.next_token);
    }
    check_error(data, size);
    check_versions(data, size);

    char upload_id[S3_UPLOAD_ID_SIZE];
    char etag[S3_ETAG_SIZE];
    S3UploadPage uploads;
    SCOPED_S3_CREDENTIALS S3Credentials credentials = {0};
    cairn_error_clear(&err);
    if (!s3_delete_parse(data, size, check_kept, NULL, &err))
        cairn_error_clear(&err);
    if (!s3_upload_parse(data, size, upload_id, &err))
        cairn_error_clear(&err);
    if (!s3_complete_parse(data, size, etag, &err))
        cairn_error_clear(&err);
    if (!s3_uploads_parse(data, size, check_upload, NULL, &uploads, &err))
        cairn_error_clear(&err);
    S3Retention retention;
    if (!s3_retention_parse(data, size, &retention, &err))
        cairn_error_clear(&err);
    if (sts_credentials_parse(data, size, &credentials, &err))
        CAIRN_ASSERT(credentials.access_key[0] != '\0' && credentials.secret_key[0] != '\0');
    return 0;
}
