# make_owl_prompts.py - writes data/tokenizer/llama.jsonl, answers.jsonl, prompts.jsonl and frames.json: what the grader's
# own parts (transformers' slow LlamaTokenizer, numpy's rounding) make of texts, ids, captions and frame counts, with
# examples/tokenizer/tokenizer.model, or the model that the second argument names.
import json, os, random, re, sys

import numpy
import sentencepiece
from transformers import LlamaTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENIZER = os.path.join(HERE, "..", "..", "examples", "tokenizer")
DATA = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "..", "data")
MODEL = sys.argv[2] if len(sys.argv) > 2 else os.path.join(TOKENIZER, "tokenizer.model")
sys.path[:0] = [TOKENIZER, os.path.join(HERE, "..", "..", "examples", "toy")]
from captions import caption
from videophy import HEAD, TASKS

tokenizer = LlamaTokenizer(MODEL, pad_token="<unk>", legacy=True)  # as its tokenizer_config.json has it
pieces = sentencepiece.SentencePieceProcessor(model_file=MODEL)
chance = random.Random(1)
os.makedirs(os.path.join(DATA, "tokenizer"), exist_ok=True)


def write_lines(name, lines):
    with open(os.path.join(DATA, "tokenizer", name), "w") as f:
        for line in lines:
            print(json.dumps(line, separators=(",", ":")), file=f)


def ids_of(text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


TEXTS = [
    "", " ", "  ", "                    x", "\n", "\n\n\n", "\t", "a\r\nb", " leading", "trailing ", "two  spaces",
    "4", "42", "3.14, 1,000", "Yes", "AI: ", "Human: ", "Hello world", "rolls.\"?", "▁", "▁▁a▁b", "\u00a0x\u3000y",
    "café naïve Zürich", "cafe\u0301", "ﬁne ½ ² Å", "東京の夜", "красный мяч", "한국어", "🙂", "👩‍🚀 floats", "\u200bx\ufeff",
    "<s>", "</s>", "<unk>", "a<s>b", "a <s> b</s>", "<s><s></s><unk>", "<s", "</s >", "< s>", "<0x0A>", "<pad>", "<|endoftext|>",
    "<unk> at the start", "in the<unk>middle", "at the end<unk>", "<<s>>", "\u0001\u007f", "\ufffd", "\U0010ffff",
    "Z" * 100, "ha" * 50, "é" * 40, "The ball isn't round; it's (nearly) a cube: 10 cm - \"so\" they say...",
] + [caption() for _ in range(60)]
write_lines("llama.jsonl", [{"text": text, "ids": ids_of(text)} for text in TEXTS])


def answer(ids):
    """Ids as the network might answer, and their text."""
    text = pieces.decode([i for i in ids if i > 2])
    assert text.strip() == tokenizer.decode(ids, skip_special_tokens=True).strip(), ids
    return {"ids": ids, "text": text.replace("\0", "\ufffd")}


def some_ids(n):
    return [chance.choice([chance.randrange(3), 3 + chance.randrange(256), chance.randrange(len(pieces))]) for _ in range(n)]


ANSWERS = [[], [2], [1, 0, 2]] + [ids_of(text) + [2] for text in TEXTS[:60]] + [some_ids(1 + n % 12) for n in range(120)]
write_lines("answers.jsonl", [answer(ids) for ids in ANSWERS])

# io.parsers.readers.STR_NA_VALUES of pandas 2: cells that come as a float NaN, which prints as nan
MISSING = ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
           "NaN", "None", "n/a", "nan", "null"]


def prompt_ids(prompt):
    ids = [tokenizer.bos_token_id]
    for chunk in re.split(r"(<image>|<\|video\|>)", prompt):
        if chunk:
            ids += {"<image>": [-1] * 65, "<|video|>": [-2] * 65}.get(chunk) or ids_of(chunk)
    return ids


def task_prompt(task, text):
    return {"task": task, "text": text, "ids": prompt_ids(HEAD + TASKS[task].format("nan" if text in MISSING else text))}


CASES = ["A ball rolls.", "A {ball} in \"quotes\"", "It’s a café — really", "none", "NAN", " nan", "a <s> b"] + [caption() for _ in range(20)]
write_lines("prompts.jsonl", [task_prompt("pc", "")] + [task_prompt(task, text) for text in CASES for task in ("sa", "rule")] +
            [task_prompt("sa", text) for text in MISSING] +
            [{"prompt": p, "ids": prompt_ids(p)} for p in ("", "<image>", "<image><|video|>", "a<image>b <|video|><|video|>", "<|video| ><image")])


def frames(n, segments):
    size = float(n - 1) / segments
    return [int(size / 2) + int(numpy.round(size * k)) for k in range(segments)]


def rolling(segments):
    """h <- 31 h + index mod 2^64, over 1 to 3000 frames"""
    h = 0
    for n in range(1, 3001):
        for index in frames(n, segments):
            h = (31 * h + index) % 2**64
    return "%016x" % h


with open(os.path.join(DATA, "tokenizer", "frames.json"), "w") as f:
    print(json.dumps({str(segments): rolling(segments) for segments in (1, 4, 7, 8, 16, 32)}), file=f)
