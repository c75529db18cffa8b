/* budget - what the work cost, phase by phase, from the ledger that the pipelines keep. */
#ifndef REPORTING_BUDGET_H
#define REPORTING_BUDGET_H

#include <jansson.h>
#include <stddef.h>

/* From all *.jsonl in the folder, each the ledger of a job:
 *
 *   {"event":"start","phase":"generate","job":"base 42 0","at":1764500000.5,"device":"cuda:0", ..}
 *   {"event":"end","phase":"generate","job":"base 42
 * 0","at":..,"wall_s":75.1,"gpu_s":75.1,"done":37,"failed":0, ..}
 *
 * A new object; NULL with the reason in err:
 *
 *   {"phases": [{"phase", "of": null, "wall_s": in which anything of it was at work, "at_once": workers, on
 * the mean of that time, "work_s": over all workers, "gpu_s": that on GPUs, "jobs", "done": records (of train
 * steps), "failed": records that the last attempt at their job left, "interrupted": attempts that were
 * killed}, ..], "parts": [the same for each first word of the jobs of a phase, in "of": a run, a list of
 * clips], "total": the same over all phases, "unreadable": lines that are none, as a killed worker may leave}
 *
 * Phases are in the order of the experiment, then by name. Of an attempt that was killed the length is not
 * known, so it costs nothing here. */
json_t *budget_read(const char *folder, char *err, size_t errlen);

/* The same for people: rows of texts under a heading, the phases with a total, and the parts. New. */
json_t *budget_phases(const json_t *budget);
json_t *budget_parts(const json_t *budget);

#endif
