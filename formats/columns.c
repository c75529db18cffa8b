#include "formats/columns.h"

#include <stdlib.h>

#include "formats/plain.h"

static const char *cell(const json_t *rows, size_t row, size_t column)
{
    const char *text = json_string_value(json_array_get(json_array_get(rows, row), column));
    return text ? text : "";
}

/* Characters, of which UTF-8's continuation bytes are none. */
static int width(const char *text)
{
    int n = 0;
    for (; *text; text++) n += (*text & 0xc0) != 0x80;
    return n;
}

void columns_print(FILE *out, const json_t *rows, size_t left)
{
    size_t n = json_array_size(rows), columns = json_array_size(json_array_get(rows, 0));
    int *wide = calloc(columns + 1, sizeof *wide);
    for (size_t i = 0; wide && i < n; i++)
        for (size_t c = 0; c < columns; c++)
            if (width(cell(rows, i, c)) > wide[c]) wide[c] = width(cell(rows, i, c));
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < columns; c++) {
            int fill = !wide ? 0 : wide[c] - width(cell(rows, i, c));
            if (c >= left) fprintf(out, "%*s", fill, "");
            put_plain(out, cell(rows, i, c));
            if (c < left) fprintf(out, "%*s", fill, "");
            fputs(c + 1 < columns ? "  " : "\n", out);
        }
    free(wide);
}
