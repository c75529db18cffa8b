/* h264 - what has to be known of H.264's headers and no library tells. */
#ifndef FORMATS_H264_H
#define FORMATS_H264_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether numbers of reference pictures may be left out (gaps_in_frame_num_value_allowed_flag, ITU-T H.264
 * 7.3.2.1.1): where they may, a gap is no loss. header: a decoder's, avcC (ISO/IEC 14496-15) or with start
 * codes; false when it holds no sequence parameter set. */
bool h264_may_leave_out(const uint8_t *header, int bytes);

#endif
