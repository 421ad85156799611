/* What each request does to the storage. */
#include "storage/serve_intern.h"

#include <string.h>

/* ---- slots ---- */

static bool
is_of_writer(uint16_t type)
{
    return type == SSH_CREATE || type == SSH_COMMIT;
}

static bool
is_of_reader(uint16_t type)
{
    return type == SSH_OPEN || type == SSH_READ;
}

/* From one state to another; false when it is not in the first. */
static bool
move_writer(Serve *serve, uint32_t handle, SlotState from, SlotState to)
{
    if (handle >= SSH_WRITER_LIMIT)
        return false;
    pthread_mutex_lock(&serve->slots_lock);
    const bool moved = serve->writers[handle].state == from;
    if (moved)
        serve->writers[handle].state = to;
    pthread_mutex_unlock(&serve->slots_lock);
    return moved;
}

static bool
move_reader(Serve *serve, uint32_t handle, SlotState from, SlotState to)
{
    if (handle >= SSH_READER_LIMIT)
        return false;
    pthread_mutex_lock(&serve->slots_lock);
    ReaderSlot *slot = &serve->readers[handle];
    const bool moved = slot->state == from && slot->reads == 0;
    if (moved)
        slot->state = to;
    pthread_mutex_unlock(&serve->slots_lock);
    return moved;
}

static bool
begin_read(Serve *serve, uint32_t handle)
{
    if (handle >= SSH_READER_LIMIT)
        return false;
    pthread_mutex_lock(&serve->slots_lock);
    ReaderSlot *slot = &serve->readers[handle];
    const bool open = slot->state == SLOT_OPEN;
    if (open)
        slot->reads++;
    pthread_mutex_unlock(&serve->slots_lock);
    return open;
}

static void
end_read(Serve *serve, uint32_t handle)
{
    pthread_mutex_lock(&serve->slots_lock);
    CAIRN_ASSERT(serve->readers[handle].reads > 0);
    serve->readers[handle].reads--;
    pthread_mutex_unlock(&serve->slots_lock);
}

bool
serve_request_admit(Serve *serve, const ServeRequest *request)
{
    const SshFrame *frame = &request->frame;
    if (frame->request == 0 ||
        (!is_of_writer(frame->type) && !is_of_reader(frame->type) && frame->handle != 0))
        return false;
    switch (frame->type) {
    case SSH_CREATE:
        return move_writer(serve, frame->handle, SLOT_FREE, SLOT_BUSY);
    case SSH_COMMIT:
        return move_writer(serve, frame->handle, SLOT_OPEN, SLOT_BUSY);
    case SSH_OPEN:
        return move_reader(serve, frame->handle, SLOT_FREE, SLOT_BUSY);
    case SSH_READ:
        return begin_read(serve, frame->handle);
    case SSH_LIST:
    case SSH_EXISTS:
    case SSH_DURABLE:
    case SSH_REMOVE:
    case SSH_FREE_SPACE:
    case SSH_SWEEP:
    case SSH_PRUNE:
        return true;
    default:
        return false;
    }
}

/* ---- names ---- */

static bool
bad_request(CairnError *err)
{
    return cairn_error(err, CAIRN_INTERNAL, "the request is malformed");
}

/* The name that is the rest of a request, and whether policy allows it. Names are checked by
 * storage.c as well; here it keeps what is none away from the policy. */
static bool
take_name(Serve *serve, ByteReader *in, ServeAct act, bool may_be_root,
          char name[STORAGE_NAME_LIMIT + 1], CairnError *err)
{
    ssh_get_name(in, name, STORAGE_NAME_LIMIT);
    if (!byte_reader_done(in))
        return bad_request(err);
    if (!(may_be_root && name[0] == '\0') && !storage_name_valid(name))
        return cairn_error(err, CAIRN_USAGE, "that is not a valid object name");
    return serve_policy_check(serve->options->policy, act, name, err);
}

/* ---- writers ---- */

static void
free_writer(Serve *serve, uint32_t handle)
{
    WriterSlot *slot = &serve->writers[handle];
    storage_writer_free(slot->writer);
    free(slot->name);
    slot->writer = NULL;
    slot->name = NULL;
    cairn_error_clear(&slot->failed);
}

static bool
run_create(Serve *serve, ByteReader *in, uint32_t handle, CairnError *err)
{
    WriterSlot *slot = &serve->writers[handle];
    char name[STORAGE_NAME_LIMIT + 1];
    if (!take_name(serve, in, SERVE_CREATE, false, name, err))
        return false;
    slot->name = strdup(name);
    if (slot->name == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    slot->writer = storage_create(serve->storage, name, err);
    return slot->writer != NULL;
}

bool
serve_write(Serve *serve, const SshFrame *frame, const uint8_t *payload)
{
    /* Busy meanwhile, though nobody else is here: this thread reads frames. */
    if (frame->request != 0 || !move_writer(serve, frame->handle, SLOT_OPEN, SLOT_BUSY))
        return false;
    WriterSlot *slot = &serve->writers[frame->handle];
    if (slot->failed.kind == CAIRN_OK &&
        !storage_write(slot->writer, payload, frame->size, &slot->failed)) {
        CAIRN_ASSERT(slot->failed.kind != CAIRN_OK);
        /* At once: what is written to a full disk for minutes must not be sent first. */
        serve_fail(serve, SSH_WRITER_FAILED, 0, frame->handle, &slot->failed);
    }
    return move_writer(serve, frame->handle, SLOT_BUSY, SLOT_OPEN);
}

static bool
run_commit(Serve *serve, uint32_t handle, CairnError *err)
{
    WriterSlot *slot = &serve->writers[handle];
    if (slot->failed.kind != CAIRN_OK) {
        *err = slot->failed;
        return false;
    }
    if (!storage_commit(slot->writer, err))
        return false;
    serve_policy_note_created(serve->options->policy, slot->name);
    return true;
}

bool
serve_abandon(Serve *serve, const SshFrame *frame)
{
    if (frame->request != 0 || frame->size != 0 ||
        !move_writer(serve, frame->handle, SLOT_OPEN, SLOT_BUSY))
        return false;
    free_writer(serve, frame->handle);
    return move_writer(serve, frame->handle, SLOT_BUSY, SLOT_FREE);
}

/* ---- readers ---- */

static bool
run_open(Serve *serve, ByteReader *in, uint32_t handle, ByteWriter *answer, CairnError *err)
{
    uint8_t head[SSH_HEAD_SIZE];
    char name[STORAGE_NAME_LIMIT + 1];
    if (!take_name(serve, in, SERVE_READ, false, name, err))
        return false;
    SCOPED(StorageReader) reader = storage_open(serve->storage, name, err);
    if (reader == NULL)
        return false;
    const size_t size = reader->size_bytes < sizeof head ? (size_t)reader->size_bytes : sizeof head;
    if (!storage_pread(reader, head, size, 0, err))
        return false;
    byte_writer_u64(answer, reader->size_bytes);
    byte_writer_bytes(answer, head, size);
    serve->readers[handle].reader = take(&reader);
    return true;
}

static bool
run_read(Serve *serve, ByteReader *in, uint32_t handle, ByteWriter *answer, CairnError *err)
{
    ReaderSlot *slot = &serve->readers[handle];
    const uint64_t offset = byte_reader_u64(in);
    const uint32_t size = byte_reader_u32(in);
    if (!byte_reader_done(in) || size == 0 || size > SSH_DATA_LIMIT)
        return bad_request(err);
    SCOPED_MEMORY uint8_t *data = malloc(size);
    if (data == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    pthread_mutex_lock(&slot->lock);
    const bool read = storage_pread(slot->reader, data, size, offset, err);
    pthread_mutex_unlock(&slot->lock);
    if (!read)
        return false;
    /* Handed over, not copied. */
    *answer = (ByteWriter){.data = take(&data), .size = size, .capacity = size};
    return true;
}

bool
serve_close(Serve *serve, const SshFrame *frame)
{
    if (frame->request != 0 || frame->size != 0 ||
        !move_reader(serve, frame->handle, SLOT_OPEN, SLOT_BUSY))
        return false;
    storage_reader_free(serve->readers[frame->handle].reader);
    serve->readers[frame->handle].reader = NULL;
    return move_reader(serve, frame->handle, SLOT_BUSY, SLOT_FREE);
}

/* ---- listing ---- */

typedef struct {
    Serve *serve;
    const char *prefix;
    uint32_t request;
    ByteWriter entries;
} Listing;

enum { ENTRIES_FULL = 60 << 10 };

static bool
send_entries(Listing *listing, CairnError *err)
{
    if (!byte_writer_check(&listing->entries, err))
        return false;
    serve_answer(listing->serve, SSH_ENTRIES, listing->request, 0, listing->entries.data,
                 listing->entries.size);
    byte_writer_reset(&listing->entries);
    return true;
}

static StorageListNext
add_entry(void *context, const StorageEntry *entry, CairnError *err)
{
    Listing *listing = context;
    ByteWriter *out = &listing->entries;
    if (!serve_policy_shows(listing->serve->options->policy, listing->prefix, entry->name))
        return STORAGE_LIST_GO_ON;
    if (atomic_load(&listing->serve->output_failed))
        return STORAGE_LIST_STOP; /* nobody listens */
    byte_writer_u8(out, entry->is_directory ? 1 : 0);
    byte_writer_u64(out, entry->size_bytes);
    byte_writer_u64(out, (uint64_t)entry->modified_us);
    ssh_put_text(out, entry->name);
    if (out->size >= ENTRIES_FULL && !send_entries(listing, err))
        return STORAGE_LIST_FAILED;
    return STORAGE_LIST_GO_ON;
}

static bool
run_list(Serve *serve, ByteReader *in, uint32_t request, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT + 1];
    if (!take_name(serve, in, SERVE_LIST, true, prefix, err))
        return false;
    Listing listing = {.serve = serve, .prefix = prefix, .request = request};
    const bool listed = storage_list(serve->storage, prefix, add_entry, &listing, err) &&
                        (listing.entries.size == 0 || send_entries(&listing, err));
    byte_writer_free(&listing.entries);
    return listed;
}

/* ---- the rest ---- */

static bool
run_exists(Serve *serve, ByteReader *in, ByteWriter *answer, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT + 1];
    uint64_t size;
    if (!take_name(serve, in, SERVE_READ, false, name, err) ||
        !storage_exists(serve->storage, name, &size, err))
        return false;
    byte_writer_u64(answer, size);
    return true;
}

static bool
run_durable(Serve *serve, ByteReader *in, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT + 1];
    return take_name(serve, in, SERVE_READ, false, name, err) &&
           storage_make_durable(serve->storage, name, err);
}

static bool
run_remove(Serve *serve, ByteReader *in, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT + 1];
    return take_name(serve, in, SERVE_REMOVE, false, name, err) &&
           storage_remove(serve->storage, name, err);
}

static bool
run_free_space(Serve *serve, ByteReader *in, ByteWriter *answer, CairnError *err)
{
    uint64_t bytes;
    if (!byte_reader_done(in))
        return bad_request(err);
    if (!storage_free_space(serve->storage, &bytes, err))
        return false;
    byte_writer_u64(answer, bytes);
    return true;
}

static bool
run_sweep(Serve *serve, ByteReader *in, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT + 1];
    const int64_t older_than_us = (int64_t)byte_reader_u64(in);
    return take_name(serve, in, SERVE_SWEEP, true, prefix, err) &&
           storage_sweep(serve->storage, prefix, older_than_us, err);
}

static bool
run_prune(Serve *serve, ByteReader *in, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT + 1];
    return take_name(serve, in, SERVE_SWEEP, false, prefix, err) &&
           storage_prune(serve->storage, prefix, err);
}

static bool
carry_out(Serve *serve, const ServeRequest *request, ByteWriter *answer, CairnError *err)
{
    const SshFrame *frame = &request->frame;
    ByteReader in = byte_reader(request->payload, frame->size);
    switch (frame->type) {
    case SSH_CREATE:
        return run_create(serve, &in, frame->handle, err);
    case SSH_COMMIT:
        return run_commit(serve, frame->handle, err);
    case SSH_OPEN:
        return run_open(serve, &in, frame->handle, answer, err);
    case SSH_READ:
        return run_read(serve, &in, frame->handle, answer, err);
    case SSH_LIST:
        return run_list(serve, &in, frame->request, err);
    case SSH_EXISTS:
        return run_exists(serve, &in, answer, err);
    case SSH_DURABLE:
        return run_durable(serve, &in, err);
    case SSH_REMOVE:
        return run_remove(serve, &in, err);
    case SSH_FREE_SPACE:
        return run_free_space(serve, &in, answer, err);
    case SSH_SWEEP:
        return run_sweep(serve, &in, err);
    case SSH_PRUNE:
        return run_prune(serve, &in, err);
    default:
        CAIRN_ASSERT(frame->type == SSH_CREATE); /* serve_request_admit lets nothing else in */
        return false;
    }
}

/* Before the answer: with it the client may use the handle again. */
static void
settle_slot(Serve *serve, const SshFrame *frame, bool done)
{
    bool moved = true;
    switch (frame->type) {
    case SSH_CREATE:
        if (!done)
            free_writer(serve, frame->handle);
        moved = move_writer(serve, frame->handle, SLOT_BUSY, done ? SLOT_OPEN : SLOT_FREE);
        break;
    case SSH_COMMIT:
        free_writer(serve, frame->handle);
        moved = move_writer(serve, frame->handle, SLOT_BUSY, SLOT_FREE);
        break;
    case SSH_OPEN:
        moved = move_reader(serve, frame->handle, SLOT_BUSY, done ? SLOT_OPEN : SLOT_FREE);
        break;
    case SSH_READ:
        end_read(serve, frame->handle);
        break;
    default:
        break;
    }
    CAIRN_ASSERT(moved);
}

void
serve_request_run(Serve *serve, const ServeRequest *request)
{
    const SshFrame *frame = &request->frame;
    CairnError err = {0};
    SCOPED_BYTES ByteWriter answer = {0};
    bool done = carry_out(serve, request, &answer, &err) && byte_writer_check(&answer, &err);
    settle_slot(serve, frame, done);
    if (done)
        serve_answer(serve, frame->type == SSH_READ ? SSH_DATA : SSH_DONE, frame->request,
                     frame->handle, answer.data, answer.size);
    else
        serve_fail(serve, SSH_FAILED, frame->request, frame->handle, &err);
}
