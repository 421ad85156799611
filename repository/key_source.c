#include "repository/key_source.h"

#include "common/log.h"

#include <string.h>

bool
key_source_encryption(const RepositoryConfig *config, Encryption *encryption_out, CairnError *err)
{
    const KeyConfig *keys = &config->keys;
    const char *stated = config->encryption;
    if (stated == NULL) {
        cairn_error(err, CAIRN_USAGE, "[repository %s]: encryption is not decided", config->name);
        return cairn_error_hint(
            err,
            "add one: encryption = none (whoever can read the repository can read the database); "
            "encryption = key-file and key-file = FILE (made by: pgcairn key generate FILE); "
            "encryption = passphrase and passphrase-file = FILE or passphrase-command = COMMAND; "
            "encryption = sealed with key-file and recipients (this host cannot read its own old "
            "backups). docs/keys.md helps to choose");
    }
    if (strcmp(stated, "none") == 0) {
        *encryption_out = ENCRYPTION_NONE;
        return true;
    }
    *encryption_out = strcmp(stated, "sealed") == 0 ? ENCRYPTION_SEALED : ENCRYPTION_KEYS;
    if (keys->passphrase_file != NULL && keys->passphrase_command != NULL)
        return cairn_error(err, CAIRN_USAGE,
                           "[repository %s]: passphrase-file and passphrase-command exclude each "
                           "other",
                           config->name);
    const bool has_passphrase = keys->passphrase_file != NULL || keys->passphrase_command != NULL;
    if (strcmp(stated, "passphrase") == 0 && !has_passphrase) {
        cairn_error(err, CAIRN_USAGE, "[repository %s]: encryption = passphrase, but there is none",
                    config->name);
        return cairn_error_hint(err, "add passphrase-file = FILE (mode 0600) or "
                                     "passphrase-command = COMMAND");
    }
    if (strcmp(stated, "passphrase") != 0 && keys->key_file == NULL && !has_passphrase) {
        cairn_error(err, CAIRN_USAGE, "[repository %s]: encryption = %s needs key-file = FILE",
                    config->name, stated);
        return cairn_error_hint(err, "pgcairn key generate FILE makes one");
    }
    return true;
}

void
key_source_free(KeySource *source)
{
    secret_free(source->key);
    secret_free(source->passphrase);
    source->key = NULL;
    source->passphrase = NULL;
}

SlotSecret
key_source_secret(const Secret *key, KeyFileType type)
{
    return (SlotSecret){.type = type == KEY_FILE_PRIVATE ? SLOT_RECIPIENT : SLOT_KEY_FILE,
                        .data = key->data,
                        .size = key->size};
}

static bool
has_passphrase(const KeyConfig *config)
{
    return config->passphrase_file != NULL || config->passphrase_command != NULL;
}

bool
key_source_key(KeySource *source, SlotSecret *secret_out, CairnError *err)
{
    const KeyConfig *config = source->config;
    if (config->key_file == NULL)
        return false;
    if (source->key == NULL)
        source->key = key_file_read(source->world, config->key_file, &source->key_type, err);
    if (source->key == NULL) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        if (has_passphrase(config)) {
            /* A host that was made anew, with the passphrase in somebody's head. */
            log_warn("key-file '%s' is not there; the passphrase is used", config->key_file);
            cairn_error_clear(err);
            return false;
        }
        err->kind = CAIRN_USAGE; /* the repository is not what is missing */
        return cairn_error_hint(err,
                                "pgcairn key generate makes a key for a new repository; for one "
                                "that exists, put a copy of its key there");
    }
    *secret_out = key_source_secret(source->key, source->key_type);
    return true;
}

bool
key_source_passphrase(KeySource *source, SlotSecret *secret_out, CairnError *err)
{
    const KeyConfig *config = source->config;
    if (!has_passphrase(config))
        return false;
    if (source->passphrase == NULL) {
        source->passphrase = config->passphrase_file != NULL
                                 ? secret_read_line(source->world, config->passphrase_file, err)
                                 : secret_run_command(source->world, config->passphrase_command,
                                                      SECRET_COMMAND_TIMEOUT_S, err);
    }
    if (source->passphrase == NULL) {
        if (err->kind == CAIRN_NOT_FOUND)
            err->kind = CAIRN_USAGE;
        return false;
    }
    *secret_out = (SlotSecret){.type = SLOT_PASSPHRASE,
                               .data = source->passphrase->data,
                               .size = source->passphrase->size};
    return true;
}
