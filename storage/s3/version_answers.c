#include "storage/s3/version_answers.h"

#include "storage/s3/answers_intern.h"
#include "storage/s3/uri.h"

static bool
refuse(CairnError *err, const char *what)
{
    return cairn_error(err, CAIRN_CORRUPT, "unable to use the store's answer: %s", what);
}

/* Read twice, as listings are (answers.c): EncodingType may stand behind what it is about. */

typedef struct {
    bool encoded;
    bool truncated;
    char next_key[3 * S3_KEY_LIMIT + 1]; /* as it stands there */
    S3VersionPage page;
} Head;

static bool
on_head(void *context, const char *name, char *text, CairnError *err)
{
    Head *head = context;
    bool fits = true;
    if (strcmp(name, "EncodingType") == 0)
        head->encoded = strcmp(text, "url") == 0;
    else if (strcmp(name, "IsTruncated") == 0)
        head->truncated = strcmp(text, "true") == 0;
    else if (strcmp(name, "NextKeyMarker") == 0)
        fits = take_text(head->next_key, sizeof head->next_key, text);
    else if (strcmp(name, "NextVersionIdMarker") == 0)
        fits = take_text(head->page.next_version, sizeof head->page.next_version, text);
    return fits || refuse(err, "the marker of a list of versions is too long");
}

static bool
finish_head(Head *head, CairnError *err)
{
    head->page.truncated = head->truncated;
    if (!head->truncated)
        return true;
    if ((head->encoded && !uri_decode(head->next_key, true)) ||
        !take_text(head->page.next_key, sizeof head->page.next_key, head->next_key) ||
        head->page.next_key[0] == '\0')
        return refuse(err, "a list of versions is cut and has no marker to go on with");
    return true;
}

typedef struct {
    S3VersionCallback *callback;
    void *context;
    bool encoded;
    bool has_key, has_size, has_time;
    char key[3 * S3_KEY_LIMIT + 1]; /* encoded: up to three characters a byte */
    char version[STORAGE_VERSION_LIMIT + 1];
    char etag[S3_ETAG_SIZE];
    S3VersionEntry entry;
} Entries;

static bool
finish_entry(Entries *entries, bool is_marker, CairnError *err)
{
    if (!entries->has_key || !entries->has_time || entries->version[0] == '\0' ||
        (!is_marker && !entries->has_size))
        return refuse(err, "an entry of a list of versions lacks its key, id, time or size");
    if (entries->encoded && !uri_decode(entries->key, true))
        return refuse(err, "a key of a list of versions is encoded wrongly");
    if (entries->key[0] == '\0' || strlen(entries->key) > S3_KEY_LIMIT)
        return refuse(err, "a key of a list of versions is empty or too long");
    S3VersionEntry entry = entries->entry;
    entry.key = entries->key;
    entry.version = entries->version;
    entry.etag = is_marker ? "" : entries->etag;
    entry.is_marker = is_marker;
    entry.size_bytes = is_marker ? 0 : entry.size_bytes;
    const bool go_on = entries->callback(entries->context, &entry, err);
    entries->entry = (S3VersionEntry){0};
    entries->has_key = entries->has_size = entries->has_time = false;
    entries->version[0] = entries->etag[0] = '\0';
    return go_on;
}

static void
take_etag(char etag[S3_ETAG_SIZE], const char *text)
{
    size_t at = 0;
    for (; *text != '\0' && at + 1 < S3_ETAG_SIZE; text++) {
        if (*text != '"')
            etag[at++] = *text;
    }
    etag[*text == '\0' ? at : 0] = '\0'; /* one that is cut says nothing */
}

/* One of the elements that versions and markers have in common, or only versions have. */
static bool
on_field(Entries *entries, const char *field, char *text, CairnError *err)
{
    bool good = true;
    if (strcmp(field, "Key") == 0)
        good = entries->has_key = take_text(entries->key, sizeof entries->key, text);
    else if (strcmp(field, "VersionId") == 0)
        good = take_text(entries->version, sizeof entries->version, text);
    else if (strcmp(field, "IsLatest") == 0)
        entries->entry.is_latest = strcmp(text, "true") == 0;
    else if (strcmp(field, "LastModified") == 0)
        good = entries->has_time = s3_time_parse(text, &entries->entry.modified_us);
    else if (strcmp(field, "Size") == 0)
        good = entries->has_size = take_number(text, &entries->entry.size_bytes);
    else if (strcmp(field, "ETag") == 0)
        take_etag(entries->etag, text);
    return good || refuse(err, "an entry of a list of versions has a key, id, time or size that is "
                               "too long or wrong");
}

static bool
on_entry(void *context, const char *name, char *text, CairnError *err)
{
    static const char *const KINDS[] = {"Version", "DeleteMarker"};
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++) {
        const size_t length = strlen(KINDS[i]);
        if (strncmp(name, KINDS[i], length) != 0)
            continue;
        if (name[length] == '\0')
            return finish_entry(context, i == 1, err);
        if (name[length] == '/')
            return on_field(context, name + length + 1, text, err);
    }
    return true;
}

bool
s3_versions_parse(const void *data, size_t size, S3VersionCallback *callback, void *context,
                  S3VersionPage *page_out, CairnError *err)
{
    static const char ROOT[] = "ListVersionsResult";
    Head head = {0};
    if (!s3_document_read(data, size, ROOT, on_head, &head, err) || !finish_head(&head, err))
        return false;
    Entries entries = {.callback = callback, .context = context, .encoded = head.encoded};
    if (!s3_document_read(data, size, ROOT, on_entry, &entries, err))
        return false;
    *page_out = head.page;
    return true;
}

static bool
on_copy(void *context, const char *name, char *text, CairnError *err)
{
    (void)err;
    if (strcmp(name, "ETag") == 0)
        take_etag(context, text);
    return true;
}

bool
s3_copy_parse(const void *data, size_t size, char etag_out[S3_ETAG_SIZE], CairnError *err)
{
    char etag[S3_ETAG_SIZE] = "";
    if (!s3_document_read(data, size, "CopyObjectResult", on_copy, etag, err))
        return false;
    if (etag[0] == '\0')
        return refuse(err, "a copy has no ETag");
    memcpy(etag_out, etag, sizeof etag);
    return true;
}

bool
s3_etag_is_digest(const char *etag)
{
    static const char HEX[] = "0123456789abcdefABCDEF", DIGITS[] = "0123456789";
    enum { MD5_DIGITS = 32 };
    if (strspn(etag, HEX) != MD5_DIGITS)
        return false;
    const char *parts = etag + MD5_DIGITS;
    if (*parts == '\0')
        return true;
    const size_t digits = *parts == '-' ? strspn(parts + 1, DIGITS) : 0;
    return digits > 0 && parts[1 + digits] == '\0';
}
