#include "storage/s3/xml.h"

#include <expat.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_SIZE = 512 };

typedef struct {
    XML_Parser parser;
    S3XmlCallback *callback;
    void *context;
    CairnError *err;
    bool failed; /* err is filled */
    int depth;
    size_t path_ends[S3_XML_DEPTH_LIMIT]; /* length of the path down to each depth */
    char path[PATH_SIZE];
    size_t text_size; /* of the innermost element, since its last child */
    char text[S3_XML_TEXT_LIMIT + 1];
} Walk;

/* Answers of STS hold keys: what the parser copied of them is wiped. */
static void
wiping_free(void *memory)
{
    if (memory != NULL)
        OPENSSL_cleanse(memory, malloc_usable_size(memory));
    free(memory);
}

static void *
wiping_realloc(void *memory, size_t size)
{
    void *larger = malloc(size);
    if (larger == NULL || memory == NULL)
        return larger;
    const size_t used = malloc_usable_size(memory);
    memcpy(larger, memory, used < size ? used : size);
    wiping_free(memory);
    return larger;
}

static void
free_parser(XML_Parser *parser)
{
    if (*parser != NULL)
        XML_ParserFree(*parser);
}

static void
stop(Walk *walk)
{
    walk->failed = true;
    XML_StopParser(walk->parser, XML_FALSE);
}

static void
refuse(Walk *walk, const char *why)
{
    if (walk->failed)
        return;
    cairn_error(walk->err, CAIRN_CORRUPT, "unable to read the XML of an answer: %s", why);
    stop(walk);
}

static void XMLCALL
on_start(void *data, const XML_Char *name, const XML_Char **attributes)
{
    (void)attributes;
    Walk *walk = data;
    if (walk->failed)
        return;
    if (walk->depth == S3_XML_DEPTH_LIMIT) {
        refuse(walk, "elements are nested too deep");
        return;
    }
    const size_t begin = walk->depth > 0 ? walk->path_ends[walk->depth - 1] : 0;
    const size_t slash = walk->depth > 0 ? 1 : 0;
    const size_t length = strlen(name);
    if (length > PATH_SIZE - 1 - begin - slash || begin + slash > PATH_SIZE - 1) {
        refuse(walk, "names of elements are too long");
        return;
    }
    if (slash > 0)
        walk->path[begin] = '/';
    memcpy(walk->path + begin + slash, name, length + 1);
    walk->path_ends[walk->depth] = begin + slash + length;
    walk->text_size = 0;
    walk->depth++;
}

static void XMLCALL
on_end(void *data, const XML_Char *name)
{
    (void)name;
    Walk *walk = data;
    if (walk->failed)
        return;
    CAIRN_ASSERT(walk->depth > 0);
    walk->depth--;
    walk->text[walk->text_size] = '\0';
    walk->text_size = 0;
    walk->path[walk->path_ends[walk->depth]] = '\0';
    if (!walk->callback(walk->context, walk->path, walk->text, walk->err))
        stop(walk);
}

static void XMLCALL
on_text(void *data, const XML_Char *text, int size)
{
    Walk *walk = data;
    if (walk->failed)
        return;
    if ((size_t)size > S3_XML_TEXT_LIMIT - walk->text_size) {
        refuse(walk, "an element's text is too long");
        return;
    }
    memcpy(walk->text + walk->text_size, text, (size_t)size);
    walk->text_size += (size_t)size;
}

static void XMLCALL
on_doctype(void *data, const XML_Char *name, const XML_Char *system_id, const XML_Char *public_id,
           int has_subset)
{
    (void)name;
    (void)system_id;
    (void)public_id;
    (void)has_subset;
    refuse(data, "it has a DOCTYPE");
}

bool
s3_xml_walk(const void *data, size_t size, S3XmlCallback *callback, void *context, CairnError *err)
{
    if (size > S3_XML_SIZE_LIMIT)
        return cairn_error(err, CAIRN_CORRUPT, "an XML answer has more than %d bytes",
                           S3_XML_SIZE_LIMIT);
    const XML_Memory_Handling_Suite memory = {malloc, wiping_realloc, wiping_free};
    __attribute__((cleanup(free_parser))) XML_Parser parser =
        XML_ParserCreate_MM(NULL, &memory, NULL);
    if (parser == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    Walk walk = {.parser = parser, .callback = callback, .context = context, .err = err};
    XML_SetUserData(parser, &walk);
    XML_SetElementHandler(parser, on_start, on_end);
    XML_SetCharacterDataHandler(parser, on_text);
    XML_SetStartDoctypeDeclHandler(parser, on_doctype);
    const enum XML_Status status = XML_Parse(parser, data, (int)size, 1);
    OPENSSL_cleanse(walk.text, sizeof walk.text);
    if (walk.failed)
        return false;
    if (status != XML_STATUS_OK) {
        const enum XML_Error code = XML_GetErrorCode(parser);
        return cairn_error(err, code == XML_ERROR_NO_MEMORY ? CAIRN_INTERNAL : CAIRN_CORRUPT,
                           "unable to read the XML of an answer: %s", XML_ErrorString(code));
    }
    return true;
}
