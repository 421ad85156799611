/* Objects on their way from the repository host: the first bytes come with the answer to OPEN, and
 * who reads on from where it stopped gets the next ones asked for ahead. */
#include "storage/ssh_intern.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum {
    AHEAD_BLOCKS = 8,
    AHEAD_BLOCK_SIZE = 256 << 10,
    /* So many bytes may be left out by one who still reads on. */
    AHEAD_GAP = 64 << 10,
    /* Reads that follow each other before anything is asked for ahead. */
    AHEAD_AFTER = 2,
    DIRECT_REQUESTS = 8,
    /* Reads behind the first bytes until those go: who opens an object reads its end, in two parts,
       and what comes then tells where it is read. */
    HEAD_MISSES = 3,
};

typedef struct {
    uint64_t offset;
    SshRequest request; /* data_size bytes into data */
    uint8_t *data;
} Block;

typedef struct {
    StorageReader base; /* first */
    SshStorage *storage;
    char *name;
    pthread_mutex_t mutex; /* of the rest: readers of packs are shared */
    uint64_t generation;
    bool has_handle;
    uint32_t handle;
    ByteWriter answer; /* to OPEN: the size, then the head */
    unsigned head_misses;
    uint64_t next_offset;
    unsigned in_order;
    /* A ring of consecutive blocks: the oldest at first. */
    Block blocks[AHEAD_BLOCKS];
    size_t first, count;
    bool has_buffers;
} SshReader;

enum { SIZE_FIELD = 8 };

static const StorageReaderOps SSH_READER_OPS;

/* ---- open ---- */

static void
drop_handle(SshReader *reader)
{
    if (reader->has_handle)
        ssh_link_return_reader(reader->storage->link, reader->generation, reader->handle);
    reader->has_handle = false;
}

/* True with a handle, or LOST/refused in err; *lost_out: another connection may do. */
static bool
open_once(SshReader *reader, bool *lost_out, CairnError *err)
{
    SshLink *link = reader->storage->link;
    const SshName body = ssh_name(reader->name);
    *lost_out = false;
    if (!ssh_link_connect(link, &reader->generation, err))
        return false;
    if (!ssh_link_take_reader(link, reader->generation, &reader->handle)) {
        *lost_out = true;
        return cairn_error(
            err, CAIRN_UNAVAILABLE,
            "no connection to repository host '%s', or more than %d objects read at a "
            "time",
            reader->storage->host, SSH_READER_LIMIT);
    }
    reader->has_handle = true;
    byte_writer_reset(&reader->answer);
    SshRequest request = {.payload = &reader->answer, .payload_limit = SIZE_FIELD + SSH_HEAD_SIZE};
    ssh_link_send(link, reader->generation, &request, SSH_OPEN, reader->handle, body.bytes,
                  body.size);
    ssh_link_wait(link, &request);
    if (request.state == SSH_ANSWERED)
        return true;
    drop_handle(reader);
    *lost_out = request.state == SSH_LOST;
    *err = request.err;
    return false;
}

static uint64_t
head_size(const SshReader *reader)
{
    return reader->answer.size - SIZE_FIELD;
}

static bool
check_answer(const SshReader *reader, CairnError *err)
{
    if (!byte_writer_check(&reader->answer, err))
        return false;
    if (reader->answer.size >= SIZE_FIELD) {
        const uint64_t size = get_u64(reader->answer.data);
        if (head_size(reader) == (size < SSH_HEAD_SIZE ? size : SSH_HEAD_SIZE))
            return true;
    }
    return cairn_error(err, CAIRN_UNAVAILABLE, "repository host '%s': its answer is malformed",
                       reader->storage->host);
}

static bool
open_repeatedly(SshReader *reader, CairnError *err)
{
    bool lost;
    for (int attempt = 1; !open_once(reader, &lost, err); attempt++) {
        if (!lost || attempt == SSH_ATTEMPTS)
            return false;
        cairn_error_clear(err);
    }
    return check_answer(reader, err);
}

/* ---- reading ahead ---- */

static Block *
block_at(SshReader *reader, size_t index)
{
    return &reader->blocks[(reader->first + index) % AHEAD_BLOCKS];
}

/* Nothing may be under way for memory that goes, nor for a handle that is closed. */
static void
drop_blocks(SshReader *reader)
{
    for (size_t i = 0; i < reader->count; i++)
        ssh_link_wait(reader->storage->link, &block_at(reader, i)->request);
    reader->first = reader->count = 0;
}

static void
free_buffers(SshReader *reader)
{
    if (!reader->has_buffers)
        return;
    for (size_t i = 0; i < AHEAD_BLOCKS; i++)
        free(reader->blocks[i].data);
    atomic_fetch_sub(&reader->storage->ahead, (size_t)AHEAD_BLOCKS * AHEAD_BLOCK_SIZE);
    reader->has_buffers = false;
}

/* False: not now, others hold what there is. */
static bool
take_buffers(SshReader *reader)
{
    const size_t wanted = (size_t)AHEAD_BLOCKS * AHEAD_BLOCK_SIZE;
    if (reader->has_buffers)
        return true;
    if (atomic_fetch_add(&reader->storage->ahead, wanted) + wanted > SSH_AHEAD_LIMIT) {
        atomic_fetch_sub(&reader->storage->ahead, wanted);
        return false;
    }
    bool whole = true;
    for (size_t i = 0; i < AHEAD_BLOCKS; i++) {
        reader->blocks[i].data = malloc(AHEAD_BLOCK_SIZE);
        whole = whole && reader->blocks[i].data != NULL;
    }
    reader->has_buffers = true;
    if (!whole)
        free_buffers(reader);
    return whole;
}

static void
ask(SshReader *reader, SshRequest *request, void *data, size_t size, uint64_t offset)
{
    uint8_t body[12];
    put_u64(body, offset);
    put_u32(body + 8, (uint32_t)size);
    *request = (SshRequest){.data = data, .data_size = size};
    ssh_link_send(reader->storage->link, reader->generation, request, SSH_READ, reader->handle,
                  body, sizeof body);
}

/* Where the blocks end. */
static uint64_t
blocks_end(SshReader *reader)
{
    const Block *last = block_at(reader, reader->count - 1);
    return last->offset + last->request.data_size;
}

/* Asks for what comes from offset on, as far as there are blocks; those that lie before it go. */
static void
ask_ahead(SshReader *reader, uint64_t offset)
{
    if (reader->count > 0 && (offset < block_at(reader, 0)->offset || offset > blocks_end(reader)))
        drop_blocks(reader);
    while (reader->count > 0) {
        Block *oldest = block_at(reader, 0);
        if (offset < oldest->offset + oldest->request.data_size)
            break;
        ssh_link_wait(reader->storage->link, &oldest->request);
        reader->first = (reader->first + 1) % AHEAD_BLOCKS;
        reader->count--;
    }
    uint64_t next = reader->count > 0 ? blocks_end(reader) : offset;
    while (reader->count < AHEAD_BLOCKS && next < reader->base.size_bytes) {
        const uint64_t left = reader->base.size_bytes - next;
        Block *block = block_at(reader, reader->count++);
        block->offset = next;
        ask(reader, &block->request, block->data,
            left < AHEAD_BLOCK_SIZE ? (size_t)left : AHEAD_BLOCK_SIZE, next);
        next += block->request.data_size;
    }
}

/* ---- reading ---- */

typedef struct {
    uint8_t *data;
    size_t size;
    uint64_t offset;
} Range;

static void
advance(Range *range, size_t size)
{
    range->data += size;
    range->size -= size;
    range->offset += size;
}

/* False: that request came to nothing; *lost_out: another connection may do. */
static bool
check_request(const SshRequest *request, bool *lost_out, CairnError *err)
{
    if (request->state == SSH_ANSWERED)
        return true;
    *lost_out = request->state == SSH_LOST;
    *err = request->err;
    return false;
}

static bool
read_ahead(SshReader *reader, Range *range, bool *lost_out, CairnError *err)
{
    while (range->size > 0) {
        ask_ahead(reader, range->offset);
        const Block *block = block_at(reader, 0);
        ssh_link_wait(reader->storage->link, &block->request);
        if (!check_request(&block->request, lost_out, err))
            return false;
        const size_t at = (size_t)(range->offset - block->offset);
        const size_t there = block->request.data_size - at;
        const size_t part = there < range->size ? there : range->size;
        memcpy(range->data, block->data + at, part);
        advance(range, part);
    }
    return true;
}

/* Straight into the caller's memory, several requests at a time. */
static bool
read_directly(SshReader *reader, Range *range, bool *lost_out, CairnError *err)
{
    SshRequest requests[DIRECT_REQUESTS];
    drop_blocks(reader);
    while (range->size > 0) {
        size_t count = 0;
        bool good = true;
        while (range->size > 0 && count < DIRECT_REQUESTS) {
            const size_t part = range->size < SSH_DATA_LIMIT ? range->size : SSH_DATA_LIMIT;
            ask(reader, &requests[count++], range->data, part, range->offset);
            advance(range, part);
        }
        for (size_t i = 0; i < count; i++) {
            ssh_link_wait(reader->storage->link, &requests[i]);
            good = good && check_request(&requests[i], lost_out, err);
        }
        if (!good)
            return false;
    }
    return true;
}

static void
note_order(SshReader *reader, uint64_t offset, size_t size)
{
    const bool follows = offset >= reader->next_offset && offset - reader->next_offset <= AHEAD_GAP;
    reader->in_order = follows ? reader->in_order + 1 : 0;
    reader->next_offset = offset + size;
}

/* Many packs stay open, each read somewhere behind its first bytes; who still wants those asks for
   them. */
static void
note_head_miss(SshReader *reader)
{
    if (head_size(reader) == 0 || ++reader->head_misses < HEAD_MISSES)
        return;
    uint8_t *size_alone = realloc(reader->answer.data, SIZE_FIELD);
    if (size_alone == NULL)
        return;
    reader->answer.data = size_alone;
    reader->answer.size = reader->answer.capacity = SIZE_FIELD;
}

static bool
read_once(SshReader *reader, Range range, bool *lost_out, CairnError *err)
{
    *lost_out = false;
    if (range.offset < head_size(reader)) {
        const uint64_t there = head_size(reader) - range.offset;
        const size_t part = there < range.size ? (size_t)there : range.size;
        memcpy(range.data, reader->answer.data + SIZE_FIELD + range.offset, part);
        advance(&range, part);
    }
    if (range.size == 0)
        return true;
    note_head_miss(reader);
    if (!reader->has_handle) {
        *lost_out = true;
        ssh_link_explain(reader->storage->link, err);
        return false;
    }
    if (reader->in_order >= AHEAD_AFTER && take_buffers(reader))
        return read_ahead(reader, &range, lost_out, err);
    const bool read = read_directly(reader, &range, lost_out, err);
    free_buffers(reader); /* others read in order */
    return read;
}

/* The connection broke: objects never change, so the same one is read on. */
static bool
open_again(SshReader *reader, CairnError *err)
{
    drop_blocks(reader);
    drop_handle(reader);
    if (!open_repeatedly(reader, err))
        return false;
    if (get_u64(reader->answer.data) == reader->base.size_bytes)
        return true;
    return cairn_error(err, CAIRN_CORRUPT, "object '%s' changed while it was read", reader->name);
}

static bool
read_repeatedly(SshReader *reader, void *data, size_t size, uint64_t offset, CairnError *err)
{
    bool lost;
    note_order(reader, offset, size);
    for (int attempt = 1; !read_once(reader, (Range){data, size, offset}, &lost, err); attempt++) {
        if (!lost || attempt == SSH_ATTEMPTS)
            return cairn_error_wrap(err, "unable to read '%s'", reader->name);
        cairn_error_clear(err);
        if (!open_again(reader, err))
            return cairn_error_wrap(err, "unable to read '%s'", reader->name);
    }
    return true;
}

static bool
reader_pread(StorageReader *base, void *data, size_t size, uint64_t offset, CairnError *err)
{
    SshReader *reader = (SshReader *)base;
    pthread_mutex_lock(&reader->mutex);
    const bool read = read_repeatedly(reader, data, size, offset, err);
    pthread_mutex_unlock(&reader->mutex);
    return read;
}

static void
reader_free(StorageReader *base)
{
    SshReader *reader = (SshReader *)base;
    drop_blocks(reader);
    if (reader->has_handle) {
        /* Where it cannot be told the connection is gone, and with it the handle. */
        const bool ignored = ssh_link_post(reader->storage->link, reader->generation, SSH_CLOSE,
                                           reader->handle, NULL, 0);
        (void)ignored;
        drop_handle(reader);
    }
    free_buffers(reader);
    byte_writer_free(&reader->answer);
    pthread_mutex_destroy(&reader->mutex);
    free(reader->name);
    free(reader);
}

StorageReader *
ssh_open(Storage *base, const char *name, CairnError *err)
{
    SCOPED(StorageReader) result = NULL;
    SshReader *reader = calloc(1, sizeof *reader);
    char *copy = strdup(name);
    if (reader == NULL || copy == NULL) {
        free(reader);
        free(copy);
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    CAIRN_ASSERT(pthread_mutex_init(&reader->mutex, NULL) == 0);
    reader->base.ops = &SSH_READER_OPS;
    reader->storage = (SshStorage *)base;
    reader->name = copy;
    result = &reader->base;
    if (!open_repeatedly(reader, err))
        return NULL;
    reader->base.size_bytes = get_u64(reader->answer.data);
    return take(&result);
}

static const StorageReaderOps SSH_READER_OPS = {reader_pread, reader_free};
