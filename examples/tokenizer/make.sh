#!/bin/sh
# make.sh - train two tokenizers at a toy's size: spiece.model by T5's conventions (unigram, nmt_nfkc, pad 0, </s> 1, unk 2,
# no <s>), tokenizer.model by LLaMA's (BPE, text as it is, bytes for what is unknown, unk 0, <s> 1, </s> 2, no pad).
#
# Most of spiece.model is the table of Unicode normalisation, the same as in T5's own.
set -eu
cd "$(dirname "$0")"
python3 captions.py >captions.txt
spm_train --input=captions.txt --model_prefix=spiece --model_type=unigram --vocab_size=560 --character_coverage=1 \
    --normalization_rule_name=nmt_nfkc --pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1 --num_threads=1 --minloglevel=2

# What the grader is asked must be as short as with the real one, or its tiny model would have long prompts to read.
cat >questions.txt <<'END'
The following is a conversation between a curious human and an AI assistant. The assistant gives helpful, detailed, and polite answers to the user's questions.
Human: Does this video match the description: "A ball rolls."? Please rate the video on a scale from 1 to 5, where 5 indicates a perfect match and 1 indicates no relevance.
Human: Does this video adhere to the physical laws? Rate the video on a scale from 1 to 5, where 5 means full compliance and 1 means significant violations.
Human: Does the video follow the physical rule: "A ball falls down."? Choose 0 if not, 1 if valid, or 2 if indeterminate. AI: zero one two three four five 0 1 2 3 4 5 6 7 8 9
END
for _ in $(seq 150); do cat questions.txt; done >>captions.txt
spm_train --input=captions.txt --model_prefix=tokenizer --model_type=bpe --vocab_size=1024 --character_coverage=0.9999 --byte_fallback \
    --normalization_rule_name=identity --remove_extra_whitespaces=false --split_digits --allow_whitespace_only_pieces \
    --unk_id=0 --bos_id=1 --eos_id=2 --pad_id=-1 --num_threads=1 --minloglevel=2
rm captions.txt questions.txt spiece.vocab tokenizer.vocab
