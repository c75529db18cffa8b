/* html - character references of HTML 5: "&amp;", "&#38;", "&#x26;". */
#ifndef NETS_HTML_H
#define NETS_HTML_H

#include "filters/nets/chars.h"

/* As Python's html.unescape: also without the semicolon where HTML allows it, and then a name may go on in the text. */
void html_unescape(struct chars *to, const struct chars *from);
/* As ftfy's unescape_html (6.3): only with the semicolon; names in capitals, too, as "&EACUTE;". */
void html_unescape_careful(struct chars *to, const struct chars *from);

#endif
