#include "postgres/wal_page.h"

#include "common/bytes.h"
#include "postgres/wal_name.h"

/* The bits that 15 to 18 define; any other bit says that this is no WAL page. */
enum { WAL_PAGE_ALL_FLAGS = 0x000F };

/* Twenty years of releases lie in this range, so another version is told from damage. */
static bool
magic_is_plausible(uint16_t magic)
{
    return magic >= 0xD05A && magic <= 0xD1FF;
}

static bool
check_magic(uint16_t magic, CairnError *err)
{
    if (wal_major_of_magic(magic) != 0)
        return true;
    if (!magic_is_plausible(magic))
        return cairn_error(err, CAIRN_CORRUPT, "no WAL page: magic number %04X", magic);
    return cairn_error(err, CAIRN_MISMATCH,
                       "WAL page magic %04X belongs to no supported PostgreSQL version (%d to %d)",
                       magic, POSTGRES_MAJOR_MIN, POSTGRES_MAJOR_MAX);
}

bool
wal_identity_read(const void *page, size_t size, WalIdentity *identity_out, CairnError *err)
{
    const uint8_t *bytes = page;

    if (size < WAL_LONG_HEADER_SIZE) {
        return cairn_error(err, CAIRN_CORRUPT,
                           "no WAL page: %zu bytes where its header alone takes %d", size,
                           WAL_LONG_HEADER_SIZE);
    }
    if (!check_magic(get_u16(bytes), err))
        return false;

    const uint16_t flags = get_u16(bytes + 2);
    if ((flags & WAL_PAGE_LONG) == 0 || (flags & ~WAL_PAGE_ALL_FLAGS) != 0) {
        return cairn_error(err, CAIRN_CORRUPT,
                           "not the first page of a WAL segment: page flags %04X", flags);
    }

    const uint32_t block_size = get_u32(bytes + 36);
    if (block_size != WAL_PAGE_SIZE) {
        return cairn_error(err, CAIRN_MISMATCH,
                           "WAL block size is %u, only servers with %d are supported", block_size,
                           WAL_PAGE_SIZE);
    }

    WalIdentity identity = {
        .major = wal_major_of_magic(get_u16(bytes)),
        .timeline = get_u32(bytes + 4),
        .lsn = get_u64(bytes + 8),
        .system_id = get_u64(bytes + 24),
        .segment_size = get_u32(bytes + 32),
    };
    if (!wal_segment_size_valid(identity.segment_size)) {
        return cairn_error(err, CAIRN_CORRUPT, "WAL page header claims segments of %u bytes",
                           identity.segment_size);
    }
    if (identity.lsn % identity.segment_size != 0 || identity.timeline == 0) {
        char lsn[LSN_TEXT_SIZE];
        lsn_format(lsn, identity.lsn);
        return cairn_error(err, CAIRN_CORRUPT,
                           "WAL page header claims address %s on timeline %u, where no segment "
                           "begins",
                           lsn, identity.timeline);
    }

    *identity_out = identity;
    return true;
}
