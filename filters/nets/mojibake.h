/* mojibake - UTF-8 that was read as Latin-1 or Windows-1252, and what it was meant to be: "sÃ³" is "só". */
#ifndef NETS_MOJIBAKE_H
#define NETS_MOJIBAKE_H

#include "filters/nets/chars.h"

/* As ftfy's fix_encoding (6.3) with these two encodings, again and again until nothing changes: the whole text where it
 * can be, else the parts of it that look so; and C1 controls that Windows-1252 has characters for. Text without the
 * pairs of characters that ftfy finds unlikely stays as it is. */
void mojibake_undo(struct chars *text);

/* The character of a byte; a byte from 0x80 on that has none stands for itself. */
uint32_t windows_1252(unsigned char byte);

#endif
