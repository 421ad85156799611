/* Each side alone, with another one that lies, stammers or falls silent. */
#include "storage/ssh_protocol.h"

#include "tests/unit/support/ssh_fixture.h"
#include "tests/unit/support/ssh_liar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- frames ---- */

static void
test_errors_travel_whole(void **state)
{
    (void)state;
    for (int kind = CAIRN_CANCELLED; kind <= CAIRN_INTERNAL; kind++) {
        CairnError sent = {0}, got = {0};
        SCOPED_BYTES ByteWriter bytes = {0};
        cairn_error(&sent, (CairnErrorKind)kind, "message %d", kind);
        cairn_error_hint(&sent, "hint %d", kind);
        sent.system_errno = kind;
        ssh_error_encode(&bytes, &sent);
        assert_true(ssh_error_decode(bytes.data, bytes.size, &got));
        assert_int_equal(got.kind, kind);
        assert_int_equal(got.system_errno, kind);
        assert_string_equal(got.message, sent.message);
        assert_string_equal(got.hint, sent.hint);
        for (size_t size = 0; size < bytes.size; size++) {
            CairnError none = {0};
            assert_false(ssh_error_decode(bytes.data, size, &none));
            assert_int_equal(none.kind, CAIRN_OK);
        }
    }
}

static void
test_nothing_of_the_other_side_reaches_the_terminal_raw(void **state)
{
    (void)state;
    /* Ours are plain before they are sent. */
    CairnError sent = {.kind = CAIRN_IO, .message = "a\033[2Jb\nc\x7f\xff"}, got = {0};
    SCOPED_BYTES ByteWriter bytes = {0};
    ssh_error_encode(&bytes, &sent);
    assert_true(ssh_error_decode(bytes.data, bytes.size, &got));
    assert_string_equal(got.message, "a?[2Jb?c??");
}

static void
test_greetings_cut_short_are_none(void **state)
{
    (void)state;
    SCOPED_BYTES ByteWriter hello = {0}, welcome = {0};
    SshHello hello_got;
    SshWelcome welcome_got;
    ssh_hello_encode(&hello,
                     &(SshHello){.lowest = 1, .highest = 3, .create = true, .program = "p"});
    assert_true(ssh_hello_decode(hello.data, hello.size, &hello_got));
    assert_int_equal(hello_got.highest, 3);
    assert_true(hello_got.create);
    ssh_welcome_encode(&welcome, &(SshWelcome){.version = 1, .create_only = true, .place = "/x"});
    assert_true(ssh_welcome_decode(welcome.data, welcome.size, &welcome_got));
    assert_true(welcome_got.create_only);
    assert_string_equal(welcome_got.place, "/x");
    /* The last byte of a hello came later: programs from before end without it. */
    assert_true(ssh_hello_decode(hello.data, hello.size - 1, &hello_got));
    assert_false(hello_got.asks_identity);
    for (size_t size = 0; size < hello.size - 1; size++)
        assert_false(ssh_hello_decode(hello.data, size, &hello_got));
    for (size_t size = 0; size < welcome.size; size++)
        assert_false(ssh_welcome_decode(welcome.data, size, &welcome_got));
}

static void
test_the_identity_of_a_place_is_told_to_who_asks(void **state)
{
    (void)state;
    SCOPED_BYTES ByteWriter hello = {0}, welcome = {0}, older = {0};
    SshHello hello_got;
    SshWelcome got, sent = {.version = 1, .has_identity = true, .identity = "00ff"};
    ssh_hello_encode(&hello, &(SshHello){.lowest = 1, .highest = 1, .asks_identity = true});
    assert_true(ssh_hello_decode(hello.data, hello.size, &hello_got));
    assert_true(hello_got.asks_identity);
    ssh_welcome_encode(&welcome, &sent);
    assert_true(ssh_welcome_decode(welcome.data, welcome.size, &got));
    assert_true(got.has_identity);
    assert_string_equal(got.identity, "00ff");
    sent.has_identity = false;
    ssh_welcome_encode(&older, &sent);
    assert_true(ssh_welcome_decode(older.data, older.size, &got));
    assert_false(got.has_identity);
}

/* ---- a server that is none ---- */

static void
add_frame(ByteWriter *bytes, SshFrameType type, uint32_t request, uint32_t handle,
          const void *payload, size_t size)
{
    uint8_t header[SSH_FRAME_HEADER_SIZE];
    ssh_frame_encode(header, &(SshFrame){(uint32_t)size, (uint16_t)type, request, handle});
    byte_writer_bytes(bytes, header, sizeof header);
    if (size > 0)
        byte_writer_bytes(bytes, payload, size);
}

static StorageListNext
accept_entry(void *context, const StorageEntry *entry, CairnError *err)
{
    (void)context, (void)entry, (void)err;
    return STORAGE_LIST_GO_ON;
}

/* Requests are numbered from 1 on. */
typedef enum { ASK_EXISTS, ASK_OPEN, ASK_READ, ASK_LIST, ASK_PUT } Question;

static bool
ask(Storage *storage, Question question, CairnError *err)
{
    uint64_t size;
    uint8_t byte;
    switch (question) {
    case ASK_EXISTS:
        return storage_exists(storage, "a", &size, err);
    case ASK_LIST:
        return storage_list(storage, "a", accept_entry, NULL, err);
    case ASK_PUT:
        return storage_put(storage, "a", "x", 1, err);
    case ASK_OPEN:
    case ASK_READ:
        break;
    }
    SCOPED(StorageReader) reader = storage_open(storage, "a", err);
    return reader != NULL &&
           (question == ASK_OPEN || storage_pread(reader, &byte, 1, reader->size_bytes - 1, err));
}

typedef struct {
    const char *name;
    Question question;
    SshFrameType type;
    uint32_t request, handle;
    const char *payload;
    size_t size;
} Lie;

static const Lie LIES[] = {
    {"an answer to nothing", ASK_EXISTS, SSH_DONE, 77, 0, "12345678", 8},
    {"a number cut short", ASK_EXISTS, SSH_DONE, 1, 0, "1234567", 7},
    {"a number too long", ASK_EXISTS, SSH_DONE, 1, 0, "123456789", 9},
    {"data for a question", ASK_EXISTS, SSH_DATA, 1, 0, "12345678", 8},
    {"entries for a question", ASK_EXISTS, SSH_ENTRIES, 1, 0, "12345678", 8},
    {"a failure of no kind", ASK_EXISTS, SSH_FAILED, 1, 0, "\377\0\0\0\0\0\0\0\0", 9},
    {"half a failure", ASK_EXISTS, SSH_FAILED, 1, 0, "\1\0\0", 3},
    {"an unknown frame", ASK_EXISTS, (SshFrameType)99, 1, 0, "", 0},
    {"a request", ASK_EXISTS, SSH_REMOVE, 1, 0, "", 0},
    {"a second welcome", ASK_EXISTS, SSH_WELCOME, 0, 0, "", 0},
    {"a failed writer that is none", ASK_EXISTS, SSH_WRITER_FAILED, 0, 64, "\1\0\0\0\0\0\0\0\0", 9},
    {"an object without a size", ASK_OPEN, SSH_DONE, 1, 0, "1234", 4},
    {"an object with too much of a head", ASK_OPEN, SSH_DONE, 1, 0, "\1\0\0\0\0\0\0\0xy", 10},
    {"an object with too little of a head", ASK_OPEN, SSH_DONE, 1, 0, "\3\0\0\0\0\0\0\0xy", 10},
    {"a listing in its end", ASK_LIST, SSH_DONE, 1, 0, "12345678", 8},
    {"an empty listing frame", ASK_LIST, SSH_ENTRIES, 1, 0, "", 0},
    {"data for a writer", ASK_PUT, SSH_DATA, 1, 0, "x", 1},
    {"too much for a writer", ASK_PUT, SSH_DONE, 1, 0, "x", 1},
};

/* What became of a question to which these are the answers. */
static bool
ask_liar(const ByteWriter *answers, Question question, CairnError *err)
{
    SshLiar liar = {.bytes = answers->data, .size = answers->size, .welcomes = true};
    Storage *storage = ssh_liar_connect(&liar, err);
    assert_non_null(storage);
    const bool done = ask(storage, question, err);
    storage_close(storage);
    ssh_liar_end(&liar);
    return done;
}

static void
test_each_lie_of_a_server_is_unavailable(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof LIES / sizeof LIES[0]; i++) {
        const Lie *lie = &LIES[i];
        CairnError err = {0};
        SCOPED_BYTES ByteWriter answers = {0};
        add_frame(&answers, lie->type, lie->request, lie->handle, lie->payload, lie->size);
        if (ask_liar(&answers, lie->question, &err) || err.kind != CAIRN_UNAVAILABLE)
            fail_msg("%s: %s", lie->name, err.kind == CAIRN_OK ? "taken for true" : err.message);
    }
}

static void
test_the_truth_is_believed(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED_BYTES ByteWriter number = {0}, object = {0}, failure = {0};
    add_frame(&number, SSH_DONE, 1, 0, "12345678", 8);
    assert_true(ask_liar(&number, ASK_EXISTS, &err));
    add_frame(&object, SSH_DONE, 1, 0, "\2\0\0\0\0\0\0\0xy", 10);
    assert_true(ask_liar(&object, ASK_READ, &err));
    add_frame(&failure, SSH_FAILED, 1, 0, "\2\0\0\0\0\0\0\0\0", 9);
    assert_false(ask_liar(&failure, ASK_EXISTS, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
}

static void
test_a_listing_of_bad_names_is_unavailable(void **state)
{
    (void)state;
    static const char *const NAMES[] = {"good", "",        ".",   "..",  "a/b",
                                        "../x", ".hidden", "a b", "a\nb"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        CairnError err = {0};
        SCOPED_BYTES ByteWriter entry = {0}, answers = {0};
        byte_writer_u8(&entry, 0);
        byte_writer_u64(&entry, 1);
        byte_writer_u64(&entry, 1);
        ssh_put_text(&entry, NAMES[i]);
        add_frame(&answers, SSH_ENTRIES, 1, 0, entry.data, entry.size);
        add_frame(&answers, SSH_DONE, 1, 0, NULL, 0);
        const bool listed = ask_liar(&answers, ASK_LIST, &err);
        if (listed != (i == 0) || (!listed && err.kind != CAIRN_UNAVAILABLE))
            fail_msg("'%s': %s", NAMES[i], err.message);
    }
}

static void
test_what_is_no_server_is_quoted(void **state)
{
    (void)state;
    static const char TEXT[] = "Welcome to backup1!\nYou have new mail.\n";
    SshLiar liar = {.bytes = (const uint8_t *)TEXT, .size = sizeof TEXT - 1};
    CairnError err = {0};
    assert_null(ssh_liar_connect(&liar, &err));
    ssh_liar_end(&liar);
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    assert_non_null(strstr(err.message, "Welcome to backup1!"));
    assert_non_null(strstr(err.hint, "print nothing"));
}

static void
test_a_newer_server_is_unsupported(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED_BYTES ByteWriter payload = {0}, answers = {0};
    ssh_welcome_encode(&payload, &(SshWelcome){.version = 9});
    add_frame(&answers, SSH_WELCOME, 0, 0, payload.data, payload.size);
    SshLiar liar = {.bytes = answers.data, .size = answers.size, .silent = true};
    assert_null(ssh_liar_connect(&liar, &err));
    ssh_liar_end(&liar);
    assert_int_equal(err.kind, CAIRN_UNSUPPORTED);
}

static void
test_silence_has_an_end(void **state)
{
    (void)state;
    CairnError err = {0};
    SshLiar before = {.silent = true}, after = {.silent = true, .welcomes = true};
    assert_null(ssh_liar_connect(&before, &err));
    ssh_liar_end(&before);
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    cairn_error_clear(&err);
    Storage *storage = ssh_liar_connect(&after, &err);
    assert_non_null(storage);
    assert_false(ask(storage, ASK_EXISTS, &err));
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    storage_close(storage);
    ssh_liar_end(&after);
}

/* ---- a client that is none ---- */

static SshFixture fixture;

static int
setup(void **state)
{
    (void)state;
    ssh_fixture_init(&fixture);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    ssh_fixture_free(&fixture);
    return 0;
}

static void
send_frame(int fd, SshFrameType type, uint32_t request, uint32_t handle, const void *payload,
           size_t size)
{
    SCOPED_BYTES ByteWriter frame = {0};
    add_frame(&frame, type, request, handle, payload, size);
    assert_int_equal(send(fd, frame.data, frame.size, MSG_NOSIGNAL), frame.size);
}

static int
raw_client(void)
{
    SCOPED_BYTES ByteWriter payload = {0};
    const int fd = ssh_fixture_raw(&fixture);
    ssh_hello_encode(&payload, &(SshHello){.lowest = 1, .highest = 1});
    send_frame(fd, SSH_HELLO, 0, 0, payload.data, payload.size);
    return fd;
}

static const Lie CLIENT_LIES[] = {
    {"a second hello", 0, SSH_HELLO, 1, 0, "x", 1},
    {"an answer", 0, SSH_DONE, 1, 0, "", 0},
    {"an unknown request", 0, (SshFrameType)63, 1, 0, "", 0},
    {"a request without number", 0, SSH_FREE_SPACE, 0, 0, "", 0},
    {"a question with a handle", 0, SSH_FREE_SPACE, 1, 3, "", 0},
    {"a write to nothing", 0, SSH_WRITE, 0, 1, "x", 1},
    {"a write that wants an answer", 0, SSH_WRITE, 1, 1, "x", 1},
    {"a commit of nothing", 0, SSH_COMMIT, 1, 1, "", 0},
    {"a writer out of range", 0, SSH_CREATE, 1, SSH_WRITER_LIMIT, "\1\0a", 3},
    {"a reader out of range", 0, SSH_OPEN, 1, SSH_READER_LIMIT, "\1\0a", 3},
    {"a handle as large as can be", 0, SSH_WRITE, 0, UINT32_MAX, "x", 1},
    {"a read of nothing", 0, SSH_READ, 1, 1, "123456781234", 12},
    {"a close of nothing", 0, SSH_CLOSE, 0, 1, "", 0},
    {"an abandon of nothing", 0, SSH_ABANDON, 0, 1, "", 0},
};

static void
test_each_lie_of_a_client_ends_its_connection(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof CLIENT_LIES / sizeof CLIENT_LIES[0]; i++) {
        const Lie *lie = &CLIENT_LIES[i];
        const int fd = raw_client();
        send_frame(fd, lie->type, lie->request, lie->handle, lie->payload, lie->size);
        char byte[4096];
        while (recv(fd, byte, sizeof byte, 0) > 0)
            continue;
        close(fd);
        ssh_fixture_settle(&fixture);
        if (fixture.connections[i].server_good)
            fail_msg("%s was taken for right", lie->name);
    }
}

static void
test_a_request_that_is_malformed_is_refused_and_no_more(void **state)
{
    (void)state;
    static const Lie REQUESTS[] = {
        {"no name", 0, SSH_EXISTS, 1, 0, "", 0},
        {"a name cut short", 0, SSH_EXISTS, 2, 0, "\5\0ab", 4},
        {"more than a name", 0, SSH_EXISTS, 3, 0, "\1\0ab", 4},
        {"a name with a NUL", 0, SSH_EXISTS, 4, 0, "\3\0a\0b", 5},
        {"a way out", 0, SSH_OPEN, 5, 0, "\4\0../x", 6},
        {"the root as an object", 0, SSH_OPEN, 6, 1, "\0\0", 2},
        {"space with a name", 0, SSH_FREE_SPACE, 7, 0, "\1\0a", 3},
        {"a sweep without time", 0, SSH_SWEEP, 8, 0, "\1\0a", 3},
    };
    const int fd = raw_client();
    for (size_t i = 0; i < sizeof REQUESTS / sizeof REQUESTS[0]; i++) {
        const Lie *lie = &REQUESTS[i];
        send_frame(fd, lie->type, lie->request, lie->handle, lie->payload, lie->size);
    }
    for (unsigned failed = 0; failed < sizeof REQUESTS / sizeof REQUESTS[0];) {
        uint8_t header[SSH_FRAME_HEADER_SIZE], payload[4096];
        SshFrame frame;
        assert_int_equal(recv(fd, header, sizeof header, MSG_WAITALL), sizeof header);
        assert_true(ssh_frame_decode(header, &frame));
        assert_true(frame.size >= 1 && frame.size <= sizeof payload);
        assert_int_equal(recv(fd, payload, frame.size, MSG_WAITALL), frame.size);
        assert_true(frame.type == SSH_FAILED || frame.type == SSH_WELCOME);
        failed += frame.type == SSH_FAILED ? 1 : 0;
    }
    close(fd);
    ssh_fixture_settle(&fixture);
    assert_true(fixture.connections[0].server_good);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_travel_whole),
        cmocka_unit_test(test_nothing_of_the_other_side_reaches_the_terminal_raw),
        cmocka_unit_test(test_greetings_cut_short_are_none),
        cmocka_unit_test(test_the_identity_of_a_place_is_told_to_who_asks),
        cmocka_unit_test(test_each_lie_of_a_server_is_unavailable),
        cmocka_unit_test(test_the_truth_is_believed),
        cmocka_unit_test(test_a_listing_of_bad_names_is_unavailable),
        cmocka_unit_test(test_what_is_no_server_is_quoted),
        cmocka_unit_test(test_a_newer_server_is_unsupported),
        cmocka_unit_test(test_silence_has_an_end),
        cmocka_unit_test_setup_teardown(test_each_lie_of_a_client_ends_its_connection, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_request_that_is_malformed_is_refused_and_no_more,
                                        setup, teardown),
    };
    signal(SIGPIPE, SIG_IGN); /* as both programs do */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
