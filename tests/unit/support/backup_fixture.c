#include "tests/unit/support/backup_fixture.h"

#include "repository/pack.h"
#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

enum { PIECE_LIMIT = 300000 };

void
test_file_unit(const TestFile *file, uint64_t unit, uint8_t data[UNIT_SIZE])
{
    const uint64_t begin = unit * UNIT_SIZE;
    const uint64_t version = file->versions != NULL ? file->versions[unit] : 0;
    uint64_t random = file->seed * 0x9e3779b97f4a7c15u ^ (unit + 1) ^ version << 40;
    if (random == 0)
        random = 1;
    for (int i = 0; i < 4; i++)
        test_random(&random);
    memset(data, 0, UNIT_SIZE);
    assert_true(begin < file->size_bytes);
    const uint64_t left = file->size_bytes - begin;
    if (version == TEST_UNIT_ZERO)
        return;
    if (test_random_below(&random, 100) >= file->zero_percent)
        test_fill(&random, data, left < UNIT_SIZE ? (size_t)left : UNIT_SIZE);
}

BackupWriter *
test_backup_begin(Repository *repository, const char *scratch, int jobs, CairnError *err)
{
    const BackupWriterOptions options = {
        .cluster = "main", .system_id = 1, .major = 17, .jobs = jobs, .scratch_directory = scratch};
    return backup_writer_begin(repository, &options, err);
}

/* Bytes begin .. begin + size of the file. */
static void
content(const TestFile *file, uint64_t begin, uint8_t *data, size_t size)
{
    uint8_t unit[UNIT_SIZE];
    while (size > 0) {
        const size_t at = begin % UNIT_SIZE;
        const size_t piece = UNIT_SIZE - at < size ? UNIT_SIZE - at : size;
        test_file_unit(file, begin / UNIT_SIZE, unit);
        memcpy(data, unit + at, piece);
        begin += piece;
        data += piece;
        size -= piece;
    }
}

static bool
write_file(BackupWriter *writer, const TestFile *file, uint64_t *random, CairnError *err)
{
    SCOPED_MEMORY uint8_t *piece = malloc(PIECE_LIMIT);
    uint64_t size, crc_size = 0;
    uint32_t crc, expected_crc = 0;
    assert_non_null(piece);
    if (!backup_writer_file_begin(writer, file->class, file->path, file->mode, err))
        return false;
    for (uint64_t done = 0; done < file->size_bytes;) {
        /* Small pieces often, large ones for progress. */
        const uint64_t limit = test_random_below(random, 3) == 0 ? 100 : PIECE_LIMIT;
        uint64_t take_size = 1 + test_random_below(random, limit);
        if (take_size > file->size_bytes - done)
            take_size = file->size_bytes - done;
        content(file, done, piece, (size_t)take_size);
        if (!backup_writer_data(writer, piece, (size_t)take_size, err))
            return false;
        expected_crc = crc32c(expected_crc, piece, (size_t)take_size);
        crc_size += take_size;
        done += take_size;
    }
    if (!backup_writer_file_end(writer, &size, &crc, err))
        return false;
    assert_true(size == crc_size && crc == expected_crc);
    return true;
}

bool
test_backup_write(BackupWriter *writer, const TestFile *files, size_t count, uint64_t random,
                  CairnError *err)
{
    for (size_t i = 0; i < count; i++) {
        const TestFile *file = &files[i];
        if (file->is_directory
                ? !backup_writer_directory(writer, file->class, file->path, file->mode, err)
                : !write_file(writer, file, &random, err))
            return false;
    }
    return true;
}

bool
test_backup_commit(BackupWriter *writer, Fate **fate_out, CairnError *err)
{
    SCOPED(Fate) fate = test_fate(backup_writer_id(writer), "20261122-233140F");
    if (!backup_writer_finish_data(writer, fate, err) || !backup_writer_commit(writer, fate, err))
        return false;
    if (fate_out != NULL)
        *fate_out = take(&fate);
    return true;
}

bool
test_backup(Repository *repository, const char *scratch, const TestFile *files, size_t count,
            BackupId *bid_out, CairnError *err)
{
    SCOPED(BackupWriter) writer = test_backup_begin(repository, scratch, 1, err);
    if (writer == NULL)
        return false;
    if (bid_out != NULL)
        *bid_out = *backup_writer_id(writer);
    return test_backup_write(writer, files, count, 1, err) && test_backup_commit(writer, NULL, err);
}

/* Units of data runs, read through one open pack and its last frame. */
typedef struct {
    Repository *repository;
    PackReader *pack;
    BackupId creator;
    uint32_t pack_number;
    CodecContext *codec;
    uint8_t *scratch, *raw;
    uint32_t frame, first_slot, slot_count;
} UnitReader;

static const uint8_t *
read_slot(UnitReader *reader, const BackupId *creator, uint32_t pack, uint32_t slot)
{
    CairnError err = {0};
    if (reader->pack == NULL || reader->pack_number != pack ||
        !backup_id_equal(&reader->creator, creator)) {
        pack_reader_free(reader->pack);
        reader->pack = pack_open(reader->repository, "main", creator, pack, &err);
        assert_non_null(reader->pack);
        assert_true(pack_scrub(reader->pack, &err));
        reader->pack_number = pack;
        reader->creator = *creator;
        reader->slot_count = 0;
    }
    if (slot < reader->first_slot || slot >= reader->first_slot + reader->slot_count) {
        assert_true(pack_find(reader->pack, slot, &reader->frame, &reader->first_slot,
                              &reader->slot_count, &err));
        assert_true(pack_read_frame(reader->pack, reader->frame, reader->codec, reader->scratch,
                                    reader->raw, &err));
    }
    return reader->raw + (size_t)(slot - reader->first_slot) * UNIT_SIZE;
}

static void
compare_run(UnitReader *reader, const BackupId *creator, const TestFile *file, const MapRun *run,
            uint64_t first_unit)
{
    uint8_t expected[UNIT_SIZE];
    static const uint8_t zeros[UNIT_SIZE];
    for (uint64_t i = 0; i < run->units; i++) {
        test_file_unit(file, first_unit + i, expected);
        const uint8_t *found =
            run->is_zero ? zeros : read_slot(reader, creator, run->pack, run->slot + (uint32_t)i);
        if (memcmp(found, expected, UNIT_SIZE) != 0)
            fail_msg("'%s': unit %llu differs", file->path, (unsigned long long)(first_unit + i));
    }
}

static void
compare_file(UnitReader *reader, MapReader *map, const MapEntry *entry, const TestFile *file)
{
    CairnError err = {0};
    assert_int_equal(entry->class, file->class);
    assert_string_equal(entry->path, file->path);
    assert_int_equal(entry->type, file->is_directory ? MAP_DIRECTORY : MAP_FILE);
    assert_int_equal(entry->mode, file->mode);
    assert_int_equal(entry->size_bytes, file->is_directory ? 0 : file->size_bytes);
    uint64_t unit = 0;
    for (;;) {
        const MapRun *runs;
        size_t count;
        uint64_t first_unit;
        assert_true(map_reader_region(map, &runs, &count, &first_unit, &err));
        if (count == 0)
            break;
        assert_int_equal(first_unit, unit);
        for (size_t i = 0; i < count; i++) {
            const BackupId *creator =
                runs[i].is_zero ? NULL : map_reader_creator(map, runs[i].creator);
            compare_run(reader, creator, file, &runs[i], unit);
            unit += runs[i].units;
        }
    }
    assert_int_equal(unit, units_of_size(file->is_directory ? 0 : file->size_bytes));
}

static int
by_key(const void *a, const void *b)
{
    const TestFile *left = a, *right = b;
    return left->class != right->class ? (int)left->class - (int)right->class
                                       : strcmp(left->path, right->path);
}

void
test_backup_compare(Repository *repository, const Fate *fate, TestFile *files, size_t count)
{
    CairnError err = {0};
    SCOPED(CodecContext) codec = codec_open(CODEC_NONE, 0, &err);
    SCOPED_MEMORY uint8_t *scratch = malloc(FRAME_SIZE + 4096);
    SCOPED_MEMORY uint8_t *raw = malloc(FRAME_SIZE);
    assert_true(codec != NULL && scratch != NULL && raw != NULL);
    UnitReader reader = {.repository = repository, .codec = codec, .scratch = scratch, .raw = raw};
    SCOPED(MapReader) map = map_reader_open(repository, "main", &fate->map_root, &err);
    assert_non_null(map);
    qsort(files, count, sizeof *files, by_key);
    MapEntry entry;
    bool found;
    for (size_t i = 0; i < count; i++) {
        assert_true(map_reader_next(map, &entry, &found, &err));
        assert_true(found);
        compare_file(&reader, map, &entry, &files[i]);
    }
    assert_true(map_reader_next(map, &entry, &found, &err));
    assert_false(found);
    pack_reader_free(reader.pack);
}
