/*
 * BASE_BACKUP against a server that is played by a thread: real libpq on our side, and on the other
 * any bytes that a broken or hostile server may send.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/bytes.h"
#include "common/cancel.h"
#include "postgres/basebackup.h"
#include "tests/unit/support/scratch.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* --- the server
 * ------------------------------------------------------------------------------------- */

typedef struct {
    int listener;
    pthread_t thread;
    ByteWriter answer; /* what follows the query */
    char query[4096];
} FakeServer;

static void
put_big_u32(ByteWriter *out, uint32_t value)
{
    byte_writer_u32(out, __builtin_bswap32(value));
}

static void
put_big_u16(ByteWriter *out, uint16_t value)
{
    byte_writer_u16(out, __builtin_bswap16(value));
}

static void
put_message(ByteWriter *out, char type, const void *body, size_t size)
{
    byte_writer_u8(out, (uint8_t)type);
    put_big_u32(out, (uint32_t)size + 4);
    byte_writer_bytes(out, body, size);
}

static bool
read_exactly(int fd, void *data, size_t size)
{
    for (size_t at = 0; at < size;) {
        const ssize_t got = read(fd, (char *)data + at, size - at);
        if (got <= 0)
            return false;
        at += (size_t)got;
    }
    return true;
}

static void
send_all(int fd, const ByteWriter *data)
{
    for (size_t at = 0; at < data->size;) {
        const ssize_t sent = send(fd, data->data + at, data->size - at, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        at += (size_t)sent;
    }
}

static void
greet(int client)
{
    SCOPED_BYTES ByteWriter hello = {0};
    put_message(&hello, 'R', "\0\0\0\0", 4);
    put_message(&hello, 'S',
                "server_version\0"
                "15.18",
                21);
    put_message(&hello, 'K', "\0\0\0\1\0\0\0\2", 8);
    put_message(&hello, 'Z', "I", 1);
    send_all(client, &hello);
}

/* Until the client goes; requests to cancel come on connections of their own and are hung up. */
static void
wait_for_end(int listener, int client)
{
    for (;;) {
        struct pollfd both[2] = {{.fd = client, .events = POLLIN},
                                 {.fd = listener, .events = POLLIN}};
        if (poll(both, 2, 10000) <= 0)
            return;
        if (both[1].revents != 0)
            close(accept(listener, NULL, NULL));
        char ignored[256];
        if (both[0].revents != 0 && read(client, ignored, sizeof ignored) <= 0)
            return;
    }
}

static void *
serve(void *context)
{
    FakeServer *server = context;
    const int client = accept(server->listener, NULL, NULL);
    uint32_t size = 0;
    char startup[4096];
    char type = 0;
    if (read_exactly(client, &size, 4) && __builtin_bswap32(size) < sizeof startup &&
        read_exactly(client, startup, __builtin_bswap32(size) - 4)) {
        greet(client);
        if (read_exactly(client, &type, 1) && type == 'Q' && read_exactly(client, &size, 4) &&
            __builtin_bswap32(size) < sizeof server->query &&
            read_exactly(client, server->query, __builtin_bswap32(size) - 4)) {
            send_all(client, &server->answer);
            wait_for_end(server->listener, client);
        }
    }
    close(client);
    return NULL;
}

/* Where the sockets are. */
static const char *
socket_directory(void)
{
    static const char *directory;
    if (directory == NULL)
        directory = scratch_directory();
    return directory;
}

static void
start_server(FakeServer *server)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s",
             scratch_path(socket_directory(), ".s.PGSQL.5432"));
    unlink(address.sun_path);
    server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(server->listener, 8), 0);
    assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
}

static void
end_server(FakeServer *server)
{
    assert_int_equal(pthread_join(server->thread, NULL), 0);
    close(server->listener);
    byte_writer_free(&server->answer);
}

/* --- what it says
 * ------------------------------------------------------------------------------------ */

static void
say_columns(FakeServer *server, int count)
{
    SCOPED_BYTES ByteWriter body = {0};
    put_big_u16(&body, (uint16_t)count);
    for (int i = 0; i < count; i++) {
        static const uint8_t TEXT_COLUMN[] = {0,  0,   0,   0,   0,   0,   0,   0, 0,
                                              25, 255, 255, 255, 255, 255, 255, 0, 0};
        byte_writer_bytes(&body, "c", 2);
        byte_writer_bytes(&body, TEXT_COLUMN, sizeof TEXT_COLUMN);
    }
    put_message(&server->answer, 'T', body.data, body.size);
}

static void
say_row(FakeServer *server, int count, const char *const *values)
{
    SCOPED_BYTES ByteWriter body = {0};
    put_big_u16(&body, (uint16_t)count);
    for (int i = 0; i < count; i++) {
        put_big_u32(&body, values[i] != NULL ? (uint32_t)strlen(values[i]) : UINT32_MAX);
        if (values[i] != NULL)
            byte_writer_bytes(&body, values[i], strlen(values[i]));
    }
    put_message(&server->answer, 'D', body.data, body.size);
}

static void
say_position(FakeServer *server, const char *lsn)
{
    say_columns(server, 2);
    say_row(server, 2, (const char *const[]){lsn, "1"});
    put_message(&server->answer, 'C', "SELECT", 7);
}

static void
say_tablespaces(FakeServer *server, const char *oid)
{
    say_columns(server, 3);
    if (oid != NULL)
        say_row(server, 3, (const char *const[]){oid, "/spaces/one", "4"});
    say_row(server, 3, (const char *const[]){NULL, NULL, "100"});
    put_message(&server->answer, 'C', "SELECT", 7);
}

static void
say_copy_begins(FakeServer *server)
{
    put_message(&server->answer, 'H', "\0\0\0", 3);
}

static void
say_archive(FakeServer *server, const char *name)
{
    SCOPED_BYTES ByteWriter body = {0};
    byte_writer_u8(&body, 'n');
    byte_writer_bytes(&body, name, strlen(name) + 1);
    byte_writer_bytes(&body, "", 1);
    put_message(&server->answer, 'd', body.data, body.size);
}

static void
say_data(FakeServer *server, char kind, const void *data, size_t size)
{
    SCOPED_BYTES ByteWriter body = {0};
    byte_writer_u8(&body, (uint8_t)kind);
    byte_writer_bytes(&body, data, size);
    put_message(&server->answer, 'd', body.data, body.size);
}

/* An archive with one file. */
static void
say_file(FakeServer *server, const char *name, char type)
{
    uint8_t archive[4 * TAR_BLOCK_SIZE] = {0};
    snprintf((char *)archive, 100, "%s", name);
    memcpy(archive + 100, "0000600 ", 8);
    memcpy(archive + 108, "0001750 0001750 ", 16);
    memcpy(archive + 124, type == '0' ? "00000000005 " : "00000000000 ", 12);
    memcpy(archive + 136, "14612345670 ", 12);
    memset(archive + 148, ' ', 8);
    archive[156] = (uint8_t)type;
    if (type == '2')
        memcpy(archive + 157, "/etc", 4);
    memcpy(archive + 257,
           "ustar\0"
           "00",
           8);
    unsigned sum = 0;
    for (size_t i = 0; i < TAR_BLOCK_SIZE; i++)
        sum += archive[i];
    char checksum[16];
    snprintf(checksum, sizeof checksum, "%07o ", sum);
    memcpy(archive + 148, checksum, 8);
    if (type == '0')
        memcpy(archive + TAR_BLOCK_SIZE, "hello", 5);
    say_data(server, 'd', archive, type == '0' ? sizeof archive : 3 * TAR_BLOCK_SIZE);
}

static void
say_end(FakeServer *server)
{
    put_message(&server->answer, 'c', "", 0);
    say_position(server, "0/3000100");
    put_message(&server->answer, 'C', "BASE_BACKUP", 12);
    put_message(&server->answer, 'Z', "I", 1);
}

static void
say_error(FakeServer *server, const char *sqlstate)
{
    SCOPED_BYTES ByteWriter body = {0};
    byte_writer_bytes(&body, "SERROR\0VERROR\0C", 15);
    byte_writer_bytes(&body, sqlstate, 6);
    byte_writer_bytes(&body, "Mit broke\0", 11);
    put_message(&server->answer, 'E', body.data, body.size);
    put_message(&server->answer, 'Z', "I", 1);
}

static void
say_beginning(FakeServer *server, const char *oid)
{
    say_position(server, "0/3000028");
    say_tablespaces(server, oid);
    say_copy_begins(server);
}

/* --- what we do with it
 * -------------------------------------------------------------------------------- */

typedef struct {
    char log[4096]; /* one word an event */
    uint64_t total_bytes;
    bool refuse_data;
} Received;

static void __attribute__((format(printf, 2, 3))) note(Received *received, const char *format, ...)
{
    const size_t size = strlen(received->log);
    va_list args;
    va_start(args, format);
    vsnprintf(received->log + size, sizeof received->log - size, format, args);
    va_end(args);
}

static bool
on_started(void *context, uint64_t start_lsn, uint32_t timeline, const Tablespace *tablespaces,
           size_t tablespace_count, uint64_t total_bytes, CairnError *err)
{
    (void)err;
    Received *received = context;
    received->total_bytes = total_bytes;
    note(received, "start:%llx/%u", (unsigned long long)start_lsn, timeline);
    for (size_t i = 0; i < tablespace_count; i++)
        note(received, " space:%u=%s", tablespaces[i].oid, tablespaces[i].path);
    return true;
}

static bool
on_member(void *context, const TarMember *member, CairnError *err)
{
    (void)err;
    note(context, " %s", member->path);
    return true;
}

static bool
on_data(void *context, const uint8_t *data, size_t size, CairnError *err)
{
    Received *received = context;
    if (received->refuse_data)
        return cairn_error(err, CAIRN_NO_SPACE, "full");
    note(received, "=%.*s", (int)size, (const char *)data);
    return true;
}

static bool
on_member_end(void *context, CairnError *err)
{
    (void)err;
    note(context, ";");
    return true;
}

static bool
on_manifest(void *context, const uint8_t *data, size_t size, CairnError *err)
{
    (void)err;
    note(context, " manifest:%.*s", (int)size, (const char *)data);
    return true;
}

static const BaseBackupCallbacks CALLBACKS = {on_started,    on_member,   on_data,
                                              on_member_end, on_manifest, NULL};

static bool
run(FakeServer *server, Received *received, BaseBackupResult *result, CairnError *err)
{
    start_server(server);
    char conninfo[256];
    snprintf(conninfo, sizeof conninfo, "host=%s port=5432 user=u sslmode=disable",
             socket_directory());
    SCOPED(Connection) connection = connection_open(conninfo, CONNECTION_REPLICATION, "test", err);
    assert_non_null(connection);
    const BaseBackupOptions options = {.label = "it's", .fast_checkpoint = true, .progress = true};
    const bool done = basebackup_run(connection, &options, &CALLBACKS, received, result, err);
    if (!done) {
        CairnError again = {0};
        assert_false(basebackup_run(connection, &options, &CALLBACKS, received, result, &again));
        assert_int_equal(again.kind, CAIRN_UNAVAILABLE);
    }
    return done;
}

static void
expect_refused(FakeServer *server, CairnErrorKind kind, const char *says)
{
    CairnError err = {0};
    Received received = {0};
    BaseBackupResult result;
    assert_false(run(server, &received, &result, &err));
    end_server(server);
    if (err.kind != kind || strstr(err.message, says) == NULL)
        fail_msg("'%s' (%s), not '%s'", err.message, cairn_error_kind_name(err.kind), says);
}

/* --- the claims
 * ------------------------------------------------------------------------------------------ */

static void
a_whole_backup_is_received_with_cluster_paths(void **state)
{
    (void)state;
    FakeServer server = {0};
    say_beginning(&server, "16384");
    say_archive(&server, "16384.tar");
    say_file(&server, "PG_15_202209061/5/16385", '0');
    say_data(&server, 'p', "\0\0\0\0\0\0\0\5", 8);
    say_archive(&server, "base.tar");
    say_file(&server, "backup_label", '0');
    say_data(&server, 'm', "", 0);
    say_data(&server, 'd', "{}", 2);
    say_end(&server);

    CairnError err = {0};
    Received received = {0};
    BaseBackupResult result = {0};
    assert_true(run(&server, &received, &result, &err));
    end_server(&server);
    assert_string_equal(
        received.log,
        "start:3000028/1 space:16384=/spaces/one "
        "pg_tblspc/16384/PG_15_202209061/5/16385=hello; backup_label=hello; manifest:{}");
    assert_int_equal(received.total_bytes, 104 * 1024);
    assert_int_equal(result.stop_lsn, 0x3000100);
    assert_int_equal(result.stop_timeline, 1);
    assert_false(result.checksum_error);
    assert_non_null(strstr(server.query, "LABEL 'it''s'"));
    assert_non_null(strstr(server.query, "WAIT 0"));
    assert_non_null(strstr(server.query, "VERIFY_CHECKSUMS true"));
}

static void
say_whole_stream(FakeServer *server)
{
    say_beginning(server, NULL);
    say_archive(server, "base.tar");
    say_file(server, "backup_label", '0');
    say_data(server, 'm', "", 0);
    say_data(server, 'd', "{}", 2);
    put_message(&server->answer, 'c', "", 0);
}

static void
checksum_failures_at_the_end_are_told_not_fatal(void **state)
{
    (void)state;
    FakeServer server = {0};
    say_whole_stream(&server);
    say_position(&server, "0/3000100");
    say_error(&server, "XX001");

    CairnError err = {0};
    Received received = {0};
    BaseBackupResult result = {0};
    assert_true(run(&server, &received, &result, &err));
    end_server(&server);
    assert_true(result.checksum_error);
    assert_int_equal(result.stop_lsn, 0x3000100);
}

static void
any_other_error_at_the_end_is_fatal(void **state)
{
    (void)state;
    FakeServer server = {0};
    say_whole_stream(&server);
    say_position(&server, "0/3000100");
    say_error(&server, "55000");
    expect_refused(&server, CAIRN_REFUSED, "it broke");
}

static void
xx001_before_the_end_is_fatal(void **state)
{
    (void)state;
    FakeServer server = {0};
    say_beginning(&server, NULL);
    say_archive(&server, "base.tar");
    say_error(&server, "XX001");
    expect_refused(&server, CAIRN_CORRUPT, "it broke");

    server = (FakeServer){0};
    say_whole_stream(&server);
    say_error(&server, "XX001");
    expect_refused(&server, CAIRN_CORRUPT, "it broke");
}

static void
archive_names_are_checked(void **state)
{
    (void)state;
    static const char *const NAMES[] = {
        "../base.tar", "base.tar.gz",    "16384.tar/..", "x.tar", ".tar", "16385.tar", "",
        "16384",       "99999999999.tar"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        FakeServer server = {0};
        say_beginning(&server, "16384");
        say_archive(&server, NAMES[i]);
        expect_refused(&server, CAIRN_CORRUPT, "archive");
    }
}

static void
every_archive_comes_once_and_base_last(void **state)
{
    (void)state;
    FakeServer server = {0};
    say_beginning(&server, "16384");
    say_archive(&server, "16384.tar");
    say_file(&server, "PG_15/5/1", '0');
    say_archive(&server, "16384.tar");
    expect_refused(&server, CAIRN_CORRUPT, "came twice");

    server = (FakeServer){0};
    say_beginning(&server, "16384");
    say_archive(&server, "base.tar");
    expect_refused(&server, CAIRN_CORRUPT, "no archive of tablespace 16384");

    server = (FakeServer){0};
    say_beginning(&server, NULL);
    say_archive(&server, "base.tar");
    say_file(&server, "backup_label", '0');
    say_archive(&server, "base.tar");
    expect_refused(&server, CAIRN_CORRUPT, "after base.tar");
}

static void
a_stream_that_is_cut_is_refused(void **state)
{
    (void)state;
    FakeServer server = {0};
    say_beginning(&server, NULL);
    say_archive(&server, "base.tar");
    say_file(&server, "backup_label", '0');
    say_end(&server);
    expect_refused(&server, CAIRN_CORRUPT, "before the manifest");

    server = (FakeServer){0};
    say_beginning(&server, NULL);
    say_archive(&server, "base.tar");
    say_data(&server, 'm', "", 0); /* an archive without its end */
    expect_refused(&server, CAIRN_CORRUPT, "");
}

static void
messages_out_of_place_are_refused(void **state)
{
    (void)state;
    FakeServer server = {0};
    say_beginning(&server, NULL);
    say_data(&server, 'd', "x", 1);
    expect_refused(&server, CAIRN_CORRUPT, "before its archive");

    server = (FakeServer){0};
    say_beginning(&server, NULL);
    say_data(&server, 'm', "", 0);
    expect_refused(&server, CAIRN_CORRUPT, "wrong place");

    server = (FakeServer){0};
    say_beginning(&server, NULL);
    say_data(&server, 'x', "", 0);
    expect_refused(&server, CAIRN_CORRUPT, "unknown message");

    server = (FakeServer){0};
    say_beginning(&server, NULL);
    say_archive(&server, "base.tar");
    say_file(&server, "pg_tblspc/16384", '2');
    expect_refused(&server, CAIRN_CORRUPT, "symbolic link");
}

static void
the_failure_of_a_callback_is_the_one_reported(void **state)
{
    (void)state;
    FakeServer server = {0};
    say_whole_stream(&server);
    CairnError err = {0};
    Received received = {.refuse_data = true};
    BaseBackupResult result;
    assert_false(run(&server, &received, &result, &err));
    end_server(&server);
    assert_int_equal(err.kind, CAIRN_NO_SPACE);
    assert_string_equal(err.message, "full");
}

static void
a_start_that_does_not_parse_is_refused(void **state)
{
    (void)state;
    FakeServer server = {0};
    say_position(&server, "3000028");
    expect_refused(&server, CAIRN_UNSUPPORTED, "not understood");

    server = (FakeServer){0};
    say_position(&server, "0/3000028");
    say_tablespaces(&server, "../etc");
    expect_refused(&server, CAIRN_CORRUPT, "not an oid");

    server = (FakeServer){0};
    say_position(&server, "0/3000028");
    say_columns(&server, 3);
    say_row(&server, 3, (const char *const[]){"16384", "/spaces/one", NULL});
    put_message(&server.answer, 'C', "SELECT", 7);
    expect_refused(&server, CAIRN_CORRUPT, "no data directory");
}

static void
a_label_with_a_line_break_is_refused(void **state)
{
    (void)state;
    FakeServer server = {0};
    start_server(&server);
    CairnError err = {0};
    char conninfo[256];
    snprintf(conninfo, sizeof conninfo, "host=%s user=u", socket_directory());
    Connection *connection = connection_open(conninfo, CONNECTION_REPLICATION, "test", &err);
    assert_non_null(connection);
    const BaseBackupOptions options = {.label = "a\nSTART TIMELINE: 7"};
    BaseBackupResult result;
    assert_false(basebackup_run(connection, &options, &CALLBACKS, NULL, &result, &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
    connection_close(connection);
    end_server(&server);
}

int
main(void)
{
    cancel_install(); /* as the programs do: PQcancel may meet a closed socket */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_backup_is_received_with_cluster_paths),
        cmocka_unit_test(checksum_failures_at_the_end_are_told_not_fatal),
        cmocka_unit_test(any_other_error_at_the_end_is_fatal),
        cmocka_unit_test(xx001_before_the_end_is_fatal),
        cmocka_unit_test(archive_names_are_checked),
        cmocka_unit_test(every_archive_comes_once_and_base_last),
        cmocka_unit_test(a_stream_that_is_cut_is_refused),
        cmocka_unit_test(messages_out_of_place_are_refused),
        cmocka_unit_test(the_failure_of_a_callback_is_the_one_reported),
        cmocka_unit_test(a_start_that_does_not_parse_is_refused),
        cmocka_unit_test(a_label_with_a_line_break_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
