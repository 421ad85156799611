#include "repository/copy_object.h"

#include "common/cancel.h"
#include "common/digest.h"
#include "repository/object.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    StorageReader *reader;
    ObjectSeal seal;
} Source;

/* Header and trailer agree with name and size. */
static bool
read_seal(StorageReader *reader, const CopyObject *copy, ObjectSeal *seal_out, CairnError *err)
{
    uint8_t header[OBJECT_HEADER_SIZE], trailer[OBJECT_TRAILER_SIZE];

    if (reader->size_bytes < sizeof header + sizeof trailer)
        return cairn_error(err, CAIRN_CORRUPT, "object '%s' has only %llu bytes", copy->name,
                           (unsigned long long)reader->size_bytes);
    return storage_pread(reader, header, sizeof header, 0, err) &&
           storage_pread(reader, trailer, sizeof trailer, reader->size_bytes - sizeof trailer,
                         err) &&
           object_check_seal(header, trailer, copy->name, copy->repository_id, seal_out, err);
}

/* The bytes before the trailer's SHA-256 are those that it was made of. */
static bool
check_body(StorageReader *reader, const CopyObject *copy, const ObjectSeal *seal, CairnError *err)
{
    const uint64_t digested = reader->size_bytes - SHA256_SIZE;
    uint8_t digest[SHA256_SIZE];
    SCOPED(Sha256) sha = sha256_new(err);

    if (sha == NULL)
        return false;
    for (uint64_t at = 0; at < digested;) {
        const size_t part =
            digested - at < COPY_BUFFER_SIZE ? (size_t)(digested - at) : (size_t)COPY_BUFFER_SIZE;
        if (!cancel_check(err) || !storage_pread(reader, copy->buffer, part, at, err) ||
            !sha256_update(sha, copy->buffer, part, err))
            return false;
        at += part;
    }
    return sha256_finish(sha, digest, err) &&
           (memcmp(digest, seal->sha256, sizeof digest) == 0 ||
            cairn_error(err, CAIRN_CORRUPT, "object '%s': SHA-256 does not match", copy->to_name));
}

static bool
is_damaged_there(CopyObject *copy, StorageReader *present, const ObjectSeal *seal, CairnError *err)
{
    if (!copy->reads_present || check_body(present, copy, seal, err))
        return false;
    if (err->kind != CAIRN_CORRUPT && err->kind != CAIRN_IO)
        return false;
    copy->at_target = true;
    cairn_error_wrap(err, "what is there is damaged, and nothing was overwritten");
    cairn_error_hint(err, "remove it there, and the next run brings it");
    return true;
}

/* True when the same is there, durable. False and no error: nothing is. */
static bool
settle_with_present(CopyObject *copy, const Source *source, CairnError *err)
{
    ObjectSeal seal;
    SCOPED(StorageReader) present = storage_open(copy->to, copy->to_name, err);

    if (present == NULL) {
        if (err->kind == CAIRN_NOT_FOUND)
            cairn_error_clear(err);
        return false;
    }
    if (present->size_bytes != source->reader->size_bytes ||
        !read_seal(present, copy, &seal, err) ||
        memcmp(seal.sha256, source->seal.sha256, sizeof seal.sha256) != 0) {
        if (err->kind != CAIRN_OK && err->kind != CAIRN_CORRUPT && err->kind != CAIRN_MISMATCH)
            return false;
        cairn_error_clear(err);
        cairn_error(err, CAIRN_CONFLICT, "object '%s' is there with other content", copy->to_name);
        return cairn_error_hint(err, "nothing was overwritten; one of the two is damaged, or "
                                     "somebody wrote to both");
    }
    if (is_damaged_there(copy, present, &seal, err) || err->kind != CAIRN_OK)
        return false;
    return storage_make_durable(copy->to, copy->to_name, err);
}

static bool
stream(const CopyObject *copy, const Source *source, StorageWriter *writer, bool *at_source,
       CairnError *err)
{
    const uint64_t size = source->reader->size_bytes;
    const uint64_t digested = size - SHA256_SIZE;
    uint8_t digest[SHA256_SIZE];
    SCOPED(Sha256) sha = sha256_new(err);

    if (sha == NULL)
        return false;
    for (uint64_t at = 0; at < size;) {
        const uint64_t end = at < digested ? digested : size;
        const size_t part =
            end - at < COPY_BUFFER_SIZE ? (size_t)(end - at) : (size_t)COPY_BUFFER_SIZE;
        if (!cancel_check(err))
            return false;
        *at_source = true;
        if (!storage_pread(source->reader, copy->buffer, part, at, err))
            return false;
        *at_source = false;
        if ((at < digested && !sha256_update(sha, copy->buffer, part, err)) ||
            !storage_write(writer, copy->buffer, part, err))
            return false;
        at += part;
    }
    if (!sha256_finish(sha, digest, err))
        return false;
    *at_source = memcmp(digest, source->seal.sha256, sizeof digest) != 0;
    return !*at_source ||
           cairn_error(err, CAIRN_CORRUPT, "object '%s': SHA-256 does not match", copy->name);
}

static bool
publish(CopyObject *copy, const Source *source, CairnError *err)
{
    SCOPED(StorageWriter) writer = storage_create(copy->to, copy->to_name, err);

    if (writer != NULL && stream(copy, source, writer, &copy->at_source, err) &&
        storage_commit(writer, err))
        return true;
    if (err->kind != CAIRN_CONFLICT)
        return false;
    /* Somebody else copies as well. */
    CairnError taken = *err;
    cairn_error_clear(err);
    copy->existed = settle_with_present(copy, source, err);
    if (!copy->existed && err->kind == CAIRN_OK)
        *err = taken;
    return copy->existed;
}

static bool
copy_open(CopyObject *copy, CairnError *err)
{
    Source source;

    copy->at_source = true;
    SCOPED(StorageReader) reader = storage_open(copy->from, copy->from_name, err);
    source.reader = reader;
    if (reader == NULL || !read_seal(reader, copy, &source.seal, err))
        return false;
    copy->at_source = false;
    copy->size_bytes = reader->size_bytes;
    copy->existed = settle_with_present(copy, &source, err);
    return copy->existed || (err->kind == CAIRN_OK && publish(copy, &source, err));
}

bool
copy_object(CopyObject *copy, CairnError *err)
{
    uint8_t *given = copy->buffer;
    SCOPED_MEMORY uint8_t *own = given == NULL ? malloc(COPY_BUFFER_SIZE) : NULL;

    copy->existed = copy->at_source = copy->at_target = false;
    copy->size_bytes = 0;
    if (given == NULL && own == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    copy->buffer = given != NULL ? given : own;
    const bool done = copy_open(copy, err);
    copy->buffer = given;
    return done;
}
