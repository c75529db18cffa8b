/* budget - what the work cost, phase by phase, from the ledger that the pipelines keep. */
#ifndef REPORTING_BUDGET_H
#define REPORTING_BUDGET_H

#include <jansson.h>
#include <stddef.h>

/* From all *.jsonl in the folder, each the ledger of a job:
 *
 *   {"event":"start","phase":"generate","job":"base 42 0","at":1764500000.5,"device":"cuda:0", ..}
 *   {"event":"end","phase":"generate","job":"base 42 0","at":..,"wall_s":75.1,"gpu_s":75.1,"done":37, ..}
 *
 * A new object; NULL with the reason in err:
 *
 *   {"phases": [{"phase", "of": null,
 *                "wall_s": time in which any of its jobs ran, "at_once": mean number of jobs in that time,
 *                "work_s": summed over all workers, "gpu_s": the same on GPUs, "jobs",
 *                "kwh" that these used, where their jobs say "joules", in "metered_s" of gpu_s; else both are absent,
 *                "done": records (train: steps), "failed": records that failed in their job's last attempt,
 *                "interrupted": attempts that were killed}, ..],
 *    "parts": [the same for each first word of the jobs of a phase, in "of": a run, a list of clips],
 *    "total": the same over all phases,
 *    "unreadable": damaged lines, such as a killed worker may leave}
 *
 * Phases are in the order of the experiment, then by name. How long an attempt ran that was killed is not
 * known; it counts as 0. */
json_t *budget_read(const char *folder, char *err, size_t errlen);

/* The same for people, new: rows of texts under a heading: the phases with a total, and the parts. */
json_t *budget_phases(const json_t *budget);
json_t *budget_parts(const json_t *budget);

#endif
