/*
 * pg_control: any bytes. An input of the right size is tried a second time with the right checksum
 * for its version, so that the checks behind the checksum are reached.
 */
#include "common/bytes.h"
#include "common/digest.h"
#include "common/error.h"
#include "postgres/control.h"

#include <string.h>

static void
check(const uint8_t *data, size_t size)
{
    CairnError err = {0};
    ControlFile control;
    if (!control_parse(data, size, &control, &err)) {
        CAIRN_ASSERT(err.kind == CAIRN_CORRUPT || err.kind == CAIRN_UNSUPPORTED ||
                     err.kind == CAIRN_MISMATCH);
        return;
    }
    CAIRN_ASSERT(control.major >= 15 && control.major <= 18);
    CAIRN_ASSERT(control.block_size == 8192);
    CAIRN_ASSERT(__builtin_popcount(control.wal_segment_size) == 1);
    CAIRN_ASSERT(control.relation_segment_blocks > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check(data, size);

    uint8_t file[CONTROL_FILE_SIZE] = {0};
    memcpy(file, data, size < sizeof file ? size : sizeof file);
    const size_t crc_offset = get_u32(file + 8) == 1800 ? 292 : 288;
    put_u32(file + crc_offset, crc32c(0, file, crc_offset));
    check(file, sizeof file);
    return 0;
}
