#include "common/plain_text.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { ESCAPE_SIZE = 4 };

/* Bytes that a first byte announces, its bits of the character, and the smallest one that needs
   so many: a longer spelling could hide a control character. */
static size_t
announced(uint8_t first, uint32_t *bits_out, uint32_t *smallest_out)
{
    if (first >= 0xc0 && first < 0xe0) {
        *bits_out = first & 0x1fU;
        *smallest_out = 0x80;
        return 2;
    }
    if (first >= 0xe0 && first < 0xf0) {
        *bits_out = first & 0x0fU;
        *smallest_out = 0x800;
        return 3;
    }
    if (first >= 0xf0 && first < 0xf8) {
        *bits_out = first & 0x07U;
        *smallest_out = 0x10000;
        return 4;
    }
    return 0;
}

size_t
plain_character_size(const char *text, size_t size)
{
    const uint8_t *bytes = (const uint8_t *)text;
    if (size == 0)
        return 0;
    if (bytes[0] < 0x80)
        return bytes[0] >= ' ' && bytes[0] != 0x7f ? 1 : 0;

    uint32_t character = 0, smallest = 0;
    const size_t length = announced(bytes[0], &character, &smallest);
    if (length == 0 || length > size)
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
        character = character << 6 | (bytes[i] & 0x3fU);
    }
    const bool is_c1 = character <= 0x9f;
    const bool is_surrogate = character >= 0xd800 && character <= 0xdfff;
    if (character < smallest || character > 0x10ffff || is_c1 || is_surrogate)
        return 0;
    return length;
}

/* What stands for the beginning of text in plain text; *size_out bytes of text are behind it then.
 */
static const char *
plain_piece(const char *text, size_t left, const char *kept, char escape[ESCAPE_SIZE + 1],
            size_t *size_out, size_t *piece_size_out)
{
    const size_t size = plain_character_size(text, left);
    *size_out = size > 0 ? size : 1;
    *piece_size_out = *size_out;
    if (size > 0 || (*text != '\0' && strchr(kept, *text) != NULL))
        return text;
    snprintf(escape, ESCAPE_SIZE + 1, "\\%03o", (unsigned)(uint8_t)*text);
    *piece_size_out = ESCAPE_SIZE;
    return escape;
}

void
plain_text(char *out, size_t out_size, const char *text, const char *kept)
{
    size_t at = 0;
    size_t taken, size;
    for (size_t left = strlen(text); left > 0; text += taken, left -= taken) {
        char escape[ESCAPE_SIZE + 1];
        const char *piece = plain_piece(text, left, kept, escape, &taken, &size);
        if (size >= out_size - at)
            break;
        memcpy(out + at, piece, size);
        at += size;
    }
    out[at] = '\0';
}

void
plain_print(FILE *out, const char *text, size_t size, const char *kept)
{
    size_t taken, piece_size;
    for (; size > 0; text += taken, size -= taken) {
        char escape[ESCAPE_SIZE + 1];
        const char *piece = plain_piece(text, size, kept, escape, &taken, &piece_size);
        fwrite(piece, 1, piece_size, out);
    }
}
