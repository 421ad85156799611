#include "postgres/control.h"

#include "common/bytes.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/scoped.h"
#include "postgres/page.h"

enum { TORN_READ_ATTEMPTS = 10, TORN_READ_PAUSE_MS = 50 };

/*
 * Offsets on little-endian 64-bit machines, the same in 15 to 18. Only what stands behind the
 * checksum version moved: 18 added a byte and with it the CRC's place.
 */
enum {
    AT_SYSTEM_ID = 0,
    AT_CONTROL_VERSION = 8,
    AT_CATALOG_VERSION = 12,
    AT_STATE = 16,
    AT_CHECKPOINT_LSN = 32,
    AT_CHECKPOINT = 40,
    AT_MIN_RECOVERY_LSN = 136,
    AT_MIN_RECOVERY_TIMELINE = 144,
    AT_WAL_LEVEL = 172,
    AT_MAX_CONNECTIONS = 180,
    AT_MAX_WORKER_PROCESSES = 184,
    AT_MAX_WAL_SENDERS = 188,
    AT_MAX_PREPARED_XACTS = 192,
    AT_MAX_LOCKS_PER_XACT = 196,
    AT_MAX_ALIGN = 204,
    AT_FLOAT_CHECK = 208,
    AT_BLOCK_SIZE = 216,
    AT_RELATION_SEGMENT_BLOCKS = 220,
    AT_WAL_BLOCK_SIZE = 224,
    AT_WAL_SEGMENT_SIZE = 228,
    AT_DATA_CHECKSUM_VERSION = 252,
};

/* Inside the copy of the checkpoint record. */
enum { CHECKPOINT_REDO = 0, CHECKPOINT_TIMELINE = 8, CHECKPOINT_TIME = 64 };

enum { WAL_SEGMENT_SIZE_MIN = 1 << 20, WAL_SEGMENT_SIZE_MAX = 1 << 30 };
enum { WAL_LEVEL_LOGICAL = 2 };

typedef struct {
    uint32_t control_version;
    uint32_t catalog_year; /* 0: any; 15 and 16 differ in nothing else */
    int major;
    size_t crc_offset;
} ControlLayout;

static const ControlLayout layouts[] = {
    {.control_version = 1300, .catalog_year = 2022, .major = 15, .crc_offset = 288},
    {.control_version = 1300, .catalog_year = 2023, .major = 16, .crc_offset = 288},
    {.control_version = 1700, .major = 17, .crc_offset = 288},
    {.control_version = 1800, .major = 18, .crc_offset = 292},
};

static const ControlLayout *
find_layout(uint32_t control_version, uint32_t catalog_version)
{
    const uint32_t year = catalog_version / 100000; /* catalog versions read YYYYMMDDN */
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        if (layouts[i].control_version == control_version &&
            (layouts[i].catalog_year == 0 || layouts[i].catalog_year == year)) {
            return &layouts[i];
        }
    }
    return NULL;
}

/* Versions first: they say where the CRC stands. */
static const ControlLayout *
check_version(const uint8_t *bytes, CairnError *err)
{
    const uint32_t control_version = get_u32(bytes + AT_CONTROL_VERSION);
    const uint32_t catalog_version = get_u32(bytes + AT_CATALOG_VERSION);

    if (control_version != 0 && control_version % 65536 == 0) {
        cairn_error(err, CAIRN_MISMATCH, "pg_control was written with another byte order");
        return NULL;
    }
    const ControlLayout *layout = find_layout(control_version, catalog_version);
    if (layout == NULL) {
        cairn_error(err, CAIRN_UNSUPPORTED,
                    "pg_control has version %u and catalog version %u, which are not those of "
                    "PostgreSQL 15 to 18",
                    control_version, catalog_version);
    }
    return layout;
}

static void
read_fields(const uint8_t *bytes, const ControlLayout *layout, ControlFile *control)
{
    const uint8_t *checkpoint = bytes + AT_CHECKPOINT;
    *control = (ControlFile){
        .major = layout->major,
        .system_id = get_u64(bytes + AT_SYSTEM_ID),
        .control_version = get_u32(bytes + AT_CONTROL_VERSION),
        .catalog_version = get_u32(bytes + AT_CATALOG_VERSION),
        .state = (ControlState)get_u32(bytes + AT_STATE),
        .checkpoint_lsn = get_u64(bytes + AT_CHECKPOINT_LSN),
        .redo_lsn = get_u64(checkpoint + CHECKPOINT_REDO),
        .checkpoint_timeline = get_u32(checkpoint + CHECKPOINT_TIMELINE),
        .checkpoint_time_s = (int64_t)get_u64(checkpoint + CHECKPOINT_TIME),
        .min_recovery_lsn = get_u64(bytes + AT_MIN_RECOVERY_LSN),
        .min_recovery_timeline = get_u32(bytes + AT_MIN_RECOVERY_TIMELINE),
        .wal_level = (int32_t)get_u32(bytes + AT_WAL_LEVEL),
        .max_connections = (int32_t)get_u32(bytes + AT_MAX_CONNECTIONS),
        .max_worker_processes = (int32_t)get_u32(bytes + AT_MAX_WORKER_PROCESSES),
        .max_wal_senders = (int32_t)get_u32(bytes + AT_MAX_WAL_SENDERS),
        .max_prepared_xacts = (int32_t)get_u32(bytes + AT_MAX_PREPARED_XACTS),
        .max_locks_per_xact = (int32_t)get_u32(bytes + AT_MAX_LOCKS_PER_XACT),
        .block_size = get_u32(bytes + AT_BLOCK_SIZE),
        .relation_segment_blocks = get_u32(bytes + AT_RELATION_SEGMENT_BLOCKS),
        .wal_block_size = get_u32(bytes + AT_WAL_BLOCK_SIZE),
        .wal_segment_size = get_u32(bytes + AT_WAL_SEGMENT_SIZE),
        .data_checksum_version = get_u32(bytes + AT_DATA_CHECKSUM_VERSION),
    };
}

/* The machine and the build that wrote the file must be like those we know. */
static bool
check_build(const uint8_t *bytes, const ControlFile *control, CairnError *err)
{
    double float_check;
    memcpy(&float_check, bytes + AT_FLOAT_CHECK, sizeof float_check);
    if (get_u32(bytes + AT_MAX_ALIGN) != 8 || float_check < 1234567.0 || float_check > 1234567.0)
        return cairn_error(err, CAIRN_MISMATCH,
                           "pg_control was written on another kind of machine");

    if (control->block_size != PAGE_SIZE_BYTES) {
        return cairn_error(err, CAIRN_MISMATCH, "the cluster's block size is %u, not %d",
                           control->block_size, PAGE_SIZE_BYTES);
    }
    if (control->wal_block_size != PAGE_SIZE_BYTES) {
        return cairn_error(err, CAIRN_MISMATCH, "the cluster's WAL block size is %u, not %d",
                           control->wal_block_size, PAGE_SIZE_BYTES);
    }
    return true;
}

/* A right CRC over impossible values is a forgery or a bug: nobody should calculate with them. */
static bool
check_values(const ControlFile *control, CairnError *err)
{
    const uint32_t segment_size = control->wal_segment_size;
    if (segment_size < WAL_SEGMENT_SIZE_MIN || segment_size > WAL_SEGMENT_SIZE_MAX ||
        (segment_size & (segment_size - 1)) != 0) {
        return cairn_error(err, CAIRN_CORRUPT, "pg_control has the invalid WAL segment size %u",
                           segment_size);
    }
    if (control->relation_segment_blocks == 0)
        return cairn_error(err, CAIRN_CORRUPT, "pg_control has a relation segment size of zero");
    if ((unsigned)control->state > CONTROL_IN_PRODUCTION) {
        return cairn_error(err, CAIRN_CORRUPT, "pg_control has the unknown state %u",
                           (unsigned)control->state);
    }
    if (control->wal_level < 0 || control->wal_level > WAL_LEVEL_LOGICAL) {
        return cairn_error(err, CAIRN_CORRUPT, "pg_control has the unknown wal_level %d",
                           control->wal_level);
    }
    return true;
}

bool
control_parse(const void *data, size_t size, ControlFile *control_out, CairnError *err)
{
    if (size != CONTROL_FILE_SIZE) {
        return cairn_error(err, CAIRN_CORRUPT, "pg_control has %zu bytes instead of %d", size,
                           CONTROL_FILE_SIZE);
    }
    const uint8_t *bytes = data;
    const ControlLayout *layout = check_version(bytes, err);
    if (layout == NULL)
        return false;
    if (crc32c(0, bytes, layout->crc_offset) != get_u32(bytes + layout->crc_offset))
        return cairn_error(err, CAIRN_CORRUPT, "pg_control has a wrong checksum");

    ControlFile control;
    read_fields(bytes, layout, &control);
    if (!check_build(bytes, &control, err) || !check_values(&control, err))
        return false;

    *control_out = control;
    return true;
}

bool
control_read(const World *world, int pgdata_fd, ControlFile *control_out, CairnError *err)
{
    static const char path[] = "global/pg_control";
    for (int attempt = 1;; attempt++) {
        size_t size = 0;
        SCOPED_MEMORY char *data =
            file_read_all(world, pgdata_fd, path, 2 * (size_t)CONTROL_FILE_SIZE, &size, err);
        if (data == NULL)
            return false;
        if (control_parse(data, size, control_out, err))
            return true;
        if (err->kind != CAIRN_CORRUPT || attempt == TORN_READ_ATTEMPTS)
            return cairn_error_wrap(err, "'%s'", path);
        cairn_error_clear(err);
        world->clock->sleep_ms(world->clock, TORN_READ_PAUSE_MS);
    }
}
