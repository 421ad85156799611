/* Objects on their way to the repository host. */
#include "storage/ssh_intern.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/*
 * Invariants
 * 1. What was written is either kept whole (up to SSH_KEEP_SIZE) or known by its digest, so that it
 * can always be told from something else.
 * 2. A commit is true only after the server said so of this writer, or after the object was seen to
 * be ours and made durable again.
 * 3. CONFLICT is said only where the server said it and we never asked for a commit whose answer is
 *    unknown, or where the object there was seen to differ.
 */
typedef struct {
    StorageWriter base; /* first */
    SshStorage *storage;
    char *name;
    uint64_t generation; /* of the connection that has the handle */
    bool has_handle;
    uint32_t handle;
    ByteWriter kept;
    KeyedDigest *digest; /* NULL as long as all is kept */
    bool commit_asked;   /* of a connection that broke: it may have been carried out */
} SshWriter;

static const StorageWriterOps SSH_WRITER_OPS;

typedef enum { TRY_DONE, TRY_FAILED, TRY_LOST } Try;

static Try
outcome(const SshRequest *request, CairnError *err)
{
    if (request->state == SSH_ANSWERED)
        return TRY_DONE;
    *err = request->err;
    return request->state == SSH_REFUSED ? TRY_FAILED : TRY_LOST;
}

static void
drop_handle(SshWriter *writer)
{
    if (writer->has_handle)
        ssh_link_return_writer(writer->storage->link, writer->generation, writer->handle);
    writer->has_handle = false;
}

/* On the connection of writer->generation. */
static Try
begin(SshWriter *writer, CairnError *err)
{
    SshLink *link = writer->storage->link;
    if (!ssh_link_take_writer(link, writer->generation, &writer->handle)) {
        cairn_error(err, CAIRN_UNAVAILABLE,
                    "no connection to repository host '%s', or more than %d objects written at a "
                    "time",
                    writer->storage->host, SSH_WRITER_LIMIT);
        return TRY_LOST;
    }
    writer->has_handle = true;
    const SshName body = ssh_name(writer->name);
    SshRequest request = {0};
    ssh_link_send(link, writer->generation, &request, SSH_CREATE, writer->handle, body.bytes,
                  body.size);
    ssh_link_wait(link, &request);
    const Try result = outcome(&request, err);
    if (result == TRY_DONE)
        ssh_link_writer_opened(link, writer->generation, writer->handle);
    else
        drop_handle(writer);
    return result;
}

/* ---- create ---- */

/* Nothing is there yet, so that a lost connection costs nothing but another try. */
static bool
begin_repeatedly(SshWriter *writer, CairnError *err)
{
    for (int attempt = 1;; attempt++) {
        if (!ssh_link_connect(writer->storage->link, &writer->generation, err))
            return false;
        const Try result = begin(writer, err);
        if (result == TRY_DONE)
            return true;
        if (result == TRY_FAILED || attempt == SSH_ATTEMPTS)
            return false;
        cairn_error_clear(err);
    }
}

static void
writer_free(StorageWriter *base)
{
    SshWriter *writer = (SshWriter *)base;
    if (writer->has_handle) {
        /* Where it cannot be told the connection is gone, and the server abandons by itself. */
        const bool ignored = ssh_link_post(writer->storage->link, writer->generation, SSH_ABANDON,
                                           writer->handle, NULL, 0);
        (void)ignored;
        drop_handle(writer);
    }
    keyed_digest_free(writer->digest);
    byte_writer_free(&writer->kept);
    free(writer->name);
    free(writer);
}

StorageWriter *
ssh_create(Storage *base, const char *name, CairnError *err)
{
    SCOPED(StorageWriter) result = NULL;
    SshWriter *writer = calloc(1, sizeof *writer);
    char *copy = strdup(name);
    if (writer == NULL || copy == NULL) {
        free(writer);
        free(copy);
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    writer->base.ops = &SSH_WRITER_OPS;
    writer->storage = (SshStorage *)base;
    writer->name = copy;
    result = &writer->base;
    return begin_repeatedly(writer, err) ? take(&result) : NULL;
}

/* ---- write ---- */

/* Invariant 1. */
static bool
remember(SshWriter *writer, const void *data, size_t size, CairnError *err)
{
    if (writer->digest == NULL && writer->kept.size + size <= SSH_KEEP_SIZE) {
        byte_writer_bytes(&writer->kept, data, size);
        return byte_writer_check(&writer->kept, err);
    }
    if (writer->digest == NULL) {
        writer->digest = keyed_digest_new(writer->storage->digest_key, "ssh writer", err);
        if (writer->digest == NULL || !keyed_digest_begin(writer->digest, err) ||
            (writer->kept.size > 0 &&
             !keyed_digest_update(writer->digest, writer->kept.data, writer->kept.size, err)))
            return false;
        byte_writer_free(&writer->kept);
        writer->kept = (ByteWriter){0};
    }
    return keyed_digest_update(writer->digest, data, size, err);
}

/* False when that connection is gone. */
static bool
send_data(SshWriter *writer, const uint8_t *data, size_t size)
{
    while (size > 0) {
        const size_t part = size < SSH_DATA_LIMIT ? size : SSH_DATA_LIMIT;
        if (!ssh_link_post(writer->storage->link, writer->generation, SSH_WRITE, writer->handle,
                           data, part))
            return false;
        data += part;
        size -= part;
    }
    return true;
}

static bool
lost_object(SshWriter *writer, CairnError *err)
{
    ssh_link_explain(writer->storage->link, err);
    return cairn_error_wrap(err, "object '%s' was being written", writer->name);
}

static bool
writer_write(StorageWriter *base, const void *data, size_t size, CairnError *err)
{
    SshWriter *writer = (SshWriter *)base;
    if (!remember(writer, data, size, err))
        return false;
    if (writer->has_handle) {
        if (ssh_link_writer_failed(writer->storage->link, writer->generation, writer->handle, err))
            return false;
        if (send_data(writer, data, size))
            return true;
        drop_handle(writer);
    }
    /* A small one is sent again at its commit. */
    return writer->digest == NULL || lost_object(writer, err);
}

/* ---- commit ---- */

static Try
ask_commit(SshWriter *writer, CairnError *err)
{
    SshRequest request = {0};
    ssh_link_send(writer->storage->link, writer->generation, &request, SSH_COMMIT, writer->handle,
                  NULL, 0);
    ssh_link_wait(writer->storage->link, &request);
    drop_handle(writer); /* free over there with the answer */
    const Try result = outcome(&request, err);
    if (result == TRY_LOST)
        writer->commit_asked = true;
    return result;
}

/* The whole of a small object, on the connection of writer->generation. */
static Try
send_again(SshWriter *writer, CairnError *err)
{
    const Try begun = begin(writer, err);
    if (begun != TRY_DONE)
        return begun;
    if (!send_data(writer, writer->kept.data, writer->kept.size)) {
        drop_handle(writer);
        ssh_link_explain(writer->storage->link, err);
        return TRY_LOST;
    }
    return ask_commit(writer, err);
}

/* Digest of what lies there under our name, whose size is ours. */
static bool
digest_stored(SshWriter *writer, StorageReader *reader, uint8_t digest_out[KEYED_DIGEST_SIZE],
              CairnError *err)
{
    SCOPED(KeyedDigest)
    digest = keyed_digest_new(writer->storage->digest_key, "ssh writer", err);
    if (digest == NULL || !keyed_digest_begin(digest, err))
        return false;
    SCOPED_MEMORY uint8_t *data = malloc(SSH_DATA_LIMIT);
    if (data == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (uint64_t at = 0; at < reader->size_bytes;) {
        const uint64_t left = reader->size_bytes - at;
        const size_t part = left < SSH_DATA_LIMIT ? (size_t)left : SSH_DATA_LIMIT;
        if (!storage_pread(reader, data, part, at, err) ||
            !keyed_digest_update(digest, data, part, err))
            return false;
        at += part;
    }
    return keyed_digest_finish(digest, digest_out, err);
}

static bool
digest_written(SshWriter *writer, uint8_t digest_out[KEYED_DIGEST_SIZE], CairnError *err)
{
    if (writer->digest != NULL)
        return keyed_digest_finish(writer->digest, digest_out, err);
    SCOPED(KeyedDigest)
    digest = keyed_digest_new(writer->storage->digest_key, "ssh writer", err);
    return digest != NULL &&
           keyed_digest_of(digest, writer->kept.data, writer->kept.size, digest_out, err);
}

static bool
conflict(const SshWriter *writer, CairnError *err)
{
    return cairn_error(err, CAIRN_CONFLICT, "object '%s' exists already", writer->name);
}

/* Something lies under our name, and it may be ours. */
static bool
settle_with_stored(SshWriter *writer, CairnError *err)
{
    uint8_t ours[KEYED_DIGEST_SIZE], theirs[KEYED_DIGEST_SIZE];
    SCOPED(StorageReader) reader = storage_open(&writer->storage->base, writer->name, err);
    if (reader == NULL)
        return false;
    if (reader->size_bytes != writer->base.size_bytes)
        return conflict(writer, err);
    if (!digest_written(writer, ours, err) || !digest_stored(writer, reader, theirs, err))
        return false;
    if (memcmp(ours, theirs, sizeof ours) != 0)
        return conflict(writer, err);
    /* It was named; whether its directory was synced died with the answer. */
    return storage_make_durable(&writer->storage->base, writer->name, err);
}

/* The connection broke on the way: what became of the commit? */
static bool
settle_large(SshWriter *writer, CairnError *err)
{
    uint64_t size;
    if (!writer->commit_asked)
        return lost_object(writer, err);
    if (storage_exists(&writer->storage->base, writer->name, &size, err))
        return settle_with_stored(writer, err);
    if (err->kind != CAIRN_NOT_FOUND)
        return false;
    cairn_error_clear(err);
    cairn_error(
        err, CAIRN_UNAVAILABLE,
        "the connection to repository host '%s' broke while '%s' was being made durable, and "
        "it is not there",
        writer->storage->host, writer->name);
    return false;
}

static bool
settle_small(SshWriter *writer, CairnError *err)
{
    for (int attempt = 1;; attempt++) {
        if (!ssh_link_connect(writer->storage->link, &writer->generation, err))
            return false;
        switch (send_again(writer, err)) {
        case TRY_DONE:
            return true;
        case TRY_FAILED:
            /* Taken: by ourselves, if an earlier commit was carried out after all. */
            if (err->kind != CAIRN_CONFLICT || !writer->commit_asked)
                return false;
            cairn_error_clear(err);
            return settle_with_stored(writer, err);
        case TRY_LOST:
            if (attempt == SSH_ATTEMPTS)
                return false;
            cairn_error_clear(err);
            break;
        }
    }
}

static bool
writer_commit(StorageWriter *base, CairnError *err)
{
    SshWriter *writer = (SshWriter *)base;
    if (writer->has_handle) {
        const Try result = ask_commit(writer, err);
        if (result != TRY_LOST)
            return result == TRY_DONE;
        cairn_error_clear(err);
    }
    return (writer->digest != NULL ? settle_large : settle_small)(writer, err) ||
           cairn_error_wrap(err, "unable to publish '%s'", writer->name);
}

static const StorageWriterOps SSH_WRITER_OPS = {writer_write, writer_commit, writer_free};
