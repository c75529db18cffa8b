# Makes t5/<case>/: small random T5 encoders and what transformers' T5EncoderModel answers, called with input_ids alone
# (no mask: padding takes part, as in the CogVideoX pipeline), and UMT5 encoders (below).
import os

import torch
from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

from common import Cases, randomise, DATA

MODELS = {
    "square": dict(d_model=32, d_kv=8, num_heads=4, d_ff=64, num_layers=3, vocab_size=512),
    "wide": dict(d_model=24, d_kv=6, num_heads=5, d_ff=40, num_layers=2, vocab_size=300),  # heads * d_kv = 30
}

for seed, (name, dims) in enumerate(MODELS.items()):
    model = T5EncoderModel(T5Config(**dims, feed_forward_proj="gated-gelu", layer_norm_epsilon=1e-6,
                                    relative_attention_num_buckets=32, relative_attention_max_distance=128,
                                    dropout_rate=0.1, pad_token_id=0, eos_token_id=1, tie_word_embeddings=False))
    randomise(model, 100 + seed)
    g = torch.Generator().manual_seed(200 + seed)
    with torch.no_grad():
        model.shared.weight.copy_(torch.randn(model.shared.weight.shape, generator=g))
        for block in model.encoder.block:  # no 1/sqrt(d) in T5: keep the softmax from saturating
            block.layer[0].SelfAttention.q.weight.mul_(dims["d_kv"] ** -0.5)
        bias = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
        bias.copy_(torch.randn(bias.shape, generator=g))
    model.save_pretrained(os.path.join(DATA, "t5", name, "text_encoder"))

    cases = Cases("t5", name)
    for n, (length, words) in enumerate([(226, 30), (77, 77), (20, 0), (1, 1)]):
        ids = torch.zeros(length, dtype=torch.int64)  # `words` pieces, the end mark, then padding
        ids[:words] = torch.randint(3, dims["vocab_size"], (words,), generator=g)
        if words < length:
            ids[words] = 1
        with torch.no_grad():
            out = model(input_ids=ids[None]).last_hidden_state[0]
        cases.put(f"ids.{n}", ids.to(torch.int32))
        cases.put(f"out.{n}", out)
        cases.add(n, length=length, words=words)
    cases.write()

# And t5/umt5*/: UMT5EncoderModel as the Wan pipeline calls it, ids padded to 512 under a mask, of whose output the rows
# of real ids are kept.
UMT5 = {
    "umt5": dict(d_model=32, d_kv=8, num_heads=4, d_ff=64, num_layers=3, vocab_size=512),
    "umt5_wide": dict(d_model=24, d_kv=6, num_heads=5, d_ff=40, num_layers=2, vocab_size=300),
}
for seed, (name, dims) in enumerate(UMT5.items()):
    model = UMT5EncoderModel(UMT5Config(**dims, feed_forward_proj="gated-gelu", layer_norm_epsilon=1e-6,
                                        relative_attention_num_buckets=32, relative_attention_max_distance=128,
                                        dropout_rate=0.1, pad_token_id=0, eos_token_id=1, tie_word_embeddings=False))
    randomise(model, 300 + seed)
    g = torch.Generator().manual_seed(400 + seed)
    with torch.no_grad():
        model.shared.weight.copy_(torch.randn(model.shared.weight.shape, generator=g))
        for block in model.encoder.block:
            attention = block.layer[0].SelfAttention
            attention.q.weight.mul_(dims["d_kv"] ** -0.5)
            bias = attention.relative_attention_bias.weight
            bias.copy_(torch.randn(bias.shape, generator=g))
    model.save_pretrained(os.path.join(DATA, "t5", name, "text_encoder"))

    cases = Cases("t5", name)
    for n, words in enumerate([1, 7, 101, 512]):
        ids = torch.zeros(512, dtype=torch.int64)
        ids[: words - 1] = torch.randint(3, dims["vocab_size"], (words - 1,), generator=g)
        ids[words - 1] = 1
        with torch.no_grad():
            out = model(input_ids=ids[None], attention_mask=(torch.arange(512) < words).long()[None]).last_hidden_state[0]
        cases.put(f"ids.{n}", ids[:words].to(torch.int32))
        cases.put(f"out.{n}", out[:words])
        cases.add(n, length=words, words=words)
    cases.write()
