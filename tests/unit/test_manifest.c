#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/bytes.h"
#include "common/digest.h"
#include "postgres/manifest.h"

#define V1 "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n"
#define V2                                                                                         \
    "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 18446744073709551615,\n"
#define FILES "\"Files\": ["
#define STAMP "\"Last-Modified\": \"2026-11-23 06:14:07 GMT\""
#define CRC(hex) "\"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"" hex "\""
#define FILE_A "{ \"Path\": \"backup_label\", \"Size\": 225, " STAMP ", " CRC("4d5a8bb5") " }"
#define FILE_B "{ \"Path\": \"base/5/3997\", \"Size\": 8192, " STAMP ", " CRC("ad6caf12") " }"
#define FILE_C "{ \"Encoded-Path\": \"636166e9\", \"Size\": 1, " STAMP ", " CRC("90dc575b") " }"
#define RANGES "\n],\n\"WAL-Ranges\": [\n"
#define RANGE "{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }"
#define END "\n],\n"
#define TAIL RANGES RANGE END
#define GOOD V1 FILES "\n" FILE_A ",\n" FILE_B ",\n" FILE_C TAIL

/* body and its own checksum line, as text with a NUL behind it. */
static void
seal(ByteWriter *manifest, const char *body, size_t size)
{
    uint8_t digest[SHA256_SIZE];
    char hex[2 * SHA256_SIZE + 1];
    CairnError err = {0};
    assert_true(sha256_of(body, size, digest, &err));
    hex_encode(hex, digest, sizeof digest);
    byte_writer_bytes(manifest, body, size);
    byte_writer_bytes(manifest, "\"Manifest-Checksum\": \"", 22);
    byte_writer_bytes(manifest, hex, sizeof hex - 1);
    byte_writer_bytes(manifest, "\"}\n", 3);
}

/* What the callback saw: "path size crc;" */
static bool
collect(void *context, const ManifestFile *file, CairnError *err)
{
    ByteWriter *seen = context;
    char text[1200];
    assert_int_equal(strlen(file->path), file->path_size);
    const int size =
        snprintf(text, sizeof text, "%s %llu ", file->path, (unsigned long long)file->size_bytes);
    byte_writer_bytes(seen, text, (size_t)size);
    if (file->has_crc32c)
        byte_writer_bytes(seen, text,
                          (size_t)snprintf(text, sizeof text, "%08x", (unsigned)file->crc32c));
    byte_writer_u8(seen, ';');
    return strcmp(file->path, "stop here") != 0 || cairn_error(err, CAIRN_CANCELLED, "stop");
}

/* Feeds pieces of 1 to limit bytes (0: all at once), each in memory of its own size. */
static bool
feed(ManifestReader *reader, const void *data, size_t size, size_t limit, CairnError *err)
{
    static uint32_t seed = 7;
    const uint8_t *bytes = data;
    while (size > 0) {
        seed = seed * 1103515245 + 12345;
        size_t piece = limit == 0 ? size : 1 + (seed >> 8) % limit;
        piece = piece < size ? piece : size;
        uint8_t *copy = malloc(piece);
        assert_non_null(copy);
        memcpy(copy, bytes, piece);
        const bool good = manifest_reader_feed(reader, copy, piece, err);
        free(copy);
        if (!good)
            return false;
        bytes += piece;
        size -= piece;
    }
    return true;
}

static CairnErrorKind
read_bytes(const void *data, size_t size, size_t limit, ByteWriter *seen)
{
    CairnError err = {0};
    SCOPED(ManifestReader) reader = manifest_reader_new(collect, seen, &err);
    assert_non_null(reader);
    const bool good = feed(reader, data, size, limit, &err) && manifest_reader_finish(reader, &err);
    assert_int_equal(good, err.kind == CAIRN_OK);
    if (!good) {
        CairnError again = {0};
        assert_false(manifest_reader_feed(reader, "\n", 1, &again));
        assert_string_equal(again.message, err.message);
        CairnError at_finish = {0};
        assert_false(manifest_reader_finish(reader, &at_finish));
        assert_string_equal(at_finish.message, err.message);
    }
    byte_writer_u8(seen, '\0');
    return err.kind;
}

static CairnErrorKind
kind_of_bytes(const void *data, size_t size)
{
    SCOPED_BYTES ByteWriter seen = {0};
    return read_bytes(data, size, 0, &seen);
}

static CairnErrorKind
kind_of_body(const char *body)
{
    SCOPED_BYTES ByteWriter manifest = {0};
    seal(&manifest, body, strlen(body));
    return kind_of_bytes(manifest.data, manifest.size);
}

static void
test_manifest_reader_shows_files_however_the_bytes_come(void **state)
{
    (void)state;
    SCOPED_BYTES ByteWriter manifest = {0};
    seal(&manifest, GOOD, sizeof GOOD - 1);
    static const size_t limits[] = {0, 1, 2, 10, 100, 200, 500};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        SCOPED_BYTES ByteWriter seen = {0};
        assert_int_equal(read_bytes(manifest.data, manifest.size, limits[i], &seen), CAIRN_OK);
        assert_string_equal((const char *)seen.data, "backup_label 225 b58b5a4d;"
                                                     "base/5/3997 8192 12af6cad;"
                                                     "caf\xe9 1 5b57dc90;");
    }
}

static void
test_manifest_reader_reports_the_frame(void **state)
{
    (void)state;
    static const char body[] =
        V2 FILES "\n" FILE_A RANGES
                 "{ \"Timeline\": 7, \"Start-LSN\": \"1/0\", \"End-LSN\": \"1A/FFFFFFFF\" },\n"
                 "{ \"Timeline\": 5, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"1/0\" }" END;
    SCOPED_BYTES ByteWriter manifest = {0};
    seal(&manifest, body, sizeof body - 1);

    SCOPED_BYTES ByteWriter seen = {0};
    CairnError err = {0};
    SCOPED(ManifestReader) reader = manifest_reader_new(collect, &seen, &err);
    assert_true(manifest_reader_feed(reader, manifest.data, manifest.size, &err));
    assert_true(manifest_reader_finish(reader, &err));
    assert_int_equal(manifest_reader_version(reader), 2);
    assert_true(manifest_reader_system_id(reader) == UINT64_MAX);

    const ManifestWalRange *ranges;
    assert_int_equal(manifest_reader_wal_ranges(reader, &ranges), 2);
    assert_int_equal(ranges[0].timeline, 7);
    assert_true(ranges[0].start_lsn == UINT64_C(0x100000000));
    assert_true(ranges[0].end_lsn == UINT64_C(0x1affffffff));
    assert_int_equal(ranges[1].timeline, 5);
    assert_true(ranges[1].start_lsn == 0x2000028);

    uint8_t digest[SHA256_SIZE];
    uint8_t expected[SHA256_SIZE];
    manifest_reader_digest(reader, digest);
    assert_true(sha256_of(body, sizeof body - 1, expected, &err));
    assert_memory_equal(digest, expected, sizeof digest);
}

static void
test_manifest_reader_decodes_every_kind_of_name(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        const char *path;
    } cases[] = {
        {"\"Path\": \"dir with \\\"quote/b\\\\sl\"", "dir with \"quote/b\\sl"},
        {"\"Path\": \"nl\\nname\\r\\t\\b\\f\"", "nl\nname\r\t\b\f"},
        {"\"Path\": \"tab\\u0001del\x7f\"", "tab\001del\x7f"},
        {"\"Path\": \"a\\/b\"", "a/b"},
        {"\"Path\": \"\\u00fc\\u20ac\\ud83d\\ude00\"", "ü€😀"},
        {"\"Path\": \"ü€😀\"", "ü€😀"},
        {"\"Encoded-Path\": \"636166e9\"", "caf\xe9"},
        {"\"Encoded-Path\": \"22\"", "\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[1024];
        char expected[256];
        snprintf(body, sizeof body, "%s{ %s, \"Size\": 0, %s }%s", V1 FILES "\n", cases[i].json,
                 STAMP, TAIL);
        snprintf(expected, sizeof expected, "%s 0 ;", cases[i].path);
        SCOPED_BYTES ByteWriter manifest = {0};
        SCOPED_BYTES ByteWriter seen = {0};
        seal(&manifest, body, strlen(body));
        assert_int_equal(read_bytes(manifest.data, manifest.size, 0, &seen), CAIRN_OK);
        assert_string_equal((const char *)seen.data, expected);
    }
}

static void
test_manifest_reader_refuses_bad_files(void **state)
{
    (void)state;
#define REST "\"Size\": 1, " STAMP " }"
#define SHA256_64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    static const char *const files[] = {
        "{ }",
        "{",
        "[]",
        "17",
        "{ \"Path\": \"a\", " STAMP " }",
        "{ \"Path\": \"a\", \"Size\": 1 }",
        "{ " REST,
        /* names */
        "{ \"Path\": \"\", " REST,
        "{ \"Path\": \"/etc/passwd\", " REST,
        "{ \"Path\": \"../a\", " REST,
        "{ \"Path\": \"a/../b\", " REST,
        "{ \"Path\": \"./a\", " REST,
        "{ \"Path\": \"a//b\", " REST,
        "{ \"Path\": \"a\\u0000b\", " REST,
        "{ \"Path\": \"a\tb\", " REST,
        "{ \"Path\": \"caf\xe9\", " REST,
        "{ \"Path\": \"\xc0\xaf\", " REST,
        "{ \"Path\": \"\xed\xa0\x80\", " REST,
        "{ \"Path\": \"\\ud83d\", " REST,
        "{ \"Path\": \"\\ud83dx\", " REST,
        "{ \"Path\": \"\\ud83d\\u0041\", " REST,
        "{ \"Path\": \"\\ude00\", " REST,
        "{ \"Path\": \"\\u12g4\", " REST,
        "{ \"Path\": \"\\x\", " REST,
        "{ \"Path\": \"a, " REST,
        "{ \"Path\": 1, " REST,
        "{ \"Path\": [\"a\"], " REST,
        "{ \"Path\": {\"a\": {\"b\": {}}}, " REST,
        "{ \"Path\": null, " REST,
        "{ \"Encoded-Path\": \"\", " REST,
        "{ \"Encoded-Path\": \"6\", " REST,
        "{ \"Encoded-Path\": \"6x\", " REST,
        "{ \"Encoded-Path\": \"6100\", " REST,
        "{ \"Encoded-Path\": \"2e2e2f61\", " REST,
        /* keys */
        "{ \"Path\": \"a\", \"Path\": \"a\", " REST,
        "{ \"Path\": \"a\", \"Encoded-Path\": \"61\", " REST,
        "{ \"Path\": \"a\", \"Size\": 1, " REST,
        "{ \"Path\": \"a\", " STAMP ", " REST,
        "{ \"path\": \"a\", " REST,
        "{ \"Path\": \"a\", \"Mode\": 7, " REST,
        "{ \"Path\": \"a\", \"Size\\u0000x\": 1, " REST,
        "{ \"Path\": \"a\" " REST,
        "{ \"Path\": \"a\",, " REST,
        "{ \"Path\" \"a\", " REST,
        "{ Path: \"a\", " REST,
        "{ \"Path\": \"a\", \"Size\": 1, " STAMP ", }",
        "{ \"Path\": \"a\", " REST "}",
        "{ \"Path\": \"a\", " REST ", {",
        /* numbers */
        "{ \"Path\": \"a\", \"Size\": -1, " STAMP " }",
        "{ \"Path\": \"a\", \"Size\": 01, " STAMP " }",
        "{ \"Path\": \"a\", \"Size\": 1.0, " STAMP " }",
        "{ \"Path\": \"a\", \"Size\": 1e3, " STAMP " }",
        "{ \"Path\": \"a\", \"Size\": , " STAMP " }",
        "{ \"Path\": \"a\", \"Size\": \"1\", " STAMP " }",
        "{ \"Path\": \"a\", \"Size\": 18446744073709551616, " STAMP " }",
        "{ \"Path\": \"a\", \"Size\": 99999999999999999999999999999, " STAMP " }",
        /* checksums */
        "{ \"Path\": \"a\", \"Checksum\": \"4d5a8bb5\", " REST,
        "{ \"Path\": \"a\", \"Checksum-Algorithm\": \"CRC32C\", " REST,
        "{ \"Path\": \"a\", " CRC("4d5a8bb") ", " REST,
        "{ \"Path\": \"a\", " CRC("4d5a8bb5a") ", " REST,
        "{ \"Path\": \"a\", " CRC("4d5a8bbx") ", " REST,
        "{ \"Path\": \"a\", " CRC(SHA256_64) ", " REST,
        "{ \"Path\": \"a\", \"Checksum-Algorithm\": \"MD5\", \"Checksum\": \"00\", " REST,
        "{ \"Path\": \"a\", \"Checksum-Algorithm\": \"SHA256\", \"Checksum\": \"00\", " REST,
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char body[1024];
        snprintf(body, sizeof body, "%s%s%s", V1 FILES "\n", files[i], TAIL);
        if (kind_of_body(body) != CAIRN_CORRUPT)
            fail_msg("accepted case %zu: %s", i, files[i]);
    }
    assert_int_equal(kind_of_body(V1 FILES
                                  "\n{ \"Path\": \"a\", \"Checksum-Algorithm\": \"SHA256\", "
                                  "\"Checksum\": \"" SHA256_64 "\", " REST TAIL),
                     CAIRN_OK);
}

static void
test_manifest_reader_refuses_bad_frames(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "",
        "\n",
        "{ }\n",
        FILES "\n" FILE_A TAIL,
        "{ \"PostgreSQL-Backup-Manifest-Version\": \"1\",\n" FILES "\n" FILE_A TAIL,
        "{ \"PostgreSQL-Backup-Manifest-Version\": 1\n" FILES "\n" FILE_A TAIL,
        V1 V1 FILES "\n" FILE_A TAIL,
        /* system identifiers */
        V1 "\"System-Identifier\": 1,\n" FILES "\n" FILE_A TAIL,
        V2 "\"System-Identifier\": 1,\n" FILES "\n" FILE_A TAIL,
        "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n" FILES "\n" FILE_A TAIL,
        "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 0,\n" FILES
        "\n" FILE_A TAIL,
        "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": "
        "18446744073709551616,\n" FILES "\n" FILE_A TAIL,
        /* lists */
        V1 FILES "\n" FILE_A ",\n" FILE_B ",\n" RANGES RANGE END,
        V1 FILES "\n" FILE_A "\n" FILE_B TAIL,
        V1 FILES "\n" FILE_A ",\n\n" FILE_B TAIL,
        V1 FILES "\n" FILE_A ", " FILE_B TAIL,
        V1 FILES FILE_A TAIL,
        V1 FILES "\n" FILE_A "\n],\n" FILES "\n" FILE_B TAIL,
        V1 FILES "\n" FILE_A "\n]\n\"WAL-Ranges\": [\n" RANGE END,
        V1 "\"Extra\": 1,\n" FILES "\n" FILE_A TAIL,
        V1 FILES "\n" FILE_A "\n],\n\"Extra\": [\n" RANGE END,
        V1 FILES "\n" FILE_A "\n],\n",
        V1 FILES "\n" FILE_A TAIL "\"WAL-Ranges\": [\n" RANGE END,
        /* WAL ranges */
        V1 FILES "\n" FILE_A "\n],\n\"WAL-Ranges\": [\n],\n",
        V1 FILES "\n" FILE_A RANGES RANGE "," END,
        V1 FILES "\n" FILE_A RANGES RANGE ",\n" RANGE END,
        V1 FILES "\n" FILE_A RANGES "{ \"Timeline\": 1, \"Start-LSN\": \"0/2\" }" END,
        V1 FILES "\n" FILE_A RANGES
                 "{ \"Timeline\": 0, \"Start-LSN\": \"0/2\", \"End-LSN\": \"0/3\" }" END,
        V1 FILES "\n" FILE_A RANGES
                 "{ \"Timeline\": 4294967296, \"Start-LSN\": \"0/2\", \"End-LSN\": \"0/3\" }" END,
        V1 FILES "\n" FILE_A RANGES
                 "{ \"Timeline\": 1, \"Start-LSN\": \"0/4\", \"End-LSN\": \"0/3\" }" END,
        V1 FILES "\n" FILE_A RANGES
                 "{ \"Timeline\": 1, \"Start-LSN\": \"0/0\", \"End-LSN\": \"0/3\" }" END,
        V1 FILES "\n" FILE_A RANGES
                 "{ \"Timeline\": 1, \"Start-LSN\": \"0/2\", \"End-LSN\": \"0/3x\" }" END,
        V1 FILES "\n" FILE_A RANGES "{ \"Timeline\": 1, \"Timeline\": 1, \"Start-LSN\": \"0/2\", "
                 "\"End-LSN\": \"0/3\" }" END,
        /* the older range does not end where the newer one starts; the timelines rise */
        V1 FILES "\n" FILE_A RANGES
                 "{ \"Timeline\": 2, \"Start-LSN\": \"0/5\", \"End-LSN\": \"0/9\" },\n"
                 "{ \"Timeline\": 1, \"Start-LSN\": \"0/2\", \"End-LSN\": \"0/4\" }" END,
        V1 FILES "\n" FILE_A RANGES
                 "{ \"Timeline\": 1, \"Start-LSN\": \"0/5\", \"End-LSN\": \"0/9\" },\n"
                 "{ \"Timeline\": 2, \"Start-LSN\": \"0/2\", \"End-LSN\": \"0/5\" }" END,
    };
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        if (kind_of_body(bodies[i]) != CAIRN_CORRUPT)
            fail_msg("accepted case %zu: %s", i, bodies[i]);
    }
}

static void
test_manifest_reader_knows_versions_1_and_2_only(void **state)
{
    (void)state;
    assert_int_equal(kind_of_body(V1 FILES "\n" FILE_A TAIL), CAIRN_OK);
    assert_int_equal(kind_of_body(V2 FILES "\n" FILE_A TAIL), CAIRN_OK);
    assert_int_equal(
        kind_of_body("{ \"PostgreSQL-Backup-Manifest-Version\": 3,\n" FILES "\n" FILE_A TAIL),
        CAIRN_UNSUPPORTED);
    assert_int_equal(
        kind_of_body("{ \"PostgreSQL-Backup-Manifest-Version\": 0,\n" FILES "\n" FILE_A TAIL),
        CAIRN_UNSUPPORTED);
}

static void
test_manifest_reader_accepts_a_list_without_files(void **state)
{
    (void)state;
    assert_int_equal(kind_of_body(V1 FILES TAIL), CAIRN_OK);
}

static void
test_manifest_reader_notices_every_changed_byte(void **state)
{
    (void)state;
    SCOPED_BYTES ByteWriter manifest = {0};
    seal(&manifest, GOOD, sizeof GOOD - 1);
    for (size_t i = 0; i < manifest.size; i++) {
        for (int bit = 0; bit < 8; bit++) {
            manifest.data[i] ^= (uint8_t)(1 << bit);
            assert_int_not_equal(kind_of_bytes(manifest.data, manifest.size), CAIRN_OK);
            manifest.data[i] ^= (uint8_t)(1 << bit);
        }
    }
    assert_int_equal(kind_of_bytes(manifest.data, manifest.size), CAIRN_OK);
}

static void
test_manifest_reader_refuses_every_truncation(void **state)
{
    (void)state;
    SCOPED_BYTES ByteWriter manifest = {0};
    seal(&manifest, GOOD, sizeof GOOD - 1);
    for (size_t size = 0; size < manifest.size; size++)
        assert_int_equal(kind_of_bytes(manifest.data, size), CAIRN_CORRUPT);
}

static void
test_manifest_reader_refuses_a_missing_or_wrong_checksum_line(void **state)
{
    (void)state;
    static const char *const ends[] = {
        "",
        "}\n",
        "\"Manifest-Checksum\": \"\"}\n",
        "\"Manifest-Checksum\": \"" SHA256_64 "\"}\n",
        "\"Manifest-Checksum\": \"" SHA256_64 "00\"}\n",
        "\"Manifest-Checksum\": 0}\n",
    };
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        char text[2048];
        const int size = snprintf(text, sizeof text, "%s%s", GOOD, ends[i]);
        assert_int_equal(kind_of_bytes(text, (size_t)size), CAIRN_CORRUPT);
    }
}

static void
test_manifest_reader_refuses_what_follows_the_checksum(void **state)
{
    (void)state;
    static const char *const tails[] = {"\n", " ", "x", "\"Manifest-Checksum\": \"\"}\n", "}"};
    for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
        SCOPED_BYTES ByteWriter manifest = {0};
        seal(&manifest, GOOD, sizeof GOOD - 1);
        byte_writer_bytes(&manifest, tails[i], strlen(tails[i]));
        assert_int_equal(kind_of_bytes(manifest.data, manifest.size), CAIRN_CORRUPT);
    }
}

static void
test_manifest_reader_limits_lines(void **state)
{
    (void)state;
    static const char head[] = V1 FILES "\n" FILE_A;
    static const char tail[] = TAIL;
    for (size_t line_size = MANIFEST_LINE_LIMIT; line_size <= MANIFEST_LINE_LIMIT + 1;
         line_size++) {
        SCOPED_BYTES ByteWriter body = {0};
        byte_writer_bytes(&body, head, sizeof head - 1);
        for (size_t i = sizeof FILE_A - 1; i < line_size; i++)
            byte_writer_u8(&body, ' ');
        byte_writer_bytes(&body, tail, sizeof tail - 1);
        SCOPED_BYTES ByteWriter manifest = {0};
        seal(&manifest, (const char *)body.data, body.size);
        const CairnErrorKind expected = line_size == MANIFEST_LINE_LIMIT ? CAIRN_OK : CAIRN_CORRUPT;
        for (size_t limit = 0; limit <= 1000; limit += 500) {
            SCOPED_BYTES ByteWriter seen = {0};
            assert_int_equal(read_bytes(manifest.data, manifest.size, limit, &seen), expected);
        }
    }
}

static void
test_manifest_reader_limits_names(void **state)
{
    (void)state;
    for (size_t name_size = 1024; name_size <= 1025; name_size++) {
        char name[1100];
        char body[2048];
        memset(name, 'n', name_size);
        name[name_size] = '\0';
        snprintf(body, sizeof body, "%s{ \"Path\": \"%s\", %s%s", V1 FILES "\n", name, REST, TAIL);
        assert_int_equal(kind_of_body(body), name_size == 1024 ? CAIRN_OK : CAIRN_CORRUPT);
    }
}

static void
test_manifest_reader_hands_on_the_callbacks_error(void **state)
{
    (void)state;
    assert_int_equal(kind_of_body(V1 FILES "\n{ \"Path\": \"stop here\", " REST TAIL),
                     CAIRN_CANCELLED);
}

/* Rewriting. */

typedef struct {
    ByteWriter output;
    const char *drop;
    const char *replace;
} Rewriting;

static ManifestVerdict
change(void *context, const ManifestFile *file, ManifestFile *replacement_out)
{
    const Rewriting *rewriting = context;
    if (rewriting->drop != NULL &&
        (strcmp(rewriting->drop, "*") == 0 || strcmp(rewriting->drop, file->path) == 0)) {
        return MANIFEST_DROP;
    }
    if (rewriting->replace != NULL && strcmp(rewriting->replace, file->path) == 0) {
        replacement_out->size_bytes = 4711;
        replacement_out->has_crc32c = true;
        replacement_out->crc32c = 0x01020304;
        return MANIFEST_REPLACE;
    }
    return MANIFEST_KEEP;
}

static bool
sink(void *context, const void *data, size_t size, CairnError *err)
{
    (void)err;
    byte_writer_bytes(&((Rewriting *)context)->output, data, size);
    return true;
}

static CairnErrorKind
rewrite(Rewriting *rewriting, const char *body, const ManifestFile *added, size_t added_count)
{
    SCOPED_BYTES ByteWriter manifest = {0};
    seal(&manifest, body, strlen(body));
    CairnError err = {0};
    SCOPED(ManifestRewriter) rewriter = manifest_rewriter_new(change, sink, rewriting, &err);
    assert_non_null(rewriter);
    for (size_t i = 0; i < added_count; i++)
        assert_true(manifest_rewriter_add(rewriter, &added[i], 1795414447, &err));
    for (size_t i = 0; i < manifest.size; i += 33) {
        const size_t left = manifest.size - i;
        if (!manifest_rewriter_feed(rewriter, manifest.data + i, left < 33 ? left : 33, &err))
            return err.kind;
    }
    return manifest_rewriter_finish(rewriter, &err) ? CAIRN_OK : err.kind;
}

/* The result is body with its right checksum, and the reader agrees. */
static void
assert_rewritten(Rewriting *rewriting, const char *body)
{
    SCOPED_BYTES ByteWriter expected = {0};
    seal(&expected, body, strlen(body));
    byte_writer_u8(&expected, '\0');
    byte_writer_u8(&rewriting->output, '\0');
    assert_string_equal((const char *)rewriting->output.data, (const char *)expected.data);
    assert_int_equal(kind_of_bytes(rewriting->output.data, rewriting->output.size - 1), CAIRN_OK);
    byte_writer_free(&rewriting->output);
}

static void
test_manifest_rewriter_changes_nothing_unasked(void **state)
{
    (void)state;
    static const char *const bodies[] = {GOOD, V2 FILES "\n" FILE_A TAIL};
    for (size_t i = 0; i < 2; i++) {
        Rewriting rewriting = {0};
        assert_int_equal(rewrite(&rewriting, bodies[i], NULL, 0), CAIRN_OK);
        assert_rewritten(&rewriting, bodies[i]);
    }
}

static void
test_manifest_rewriter_drops_first_last_and_all(void **state)
{
    (void)state;
    static const struct {
        const char *drop;
        const char *result;
    } cases[] = {
        {"backup_label", V1 FILES "\n" FILE_B ",\n" FILE_C TAIL},
        {"base/5/3997", V1 FILES "\n" FILE_A ",\n" FILE_C TAIL},
        {"caf\xe9", V1 FILES "\n" FILE_A ",\n" FILE_B TAIL},
        {"*", V1 FILES TAIL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Rewriting rewriting = {.drop = cases[i].drop};
        assert_int_equal(rewrite(&rewriting, GOOD, NULL, 0), CAIRN_OK);
        assert_rewritten(&rewriting, cases[i].result);
    }
}

static void
test_manifest_rewriter_replaces_size_and_checksum(void **state)
{
    (void)state;
    Rewriting rewriting = {.replace = "caf\xe9"};
    assert_int_equal(rewrite(&rewriting, GOOD, NULL, 0), CAIRN_OK);
    assert_rewritten(&rewriting,
                     V1 FILES "\n" FILE_A ",\n" FILE_B ",\n{ \"Encoded-Path\": \"636166e9\", "
                              "\"Size\": 4711, " STAMP ", " CRC("04030201") " }" TAIL);
}

static void
test_manifest_rewriter_adds_files_of_any_name(void **state)
{
    (void)state;
    static const ManifestFile added[] = {
        {.path = "a\"\\\n\001ü", .path_size = 7, .size_bytes = 1, .has_crc32c = true, .crc32c = 1},
        {.path = "\xe9", .path_size = 1, .size_bytes = UINT64_MAX},
    };
    static const char *const bodies[] = {V1 FILES "\n" FILE_A, V1 FILES};
    for (size_t i = 0; i < 2; i++) {
        char body[1024];
        char expected[2048];
        Rewriting rewriting = {0};
        snprintf(body, sizeof body, "%s%s", bodies[i], TAIL);
        snprintf(
            expected, sizeof expected, "%s%s%s%s", bodies[i], i == 0 ? ",\n" : "\n",
            "{ \"Path\": \"a\\\"\\\\\\u000a\\u0001ü\", \"Size\": 1, " STAMP ", " CRC(
                "01000000") " },\n"
                            "{ \"Encoded-Path\": \"e9\", \"Size\": 18446744073709551615, " STAMP
                            " }",
            TAIL);
        assert_int_equal(rewrite(&rewriting, body, added, 2), CAIRN_OK);
        assert_rewritten(&rewriting, expected);
    }
}

static void
test_manifest_rewriter_refuses_a_new_file_that_is_there(void **state)
{
    (void)state;
    static const ManifestFile added = {.path = "backup_label", .path_size = 12};
    Rewriting rewriting = {0};
    assert_int_equal(rewrite(&rewriting, GOOD, &added, 1), CAIRN_CONFLICT);
    byte_writer_free(&rewriting.output);

    Rewriting replacing = {.drop = "backup_label"};
    assert_int_equal(rewrite(&replacing, GOOD, &added, 1), CAIRN_OK);
    byte_writer_free(&replacing.output);
}

static void
test_manifest_rewriter_refuses_bad_new_names(void **state)
{
    (void)state;
    static const char *const names[] = {"", "/x", "../x", "a//b"};
    Rewriting rewriting = {0};
    CairnError err = {0};
    SCOPED(ManifestRewriter) rewriter = manifest_rewriter_new(change, sink, &rewriting, &err);
    for (size_t i = 0; i < 4; i++) {
        CairnError refusal = {0};
        const ManifestFile file = {.path = names[i], .path_size = strlen(names[i])};
        assert_false(manifest_rewriter_add(rewriter, &file, 0, &refusal));
    }
}

static void
test_manifest_rewriter_refuses_a_damaged_manifest(void **state)
{
    (void)state;
    Rewriting rewriting = {0};
    assert_int_equal(rewrite(&rewriting, V1 FILES "\n" FILE_A ",\n" RANGES RANGE END, NULL, 0),
                     CAIRN_CORRUPT);
    byte_writer_free(&rewriting.output);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_manifest_reader_shows_files_however_the_bytes_come),
        cmocka_unit_test(test_manifest_reader_reports_the_frame),
        cmocka_unit_test(test_manifest_reader_decodes_every_kind_of_name),
        cmocka_unit_test(test_manifest_reader_refuses_bad_files),
        cmocka_unit_test(test_manifest_reader_refuses_bad_frames),
        cmocka_unit_test(test_manifest_reader_knows_versions_1_and_2_only),
        cmocka_unit_test(test_manifest_reader_accepts_a_list_without_files),
        cmocka_unit_test(test_manifest_reader_notices_every_changed_byte),
        cmocka_unit_test(test_manifest_reader_refuses_every_truncation),
        cmocka_unit_test(test_manifest_reader_refuses_a_missing_or_wrong_checksum_line),
        cmocka_unit_test(test_manifest_reader_refuses_what_follows_the_checksum),
        cmocka_unit_test(test_manifest_reader_limits_lines),
        cmocka_unit_test(test_manifest_reader_limits_names),
        cmocka_unit_test(test_manifest_reader_hands_on_the_callbacks_error),
        cmocka_unit_test(test_manifest_rewriter_changes_nothing_unasked),
        cmocka_unit_test(test_manifest_rewriter_drops_first_last_and_all),
        cmocka_unit_test(test_manifest_rewriter_replaces_size_and_checksum),
        cmocka_unit_test(test_manifest_rewriter_adds_files_of_any_name),
        cmocka_unit_test(test_manifest_rewriter_refuses_a_new_file_that_is_there),
        cmocka_unit_test(test_manifest_rewriter_refuses_bad_new_names),
        cmocka_unit_test(test_manifest_rewriter_refuses_a_damaged_manifest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
