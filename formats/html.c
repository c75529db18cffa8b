#include "formats/html.h"

#include <stdbool.h>
#include <stdint.h>

static const char style[] =
    "html{color-scheme:light}\n"
    "body{max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff;\n"
    "  font:1rem/1.5 Charter,'Bitstream Charter',Georgia,Cambria,serif}\n"
    "h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem}\n"
    "h2{font-size:1.25rem;margin:2.5rem 0 .5rem;border-bottom:1px solid #ccc}\n"
    "h3{font-size:1rem;margin:2rem 0 .2rem}\n"
    "p{margin:.4rem 0;max-width:46rem}\n"
    ".note,figcaption,caption{color:#555;font-size:.9rem}\n"
    ".text{unicode-bidi:isolate;overflow-wrap:anywhere;white-space:pre-wrap}\n"
    ".wide{overflow-x:auto;margin:1rem 0}\n"
    "table{border-collapse:collapse;font-size:.9rem;border-top:2px solid #333;border-bottom:2px solid #333}\n"
    "caption{text-align:left;padding-bottom:.4rem}\n"
    "thead th{border-bottom:1px solid #333}\n"
    "th,td{padding:.2rem .8rem .2rem 0;text-align:right;vertical-align:top;font-variant-numeric:tabular-nums}\n"
    "th:first-child{text-align:left}\n"
    "th{font-weight:600}tbody th{font-weight:400}\n"
    "thead th,.number td{white-space:nowrap}\n"
    ".settings th,.settings td{text-align:left}.settings td{overflow-wrap:anywhere;min-width:6rem}\n"
    "figure{margin:.6rem 0;break-inside:avoid}figure .wide{margin:.1rem 0}\n"
    "img{display:block;width:100%;min-width:44rem;height:auto}\n"
    ".missing{color:#a00}\n"
    "footer{margin-top:3rem;border-top:1px solid #ccc;color:#555;font-size:.85rem}\n"
    "@media print{body{max-width:none;margin:0;font-size:10pt}.wide{overflow:visible}img{min-width:0}\n"
    "  table,tr,h2,h3{break-inside:avoid}h2,h3{break-after:avoid}}\n";

void html_open(FILE *f, const char *title)
{
    fputs(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src "
        "'unsafe-inline'\"/>\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n",
        f);
    html_element(f, "title", NULL, title);
    fprintf(f, "<style>\n%s</style>\n</head>\n<body>\n", style);
}

void html_close(FILE *f)
{
    fputs("</body>\n</html>\n", f);
}

/* The bytes of a character that is not for browsers: controls but for line ends and tabs, U+FFFE, U+FFFF, and
 * all beyond ASCII in what is not UTF-8. 0: it is for them. */
static int unfit(const unsigned char *p, bool valid)
{
    if (*p < ' ' || *p == 127) return *p != '\n' && *p != '\t';
    if (*p > 127 && !valid) return 1;
    if (*p == 0xc2 && p[1] < 0xa0) return 2;
    return *p == 0xef && p[1] == 0xbf && p[2] >= 0xbe ? 3 : 0;
}

void html_text(FILE *f, const char *text)
{
    json_t *probe = json_string(text); /* NULL: not UTF-8 */
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        int bad = unfit(p, probe != NULL);
        switch (bad ? '?' : *p) {
        case '&': fputs("&amp;", f); break;
        case '<': fputs("&lt;", f); break;
        case '>': fputs("&gt;", f); break;
        case '"': fputs("&quot;", f); break;
        case '\'': fputs("&#39;", f); break;
        default: fputc(bad ? '?' : *p, f);
        }
        p += bad ? bad - 1 : 0;
    }
    json_decref(probe);
}

void html_element(FILE *f, const char *tag, const char *class, const char *text)
{
    fprintf(f, "<%s", tag);
    if (class) fprintf(f, " class=\"%s\"", class);
    fputc('>', f);
    html_text(f, text);
    fprintf(f, "</%s>\n", tag);
}

void html_table(FILE *f, const char *class, const char *caption, const json_t *rows)
{
    size_t i, c;
    json_t *row, *cell;
    fprintf(f, "<div class=\"wide\"><table class=\"%s\">\n", class);
    html_element(f, "caption", NULL, caption);
    json_array_foreach (rows, i, row) {
        fputs(i == 0 ? "<thead><tr>" : i == 1 ? "<tbody>\n<tr>" : "<tr>", f);
        json_array_foreach (row, c, cell)
            html_element(f, i && c ? "td" : "th", NULL, json_string_value(cell));
        fputs(i ? "</tr>\n" : "</tr></thead>\n", f);
    }
    fputs("</tbody></table></div>\n", f);
}

static void put_base64(FILE *f, const uint8_t *p, size_t n)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (; n; p += 3, n = n > 3 ? n - 3 : 0) {
        uint32_t three = (uint32_t)p[0] << 16 | (n > 1 ? (uint32_t)p[1] << 8 : 0) | (n > 2 ? p[2] : 0);
        fputc(digit[three >> 18], f);
        fputc(digit[three >> 12 & 63], f);
        fputc(n > 1 ? digit[three >> 6 & 63] : '=', f);
        fputc(n > 2 ? digit[three & 63] : '=', f);
    }
}

void html_picture(FILE *f, const char *type, const void *bytes, size_t n, const char *alt)
{
    fputs("<div class=\"wide\"><img alt=\"", f);
    html_text(f, alt);
    fprintf(f, "\" src=\"data:%s;base64,", type);
    put_base64(f, bytes, n);
    fputs("\"/></div>\n", f);
}
