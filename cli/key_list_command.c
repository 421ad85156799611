/* Needs no key: slots are readable to whoever reads the storage. */
#include "cli/key_commands.h"
#include "cli/session.h"
#include "repository/key_store.h"

#include <inttypes.h>
#include <stdio.h>

static const char *
state_of(const KeyStoreSlot *slot)
{
    if (slot->readable)
        return key_slot_opens_all(&slot->slot) ? "opens everything" : "opens metadata only";
    return slot->trouble == CAIRN_MISMATCH ? "of another repository; of no use" : "cannot be read";
}

static json_t *
slot_json(const KeyStoreSlot *slot)
{
    if (!slot->readable)
        return json_pack("{s:s, s:n, s:n, s:b, s:b, s:s}", "name", slot->name, "type", "created_at",
                         "whole", false, "opens_all", false, "text", slot->trouble_text);
    json_t *json = json_pack("{s:s, s:s, s:s, s:b, s:b}", "name", slot->name, "type",
                             key_slot_type_name(slot->slot.type), "created_at", slot->slot.created,
                             "whole", true, "opens_all", key_slot_opens_all(&slot->slot));
    if (json != NULL && slot->slot.type == SLOT_RECIPIENT) {
        char line[PUBLIC_KEY_TEXT_SIZE];
        public_key_format(line, slot->slot.public_key);
        json_object_set_new(json, "public_key", json_string(line));
    }
    return json;
}

static json_t *
list_json(const Repository *repository, KeyStore *store)
{
    json_t *slots = json_array();
    for (size_t i = 0; i < store->slot_count; i++)
        json_array_append_new(slots, slot_json(key_store_slot(store, i)));
    return json_pack("{s:s, s:s, s:o, s:i}", "repository", repository_config(repository)->name,
                     "encryption", encryption_name(repository_encryption(repository)), "slots",
                     slots, "epochs", (int)store->epoch_count);
}

static void
print_list(const Repository *repository, KeyStore *store)
{
    printf("repository %s: encryption %s\n", repository_config(repository)->name,
           encryption_name(repository_encryption(repository)));
    for (size_t i = 0; i < store->slot_count; i++) {
        const KeyStoreSlot *slot = key_store_slot(store, i);
        if (slot->readable)
            printf("  %-24s %-10s  %s  %s\n", slot->name, key_slot_type_name(slot->slot.type),
                   slot->slot.created, state_of(slot));
        else
            printf("  %-24s %s: %s\n", slot->name, state_of(slot), slot->trouble_text);
    }
    if (store->epoch_count > 0)
        printf("  rotated %zu times\n", store->epoch_count);
}

static int
list(const World *world, const CommonOptions *common)
{
    CairnError err = {0};
    bool json = false;
    SCOPED_SESSION session = {0};
    if (!cli_output_json(common, &json, &err) ||
        !cli_session_open(world, common, false, &session, &err) ||
        !cli_only_repository(&session, &err))
        return cli_failed(&err);
    SCOPED(Repository) repository = repository_open_locked(world, session.repository, &err);
    SCOPED(KeyStore) store = repository != NULL ? key_store_read(repository, &err) : NULL;
    if (store == NULL)
        return cli_failed(&err);
    if (!json)
        print_list(repository, store);
    else if (!cli_print_json(list_json(repository, store), &err))
        return cli_failed(&err);
    return 0;
}

int
key_list_command(const World *world, int argc, char **argv)
{
    const CommandHelp help = {
        .name = "key list",
        .synopsis = "pgcairn key list [options]",
        .summary = "Who can open the repository; needs no key",
        .examples = "  pgcairn key list\n  pgcairn key list --output=json\n",
    };
    CommonOptions common = {0};
    int code;
    if (!cli_parse(&help, &common, argc, argv, NULL, &code))
        return code;
    return list(world, &common);
}
