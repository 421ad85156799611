#include "repository/map_node.h"

#include <stdlib.h>

/* Sources that a list of runs may go on from: enough for regions that nobody refreshed yet. */
enum { RUN_SOURCES = 64 };

void
node_ref_append(ByteWriter *node, const MapNodeRef *ref, uint32_t creator)
{
    byte_writer_varint(node, creator);
    byte_writer_varint(node, ref->pack);
    byte_writer_varint(node, ref->offset);
    byte_writer_varint(node, ref->stored_size);
    byte_writer_varint(node, ref->raw_size);
    byte_writer_u8(node, ref->codec);
    byte_writer_bytes(node, ref->digest, sizeof ref->digest);
}

void
node_start(ByteWriter *node, NodeType type, const BackupId *bid)
{
    byte_writer_reset(node);
    byte_writer_u8(node, (uint8_t)type);
    byte_writer_u8(node, NODE_VERSION);
    byte_writer_varint(node, 1);
    byte_writer_bytes(node, bid->text, BACKUP_ID_LENGTH);
}

uint32_t
node_creator(NodeCreators *creators, uint32_t creator)
{
    if (creator >= creators->local_size) {
        size_t size = (size_t)creator + 64;
        uint32_t *local = realloc(creators->local, size * sizeof *local);
        if (local == NULL) {
            creators->failed = true;
            return 0;
        }
        memset(local + creators->local_size, 0, (size - creators->local_size) * sizeof *local);
        creators->local = local;
        creators->local_size = size;
    }
    if (creators->local[creator] != 0)
        return creators->local[creator] - 1;
    if (creators->used_count == creators->used_capacity) {
        size_t capacity = creators->used_capacity == 0 ? 16 : 2 * creators->used_capacity;
        uint32_t *used = realloc(creators->used, capacity * sizeof *used);
        if (used == NULL) {
            creators->failed = true;
            return 0;
        }
        creators->used = used;
        creators->used_capacity = capacity;
    }
    creators->used[creators->used_count++] = creator;
    creators->local[creator] = (uint32_t)creators->used_count;
    return (uint32_t)creators->used_count - 1;
}

void
node_creators_reset(NodeCreators *creators)
{
    for (size_t i = 0; i < creators->used_count; i++)
        creators->local[creators->used[i]] = 0;
    creators->used_count = 0;
}

void
node_creators_free(NodeCreators *creators)
{
    free(creators->local);
    free(creators->used);
    *creators = (NodeCreators){0};
}

void
node_begin(ByteWriter *node, NodeType type, const CreatorTable *table, const NodeCreators *creators)
{
    byte_writer_reset(node);
    byte_writer_u8(node, (uint8_t)type);
    byte_writer_u8(node, NODE_VERSION);
    byte_writer_varint(node, creators->used_count);
    for (size_t i = 0; i < creators->used_count; i++)
        byte_writer_bytes(node, creator_table_get(table, creators->used[i])->text,
                          BACKUP_ID_LENGTH);
    node->failed |= creators->failed;
}

/* A source of a list of runs: where its last run so far ended. */
typedef struct {
    uint32_t creator, pack;
    uint32_t number; /* of the run that began it, among those of kind RUN_DATA */
    uint64_t end;
} RunSource;

typedef struct {
    RunSource sources[RUN_SOURCES];
    uint32_t known;  /* of the sources; once all places are taken, the next one to forget */
    uint32_t begun;  /* runs of kind RUN_DATA so far */
    RunSource *last; /* of the data run before */
} RunSources;

static RunSource *
find_source(RunSources *table, const MapRun *run)
{
    RunSource *last = table->last;
    if (last != NULL && last->creator == run->creator && last->pack == run->pack)
        return last;
    uint32_t count = table->known < RUN_SOURCES ? table->known : RUN_SOURCES;
    for (uint32_t i = 0; i < count; i++) {
        RunSource *source = &table->sources[i];
        if (source->creator == run->creator && source->pack == run->pack)
            return source;
    }
    return NULL;
}

static void
append_data_run(ByteWriter *node, const MapRun *run, RunSources *table, NodeCreators *creators)
{
    RunSource *source = find_source(table, run);
    if (source != NULL && run->slot >= source->end) {
        bool is_last = source == table->last;
        byte_writer_varint(node, run->units * 4 + (is_last ? RUN_NEXT : RUN_SOURCE));
        if (!is_last)
            byte_writer_varint(node, source->number);
        byte_writer_varint(node, run->slot - source->end);
    } else {
        byte_writer_varint(node, run->units * 4 + RUN_DATA);
        byte_writer_varint(node,
                           creators == NULL ? run->creator : node_creator(creators, run->creator));
        byte_writer_varint(node, run->pack);
        byte_writer_varint(node, run->slot);
        /* The same pack again, going backwards: later runs go on from here. */
        if (source == NULL)
            source = &table->sources[table->known++ % RUN_SOURCES];
        *source = (RunSource){.creator = run->creator, .pack = run->pack, .number = table->begun};
        table->begun++;
    }
    source->end = run->slot + run->units;
    table->last = source;
}

void
node_runs_append(ByteWriter *node, const MapRun *runs, size_t count, NodeCreators *creators)
{
    RunSources table;
    table.known = table.begun = 0;
    table.last = NULL;
    byte_writer_varint(node, count);
    for (size_t i = 0; i < count; i++) {
        if (runs[i].is_zero)
            byte_writer_varint(node, runs[i].units * 4 + RUN_ZERO);
        else
            append_data_run(node, &runs[i], &table, creators);
    }
    if (creators != NULL)
        node->failed |= creators->failed;
}

bool
node_open(NodeReader *node, const void *raw, size_t size, NodeType type, CairnError *err)
{
    ByteReader body = byte_reader(raw, size);
    uint8_t actual = byte_reader_u8(&body);
    uint8_t version = byte_reader_u8(&body);
    uint64_t bid_count = byte_reader_varint_max(&body, NODE_BID_LIMIT);
    const uint8_t *bids = byte_reader_bytes(&body, bid_count * BACKUP_ID_LENGTH);
    if (bids == NULL || actual != type || version != NODE_VERSION) {
        return cairn_error(err, CAIRN_CORRUPT, "map node is no '%c' node of version %d", type,
                           NODE_VERSION);
    }
    *node = (NodeReader){.body = body, .bids = bids, .bid_count = (uint32_t)bid_count};
    return true;
}

bool
node_bid(const NodeReader *node, uint64_t index, BackupId *bid_out, CairnError *err)
{
    char text[BACKUP_ID_LENGTH + 1];
    if (index >= node->bid_count)
        return cairn_error(err, CAIRN_CORRUPT, "map node points at a backup that it does not name");
    memcpy(text, node->bids + index * BACKUP_ID_LENGTH, BACKUP_ID_LENGTH);
    text[BACKUP_ID_LENGTH] = '\0';
    if (!backup_id_parse(text, bid_out))
        return cairn_error(err, CAIRN_CORRUPT, "map node holds an impossible backup id");
    return true;
}

bool
node_ref_read(NodeReader *node, MapNodeRef *ref_out, CairnError *err)
{
    ByteReader *body = &node->body;
    MapNodeRef ref = {0};
    uint64_t creator = byte_reader_varint(body);
    ref.pack = (uint32_t)byte_reader_varint_max(body, INT32_MAX);
    ref.offset = byte_reader_varint(body);
    ref.stored_size = (uint32_t)byte_reader_varint_max(body, MAP_NODE_LIMIT + 4096);
    ref.raw_size = (uint32_t)byte_reader_varint_max(body, MAP_NODE_LIMIT);
    ref.codec = byte_reader_u8(body);
    const uint8_t *digest = byte_reader_bytes(body, sizeof ref.digest);
    if (digest == NULL)
        return cairn_error(err, CAIRN_CORRUPT, "map node is cut off");
    memcpy(ref.digest, digest, sizeof ref.digest);
    if (!node_bid(node, creator, &ref.creator, err))
        return false;
    *ref_out = ref;
    return true;
}
