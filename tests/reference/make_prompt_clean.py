# Makes prompt_clean.jsonl: texts and what WanPipeline's prompt_clean makes of them (ftfy 6.3.1, html, re), as diffusers
# 0.38 has it in pipeline_wan.py. "not": what is not done here, and why ours differs.
import html
import json
import os
import re
import sys

import ftfy

DATA = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data")


def prompt_clean(text):
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip()


def mojibake(text, encoding="latin-1", times=1):
    for _ in range(times):
        text = text.encode().decode(encoding)
    return text


PLAIN = ["", " ", "\n\t ", "a red ball", "A ball rolls; it falls: 3 + 4 = 7, 50% & more!", "AT&T and R&D", "x" * 300,
         "this&not that", "a &b; c", "&", "&&", "&;", "&#;", "&#x;", "&#", "C:\\clips\\ball.mp4", "\"quoted\" 'text'"]

ENTITIES = ["&amp;", "&amp;amp;amp;", "&amp;amp;amp;amp;amp;", "3 < 5 &amp;amp;amp;", "3 < 5 &amp;lt; 6", "&lt;b&gt;",
            "&lt;b&gt; &amp;amp;amp;", "a\n&amp;amp;amp;amp;\n<b>\n&amp;amp;amp;amp;", "&eacute;t&eacute;", "&EACUTE;T&EACUTE;",
            "&SZLIG; &NTILDE; &nTILDE;", "&FRAC12; &HELLIP; &LTIMES; &AMP; &AMPX; &NOTIN;", "&hellip;&mdash;&ldquo;x&rdquo;",
            "&nbsp;x&nbsp;&nbsp;y&nbsp;", "&#39;&#x27;&#X27;&#34;", "&#38;amp;", "&#128;&#150;&#x99;", "&#129;", "&#0;x&#xD800;y&#x110000;z",
            "&#1;a&#11;b&#127;c&#xFFFF;d&#xFDD0;e", "&#13;a&#10;b&#9;c", "&#99999999999999999999;", "&#59; &#x3b;", "&#12ab;",
            "&#x1F600; &#128512;", "&amp", "&amp x", "&ampx;", "&lt", "&ltx", "&notit;", "&notin;", "&noti", "&copy2024",
            "&CounterClockwiseContourIntegral;", "&NotEqualTilde;", "&fjlig;", "&Jscr;ohn", "&unknown; &Unknown",
            "&thisnameisfartoolongtobeoneofhtml;", "&amp.x;", "&eacute\u00e9;", "&quot;x&apos;", "&frac12", "&sup2;&sup3;", "&#xe9", "&#233x",
            "&ATILDE;&SUP3;", "&lt;&amp;gt;", "&lt &amp;amp;lt;"]

QUOTES = ["\u201chere\u2019s a test\u201d", "\u2018a\u2019 \u201bb\u201a \u201ec\u201f", "rock \u02bcn\u02bc roll", "\u00abguillemets\u00bb \u2039x\u203a",
          "5\u2032 6\u2033", "a\u2013b\u2014c\u2026"]

LIGATURES = ["\ufb02u\ufb03e\ufb06", "\ufb00 \ufb01 \ufb02 \ufb03 \ufb04 \ufb05 \ufb06", "\u0132ssel \u0133s \u0149", "\u01c4\u01c5\u01c6\u01c7\u01c8\u01c9\u01ca\u01cb\u01cc\u01f1\u01f2\u01f3",
             "\u00e6on \u0153uvre \u0152uvre", "\ufefa arabic stays", "o\ufb03ce"]

WIDTH = ["\uff2c\uff2f\uff35\uff24\u3000\uff2e\uff2f\uff29\uff33\uff25\uff33", "\uff01\uff02\uff03\uff5e \uff5f\uff60", "\uff35\uff80\uff70\uff9d",
         "\uff76\uff9e\uff77\uff9e \uff8a\uff9f\uff8e\uff9e \uff73\uff9e \uff9c\uff9e\uff66\uff9e", "\uff71\uff9e \uff85\uff9f", "\uff61\uff62\uff63\uff64\uff65",
         "\uffe0\uffe1\uffe2\uffe4\uffe5\uffe6", "\uffe3", "\uffe8\uffe9\uffea\uffeb\uffec\uffed\uffee",
         "\uff06\uff41\uff4d\uff50\uff1b", "\uff06amp;", "\u3000a\u3000\u3000b\u3000", "\u4e00\u53ea\u7ea2\u8272\u7684\u7403\uff0c\u4ece\u5c71\u4e0a\u6eda\u4e0b\u6765\u3002"]

MOJIBAKE = [mojibake(t, e) for e in ("latin-1", "sloppy-windows-1252") for t in
            ("s\u00f3", "caf\u00e9 au lait", "a \u2013 b", "it\u2019s \u201cred\u201d", "\u2714 no problems", "\u00a31 and \u20ac2", "\u00fcber die Stra\u00dfe",
             "\u4e00\u53ea\u7ea2\u8272\u7684\u7403", "\U0001f600 smiles", "\u043a\u0440\u0430\u0441\u043d\u044b\u0439", "\u00a0x", "\u0629\u0631\u0629")]
MOJIBAKE += [mojibake("caf\u00e9", times=2), mojibake("it\u2019s", "sloppy-windows-1252", 2), mojibake("caf\u00e9", times=3),
             "voil\u00c3 le travail", "\u00c3 la mode", "l\u00c3 quel", "perd\u00c3\u00a9 \u00c2 x", "caf\u00c3\u00a9 \u4e00\u53ea",
             "na\u00efve caf\u00c3\u00a9 \u4e00", "\u4e00 \u00e2\u20ac\u201cx\u00e2\u20ac\u2122s", "\u00e2\u20ac\u201d\u00e2\u20ac\u201d \u0440",
             "\x93quoted\x94 \x96 it\x92s", "\x85", "a\x81b", "\u00e9\x85", "&#195;&#169;", "&Atilde;&copy;", "3 < 4 \u00c3\u00a9", "\u00c3\u00a9\n\u00c3\u00a9",
             "r\u00e9sum\u00e9 \u00c3", "\u00c5ngstr\u00f6m \u00c5 \u00c6 \u00d8", "\u00bfqu\u00e9? \u00a1s\u00ed!", "\u00b12\u00b0 \u00d7 3\u00b2", "\u00a9 2024 \u00ae \u2122",
             "\u00d6\u00e4\u00fc\u00df", "PR\u00c9CIS \u00c9T\u00c9\u00bb", "\u0153uvre, \u0153", "\u00c2\u00bd cup", "\u00c2\u00b0", "10\u00b0C \u00e0 20\u00b0C", "\u00e0\u00b2\u00a0_\u00e0\u00b2\u00a0"]

CONTROLS = ["a\x00b\x01c\x08d\x0be\x0ef\x1fg\x7fh", "a\x0cb\x1cc\x1dd", "\ufeffa\ufeffb", "\u206aa\u206fb\ufff9c\ufffbd\ufffce\ufffdf",
            "\x1b[36;44mI'm blue\x1b[0m, \x1b[K.", "\x1b[1;31", "\x1b]x", "a\r\nb\rc\u2028d\u2029e\x85f", "\u200ba\u200cb\u200dc\u200e \u202ed\u202c", "a\u00adb"]

SPACES = ["  two  spaces  ", "a\tb\n\nc\r\n", "\u00a0a\u00a0\u00a0b", "\u1680\u2000\u2001\u2009\u200a\u202f\u205fx\u3000", "\u200bx\u200b", "\x1ca\x1fb", "a\u180eb"]

OTHER = ["\U0001f600\U0001f469\u200d\U0001f680 \U0001f44d\U0001f3fd \U0001f1ef\U0001f1f5", "\u6771\u4eac\u306e\u591c\u3001\u8d64\u3044\u30dc\u30fc\u30eb\u3002", "\ube68\uac04 \uacf5\uc774 \uad74\ub7ec\uac04\ub2e4.",
         "\u041a\u0440\u0430\u0441\u043d\u044b\u0439 \u043c\u044f\u0447", "\u039f \u03c8\u03b1\u03c1\u03ac\u03c2 \u2022 \u03ba\u03c1\u03b1\u03c4\u03ac", "\u0627\u0644\u0643\u0631\u0629 \u0627\u0644\u062d\u0645\u0631\u0627\u0621",
         "\u0915\u0941\u0924\u094d\u0924\u093e", "\u00bd + \u00bc = \u00be", "x\u00b2 + y\u00b2 \u2264 \u221e", "\u2190 \u2192 \u2248 \u2260", "Gr\u00fc\u00dfe, Fran\u00e7ois & \u0141ukasz \u017b\u00f3\u0142\u0107"]

NOT = [("cafe\u0301", "NFC"), ("A\u030angstro\u0308m", "NFC"), ("\u212b \u2126", "NFC"), ("\uffa1\uffc2", "NFC"), ("\u304b\u3099", "NFC"),
       (mojibake("\u043a\u0440\u0430\u0441\u043d\u044b\u0439 \u043c\u044f\u0447", "cp1251"), "another encoding"), (mojibake("it\u2019s caf\u00e9", "macroman"), "another encoding"),
       (mojibake("za\u017c\u00f3\u0142\u0107", "iso-8859-2"), "another encoding"), ("\u00e2\u20ac\u0153quoted\u00e2\u20ac\ufffd", "lost bytes"), ("caf\u00c3\ufffd", "lost bytes"),
       ("&" + "amp;" * 80, "more than 64 levels")]

with open(os.path.join(DATA, "prompt_clean.jsonl"), "w") as f:
    seen = set()
    for text in PLAIN + ENTITIES + QUOTES + LIGATURES + WIDTH + MOJIBAKE + CONTROLS + SPACES + OTHER:
        if text not in seen:
            print(json.dumps({"text": text, "clean": prompt_clean(text)}), file=f)
        seen.add(text)
    for text, why in NOT:
        print(json.dumps({"text": text, "clean": prompt_clean(text), "not": why}), file=f)
