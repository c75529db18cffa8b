# make_tokens.py - writes data/tokenizer/captions.jsonl: 200 texts and what Python's sentencepiece (0.2.1, see
# requirements.txt) makes of them with examples/tokenizer/spiece.model: no </s>, no padding, nothing cut.
import json, os, sys

import sentencepiece

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENIZER = os.path.join(HERE, "..", "..", "examples", "tokenizer")
DATA = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "..", "data")
sys.path.insert(0, TOKENIZER)
from captions import caption

model = sentencepiece.SentencePieceProcessor(model_file=os.path.join(TOKENIZER, "spiece.model"))

LANGUAGES = """Ein Mädchen wirft den großen Ball über die Straße.
Une façade élégante près de la forêt, où l'eau coule à flots.
El niño pequeño lanzó la pelota mañana; ¿quién la atrapó?
Ο ψαράς κρατά ένα μεγάλο ψάρι.
Красный мяч катится по столу, а кошка смотрит.
東京の夜、赤いボールがゆっくり転がる。
一只红色的球从山上滚下来。
빨간 공이 언덕을 굴러 내려간다.
कुत्ता लाल गेंद के पीछे दौड़ता है।
สุนัขวิ่งไล่ลูกบอลสีแดง
Quả bóng đỏ lăn xuống đồi.
İstanbul'da kırmızı top yuvarlanıyor. IĞDIR ığdır
Piłka toczy się po źdźbłach trawy.
Þór kastaði rauðum bolta yfir ána.
الكرة الحمراء تتدحرج على الطاولة.
הכדור האדום מתגלגל במורד הגבעה.
A ball (كرة) rolls next to a כדור, in red.
ბურთი გორავს
የቀይ ኳስ
ゔァイオリンを弾く女性がいる""".splitlines()

SYMBOLS = [
    "🙂", "A red ball 🔴 rolls 🏀🏀 down.", "👩‍🚀 floats", "👨‍👩‍👧‍👦 at 🏖️", "🇯🇵 and 🇧🇷", "👍🏽👍🏿",
    "10 € or £8, ¥900", "½ cup of sugar – then “stir” … it’s done—slowly", "x² + y² ≤ ∞ ≠ √2",
    "→ left ← right ↑", "a\\b \"c\" 'd' `e` {f} [g] <h>", "100%, #1 & @home; ~5 * 3 = 15 | ^_^",
    "C:\\clips\\ball.mp4", "https://example.org/a?b=c&d=%20", "𝒜 𝓫𝓪𝓵𝓵 𝟜𝟚", "𠮷野家 𓀀",
]

COMPATIBILITY = [
    "ﬁne eﬀort, oﬃce ﬂag", "① ② ⑩ ⒜ Ⓑ", "ＦＵＬＬ　ｗｉｄｔｈ　１２３！", "ｶﾞｷﾞ ﾊﾟ ﾊﾝｶｸ", "H₂O at 10⁵ Pa",
    "Ⅳ ⅷ ㎏ ㎡ ℃ ℡ ™ ℠", "cafe\u0301 fac\u0327ade Ma\u0308dchen", "A\u030angstro\u0308m Å Å",
    "\u1100\u1161\u11a8 각", "ĳ Ǆ ſ ß ẞ", "㍿ ㌔ ㈱", "‼ ⁉ … ․․", "a\u0301\u0301\u0301",
    "\u0301 alone", "ﷺ", "ﬀﬁﬂﬃﬄﬅﬆ",
]

SPACES = [
    "", " ", "   ", "\n", "\t\n \r\n", "\u00a0", "\u3000\u2003", "  two  spaces  ",
    "line one\nline two\n\nline four", "carriage\r\nreturn", "tab\tbed\t\ttwice",
    "non\u00a0breaking", "thin\u2009space hair\u200aspace", "ideographic\u3000space",
    "zero\u200bwidth\u200d\u200cjoined", "\ufeffbyte order mark", "soft\u00adhyphen",
    "line\u2028separator\u2029end", "a\u000bb\u000cc", "\u0085next", "trailing ", " leading",
    "\n\nA red ball.\n\n",
]

ODD = [
    "</s>", "<pad>", "<unk>", "A ball</s> rolls<pad>", "<extra_id_0> ball <extra_id_99>", "▁",
    "▁▁ a▁b ▁", "\u0001\u0002\u001f\u007f", "\ufffd \ufffd", "\ue000\uf8ff", "\uffff\ufffe",
    "\U0010ffff\U00010000", "\u202eesrever\u202c \u2066x\u2069", "A", "a", ".", "0", "é", "字",
    "Z" * 300, "ha" * 400, " ".join("a" * 400), "字" * 500, "🙂" * 300, " " * 1000 + "ball",
    "e" + "\u0301" * 200, "THE RED BALL ROLLS DOWN THE HILL", "tHe ReD bAlL",
    "no-spaces,at.all;here:now", "1234567890 3.14 1,000,000 1e-5",
]


def of_length(n):
    """A text of just n pieces: </s> fits behind it, or no longer does."""
    text = ""
    while len(model.encode(text)) < n:
        text += caption() + " "
    while len(model.encode(text)) > n:
        text = text[:-1]
    while len(model.encode(text)) < n:
        text += " a"
    return text


texts = LANGUAGES + SYMBOLS + COMPATIBILITY + SPACES + ODD
texts += [of_length(n) for n in (223, 224, 225, 226, 227)] + [" ".join(caption() for _ in range(n)) for n in (20, 40, 80)]
while len(texts) < 200:
    texts.append(caption())
assert len(texts) == 200

os.makedirs(os.path.join(DATA, "tokenizer"), exist_ok=True)
with open(os.path.join(DATA, "tokenizer", "captions.jsonl"), "w") as f:
    for text in texts:
        print(json.dumps({"text": text, "ids": model.encode(text)}, separators=(",", ":")), file=f)
