#include "storage/s3/answers.h"

#include "common/plain_text.h"
#include "common/timestamp.h"
#include "storage/s3/answers_intern.h"
#include "storage/s3/uri.h"
#include "storage/s3/xml.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* For people: cut, and nothing that moves a terminal's cursor. A space for each byte that could:
   stores wrap and indent what they say. */
static void
take_printable(char *field, size_t field_size, const char *text)
{
    size_t at = 0;
    size_t size;
    for (size_t left = strlen(text); left > 0; text += size, left -= size) {
        const size_t plain = plain_character_size(text, left);
        size = plain > 0 ? plain : 1;
        if (size >= field_size - at)
            break;
        if (plain > 0)
            memcpy(field + at, text, size);
        else
            field[at] = ' ';
        at += size;
    }
    field[at] = '\0';
}

/* The element below the root: "Contents/Key" of "ListBucketResult/Contents/Key"; NULL when the root
   is another; "" for the root itself. */
static const char *
below(const char *path, const char *root)
{
    const size_t length = strlen(root);
    if (strncmp(path, root, length) != 0)
        return NULL;
    if (path[length] == '\0')
        return path + length;
    return path[length] == '/' ? path + length + 1 : NULL;
}

bool
s3_time_parse(const char *text, int64_t *time_us_out)
{
    /* The fraction has three digits here and nine there; whole seconds do for us. */
    char whole[TIMESTAMP_TEXT_SIZE];
    const char *rest = text + strcspn(text, ".");
    const size_t seconds = (size_t)(rest - text);
    if (*rest == '.')
        rest += 1 + strspn(rest + 1, "0123456789");
    if (seconds + strlen(rest) >= sizeof whole)
        return false;
    memcpy(whole, text, seconds);
    memcpy(whole + seconds, rest, strlen(rest) + 1);
    CairnError ignored = {0};
    Timestamp time;
    if (!timestamp_parse(whole, &time, &ignored) || !time.has_zone)
        return false;
    *time_us_out = time.time_us;
    return true;
}

/* Errors. */

typedef struct {
    S3Error error;
    bool is_error;
} ErrorAnswer;

/* S3 has <Error>, STS <ErrorResponse><Error>. */
static bool
on_error_element(void *context, const char *path, char *text, CairnError *err)
{
    (void)err;
    ErrorAnswer *answer = context;
    const char *name = below(path, "ErrorResponse/Error");
    if (name == NULL)
        name = below(path, "Error");
    if (name == NULL)
        return true;
    S3Error *error = &answer->error;
    if (name[0] == '\0')
        answer->is_error = true;
    else if (strcmp(name, "Code") == 0)
        take_printable(error->code, sizeof error->code, text);
    else if (strcmp(name, "Message") == 0)
        take_printable(error->message, sizeof error->message, text);
    else if (strcmp(name, "Region") == 0)
        take_printable(error->region, sizeof error->region, text);
    else if (strcmp(name, "RequestId") == 0)
        take_printable(error->request_id, sizeof error->request_id, text);
    return true;
}

bool
s3_error_parse(const void *data, size_t size, S3Error *error_out)
{
    ErrorAnswer answer = {0};
    CairnError ignored = {0};
    if (size == 0 || !s3_xml_walk(data, size, on_error_element, &answer, &ignored))
        answer.is_error = false;
    *error_out = answer.is_error ? answer.error : (S3Error){0};
    return answer.is_error;
}

static bool
one_of(const char *code, const char *const *codes)
{
    for (; *codes != NULL; codes++)
        if (strcmp(code, *codes) == 0)
            return true;
    return false;
}

bool
s3_error_is_clock(const char *code)
{
    return strcmp(code, "RequestTimeTooSkewed") == 0;
}

bool
s3_error_is_expired(const char *code)
{
    static const char *const CODES[] = {"ExpiredToken", "ExpiredTokenException",
                                        "TokenRefreshRequired", NULL};
    return one_of(code, CODES);
}

bool
s3_error_is_about_keys(const char *code)
{
    /* Swift says SignatureDoesNotMatch of keys it does not know; so does everybody of a new access
       key that was read with the old secret. */
    static const char *const CODES[] = {"InvalidAccessKeyId", "SignatureDoesNotMatch",
                                        "InvalidToken", "InvalidTokenId", NULL};
    return one_of(code, CODES);
}

bool
s3_error_is_transient(int status, const char *code)
{
    static const char *const CODES[] = {
        "SlowDown",   "InternalError",       "ServiceUnavailable", "RequestTimeout",
        "Throttling", "ThrottlingException", "OperationAborted",   "ConditionalRequestConflict",
        NULL};
    return status == 408 || status == 429 || status == 500 || status == 502 || status == 503 ||
           status == 504 || one_of(code, CODES);
}

CairnErrorKind
s3_error_kind(int status, const char *code)
{
    static const char *const ABSENT[] = {"", "NoSuchKey", "NotFound", "NoSuchVersion", NULL};
    static const char *const CONFIGURATION[] = {"NoSuchBucket", "PermanentRedirect",
                                                "InvalidBucketName", "AuthorizationHeaderMalformed",
                                                NULL};
    static const char *const FULL[] = {"QuotaExceeded", "InsufficientStorage", NULL};
    if (one_of(code, CONFIGURATION))
        return CAIRN_USAGE;
    if (one_of(code, FULL) || status == 507)
        return CAIRN_NO_SPACE;
    if (s3_error_is_transient(status, code) || s3_error_is_expired(code) || s3_error_is_clock(code))
        return CAIRN_UNAVAILABLE;
    if (status == 404)
        return one_of(code, ABSENT) ? CAIRN_NOT_FOUND : CAIRN_IO;
    if (status == 401 || status == 403)
        return CAIRN_DENIED;
    if (status == 412)
        return CAIRN_CONFLICT;
    if (status == 405 || status == 501)
        return CAIRN_UNSUPPORTED;
    return CAIRN_IO;
}

/* A document walked for its own elements, which may turn out to be an <Error>. */
typedef struct {
    const char *root;
    S3DocumentElement *element;
    void *context;
    bool seen_root;
    ErrorAnswer error;
} Document;

static bool
on_document_element(void *context, const char *path, char *text, CairnError *err)
{
    Document *document = context;
    const char *name = below(path, document->root);
    if (name == NULL)
        return on_error_element(&document->error, path, text, err);
    if (name[0] != '\0')
        return document->element(document->context, name, text, err);
    document->seen_root = true;
    return true;
}

static bool
read_document(const void *data, size_t size, Document *document, CairnError *err)
{
    if (!s3_xml_walk(data, size, on_document_element, document, err))
        return false;
    const S3Error *error = &document->error.error;
    if (document->error.is_error)
        return cairn_error(err, s3_error_kind(200, error->code), "%s: %s", error->code,
                           error->message);
    if (!document->seen_root)
        return cairn_error(err, CAIRN_CORRUPT, "the answer is no %s", document->root);
    return true;
}

bool
s3_document_read(const void *data, size_t size, const char *root, S3DocumentElement *element,
                 void *context, CairnError *err)
{
    Document document = {.root = root, .element = element, .context = context};
    return read_document(data, size, &document, err);
}

static bool
refuse(CairnError *err, const char *what)
{
    return cairn_error(err, CAIRN_CORRUPT, "unable to use the store's answer: %s", what);
}

/* ListObjectsV2. Read twice: stores disagree on whether EncodingType stands before the keys that it
   is about, and nothing is handed out of a document that breaks off later. */

typedef struct {
    bool encoded;
    bool truncated;
    char *token;
} ListHead;

static bool
on_list_head(void *context, const char *name, char *text, CairnError *err)
{
    ListHead *head = context;
    if (strcmp(name, "EncodingType") == 0) {
        head->encoded = strcmp(text, "url") == 0;
    } else if (strcmp(name, "IsTruncated") == 0) {
        head->truncated = strcmp(text, "true") == 0;
    } else if (strcmp(name, "NextContinuationToken") == 0 && head->token == NULL) {
        head->token = strdup(text);
        if (head->token == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    }
    return true;
}

typedef struct {
    S3ListCallback *callback;
    void *context;
    bool encoded;
    bool has_key;
    bool has_size;
    char key[3 * S3_KEY_LIMIT + 1]; /* encoded: up to three characters a byte */
    S3ListEntry entry;
} ListEntries;

static bool
finish_entry(ListEntries *list, bool is_prefix, CairnError *err)
{
    if (!list->has_key || (!is_prefix && !list->has_size))
        return refuse(err, "an entry of a listing lacks its key or size");
    if (list->encoded && !uri_decode(list->key, true))
        return refuse(err, "a key of a listing is encoded wrongly");
    if (list->key[0] == '\0' || strlen(list->key) > S3_KEY_LIMIT)
        return refuse(err, "a key of a listing is empty or too long");
    list->entry.key = list->key;
    list->entry.is_prefix = is_prefix;
    const S3ListEntry entry = list->entry;
    list->entry = (S3ListEntry){0};
    list->has_key = list->has_size = false;
    return list->callback(list->context, &entry, err);
}

static bool
on_list_entry(void *context, const char *name, char *text, CairnError *err)
{
    ListEntries *list = context;
    if (strcmp(name, "Contents") == 0 || strcmp(name, "CommonPrefixes") == 0)
        return finish_entry(list, strcmp(name, "CommonPrefixes") == 0, err);
    if (strcmp(name, "Contents/Key") == 0 || strcmp(name, "CommonPrefixes/Prefix") == 0) {
        list->has_key = take_text(list->key, sizeof list->key, text);
        return list->has_key || refuse(err, "a key of a listing is too long");
    }
    if (strcmp(name, "Contents/Size") == 0) {
        list->has_size = take_number(text, &list->entry.size_bytes);
        return list->has_size || refuse(err, "a size in a listing is no number");
    }
    if (strcmp(name, "Contents/LastModified") == 0 &&
        !s3_time_parse(text, &list->entry.modified_us))
        return refuse(err, "a time in a listing cannot be read");
    return true;
}

bool
s3_list_parse(const void *data, size_t size, S3ListCallback *callback, void *context,
              S3ListPage *page_out, CairnError *err)
{
    ListHead head = {0};
    Document document = {.root = "ListBucketResult", .element = on_list_head, .context = &head};
    ListEntries entries = {.callback = callback, .context = context};
    bool done = read_document(data, size, &document, err);
    if (done && head.truncated && head.token == NULL)
        done = refuse(err, "a listing is cut and has no token to go on with");
    if (done) {
        entries.encoded = head.encoded;
        document =
            (Document){.root = "ListBucketResult", .element = on_list_entry, .context = &entries};
        done = read_document(data, size, &document, err);
    }
    if (!done) {
        free(head.token);
        return false;
    }
    *page_out = (S3ListPage){.truncated = head.truncated, .next_token = head.token};
    return true;
}

/* DeleteObjects. */

typedef struct {
    S3DeleteCallback *callback;
    void *context;
    char key[S3_KEY_LIMIT + 1];
    S3Error error;
} DeleteAnswer;

static bool
on_delete_element(void *context, const char *name, char *text, CairnError *err)
{
    DeleteAnswer *answer = context;
    if (strcmp(name, "Error/Key") == 0)
        return take_text(answer->key, sizeof answer->key, text) || refuse(err, "a key is too long");
    if (strcmp(name, "Error/Code") == 0)
        take_printable(answer->error.code, sizeof answer->error.code, text);
    else if (strcmp(name, "Error/Message") == 0)
        take_printable(answer->error.message, sizeof answer->error.message, text);
    if (strcmp(name, "Error") != 0)
        return true;
    const bool go_on = answer->callback(answer->context, answer->key, &answer->error, err);
    answer->key[0] = '\0';
    answer->error = (S3Error){0};
    return go_on;
}

bool
s3_delete_parse(const void *data, size_t size, S3DeleteCallback *callback, void *context,
                CairnError *err)
{
    DeleteAnswer answer = {.callback = callback, .context = context};
    Document document = {.root = "DeleteResult", .element = on_delete_element, .context = &answer};
    return read_document(data, size, &document, err);
}

/* Multipart uploads. */

typedef struct {
    const char *name;
    char *field;
    size_t field_size;
} OneText;

static bool
on_one_text(void *context, const char *name, char *text, CairnError *err)
{
    OneText *wanted = context;
    if (strcmp(name, wanted->name) != 0 || take_text(wanted->field, wanted->field_size, text))
        return true;
    return refuse(err, "an id is too long");
}

static bool
read_one_text(const void *data, size_t size, const char *root, OneText *wanted, CairnError *err)
{
    wanted->field[0] = '\0';
    Document document = {.root = root, .element = on_one_text, .context = wanted};
    if (!read_document(data, size, &document, err))
        return false;
    return wanted->field[0] != '\0' || refuse(err, "an id is missing");
}

bool
s3_upload_parse(const void *data, size_t size, char upload_id_out[S3_UPLOAD_ID_SIZE],
                CairnError *err)
{
    OneText wanted = {"UploadId", upload_id_out, S3_UPLOAD_ID_SIZE};
    return read_one_text(data, size, "InitiateMultipartUploadResult", &wanted, err);
}

bool
s3_complete_parse(const void *data, size_t size, char etag_out[S3_ETAG_SIZE], CairnError *err)
{
    OneText wanted = {"ETag", etag_out, S3_ETAG_SIZE};
    return read_one_text(data, size, "CompleteMultipartUploadResult", &wanted, err);
}

typedef struct {
    S3UploadCallback *callback;
    void *context;
    char key[S3_KEY_LIMIT + 1];
    char upload_id[S3_UPLOAD_ID_SIZE];
    S3UploadEntry entry;
    S3UploadPage page;
} UploadsAnswer;

static bool
finish_upload(UploadsAnswer *answer, CairnError *err)
{
    if (answer->key[0] == '\0' || answer->upload_id[0] == '\0')
        return refuse(err, "an upload lacks its key or id");
    answer->entry.key = answer->key;
    answer->entry.upload_id = answer->upload_id;
    const bool go_on = answer->callback(answer->context, &answer->entry, err);
    answer->entry = (S3UploadEntry){0};
    answer->key[0] = answer->upload_id[0] = '\0';
    return go_on;
}

static bool
on_uploads_element(void *context, const char *name, char *text, CairnError *err)
{
    UploadsAnswer *answer = context;
    S3UploadPage *page = &answer->page;
    bool fits = true;
    if (strcmp(name, "Upload") == 0)
        return finish_upload(answer, err);
    if (strcmp(name, "Upload/Key") == 0)
        fits = take_text(answer->key, sizeof answer->key, text);
    else if (strcmp(name, "Upload/UploadId") == 0)
        fits = take_text(answer->upload_id, sizeof answer->upload_id, text);
    else if (strcmp(name, "Upload/Initiated") == 0)
        fits = s3_time_parse(text, &answer->entry.initiated_us);
    else if (strcmp(name, "IsTruncated") == 0)
        page->truncated = strcmp(text, "true") == 0;
    else if (strcmp(name, "NextKeyMarker") == 0)
        fits = take_text(page->next_key, sizeof page->next_key, text);
    else if (strcmp(name, "NextUploadIdMarker") == 0)
        fits = take_text(page->next_upload_id, sizeof page->next_upload_id, text);
    return fits || refuse(err, "an entry in the list of uploads is too long or wrong");
}

bool
s3_uploads_parse(const void *data, size_t size, S3UploadCallback *callback, void *context,
                 S3UploadPage *page_out, CairnError *err)
{
    UploadsAnswer answer = {.callback = callback, .context = context};
    Document document = {
        .root = "ListMultipartUploadsResult", .element = on_uploads_element, .context = &answer};
    if (!read_document(data, size, &document, err))
        return false;
    if (answer.page.truncated && answer.page.next_key[0] == '\0')
        return refuse(err, "a list of uploads is cut and has no marker to go on with");
    *page_out = answer.page;
    return true;
}

/* GetObjectRetention. */

typedef struct {
    S3Retention retention;
    bool has_mode, has_until;
} RetentionAnswer;

static bool
on_retention_element(void *context, const char *name, char *text, CairnError *err)
{
    RetentionAnswer *answer = context;
    if (strcmp(name, "Mode") == 0) {
        answer->retention.is_compliance = strcasecmp(text, "COMPLIANCE") == 0;
        answer->has_mode = answer->retention.is_compliance || strcasecmp(text, "GOVERNANCE") == 0;
        return answer->has_mode || refuse(err, "a lock has a mode that nobody knows");
    }
    if (strcmp(name, "RetainUntilDate") == 0) {
        answer->has_until = s3_time_parse(text, &answer->retention.until_us);
        return answer->has_until || refuse(err, "the end of a lock is no time");
    }
    return true;
}

bool
s3_retention_parse(const void *data, size_t size, S3Retention *retention_out, CairnError *err)
{
    RetentionAnswer answer = {0};
    Document document = {.root = "Retention", .element = on_retention_element, .context = &answer};
    if (!read_document(data, size, &document, err))
        return false;
    if (!answer.has_mode || !answer.has_until)
        return refuse(err, "a lock has no mode or no end");
    *retention_out = answer.retention;
    return true;
}

/* STS. */

static bool
on_sts_element(void *context, const char *name, char *text, CairnError *err)
{
    S3Credentials *credentials = context;
    const char *field = below(name, "AssumeRoleWithWebIdentityResult/Credentials");
    bool fits = true;
    if (field == NULL)
        return true;
    if (strcmp(field, "AccessKeyId") == 0)
        fits = take_text(credentials->access_key, sizeof credentials->access_key, text);
    else if (strcmp(field, "SecretAccessKey") == 0)
        fits = take_text(credentials->secret_key, sizeof credentials->secret_key, text);
    else if (strcmp(field, "SessionToken") == 0)
        fits = take_text(credentials->session_token, sizeof credentials->session_token, text);
    else if (strcmp(field, "Expiration") == 0)
        fits = s3_time_parse(text, &credentials->expires_us);
    OPENSSL_cleanse(text, strlen(text));
    return fits || refuse(err, "a credential is too long, or its expiration no time");
}

bool
sts_credentials_parse(const void *data, size_t size, S3Credentials *credentials_out,
                      CairnError *err)
{
    SCOPED_S3_CREDENTIALS S3Credentials credentials = {0};
    Document document = {.root = "AssumeRoleWithWebIdentityResponse",
                         .element = on_sts_element,
                         .context = &credentials};
    if (!read_document(data, size, &document, err))
        return false;
    if (credentials.access_key[0] == '\0' || credentials.secret_key[0] == '\0' ||
        credentials.session_token[0] == '\0')
        return refuse(err, "the token service sent no complete credentials");
    *credentials_out = credentials;
    return true;
}
