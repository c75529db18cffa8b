/* html - pieces of a page that stands alone: no network, no scripts, every text escaped. It is XML, too, so
 * that a page can be checked. The caller checks the stream for failed writes. */
#ifndef FORMATS_HTML_H
#define FORMATS_HTML_H

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

/* The page up to its body, whose styles read well on paper, a desk and a phone; and its end. The policy in
 * its head forbids a browser to run or fetch anything. */
void html_open(FILE *f, const char *title);
void html_close(FILE *f);

/* Text between tags or within quotes, escaped; control characters become question marks. */
void html_text(FILE *f, const char *text);

/* <TAG CLASS>text</TAG>; class may be NULL. */
void html_element(FILE *f, const char *tag, const char *class, const char *text);

/* Rows of texts, the heading first, under a caption. Of class "number", all columns but the first are
 * numbers; of class "settings", they are texts. */
void html_table(FILE *f, const char *class, const char *caption, const json_t *rows);

/* A picture of n bytes, within the page: type is its media type. Wide pictures scroll, not shrink. */
void html_picture(FILE *f, const char *type, const void *bytes, size_t n, const char *alt);

#endif
