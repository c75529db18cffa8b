#include "formats/html.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

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
    "thead th{border-bottom:1px solid #333;vertical-align:bottom}\n"
    "th,td{padding:.2rem 0 .2rem .8rem;text-align:right;vertical-align:baseline;font-weight:400}\n"
    "th:first-child{padding-left:0;text-align:left}thead th{font-weight:600}\n"
    "td{font:.8rem/1.5 ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;white-space:nowrap}\n"
    ".words{text-align:left}tbody th,.words{overflow-wrap:break-word}\n"
    "td.words{font:inherit;white-space:normal}\n"
    "details{margin:1rem 0}summary{cursor:pointer}\n"
    ".videos{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:.4rem 1rem;align-items:end}\n"
    "video{display:block;width:100%;background:#eee}\n"
    "figure{margin:.6rem 0;break-inside:avoid}figure .wide{margin:.1rem 0}\n"
    "img{display:block;width:100%;min-width:44rem;height:auto}\n"
    ".missing{color:#a00}\n"
    "footer{margin-top:3rem;border-top:1px solid #ccc;color:#555;font-size:.85rem}\n"
    "@media print{body{max-width:none;margin:0;font-size:10pt}.wide{overflow:visible}img{min-width:0}\n"
    "  table,tr,h2,h3{break-inside:avoid}h2,h3{break-after:avoid}.videos{display:none}\n"
    "  details::details-content{content-visibility:visible;display:block;height:auto}}\n";

void html_open(FILE *f, const char *title)
{
    fputs(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; media-src data:; style-src "
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

/* breaks: a line may end behind the signs that part the words of names and paths. */
static void put_text(FILE *f, const char *text, bool breaks)
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
        if (breaks && !bad && strchr("_./,:-@", *p) && isalnum(p[1])) fputs("<wbr/>", f);
        p += bad ? bad - 1 : 0;
    }
    json_decref(probe);
}

void html_text(FILE *f, const char *text)
{
    put_text(f, text, false);
}

void html_name(FILE *f, const char *text)
{
    put_text(f, text, true);
}

void html_element(FILE *f, const char *tag, const char *class, const char *text)
{
    fprintf(f, "<%s", tag);
    if (class) fprintf(f, " class=\"%s\"", class);
    fputc('>', f);
    html_text(f, text);
    fprintf(f, "</%s>\n", tag);
}

/* ---- tables -------------------------------------------------------------------------------------------- */

static const char *cell(const json_t *rows, size_t row, size_t column)
{
    const char *text = json_string_value(json_array_get(json_array_get(rows, row), column));
    return text ? text : "";
}

/* "-0.17 [-2.03, 1.69]", "<0.001", "1:20:00", "12 so far" or, for none, "-" */
static bool is_number(const char *text)
{
    const size_t n = strspn(text, "0123456789+-.,:[]<e ±");
    return n && (isdigit((unsigned char)text[strspn(text, "+-<[")]) || !strcmp(text, "-")) &&
           (!text[n] || !strcmp(text + n, "so far"));
}

static bool has_numbers(const json_t *rows, size_t column)
{
    bool all = json_array_size(rows) > 1;
    for (size_t i = 1; i < json_array_size(rows); i++) all = all && is_number(cell(rows, i, column));
    return all;
}

/* The characters of a number at text: before the point, its sign included, and from there on. */
static bool measure(const char *text, int *whole, int *part)
{
    const char *p = text + strspn(text, "+-"), *end = p + strspn(p, "0123456789");
    if (end == p) return false;
    *whole = (int)(end - text);
    p = end;
    if (*end == '.') end += 1 + strspn(end + 1, "0123456789");
    if (*end == 'e' && strchr("+-", end[1])) end += 2 + strspn(end + 2, "0123456789");
    *part = (int)(end - p);
    return true;
}

enum { NUMBERS = 8 /* in a cell that are aligned */ };
struct widths {
    int whole[NUMBERS], part[NUMBERS];
};

static void widen(struct widths *w, const char *text)
{
    int whole, part;
    for (int k = 0; *text && k < NUMBERS; k++) {
        while (*text && !measure(text, &whole, &part)) text++;
        if (!*text) return;
        if (whole > w->whole[k]) w->whole[k] = whole;
        if (part > w->part[k]) w->part[k] = part;
        text += whole + part;
    }
}

static void put_spaces(FILE *f, int n)
{
    while (n-- > 0) fputs("\u00a0", f);
}

/* The column is set to the right, in letters of one width: so only what is within or behind a cell has to be filled
 * for its numbers to stand below each other. */
static void put_numbers(FILE *f, const struct widths *w, const char *text)
{
    int whole = 0, part = 0;
    for (int k = 0; *text; k++) {
        char between[256];
        size_t n = 0;
        while (text[n] && n + 1 < sizeof between && (k == NUMBERS || !measure(text + n, &whole, &part))) n++;
        snprintf(between, sizeof between, "%.*s", (int)n, text);
        html_text(f, between);
        if (!*(text += n) || k == NUMBERS) return;
        if (k) put_spaces(f, w->whole[k] - whole);
        fprintf(f, "%.*s", whole + part, text);
        put_spaces(f, w->part[k] - part);
        text += whole + part;
    }
}

static void put_cell(FILE *f, const json_t *rows, size_t i, size_t c, bool number)
{
    const char *tag = i && c ? "td" : "th";
    fprintf(f, "<%s%s>", tag, c && !number ? " class=\"words\"" : "");
    if (i && c && number) {
        struct widths w = {0};
        for (size_t k = 1; k < json_array_size(rows); k++) widen(&w, cell(rows, k, c));
        put_numbers(f, &w, cell(rows, i, c));
    } else if (i) {
        html_name(f, cell(rows, i, c));
    } else {
        html_text(f, cell(rows, i, c));
    }
    fprintf(f, "</%s>\n", tag);
}

void html_table(FILE *f, const char *caption, const json_t *rows)
{
    const size_t n = json_array_size(rows), columns = json_array_size(json_array_get(rows, 0));
    fputs("<div class=\"wide\"><table>\n", f);
    if (caption) html_element(f, "caption", NULL, caption);
    for (size_t i = 0; i < n; i++) {
        fputs(i == 0 ? "<thead><tr>" : i == 1 ? "<tbody>\n<tr>" : "<tr>", f);
        for (size_t c = 0; c < columns; c++) put_cell(f, rows, i, c, has_numbers(rows, c));
        fputs(i ? "</tr>\n" : "</tr></thead>\n", f);
    }
    fputs(n > 1 ? "</tbody></table></div>\n" : "</table></div>\n", f);
}

/* ---- pictures and videos ------------------------------------------------------------------------------- */

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

void html_video(FILE *f, const char *type, const void *bytes, size_t n)
{
    fprintf(
        f,
        "<video controls=\"controls\" loop=\"loop\" muted=\"muted\" playsinline=\"playsinline\" preload=\"metadata\" "
        "src=\"data:%s;base64,",
        type);
    put_base64(f, bytes, n);
    fputs("\"></video>\n", f);
}

void html_link(FILE *f, const char *path, const char *text)
{
    fputs(*path == '/' || *path == '.' ? "<a href=\"" : "<a href=\"./", f);
    for (const unsigned char *p = (const unsigned char *)path; *p; p++)
        fprintf(f, isascii(*p) && (isalnum(*p) || strchr("/._-", *p)) ? "%c" : "%%%02X", *p);
    fputs("\">", f);
    html_name(f, text);
    fputs("</a>", f);
}
