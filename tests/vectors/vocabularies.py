#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes vocabularies/NAME.json (small tokenizers of every kind that is read) and vocabularies/NAME.cases.json: what the Python
library `tokenizers` (0.23) makes of texts with them. tests/unit/vocabulary compares.

Needs `tokenizers`, which transformers brings into .venv-peers: .venv-peers/bin/python3 tests/vectors/vocabularies.py
"""
import json
import random
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent / "vocabularies"
CORPUS = [(ROOT / "LICENSE").read_text(), "for (int i = 0; i < n; ++i) { sum += x[i] * y[i]; }  // dot product\n" * 30,
    "Größe Éclair naïve über 日本語 русский текст 한국어 عربى 😀👍🏽 1234567 3.14 don't we'll I'M they'RE\n\n\t  x = y\r\n" * 20]

CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

TEXTS = [
    "", " ", "  ", "\n", "\r\n", "\t\t", "a", " a", "a ", "  a  b  ", "Hello, world!", "hello  world\n\n\nfoo", "don't DON'T I'll'd we'Re '",
    "x=1;y=22;z=333;w=4444;55555", "price: $3.50 (20% off)", "naïve café Größe straße ǅ ﬁ", "日本語のテキスト。漢字カナ", "русский текст, ещё",
    "한국어 문장", "مرحبا بالعالم", "हिन्दी पाठ", "😀👍🏽👨‍👩‍👧‍👦🇩🇪", "e\u0301 vs \u00e9", "\u00a0nbsp\u2003em\u3000ideographic\u200bzero\u2028line", "tab\tand\x0bvt\x0cff\x85nel",
    "null\x00inside\x01\x7f", "\ufeffbom", "\ufffd replacement", "\U0010ffff\U000e0041 tags", "a\r\nb\rc\nd", "   \n   \n  x", "x   \r\n\r\n   y", "/path/to//file///\n",
    "<s> not special </s>", "▁ already ▁▁marked", "<0x41><0x0A>", "[INST] a [/INST]", "²³½Ⅷ٣४", "I'M HERE'S THEY'LL", "ſ's K'S", "CamelCaseWordsHTTPServer", "\u1d2c\u02b0 modifier", "__init__(self, *args, **kwargs):\n        return None\n",
]


def random_texts(count, seed):
    """Strings from an alphabet with every class of character that patterns tell apart."""
    rng = random.Random(seed)
    alphabet = list("aabbeiotzAZ019 ''  \n\r\t.,;:!/-_()<>▁") + ["é", "ß", "日", "ع", "ы", "😀", "\u0301", "\u00a0", "\u3000", "²", "Ⅷ", "ǅ", "ʰ",
                                                              "'s", "'LL", "the", " of", "<s>", "</s>", "<|user|>", "word", "\x00"]
    return ["".join(rng.choices(alphabet, k=rng.randint(1, 24))) for _ in range(count)]


def byte_level(pre, normalizer=None, **bpe):
    tokenizer = Tokenizer(models.BPE(**bpe))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def split(*patterns, behavior="isolated"):
    steps = [pre_tokenizers.Split(Regex(pattern), behavior) for pattern in patterns]
    return pre_tokenizers.Sequence(steps + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def sentencepiece(normalizer, pre, decoder, train_pre):
    """A SentencePiece-style BPE with byte fallback: <unk>, <s>, </s>, 256 bytes, then what training finds."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = train_pre
    learner.train_from_iterator(CORPUS[:2], trainers.BpeTrainer(vocab_size=300, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for token in learned["vocab"]:
        vocab.setdefault(token, len(vocab))
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre is not None:
        tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    return tokenizer


def all_tokenizers():
    yield "gpt2", byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    prefix = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True))
    prefix.add_special_tokens(["<|endoftext|>"])
    yield "gpt2-prefix", prefix
    llama3 = byte_level(split(CL100K), ignore_merges=True)
    llama3.add_special_tokens(["<|begin|>", "<|end|>"])
    llama3.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        "<|begin|> $A <|end|>", None, [(name, llama3.token_to_id(name)) for name in ("<|begin|>", "<|end|>")])])
    yield "llama3", llama3
    yield "qwen2", byte_level(split(QWEN2))
    yield "o200k", byte_level(split(O200K))
    yield "digits", byte_level(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                        pre_tokenizers.ByteLevel(add_prefix_space=False)]))
    llama2 = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    no_prefix = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    whole = pre_tokenizers.Split("▁", "merged_with_next")
    yield "llama2", sentencepiece(normalizers.Sequence(llama2), None, decoders.Sequence(no_prefix + [decoders.Strip(" ", 1, 0)]), whole)
    yield "gemma", sentencepiece(llama2[1], pre_tokenizers.Split(" ", "merged_with_previous"), decoders.Sequence(no_prefix), whole)
    for scheme in ("first", "always", "never"):
        yield f"metaspace-{scheme}", sentencepiece(None, pre_tokenizers.Metaspace("▁", scheme, split=scheme == "always"),
                                                   decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace("▁", scheme)]), whole)
    added = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    added.add_special_tokens([AddedToken("<|user|>", lstrip=True, rstrip=True), AddedToken("<s>", normalized=False), AddedToken("</s>", rstrip=True)])
    added.add_tokens([AddedToken("word", single_word=True), AddedToken("日本", lstrip=True), "wordy", AddedToken(" of", normalized=False)])
    yield "added", added


def decoded(tokenizer, ids):
    return {"decoded": tokenizer.decode(ids, skip_special_tokens=False), "skipped": tokenizer.decode(ids)}


def cases(tokenizer, seed):
    rng = random.Random(seed)
    out = []
    for text in TEXTS + random_texts(150, seed):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        out.append({"text": text, "ids": ids, "with_special": tokenizer.encode(text).ids, **decoded(tokenizer, ids)})
    size = tokenizer.get_vocab_size()
    for _ in range(100):
        ids = [rng.randrange(size) for _ in range(rng.randint(1, 6))]
        both = decoded(tokenizer, ids)
        if "\ufffd" not in str(both):  # the library gives text, we give bytes: compared where both are text
            out.append({"ids": ids, **both})
    # What equals its neighbour is left out, to keep the files small.
    for case in out:
        if case.get("with_special") == case["ids"]:
            del case["with_special"]
        if case["skipped"] == case["decoded"]:
            del case["skipped"]
        if case.get("text") == case["decoded"]:
            del case["decoded"]
    return out


def main():
    HERE.mkdir(exist_ok=True)
    for seed, (name, tokenizer) in enumerate(all_tokenizers()):
        (HERE / f"{name}.json").write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n")
        lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases(tokenizer, seed))
        (HERE / f"{name}.cases.json").write_text(f'{{"library":"{tokenizers.__version__}","cases":[\n{lines}\n]}}\n')
        print(name, tokenizer.get_vocab_size())


if __name__ == "__main__":
    main()
