/* The command that `targets` prints: what a person pastes must do exactly what was proven. */
#include "restore/targets.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* One word, in single quotes where a shell would see more in it. */
static void
add_word(ByteWriter *text, const char *prefix, const char *word)
{
    static const char PLAIN[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                "_-./:=,+@%";
    const bool quoted = word[0] == '\0' || strspn(word, PLAIN) != strlen(word);
    if (text->size > 0)
        byte_writer_u8(text, ' ');
    byte_writer_bytes(text, prefix, strlen(prefix));
    if (quoted)
        byte_writer_u8(text, '\'');
    for (const char *at = word; *at != '\0'; at++) {
        if (*at == '\'')
            byte_writer_bytes(text, "'\\''", 4);
        else
            byte_writer_u8(text, (uint8_t)*at);
    }
    if (quoted)
        byte_writer_u8(text, '\'');
}

/* A copy needs a place of its own for each tablespace. */
static void
add_tablespaces(const Fate *backup, const char *to, ByteWriter *text)
{
    for (size_t i = 0; backup != NULL && i < backup->tablespace_count; i++) {
        char word[4400];
        if (backup->tablespaces[i].path[0] != '/')
            continue;
        snprintf(word, sizeof word, "%" PRIu32 "=%.4000s-tablespace-%" PRIu32,
                 backup->tablespaces[i].oid, to, backup->tablespaces[i].oid);
        add_word(text, "--tablespace-map=", word);
    }
}

static void
add_target(const Target *target, ByteWriter *text)
{
    char number[32];
    if (target->type == TARGET_NAME) {
        add_word(text, "--name=", target->name);
    } else if (target->type == TARGET_LSN) {
        lsn_format(number, target->lsn);
        add_word(text, "--lsn=", number);
    }
    if (target->exclusive)
        add_word(text, "", "--target-exclusive");
    if (target->timeline_choice == TIMELINE_NUMBER) {
        snprintf(number, sizeof number, "%" PRIu32, target->timeline);
        add_word(text, "--target-timeline=", number);
    }
}

void
targets_format_command(const Targets *targets, const Moment *moment, const RestoreCall *call,
                       ByteWriter *text)
{
    SCOPED_BYTES ByteWriter line = {0};
    char to[4200];

    add_word(&line, "", call->program);
    add_word(&line, "", "restore");
    if (call->config != NULL)
        add_word(&line, "--config=", call->config);
    if (call->repository != NULL)
        add_word(&line, "--repository=", call->repository);
    if (call->cluster != NULL)
        add_word(&line, "--cluster=", call->cluster);
    /* Unless said, a directory of its own for each moment: "<here>/main-0-5000060". */
    if (call->to != NULL)
        snprintf(to, sizeof to, "%s", call->to);
    else
        snprintf(to, sizeof to, "%.4000s/%.100s-%" PRIX32 "-%" PRIX32,
                 strcmp(call->here, "/") != 0 ? call->here : "", targets->cluster,
                 (uint32_t)(moment->lsn >> 32), (uint32_t)moment->lsn);
    add_word(&line, "--to=", to);
    add_tablespaces(moment->backup, to, &line);
    add_target(&moment->target, &line);
    byte_writer_bytes(text, line.data, line.size);
    text->failed |= line.failed;
}
