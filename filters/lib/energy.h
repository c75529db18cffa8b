/* energy - how much a card has used, by NVML's counter, which is looked for at run time: libnvidia-ml.so.1 comes with the
 * driver. It counts the whole card, and so whoever else is at work on it. */
#ifndef LIB_ENERGY_H
#define LIB_ENERGY_H

/* Joules since the driver was loaded. card: the number that NVML has for it, "GPU-.." (its UUID), or its PCI address; ""
 * or NULL: none. NaN: no NVML, no such card, or a card that does not count. */
double energy_joules(const char *card);
/* Of all these, a card that is named twice counted once. */
double energy_sum(const char *const *card, int count);

#endif
