/*
 * A walk through a small XML document from the network: each element as it ends, with its text.
 *
 * Bounded: S3_XML_SIZE_LIMIT bytes, S3_XML_DEPTH_LIMIT elements deep, S3_XML_TEXT_LIMIT bytes of
 * text in one element; a DOCTYPE is refused, so there are no entities but the five of XML and
 * numbers. Parsing is libexpat's. Attributes, comments and processing instructions are skipped;
 * namespaces too: names are compared as they stand (all stores use a default namespace).
 *
 * Errors: CORRUPT for what is no such document, the callback's own. Threads: any.
 */
#ifndef PGCAIRN_STORAGE_S3_XML_H
#define PGCAIRN_STORAGE_S3_XML_H

#include "common/error.h"

#include <stddef.h>

enum { S3_XML_SIZE_LIMIT = 8 * 1024 * 1024, S3_XML_DEPTH_LIMIT = 8, S3_XML_TEXT_LIMIT = 8192 };

/*
 * An element ended. path: from the root on, "ListBucketResult/Contents/Key"; text: what stands in
 * it behind its last child, NUL-terminated, white space at its ends kept. Children come before
 * their parent. The text is borrowed for the call and may be changed.
 */
typedef bool S3XmlCallback(void *context, const char *path, char *text, CairnError *err);

bool s3_xml_walk(const void *data, size_t size, S3XmlCallback *callback, void *context,
                 CairnError *err) MUST_CHECK;

#endif
