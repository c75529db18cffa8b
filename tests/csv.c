/* The CSV reader: what RFC 4180 allows, what it does not, and where the message says it is. */
#include "formats/csv.h"

#include <jansson.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/tap.h"

static char err[512];

static struct csv *open_bytes(const char *text, size_t n)
{
    int fd = memfd_create("csv", 0);
    if (fd < 0 || write(fd, text, n) != (ssize_t)n || lseek(fd, 0, SEEK_SET)) abort();
    *err = 0;
    return csv_open(fd, err, sizeof err); /* fd is left open: a few dozen */
}

/* Everything read, as "line:field|field;" for each row, "BAD;" and "DAMAGED" with the reason left in err. */
static const char *read_all(const char *text, size_t n)
{
    static char all[4096];
    size_t at = 0;
    struct csv *c = open_bytes(text, n);
    if (!c) return "NO HEADER";
    enum csv_got got;
    all[0] = 0;
    while ((got = csv_next(c)) > 0) {
        if (got == CSV_BAD_ROW) at += (size_t)sprintf(all + at, "BAD;");
        if (got == CSV_BAD_ROW) strcpy(err, c->error);
        if (got == CSV_BAD_ROW) continue;
        at += (size_t)sprintf(all + at, "%lld:", (long long)c->line);
        for (int i = 0; i < c->columns; i++)
            at += (size_t)sprintf(all + at, "%s%s", i ? "|" : "", c->field[i]);
        at += (size_t)sprintf(all + at, ";");
    }
    if (got == CSV_DAMAGED) strcpy(err, c->error), strcpy(all + at, "DAMAGED");
    csv_close(c);
    return all;
}

static void reads(const char *what, const char *text, size_t n, const char *want)
{
    const char *got = read_all(text, n);
    if (!ok(!strcmp(got, want), "%s", what)) printf("# got  %s\n# want %s\n# %s\n", got, want, err);
}

static void says(const char *what, const char *text, size_t n, const char *want, const char *why)
{
    reads(what, text, n, want);
    if (!ok(strstr(err, why) && !strncmp(err, "line ", 5), "... and says: %s", err))
        printf("# want %s\n", why);
}
#define TEXT(text) text, sizeof text - 1

static void test_shapes(void)
{
    reads("plain rows", TEXT("a,b\n1,2\n3,4\n"), "2:1|2;3:3|4;");
    reads("no line end at the end", TEXT("a,b\n1,2"), "2:1|2;");
    reads("CR LF", TEXT("a,b\r\n1,2\r\n3,4\r\n"), "2:1|2;3:3|4;");
    reads("CR alone", TEXT("a,b\r1,2\r3,4"), "2:1|2;3:3|4;");
    reads("empty lines are skipped and counted", TEXT("\n\na,b\n\n1,2\n\r\n\r\n3,4\n\n"), "5:1|2;8:3|4;");
    reads("a byte order mark",
          TEXT("\xef\xbb\xbf"
               "a,b\n1,2\n"),
          "2:1|2;");
    reads("a header and no row", TEXT("a,b\n"), "");
    reads("empty fields", TEXT("a,b,c\n,,\n\"\",x,\n"), "2:||;3:|x|;");
    reads("spaces belong to the field", TEXT("a,b\n 1 ,\t2 \n"), "2: 1 |\t2 ;");
    reads("commas, quotes and line ends in quotes",
          TEXT("a,b\n\"x, \"\"y\"\"\",\"one\ntwo\r\nthree\"\n5,6\n"), "2:x, \"y\"|one\ntwo\r\nthree;5:5|6;");
    reads("one column", TEXT("a\n1\n2\n"), "2:1;3:2;");
    reads("other scripts", TEXT("a\n東京 é\n"), "2:東京 é;");
}

static void test_mistakes(void)
{
    says("an empty file", TEXT(""), "NO HEADER", "line 1: no header");
    says("a file of empty lines", TEXT("\n\n"), "NO HEADER", "no header");
    says("a column twice", TEXT("a b,c,a_b\n"), "NO HEADER", "line 1: column `a_b` is there twice");
    says("a header that is not UTF-8", TEXT("a,\xff\n"), "NO HEADER", "line 1: not UTF-8");
    says("end inside quotes", TEXT("a,b\n1,2\n3,\"four\n5,6\n"), "2:1|2;BAD;4:5|6;",
         "line 3: the file ends inside");
    says("in the last line", TEXT("a,b\n1,2\n3,\"four"), "2:1|2;BAD;", "line 3: the file ends inside");
    says("a header that ends inside quotes", TEXT("a,\"b\n1,2\n"), "NO HEADER",
         "line 1: the file ends inside");
    says("a quote in the middle", TEXT("a,b\n1,2\n3,6\" high\n4,5\n"), "2:1|2;BAD;4:4|5;",
         "line 3: a quote inside");
    says("the same before CR LF", TEXT("a,b\r\n3,6\" high\r\n4,5\r\n\"6\"x,\r\n7,8"), "BAD;3:4|5;BAD;5:7|8;",
         "line 4: a quote inside");
    says("text behind a quote", TEXT("a,b\n\"one\ntwo\"x,2\n4,5\n"), "BAD;BAD;4:4|5;", "line 3: ");
    says("a quote that the next one closes", TEXT("a,b\n1,\"two\n3,4\n5,\"six\"\n7,8\n"),
         "BAD;3:3|4;4:5|six;5:7|8;", "line 4: a quote inside");
    says("too few fields", TEXT("a,b\n1\n3,4\n"), "BAD;3:3|4;", "line 2: 1 fields under 2 columns");
    says("too many", TEXT("a,b\n1,2,3\n3,4\n"), "BAD;3:3|4;", "line 2: 3 fields under 2 columns");
    says("not UTF-8", TEXT("a,b\n1,caf\xe9\n3,4\n"), "BAD;3:3|4;", "line 2: not UTF-8");
    says("a zero byte", TEXT("a,b\n1,x\0y\n3,4\n"), "BAD;3:3|4;", "line 2: a zero byte");
    ok(!csv_open(-1, err, sizeof err) && strstr(err, "Bad file descriptor"), "an unreadable file: %s", err);
}

static void test_quote_never_closed(void)
{
    size_t n = CSV_MAX_ROW + 100;
    char *text = malloc(n);
    memset(text, 'x', n);
    memcpy(text, "a\n1\n\"", 5);
    says("a quote that is never closed is not read to the end", text, n, "2:1;BAD;",
         "line 3: a row of more than 16 MiB");
    memcpy(text + n - 4, "\n7\n", 3);
    text[n - 1] = '8';
    says("what is behind its line is", text, n, "2:1;BAD;4:7;5:8;", "line 3: a row of more than 16 MiB");
    for (size_t i = 5; i < n; i += 4) text[i] = '\n';
    struct csv *c = open_bytes(text, n);
    ok(csv_next(c) == CSV_ROW && csv_next(c) == CSV_BAD_ROW && csv_next(c) == CSV_ROW && c->line == 4 &&
           !strcmp(c->field[0], "xxx"),
       "so are the lines that it would have swallowed");
    csv_close(c);
    free(text);
}

/* Every byte of a row falls on the border of the reader's blocks once. */
static void test_block_borders(void)
{
    const char row[] = "\r\n\"a \"\"q\"\"\r\n,\",\xc3\xa9\r\n";
    enum { BLOCK = 1 << 16 };
    static char text[BLOCK + 100];
    int good = 0, tried = 0;
    for (size_t back = 1; back <= sizeof row - 1; back++, tried++) {
        size_t first = BLOCK - back;
        memcpy(text, "a,b\n1,", 6);
        memset(text + 6, 'x', first - 6);
        memcpy(text + first, row, sizeof row - 1);
        struct csv *c = open_bytes(text, first + sizeof row - 1);
        good += csv_next(c) == CSV_ROW && strlen(c->field[1]) == first - 6 && csv_next(c) == CSV_ROW &&
                c->line == 3 && !strcmp(c->field[0], "a \"q\"\r\n,") && !strcmp(c->field[1], "\xc3\xa9") &&
                csv_next(c) == CSV_END;
        csv_close(c);
    }
    ok(good == tried, "%d of %d positions of a row over a block's border", good, tried);
}

/* What counts as UTF-8, against another judge: every start of a sequence, with what borders
 * on being right. */
static void test_utf8(void)
{
    static const uint8_t next[] = {'x', 0x80, 0xc0, 0x7f, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xff};
    enum { THIRD = sizeof next, FOURTH = 3, TRIED = 128 * 256 * THIRD * FOURTH };
    char *text = malloc(2 + 16 * (size_t)TRIED);
    bool *sound = calloc(TRIED, sizeof *sound);
    size_t n = (size_t)sprintf(text, "a\n"), rows = 0, good = 0, accepted = 0, at = 0;
    for (int i = 0; i < TRIED; i++) {
        uint8_t four[] = {(uint8_t)(128 + i % 128), (uint8_t)(i / 128), next[i / 32768 % THIRD],
                          next[i / 32768 / THIRD]};
        if (!four[1] || strchr("\"\r\n,", four[1])) continue;
        size_t length = (size_t)sprintf(text + n, "%.*s%.4s", i % 11, "0123456789", (char *)four);
        json_t *judge = json_stringn(text + n, length);
        sound[rows++] = judge;
        json_decref(judge);
        n += length;
        text[n++] = '\n';
    }
    struct csv *c = open_bytes(text, n);
    for (enum csv_got got; (got = csv_next(c)) > CSV_END; at++) {
        good += (got == CSV_ROW) == sound[at];
        accepted += got == CSV_ROW;
    }
    ok(at == rows && good == rows && accepted > 1000 && accepted < rows / 10,
       "%zu sequences of bytes, %zu of them UTF-8, as jansson finds", rows, accepted);
    csv_close(c);
    free(sound);
    free(text);
}

static void test_columns(void)
{
    struct csv *c = open_bytes(TEXT("video,motion score,camera_motion,,\n"));
    ok(c && c->columns == 5 && csv_column(c, "video") == 0, "columns are found by name");
    ok(csv_column(c, "motion_score") == 1 && csv_column(c, "camera motion") == 2,
       "a space and an underscore are equal");
    ok(csv_column(c, "Video") == -1 && csv_column(c, "motion") == -1 && csv_column(c, "motion scores") == -1,
       "nothing else is");
    csv_close(c);
}

static void test_numbers(void)
{
    double v = 7;
    ok(csv_number("6.5", &v) && v == 6.5 && csv_number("-1e3", &v) && v == -1000 && csv_number("30", &v) &&
           v == 30,
       "numbers are read");
    const char *no[] = {"", " ", "6.5 ", " 6.5", "6,5", "nan", "inf", "1e999", "0x10", "6.5s", "--1", "None"};
    int refused = 0, count = sizeof no / sizeof no[0];
    for (int i = 0; i < count; i++) refused += !csv_number(no[i], &v);
    ok(refused == count && v == 30, "%d of %d other texts are not numbers", refused, count);
}

int main(void)
{
    test_shapes();
    test_mistakes();
    test_quote_never_closed();
    test_block_borders();
    test_utf8();
    test_columns();
    test_numbers();
    return done();
}
