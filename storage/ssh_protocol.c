#include "storage/ssh_protocol.h"

#include <errno.h>
#include <stdio.h>

static const char MAGIC[8] = {'P', 'G', 'C', 'S', 'E', 'R', 'V', 'E'};

enum { WELCOME_CREATE_ONLY = 1, MESSAGE_LIMIT = CAIRN_ERROR_MESSAGE_SIZE - 1 };

/* A kind's number on the wire is its place here, whatever the enum becomes. */
static const CairnErrorKind KINDS[] = {
    CAIRN_INTERNAL, CAIRN_CANCELLED,   CAIRN_NOT_FOUND,   CAIRN_CONFLICT, CAIRN_MISMATCH,
    CAIRN_CORRUPT,  CAIRN_UNAVAILABLE, CAIRN_NO_SPACE,    CAIRN_IO,       CAIRN_DENIED,
    CAIRN_REFUSED,  CAIRN_USAGE,       CAIRN_UNSUPPORTED, CAIRN_SEALED,
};

enum { KIND_COUNT = sizeof KINDS / sizeof KINDS[0] };

void
ssh_frame_encode(uint8_t bytes[SSH_FRAME_HEADER_SIZE], const SshFrame *frame)
{
    CAIRN_ASSERT(frame->size <= SSH_PAYLOAD_LIMIT);
    put_u32(bytes, frame->size);
    put_u16(bytes + 4, frame->type);
    put_u16(bytes + 6, 0);
    put_u32(bytes + 8, frame->request);
    put_u32(bytes + 12, frame->handle);
}

bool
ssh_frame_decode(const uint8_t bytes[SSH_FRAME_HEADER_SIZE], SshFrame *frame_out)
{
    *frame_out = (SshFrame){
        .size = get_u32(bytes),
        .type = get_u16(bytes + 4),
        .request = get_u32(bytes + 8),
        .handle = get_u32(bytes + 12),
    };
    return frame_out->size <= SSH_PAYLOAD_LIMIT && get_u16(bytes + 6) == 0;
}

void
ssh_put_text(ByteWriter *out, const char *text)
{
    const size_t size = strlen(text);
    CAIRN_ASSERT(size <= UINT16_MAX);
    byte_writer_u16(out, (uint16_t)size);
    byte_writer_bytes(out, text, size);
}

static void
get_bytes(ByteReader *in, char *text, size_t limit)
{
    const size_t size = byte_reader_u16(in);
    const uint8_t *bytes = size <= limit ? byte_reader_bytes(in, size) : NULL;
    text[0] = '\0';
    if (bytes == NULL) {
        in->failed = in->failed || size > limit;
        return;
    }
    memcpy(text, bytes, size);
    text[size] = '\0';
    if (memchr(bytes, '\0', size) != NULL)
        in->failed = true;
}

void
ssh_get_text(ByteReader *in, char *text, size_t limit)
{
    get_bytes(in, text, limit);
    /* It ends up on a terminal. */
    for (char *at = text; *at != '\0'; at++) {
        if (*at < ' ' || *at > '~')
            *at = '?';
    }
}

void
ssh_get_name(ByteReader *in, char *name, size_t limit)
{
    get_bytes(in, name, limit);
}

/* Longer ones are cut: they are for people. */
static void
put_short_text(ByteWriter *out, const char *text)
{
    char cut[SSH_TEXT_LIMIT + 1];
    snprintf(cut, sizeof cut, "%s", text);
    ssh_put_text(out, cut);
}

static bool
get_magic(ByteReader *in)
{
    const uint8_t *magic = byte_reader_bytes(in, sizeof MAGIC);
    return magic != NULL && memcmp(magic, MAGIC, sizeof MAGIC) == 0;
}

void
ssh_hello_encode(ByteWriter *out, const SshHello *hello)
{
    byte_writer_bytes(out, MAGIC, sizeof MAGIC);
    byte_writer_u16(out, hello->lowest);
    byte_writer_u16(out, hello->highest);
    byte_writer_u8(out, hello->create ? 1 : 0);
    put_short_text(out, hello->program);
    byte_writer_u8(out, hello->asks_identity ? 1 : 0);
}

bool
ssh_hello_decode(const uint8_t *bytes, size_t size, SshHello *hello_out)
{
    ByteReader in = byte_reader(bytes, size);
    if (!get_magic(&in))
        return false;
    hello_out->lowest = byte_reader_u16(&in);
    hello_out->highest = byte_reader_u16(&in);
    hello_out->create = byte_reader_u8(&in) != 0;
    ssh_get_text(&in, hello_out->program, SSH_TEXT_LIMIT);
    hello_out->asks_identity = byte_reader_left(&in) > 0 && byte_reader_u8(&in) != 0;
    /* What a later version adds at the end is not ours to refuse. */
    return !in.failed && hello_out->lowest <= hello_out->highest;
}

void
ssh_welcome_encode(ByteWriter *out, const SshWelcome *welcome)
{
    byte_writer_bytes(out, MAGIC, sizeof MAGIC);
    byte_writer_u16(out, welcome->version);
    byte_writer_u8(out, welcome->create_only ? WELCOME_CREATE_ONLY : 0);
    put_short_text(out, welcome->place);
    put_short_text(out, welcome->host);
    put_short_text(out, welcome->program);
    if (welcome->has_identity)
        ssh_put_text(out, welcome->identity);
}

bool
ssh_welcome_decode(const uint8_t *bytes, size_t size, SshWelcome *welcome_out)
{
    ByteReader in = byte_reader(bytes, size);
    if (!get_magic(&in))
        return false;
    welcome_out->version = byte_reader_u16(&in);
    welcome_out->create_only = (byte_reader_u8(&in) & WELCOME_CREATE_ONLY) != 0;
    ssh_get_text(&in, welcome_out->place, SSH_TEXT_LIMIT);
    ssh_get_text(&in, welcome_out->host, SSH_TEXT_LIMIT);
    ssh_get_text(&in, welcome_out->program, SSH_TEXT_LIMIT);
    welcome_out->has_identity = byte_reader_left(&in) > 0;
    welcome_out->identity[0] = '\0';
    if (welcome_out->has_identity)
        ssh_get_text(&in, welcome_out->identity, SSH_IDENTITY_SIZE);
    return byte_reader_done(&in);
}

void
ssh_error_encode(ByteWriter *out, const CairnError *err)
{
    uint8_t kind = 0;
    for (size_t i = 0; i < KIND_COUNT; i++) {
        if (KINDS[i] == err->kind)
            kind = (uint8_t)i;
    }
    byte_writer_u8(out, kind);
    byte_writer_u32(out, (uint32_t)err->system_errno);
    ssh_put_text(out, err->message);
    ssh_put_text(out, err->hint);
}

bool
ssh_error_decode(const uint8_t *bytes, size_t size, CairnError *err)
{
    ByteReader in = byte_reader(bytes, size);
    char message[CAIRN_ERROR_MESSAGE_SIZE];
    char hint[CAIRN_ERROR_HINT_SIZE];
    const uint8_t kind = byte_reader_u8(&in);
    const int system_errno = (int)byte_reader_u32(&in);
    ssh_get_text(&in, message, MESSAGE_LIMIT);
    ssh_get_text(&in, hint, sizeof hint - 1);
    if (!byte_reader_done(&in) || kind >= KIND_COUNT)
        return false;
    cairn_error(err, KINDS[kind], "%s", message);
    /* Numbers are this system's own only where both sides run the same; for messages it does. */
    err->system_errno = system_errno;
    if (hint[0] != '\0')
        cairn_error_hint(err, "%s", hint);
    return true;
}
