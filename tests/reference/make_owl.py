# Makes owl/<case>/: small random mPLUG-Owl-Video models and what the public code answers for them: what the vision tower and
# the abstractor make of clips, and greedy answers with their logits, in f32. Runs in an environment of its own, that of
# requirements-owl.txt, as the published scores were made with that generation of transformers.
#
# usage: make_owl.py FOLDER OF A CLONE OF github.com/Hritikbansal/videophy [TESTS/DATA]
import os, sys

import torch
from huggingface_hub import save_torch_state_dict
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPImageProcessor

clone = sys.argv.pop(1)
from common import Cases, randomise, DATA  # takes the folder of the data from what is left of the arguments

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples", "toy"))
from videophy import upstream

owl, options = upstream(clone)

MODELS = {
    "plain": dict(vision=dict(hidden_size=32, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, image_size=28),
                  abstractor=dict(num_hidden_layers=2, num_attention_heads=2, intermediate_size=300),
                  text=dict(hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=3, vocab_size=120),
                  queries=5, frames=[2, 5]),
    "wide": dict(vision=dict(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=2, image_size=42),
                 abstractor=dict(num_hidden_layers=1, num_attention_heads=3, intermediate_size=384),
                 text=dict(hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4, vocab_size=90,
                           rope_theta=500.0, rms_norm_eps=1e-5),
                 queries=3, frames=[3, 32]),
}
PROJECTIONS = r".*language_model.*\.(q_proj|v_proj|k_proj|o_proj|gate_proj|down_proj|up_proj)"  # as in the driver


def make(dims, seed):
    vision = dict(dims["vision"], patch_size=14)
    width = vision["hidden_size"]
    config = options.MplugOwlConfig(
        vision_config=vision,
        visual_abstractor_config=dict(dims["abstractor"], hidden_size=width, encoder_hidden_size=width),
        text_config=dict(dims["text"], model_type="llama", max_position_embeddings=128, pad_token_id=2),
        num_query_tokens=dims["queries"])
    model = randomise(owl.MplugOwlForConditionalGeneration(config), seed)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # of the size that a trained model's have
        for p in (model.query_tokens, model.temporal_query_tokens, model.abstractor.vit_eos,
                  model.vision_model.embeddings.cls_token, model.language_model.model.embed_tokens.weight):
            p.copy_(torch.randn(p.shape, generator=g))
        model.language_model.lm_head.weight.mul_(4)  # greedy choices that rounding does not turn
    return config, model


def clip(frames, side, g):
    """Noise that moves: every frame differs from the next, and so does every patch."""
    base = torch.randint(0, 256, (side, side, 3), generator=g)
    return torch.stack([(base.roll(5 * t, 0) // (1 + t % 3) + 9 * t) % 256 for t in range(frames)]).to(torch.uint8)


def pixel_values(video, side):
    process = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    pictures = [Image.fromarray(frame.numpy()) for frame in video]
    return process(pictures, return_tensors="pt")["pixel_values"].permute(1, 0, 2, 3)[None]


def prompts(dims, g):
    def text(n):
        return torch.randint(3, dims["text"]["vocab_size"], (n,), generator=g).tolist()
    video, head = [-2] * (dims["queries"] + 1), [1] + text(6)
    return [head + video + text(9), head + video + text(17), [1] + video + text(3), head + video]


@torch.no_grad()
def answer(model, pixels, ids, end, new=12):
    """The ids made, the end left out, and the logits that each was chosen by."""
    out = model.generate(video_pixel_values=pixels, input_ids=torch.tensor([ids]), do_sample=False, max_new_tokens=new,
                         eos_token_id=end, output_logits=True, return_dict_in_generate=True)
    made, logits = out.sequences[0].tolist(), torch.cat(out.logits)
    assert made == logits.argmax(-1).tolist()
    top = logits.topk(2).values
    assert (top[:, 0] - top[:, 1]).min() > 1e-3, "too close to call"
    return (made[:-1] if made[-1] == end else made), logits


def rounded_frequencies(model):
    """What casting the whole model to BF16 does to the rotation, as the driver does."""
    rotary = model.language_model.model.rotary_emb
    assert rotary.inv_freq.dtype == torch.float32
    exact = rotary.inv_freq
    rotary.to(torch.bfloat16)
    assert rotary.inv_freq.dtype == torch.bfloat16
    rotary.inv_freq = rotary.inv_freq.float()
    return exact


@torch.no_grad()
def main():
    for seed, (name, dims) in enumerate(MODELS.items()):
        side, folder = dims["vision"]["image_size"], os.path.join(DATA, "owl", name)
        g = torch.Generator().manual_seed(900 + seed)
        config, model = make(dims, 950 + seed)
        if name == "wide":
            model = model.to(torch.bfloat16).float()
            model.language_model.model.rotary_emb = type(model.language_model.model.rotary_emb)(config.text_config)
        videos = [clip(frames, side, g) for frames in dims["frames"]]
        asked = prompts(dims, g)
        # An id that the first answer comes to ends every answer.
        first, _ = answer(model, pixel_values(videos[0], side), asked[0], None)
        config.text_config.eos_token_id = end = next(i for n, i in enumerate(first) if n >= 3 and i not in first[:n])

        cases = Cases("owl", name)
        exact = rounded_frequencies(model)
        for v, video in enumerate(videos):
            pixels = pixel_values(video, side)
            seen = model.vision_model(pixels, return_dict=True).last_hidden_state
            tokens = model.abstractor(query_embeds=model.query_tokens, temporal_query_embeds=model.temporal_query_tokens,
                                      encoder_hidden_states=seen,
                                      encoder_attention_mask=torch.ones(1, seen.shape[1] * seen.shape[2]),
                                      return_dict=True).last_hidden_state
            cases.put(f"video.{v}.pixels", video)
            cases.put(f"video.{v}.seen", seen[0].flatten(0, 1)[:: 1 if len(video) < 8 else 37])
            cases.put(f"video.{v}.tokens", tokens[0])
            for p, ids in enumerate(asked):
                if v == 0:
                    cases.put(f"prompt.{p}", torch.tensor(ids, dtype=torch.int32))
                made, logits = answer(model, pixels, ids, end)
                cases.put(f"{v}.{p}.answer", torch.tensor(made, dtype=torch.int32))
                cases.put(f"{v}.{p}.logits", logits)
                cases.add(f"{v}.{p}", video=v, prompt=p, frames=len(video), ended=len(made) < len(logits))
        rounded, model.language_model.model.rotary_emb.inv_freq = model.language_model.model.rotary_emb.inv_freq, exact
        made, logits = answer(model, pixel_values(videos[0], side), asked[1], end)
        cases.put("exact.answer", torch.tensor(made, dtype=torch.int32))
        cases.put("exact.logits", logits)
        model.language_model.model.rotary_emb.inv_freq = rounded

        write_model(name, folder, config, model)
        if name == "wide":
            lora(model, folder, cases, pixel_values(videos[0], side), asked[0], end)
        cases.write()


def write_model(name, folder, config, model):
    """Whole, in F32, with the tensors that older writers add; or in BF16 and several files, with the config of newer ones."""
    if name == "wide":
        save_torch_state_dict({k: v.bfloat16() for k, v in model.state_dict().items()}, folder, max_shard_size="60KB")
        config.to_json_file(os.path.join(folder, "config.json"), use_diff=True)
    else:
        tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
        for n in range(config.text_config.num_hidden_layers):
            tensors[f"language_model.model.layers.{n}.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
        save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        config.to_json_file(os.path.join(folder, "config.json"), use_diff=False)


def lora(model, folder, cases, pixels, ids, end):
    """A checkpoint as the driver loads it, in the names of the newer adapter library, and one of the adapter alone."""
    adapted = get_peft_model(model, LoraConfig(target_modules=PROJECTIONS, inference_mode=True, r=32, lora_alpha=32,
                                               lora_dropout=0.05))
    g = torch.Generator().manual_seed(970)
    for name, p in adapted.named_parameters():
        if "lora_" in name:
            p.copy_(0.3 * torch.randn(p.shape, generator=g) / p.shape[1] ** 0.5)
        elif name.endswith("model.norm.weight"):
            p.copy_(1 + 0.3 * torch.randn(p.shape, generator=g))  # a frozen weight that is not the folder's
        p.copy_(p.bfloat16())
    state = {k: v.bfloat16().contiguous() for k, v in adapted.state_dict().items()}
    save_file(state, os.path.join(folder, "lora.safetensors"), metadata={"format": "pt"})
    made, logits = answer(adapted.base_model.model.eval(), pixels, ids, end)
    cases.put("lora.answer", torch.tensor(made, dtype=torch.int32))
    cases.put("lora.logits", logits)


main()
