#include "formats/openvid.h"

#include <math.h>
#include <string.h>

#include "formats/error.h"

static const char *const number_name[OPENVID_NUMBERS] = {
    "aesthetic_score", "motion_score", "temporal_consistency_score", "frame", "fps", "seconds"};

bool openvid_open(struct openvid *t, int fd, char *err, size_t errlen)
{
    if (!(t->csv = csv_open(fd, err, errlen))) return false;
    t->camera = csv_column(t->csv, "camera motion");
    for (int i = 0; i < OPENVID_NUMBERS; i++) t->number[i] = csv_column(t->csv, number_name[i]);
    if (csv_need(t->csv, "video", &t->video, err, errlen) &&
        csv_need(t->csv, "caption", &t->caption, err, errlen))
        return true;
    openvid_close(t);
    return false;
}

void openvid_close(struct openvid *t)
{
    csv_close(t->csv);
    t->csv = NULL;
}

static const char *cell(const struct openvid *t, int column)
{
    return column < 0 ? "" : t->csv->field[column];
}

const char *openvid_video(const struct openvid *t)
{
    return cell(t, t->video);
}

bool openvid_number(const struct openvid *t, enum openvid_number which, double *value)
{
    return csv_number(cell(t, t->number[which]), value);
}

json_t *openvid_json(const struct openvid *t, const char *folder)
{
    const char *video = openvid_video(t), *camera = cell(t, t->camera);
    size_t n = folder ? strlen(folder) : 0;
    const char *slash = n && folder[n - 1] != '/' ? "/" : "";
    double v;
    json_t *line =
        json_pack("{s:s, s:o, s:s}", "key", video, "path",
                  json_sprintf("%s%s%s", n ? folder : "", slash, video), "caption", cell(t, t->caption));
    int bad = !line;
    for (int i = 0; i < OPENVID_NUMBERS; i++)
        if (openvid_number(t, i, &v)) {
            bool whole = v == floor(v) && fabs(v) < 1e15;
            bad |=
                json_object_set_new(line, number_name[i], whole ? json_integer((json_int_t)v) : json_real(v));
        }
    if (*camera) bad |= json_object_set_new(line, "camera_motion", json_string(camera));
    if (!bad) return line;
    json_decref(line);
    return NULL;
}
