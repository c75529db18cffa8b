#include "filters/grading/owl_prompt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/csv.h"
#include "formats/error.h"

/* ---- ids ----------------------------------------------------------------------------------------------- */

static const struct medium {
    const char *text;
    int32_t code;
} media[] = {{"<image>", OWL_IMAGE}, {"<|video|>", OWL_VIDEO}};

/* Where the next of them stands, or the text's end, with *found NULL. */
static const char *find_medium(const char *text, const struct medium **found)
{
    const char *first = text + strlen(text);
    *found = NULL;
    for (const struct medium *m = media; m < media + sizeof media / sizeof media[0]; m++) {
        const char *at = strstr(text, m->text);
        if (at && at < first) first = at, *found = m;
    }
    return first;
}

struct tokenizer *owl_tokenizer_open(const struct model *m, char *err, size_t errlen)
{
    char path[4096];
    const char *name = m->random ? "tokenizer/tokenizer.model" : "tokenizer.model";
    if (!model_file(m, name, path, sizeof path, err, errlen)) return NULL;
    return tokenizer_open_llama(path, err, errlen);
}

/* Adds n ids, or with `from` NULL n times the code. */
static bool add_ids(int32_t **ids, int *count, const int32_t *from, int n, int32_t code, char *err,
                    size_t errlen)
{
    int32_t *grown = realloc(*ids, ((size_t)*count + (size_t)n + 1) * sizeof *grown);
    if (!grown) return fail(err, errlen, "out of memory");
    for (int i = 0; i < n; i++) grown[*count + i] = from ? from[i] : code;
    *ids = grown;
    *count += n;
    return true;
}

bool owl_ids(const struct tokenizer *t, const char *prompt, int32_t **ids, int *count, char *err,
             size_t errlen)
{
    *ids = NULL;
    *count = 0;
    bool good = add_ids(ids, count, NULL, 1, LLAMA_BOS, err, errlen);
    while (good && *prompt) {
        const struct medium *medium;
        const char *end = find_medium(prompt, &medium);
        int n;
        int32_t *part = tokenizer_pieces(t, prompt, (size_t)(end - prompt), &n, err, errlen);
        good = part && add_ids(ids, count, part, n, 0, err, errlen);
        if (good && medium) good = add_ids(ids, count, NULL, OWL_MEDIA_TOKENS, medium->code, err, errlen);
        prompt = end + (medium ? strlen(medium->text) : 0);
        free(part);
    }
    if (good) return true;
    free(*ids);
    *ids = NULL;
    return false;
}

/* ---- prompts ------------------------------------------------------------------------------------------- */

/* The grader's prompts to the letter, trailing spaces included: it was trained on them. */
static const char head[] =
    "The following is a conversation between a curious human and an AI assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions.\nHuman: <|video|>\nHuman: ";
static const struct task {
    const char *name, *field, *before, *after; /* the field's text; no field, no `after`: there is none */
} tasks[] = {
    {"sa", "caption", "Does this video match the description: \"",
     "\"? Please rate the video on a scale from 1 to 5, where 5 indicates a perfect match and 1 indicates no "
     "relevance.\nAI: "},
    {"pc", NULL,
     "Does this video adhere to the physical laws? Rate the video on a scale from 1 to 5, where 5 means full "
     "compliance and 1 means significant violations.\nAI: ",
     NULL},
    {"rule", "rule", "Does the video follow the physical rule: \"",
     "\"?\nChoose 0 if not, 1 if valid, or 2 if indeterminate. \nAI: "},
};

static const struct task *task_find(const char *name)
{
    for (size_t i = 0; i < sizeof tasks / sizeof tasks[0]; i++)
        if (!strcmp(tasks[i].name, name)) return &tasks[i];
    return NULL;
}

const char *owl_prompt_field(const char *task)
{
    const struct task *k = task_find(task);
    return k ? k->field : NULL;
}

bool owl_prompt_ids(const struct tokenizer *t, const char *task, const char *text, int32_t **ids, int *count,
                    char *err, size_t errlen)
{
    const struct task *k = task_find(task);
    const struct medium *medium = NULL;
    char *prompt;
    if (!k) return fail(err, errlen, "the grader has no task %s", task);
    if (k->after && !text) return fail(err, errlen, "task %s needs a text", task);
    if (k->after) find_medium(text, &medium);
    if (medium)
        return fail(err, errlen, "the text holds %s, which stands for something to look at", medium->text);
    if (k->after && csv_missing(text)) text = "nan";
    if (asprintf(&prompt, "%s%s%s%s", head, k->before, k->after ? text : "", k->after ? k->after : "") < 0)
        return fail(err, errlen, "out of memory");
    bool good = owl_ids(t, prompt, ids, count, err, errlen);
    free(prompt);
    return good;
}

/* ---- answers ------------------------------------------------------------------------------------------- */

bool owl_digit_ids(const struct tokenizer *t, int32_t id[OWL_SCORES], char *err, size_t errlen)
{
    for (int d = 0; d < OWL_SCORES; d++) {
        char text[] = {(char)('0' + d), 0};
        int n;
        int32_t *pieces = tokenizer_pieces(t, text, 1, &n, err, errlen); /* a space, the digit */
        if (!pieces) return false;
        id[d] = pieces[n - 1];
        free(pieces);
        if (n != 2) return fail(err, errlen, "the tokenizer has no piece that is just %d", d);
    }
    return true;
}

int owl_score(const char *text, bool *fallback)
{
    static const char *const key[] = {"zero", "one", "two", "three", "four", "five",
                                      "0",    "1",   "2",   "3",     "4",    "5"};
    for (int i = 0; i < (int)(sizeof key / sizeof key[0]); i++)
        if (strcasestr(text, key[i])) return *fallback = false, i % OWL_SCORES;
    *fallback = true;
    return 0;
}

void owl_frames(int64_t n, int segments, int64_t *index)
{
    double step = (double)(n - 1) / segments;
    int64_t start = (int64_t)(step / 2);
    for (int k = 0; k < segments; k++) index[k] = start + (int64_t)rint(step * k);
}
