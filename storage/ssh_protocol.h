/*
 * What driver and server of `type = ssh` say to each other over standard input and output of
 * `pgcairn serve --stdio`: the storage interface in frames. Nothing is assumed of the other side;
 * what is not in here ends the connection.
 *
 * A frame, little-endian:
 *
 *     0   u32  size of the payload, at most SSH_PAYLOAD_LIMIT
 *     4   u16  type (SshFrameType)
 *     6   u16  0
 *     8   u32  request: drawn by the client, 1 or more, repeated in the answer; 0: has no answer
 *     12  u32  handle: of a writer (0 to SSH_WRITER_LIMIT - 1) or reader (0 to SSH_READER_LIMIT -
 * 1), chosen by the client among its free ones; else 0 16       payload
 *
 * Texts are u16 size and bytes. The client begins with HELLO (magic, lowest and highest version it
 * speaks, u8 whether the place is to be made, its program, u8 1 when it asks for the place's
 * identity) and waits for WELCOME (magic, version, u8 flags, place, host, program, and where it was
 * asked for: text identity) or FAILED. Programs from before that neither ask nor answer. Then, in
 * any order and without waiting for each other:
 *
 *     request     payload                        answer DONE, or FAILED
 *     CREATE      name                           -
 *     WRITE       bytes                          has none; what fails is told once by WRITER_FAILED
 *                                                and again by COMMIT
 *     COMMIT      -                              - ; durable and named from then on
 *     ABANDON     -                              has none
 *     OPEN        name                           u64 size, then the object's first bytes
 *                                                (SSH_HEAD_SIZE, or all)
 *     READ        u64 offset, u32 size           DATA: exactly size bytes
 *     CLOSE       -                              has none
 *     LIST        prefix ("" for the root)       ENTRIES (u8 directory, u64 size, i64 modified,
 *                                                text name)..., any number of frames, then DONE
 *     EXISTS      name                           u64 size
 *     DURABLE     name                           -
 *     REMOVE      name                           -
 *     FREE_SPACE  -                              u64 bytes
 *     SWEEP       i64 older than, prefix         -
 *     PRUNE       prefix                         -
 *
 * A handle is taken from CREATE or OPEN on; it is free again when these FAILED, after COMMIT's
 * answer, after ABANDON and CLOSE. The client sends nothing for a handle while CREATE, OPEN or
 * COMMIT of it has no answer, and CLOSE only when every READ has its own.
 *
 * FAILED and WRITER_FAILED carry u8 kind, i32 errno, text message, text hint. ALIVE comes from the
 * server every few seconds while something is under way, so that a slow disk is no broken
 * connection.
 */
#ifndef PGCAIRN_STORAGE_SSH_PROTOCOL_H
#define PGCAIRN_STORAGE_SSH_PROTOCOL_H

#include "common/bytes.h"
#include "common/error.h"

enum {
    SSH_VERSION = 1, /* the only one so far */
    SSH_FRAME_HEADER_SIZE = 16,
    SSH_PAYLOAD_LIMIT = 256 << 10,
    SSH_DATA_LIMIT = 256 << 10, /* bytes of one WRITE or DATA */
    SSH_HEAD_SIZE = 64 << 10,
    SSH_REQUEST_LIMIT = 1024, /* payload of every request but WRITE */
    SSH_WRITER_LIMIT = 64,
    SSH_READER_LIMIT = 256,
    SSH_TEXT_LIMIT = 1023,
    SSH_IDENTITY_SIZE = 64,
    SSH_ALIVE_S = 10,
};

typedef enum {
    SSH_HELLO = 1,
    SSH_CREATE,
    SSH_WRITE,
    SSH_COMMIT,
    SSH_ABANDON,
    SSH_OPEN,
    SSH_READ,
    SSH_CLOSE,
    SSH_LIST,
    SSH_EXISTS,
    SSH_DURABLE,
    SSH_REMOVE,
    SSH_FREE_SPACE,
    SSH_SWEEP,
    SSH_PRUNE,

    SSH_WELCOME = 64,
    SSH_DONE,
    SSH_FAILED,
    SSH_DATA,
    SSH_ENTRIES,
    SSH_ALIVE,
    SSH_WRITER_FAILED,
} SshFrameType;

typedef struct {
    uint32_t size;
    uint16_t type;
    uint32_t request;
    uint32_t handle;
} SshFrame;

void ssh_frame_encode(uint8_t bytes[SSH_FRAME_HEADER_SIZE], const SshFrame *frame);
/* False when it is none: too large, or the reserved bytes are set. Types are the caller's to know.
 */
bool ssh_frame_decode(const uint8_t bytes[SSH_FRAME_HEADER_SIZE], SshFrame *frame_out) MUST_CHECK;

void ssh_put_text(ByteWriter *out, const char *text);
/* Into text[limit + 1]; what is no printable ASCII becomes '?'. Fails the reader when it is longer.
 */
void ssh_get_text(ByteReader *in, char *text, size_t limit);
/* A name: unchanged, and no byte of it NUL. */
void ssh_get_name(ByteReader *in, char *name, size_t limit);

typedef struct {
    uint16_t lowest, highest;
    bool create;
    char program[SSH_TEXT_LIMIT + 1];
    bool asks_identity;
} SshHello;

typedef struct {
    uint16_t version;
    bool create_only;
    char place[SSH_TEXT_LIMIT + 1];   /* over there, for people */
    char host[SSH_TEXT_LIMIT + 1];    /* as it calls itself */
    char program[SSH_TEXT_LIMIT + 1]; /* "pgcairn 1.0" */
    bool has_identity;
    /* Of the repository that lies there: the same for the same one, another for any other; "" for
       none. Nothing else is said of it. */
    char identity[SSH_IDENTITY_SIZE + 1];
} SshWelcome;

void ssh_hello_encode(ByteWriter *out, const SshHello *hello);
bool ssh_hello_decode(const uint8_t *bytes, size_t size, SshHello *hello_out) MUST_CHECK;
void ssh_welcome_encode(ByteWriter *out, const SshWelcome *welcome);
bool ssh_welcome_decode(const uint8_t *bytes, size_t size, SshWelcome *welcome_out) MUST_CHECK;

void ssh_error_encode(ByteWriter *out, const CairnError *err);
/* Fills err; false when the payload is none. */
bool ssh_error_decode(const uint8_t *bytes, size_t size, CairnError *err) MUST_CHECK;

#endif
