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

/* The same of a name or a path, which has no spaces: a line may end behind a _ . / , : - or @ of it. */
void html_name(FILE *f, const char *text);

/* <TAG CLASS>text</TAG>; class may be NULL. */
void html_element(FILE *f, const char *tag, const char *class, const char *text);

/* Rows of texts, the heading first, under a caption (NULL: none). The first column names the rows. Columns of numbers
 * are set to the right, their points below each other, the numbers within a cell such as "-0.17 [-2.03, 1.69]", too;
 * others are words. */
void html_table(FILE *f, const char *caption, const json_t *rows);

/* A picture of n bytes, within the page: type is its media type. Wide pictures scroll, not shrink. */
void html_picture(FILE *f, const char *type, const void *bytes, size_t n, const char *alt);

/* A video of n bytes to be played in the page, silent and in a loop. */
void html_video(FILE *f, const char *type, const void *bytes, size_t n);

/* A link to a file: its path, relative to the page's folder or from the root. */
void html_link(FILE *f, const char *path, const char *text);

#endif
