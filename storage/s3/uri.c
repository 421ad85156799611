#include "storage/s3/uri.h"

static bool
is_unreserved(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

static void
encode(ByteWriter *writer, const char *text, bool keep_slash)
{
    static const char HEX[] = "0123456789ABCDEF";
    for (; *text != '\0'; text++) {
        if (is_unreserved(*text) || (keep_slash && *text == '/')) {
            byte_writer_u8(writer, (uint8_t)*text);
            continue;
        }
        const uint8_t byte = (uint8_t)*text;
        byte_writer_u8(writer, '%');
        byte_writer_u8(writer, (uint8_t)HEX[byte >> 4]);
        byte_writer_u8(writer, (uint8_t)HEX[byte & 15]);
    }
}

void
uri_encode_path(ByteWriter *writer, const char *text)
{
    encode(writer, text, true);
}

void
uri_encode_value(ByteWriter *writer, const char *text)
{
    encode(writer, text, false);
}

static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool
uri_decode(char *text, bool plus_is_space)
{
    char *out = text;
    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '+' && plus_is_space) {
            *out++ = ' ';
            continue;
        }
        if (*at != '%') {
            *out++ = *at;
            continue;
        }
        const int high = hex_digit(at[1]);
        const int low = high < 0 ? -1 : hex_digit(at[2]);
        if (low < 0 || (high == 0 && low == 0))
            return false;
        *out++ = (char)(high << 4 | low);
        at += 2;
    }
    *out = '\0';
    return true;
}
