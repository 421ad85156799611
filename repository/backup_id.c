#include "repository/backup_id.h"

#include <ctype.h>
#include <stdlib.h>

enum { SEQUENCE_DIGITS = 10 };

static bool
is_lower_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

bool
backup_id_parse(const char *text, BackupId *id_out)
{
    if (strlen(text) != BACKUP_ID_LENGTH || text[SEQUENCE_DIGITS] != '-')
        return false;
    for (int i = 0; i < SEQUENCE_DIGITS; i++) {
        if (!isdigit((unsigned char)text[i]))
            return false;
    }
    for (int i = SEQUENCE_DIGITS + 1; i < BACKUP_ID_LENGTH; i++) {
        if (!is_lower_hex(text[i]))
            return false;
    }
    memcpy(id_out->text, text, BACKUP_ID_LENGTH + 1);
    return true;
}

uint64_t
backup_id_sequence(const BackupId *id)
{
    return strtoull(id->text, NULL, 10);
}
