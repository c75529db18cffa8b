/* What grade leaves: the table of the grader's own driver, byte for byte; and lines that a later run takes
 * up. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/csv.h"
#include "formats/graded.h"
#include "tests/scratch.h"
#include "tests/tap.h"

static char err[512];

static bool refused(const char *because, bool taken)
{
    if (taken || !strstr(err, because)) printf("# %s\n", taken ? "taken" : err);
    return !taken && strstr(err, because);
}

/* ---- the table ----------------------------------------------------------------------------------------- */

static const char *field(const struct csv *c, const char *column)
{
    int i = csv_column(c, column);
    return i < 0 ? NULL : c->field[i];
}

/* The published table at path, read as CSV and written anew, is the same file. Called where the tests' data
 * lies below; it is written into the scratch folder. */
static void check_published(const char *task, const char *scores)
{
    char path[64], ours[300], got[32] = "";
    snprintf(path, sizeof path, "tests/data/videophy2/output_%s.csv", task);
    snprintf(ours, sizeof ours, "%s/%s.csv", scratch, task);
    int fd = open(path, O_RDONLY), at = 0;
    struct csv *in = fd < 0 ? NULL : csv_open(fd, err, sizeof err);
    struct graded_csv out;
    bool good = in && graded_csv_open(&out, ours, task, false, NULL, err, sizeof err);
    while (good && csv_next(in) == CSV_ROW) {
        int score = field(in, "score")[0] - '0';
        json_t *line = json_object(); /* the input's columns: not the rows' numbers, nor the score */
        for (int i = 1; i < in->columns - 1; i++)
            json_object_set_new(line, strcmp(in->column[i], "videopath") ? in->column[i] : "path",
                                json_string(in->field[i]));
        good = graded_csv_add(&out, "key", line, score);
        json_decref(line);
        at += snprintf(got + at, sizeof got - (size_t)at, "%d", score);
    }
    size_t n = 0, m = 0;
    good = good && graded_csv_commit(&out, err, sizeof err);
    char *a = get_bytes(path, &n), *b = good ? get_bytes(ours, &m) : NULL;
    ok(a && b && n == m && !memcmp(a, b, n), "%s: ten published scores as upstream wrote them", task);
    ok(!strcmp(got, scores), "%s: they are %s", task, scores);
    free(a);
    free(b);
    csv_close(in);
    if (fd >= 0) close(fd);
}

static void check_hostile_texts(void)
{
    static const char *const text[] = {
        "plain",          "a, b",    "say \"x\"", "two\nlines", "two\r\nlines", "\r",
        "`rm -rf` $HOME", " space ", "",          "\"",         "日本, \"語\"", ";'|\t"};
    enum { N = sizeof text / sizeof text[0] };
    struct graded_csv out;
    bool good = graded_csv_open(&out, "hostile.csv", "sa", false, NULL, err, sizeof err);
    for (int i = 0; i < N; i++) {
        json_t *line = json_pack("{s:s}", "caption", text[i]);
        good = good && graded_csv_add(&out, text[N - 1 - i], line, i % 6);
        json_decref(line);
    }
    good = good && graded_csv_commit(&out, err, sizeof err);
    int fd = open("hostile.csv", O_RDONLY), rows = 0;
    struct csv *c = csv_open(fd, err, sizeof err);
    for (char index[16]; good && c && csv_next(c) == CSV_ROW; rows++) {
        snprintf(index, sizeof index, "%d", rows);
        good = rows < N && !strcmp(c->field[0], index) && !strcmp(field(c, "caption"), text[rows]) &&
               !strcmp(field(c, "videopath"), text[N - 1 - rows]);
    }
    ok(good && rows == N, "texts full of quotes, commas and line ends come back as they were");
    csv_close(c);
    close(fd);
}

/* What the table of these lines is; each scores 3. The caller frees. */
static char *table_of(const char *lines, const char *columns)
{
    struct graded_csv out;
    json_t *all = json_loads(lines, 0, NULL), *line;
    size_t i, n;
    bool good = all && graded_csv_open(&out, "table.csv", "sa", false, columns, err, sizeof err);
    json_array_foreach (all, i, line) good = good && graded_csv_add(&out, "key", line, 3);
    json_decref(all);
    return good && graded_csv_commit(&out, err, sizeof err) ? get_bytes("table.csv", &n) : NULL;
}

/* Right answers: pandas' (3.1), of a CSV with the same columns, read and written as upstream's driver does. */
static void check_columns(void)
{
    static const struct {
        const char *what, *lines, *columns, *table;
    } t[] = {
        {"columns in the input's order",
         "[{\"path\":\"a\",\"caption\":\"b\"},{\"caption\":\"d\",\"path\":\"c\"}]", NULL,
         ",videopath,caption,score\n0,a,b,3.0\n1,c,d,3.0\n"},
        {"others are carried through", "[{\"id\":7,\"caption\":\"b\",\"w\":0.1,\"path\":\"a\",\"ok\":true}]",
         NULL, ",id,caption,w,videopath,ok,score\n0,7,b,0.1,a,True,3.0\n"},
        {"what pandas takes for missing is empty",
         "[{\"path\":\"a\",\"caption\":\"NA\"},{\"path\":\"b\",\"caption\":\"null\"},{\"path\":\"c\",\"caption\":\"nan\"},"
         "{\"path\":\"d\",\"caption\":\"\"},{\"path\":\"e\",\"caption\":\"na\"}]",
         NULL, ",videopath,caption,score\n0,a,,3.0\n1,b,,3.0\n2,c,,3.0\n3,d,,3.0\n4,e,na,3.0\n"},
        {"whole numbers are floats where one is missing",
         "[{\"path\":\"a\",\"n\":4,\"m\":1},{\"path\":\"b\",\"m\":1},{\"path\":\"c\",\"n\":100000000,\"m\":2}]",
         NULL, ",videopath,n,m,score\n0,a,4.0,1,3.0\n1,b,,1,3.0\n2,c,100000000.0,2,3.0\n"},
        {"a column score is overwritten in place",
         "[{\"score\":1,\"path\":\"a\"},{\"score\":5,\"path\":\"b\"}]", NULL,
         ",score,videopath\n0,3,a\n1,3,b\n"},
        {"a bare carriage return is quoted", "[{\"path\":\"a\",\"caption\":\"x\\ry\"}]", NULL,
         ",videopath,caption,score\n0,a,\"x\ry\",3.0\n"},
        {"columns that are asked for", "[{\"path\":\"a\",\"fps\":8,\"caption\":\"b\"}]", "caption,videopath",
         ",caption,videopath,score\n0,b,a,3.0\n"},
        {"the key where there is no path", "[{\"caption\":\"b\"}]", NULL,
         ",videopath,caption,score\n0,key,b,3.0\n"},
        {"lists as JSON", "[{\"path\":\"a\",\"size\":[1,2]}]", NULL,
         ",videopath,size,score\n0,a,\"[1,2]\",3.0\n"},
        {"no row", "[]", NULL, ",score\n"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char *table = table_of(t[i].lines, t[i].columns);
        if (!ok(table && !strcmp(table, t[i].table), "%s", t[i].what)) printf("# %s\n", table ? table : err);
        free(table);
    }
}

static void check_names(void)
{
    static const char *const name[][2] = {{"k1.csv", "k1.sa.csv"},
                                          {"k1", "k1.sa"},
                                          {"a.b/k1", "a.b/k1.sa"},
                                          {"a.b/.csv", "a.b/.csv.sa"},
                                          {"k.1.csv", "k.1.sa.csv"}};
    struct graded_csv c;
    mkdir("a.b", 0777);
    for (int i = 0; i < 5; i++) {
        bool good = graded_csv_open(&c, name[i][0], "sa", true, NULL, err, sizeof err);
        ok(good && !strcmp(c.path, name[i][1]), "of several tasks, %s becomes %s", name[i][0], name[i][1]);
        ok(access(c.path, F_OK) != 0, "nothing is there before the commit");
        if (good && graded_csv_commit(&c, err, sizeof err)) ok(access(c.path, F_OK) == 0, "and then it is");
    }
    ok(refused("No such file", graded_csv_open(&c, "nowhere/x.csv", "pc", false, NULL, err, sizeof err)),
       "a folder that is not there is told at once");
    ok(refused("not a regular file", graded_csv_open(&c, "/dev/null", "pc", false, NULL, err, sizeof err)),
       "a device is not replaced");
}

/* ---- lines --------------------------------------------------------------------------------------------- */

#define LINE(key, sa, frames)                                                                                \
    "{\"key\":\"" key "\",\"sa\":" sa ",\"pc\":2,\"grade\":{\"model\":\"m\",\"frames\":" frames "}}\n"

static int64_t whole, half;

/* How many lines there are done in the text; -1 with the reason in err. */
static int read_text(const char *text)
{
    static const char *const tasks[] = {"sa", "pc", NULL};
    json_t *how = json_pack("{s:s, s:i}", "model", "m", "frames", 32);
    put_text("done.jsonl", text);
    json_t *done = graded_read("done.jsonl", how, tasks, &whole, &half, err, sizeof err);
    int n = done ? (int)json_object_size(done) : -1;
    json_decref(done);
    json_decref(how);
    return n;
}

static void check_lines(void)
{
    static const char two[] = LINE("a", "1", "32") LINE("b", "5", "32");
    int64_t both = (int64_t)sizeof two - 1;
    ok(read_text("") == 0 && whole == 0 && half == 0, "an empty file holds nothing");
    ok(read_text(two) == 2 && whole == both && half == 0, "two lines");
    ok(read_text(LINE("a", "1", "32") LINE("b", "5", "32") LINE("a", "1", "32")) == 2,
       "equal lines of one key count once");

    int good = 0;
    char cut[sizeof two + 200];
    static const char third[] = LINE("c", "0", "32");
    for (int n = 1; n < (int)sizeof third - 1; n++) { /* up to all of it but the line end */
        snprintf(cut, sizeof cut, "%s%.*s", two, n, third);
        good += read_text(cut) == 2 && whole == both && half == n;
    }
    ok(good == (int)sizeof third - 2, "a line cut off anywhere does not count, and is told");

    static const struct {
        const char *text, *because, *what;
    } bad[] = {
        {LINE("a", "1", "32") "{\"key\":\"b\",\"s" LINE("c", "1", "32"),
         "line 2: ", "a line that is no JSON"},
        {LINE("a", "1", "32") LINE("a", "2", "32"), "line 2: key `a` was there before, with another line",
         "a key that comes twice with two scores"},
        {LINE("a", "1", "16"), "line 1: made with another `frames`", "another setting"},
        {"{\"key\":\"a\",\"sa\":1,\"pc\":2,\"grade\":{\"frames\":32}}\n", "another `model`", "no model"},
        {"{\"key\":\"a\",\"pc\":2,\"grade\":{\"model\":\"m\",\"frames\":32}}\n", "no score `sa`",
         "a task's score missing"},
        {LINE("a", "6", "32"), "no score `sa`", "a score of 6"},
        {LINE("a", "1.0", "32"), "no score `sa`", "a score of 1.0"},
        {LINE("", "1", "32"), "no line of grade's", "an empty key"},
        {"{\"path\":\"a.mp4\"}\n", "no line of grade's", "a list of videos"},
        {"[1]\n", "no line of grade's", "a list"},
        {"\n", "line 1: ", "an empty line"},
        {"key,sa\n", "line 1: ", "a CSV"},
        {"key,sa", "line 1: ", "a CSV without a line end, which is no line of grade's cut off"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ok(refused(bad[i].because, read_text(bad[i].text) >= 0), "refused: %s", bad[i].what);

    json_t *how = json_object(), *done = graded_read("nowhere.jsonl", how, (const char *const[]){NULL},
                                                     &whole, &half, err, sizeof err);
    ok(done && json_object_size(done) == 0, "a file that is not there holds nothing");
    json_decref(done);
    ok(refused("Is a directory",
               graded_read(".", how, (const char *const[]){NULL}, &whole, &half, err, sizeof err)),
       "a folder is refused");
    json_decref(how);
}

int main(void)
{
    char top[4096];
    if (!getcwd(top, sizeof top)) return 1;
    scratch_enter();
    if (chdir(top)) return 1;
    check_published("sa", "5555455544");
    check_published("pc", "4545444444");
    check_published("rule", "1110121111");
    if (chdir(scratch)) return 1;
    check_hostile_texts();
    check_names();
    check_columns();
    check_lines();
    ok(scratch_leave(), "the folder is gone");
    return done();
}
