#!/bin/sh
# make.sh - train spiece.model: T5's conventions (unigram, nmt_nfkc, pad 0, </s> 1, unk 2, no <s>) at a toy's size.
#
# Most of the file is the table of Unicode normalisation, the same as in T5's own model.
set -eu
cd "$(dirname "$0")"
python3 captions.py >captions.txt
spm_train --input=captions.txt --model_prefix=spiece --model_type=unigram --vocab_size=560 --character_coverage=1 \
    --normalization_rule_name=nmt_nfkc --pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1 --num_threads=1 --minloglevel=2
rm captions.txt spiece.vocab
