# Prints filters/nets/html_entities.h: HTML 5's named characters, from Python's html.entities, and the names in capitals
# that ftfy takes besides, where the character has a capital of its own.
import html
from html.entities import html5


named = {name[:-1]: text for name, text in html5.items() if name.endswith(";")}
capital = {}
for name, text in named.items():
    upper = name.upper()
    if name == name.lower() and html.unescape(f"&{upper};") == f"&{upper};" and text.upper() != text:
        capital[upper] = text.upper()


def rows(table):  # what is no printing ASCII in octal
    line = "   "
    for name, text in sorted(table.items()):
        bytes = "".join(chr(b) if 32 < b < 127 and b not in b'"\\?' else f"\\{b:03o}" for b in text.encode())
        entry = f' {{"{name}", "{bytes}"}},'
        if len(line) + len(entry) > 108:
            print(line)
            line = "   "
        line += entry
    print(line)


print("""/* html_entities - HTML 5's named characters in UTF-8, sorted by name; printed by tests/reference/make_html_entities.py. */
#ifndef NETS_HTML_ENTITIES_H
#define NETS_HTML_ENTITIES_H

/* clang-format off */
struct html_entity {
    const char *name, *text;
};
static const struct html_entity html_named[] = {""")
rows(named)
print("""};
/* Names in capitals that are no names of HTML: what ftfy takes them for, where that has capitals, too. */
static const struct html_entity html_capital[] = {""")
rows(capital)
print("""};
/* Those of html_named that do without the semicolon. */
static const struct html_entity html_bare[] = {""")
rows({name: text for name, text in html5.items() if not name.endswith(";")})
print("""};
/* clang-format on */

#endif""")
