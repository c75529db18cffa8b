"""videophy.py - what VideoPhy-2's grader is asked and how it looks, and the public code that it runs in."""
import importlib
import os
import sys
import types

HEAD = ("The following is a conversation between a curious human and an AI assistant. The assistant gives helpful, detailed, and "
        "polite answers to the user's questions.\nHuman: <|video|>\nHuman: ")
TASKS = {
    "sa": 'Does this video match the description: "{}"? Please rate the video on a scale from 1 to 5, where 5 indicates a perfect '
          "match and 1 indicates no relevance.\nAI: ",
    "pc": "Does this video adhere to the physical laws? Rate the video on a scale from 1 to 5, where 5 means full compliance and 1 "
          "means significant violations.\nAI: ",
    "rule": 'Does the video follow the physical rule: "{}"?\nChoose 0 if not, 1 if valid, or 2 if indeterminate. \nAI: ',
}
MEDIA = 65  # rows of a video in a prompt
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def upstream(clone):
    """Its modules modeling_mplug_owl and configuration_mplug_owl, without the package's __init__, which wants a video decoder."""
    package = types.ModuleType("mplug_owl_video")
    package.__path__ = [os.path.join(clone, "VIDEOPHY2", "mplug_owl_video")]
    sys.modules["mplug_owl_video"] = package
    return tuple(importlib.import_module("mplug_owl_video." + name) for name in ("modeling_mplug_owl", "configuration_mplug_owl"))


def look(frames, side):
    """[n, H, W, 3] U8 -> [n, 3, side, side]: stretched by a triangle filter, bytes again, then CLIP's mean and deviation."""
    import torch

    x = torch.nn.functional.interpolate(frames.permute(0, 3, 1, 2).float(), size=(side, side), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (x.round().clamp(0, 255) / 255 - mean) / std


def prompt_ids(prompt, encode):
    """<s>, then each part around the video as a text of its own; the video is MEDIA times -2."""
    first, second = prompt.split("<|video|>")
    return [1] + encode(first) + [-2] * MEDIA + encode(second)
