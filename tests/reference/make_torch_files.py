# make_torch_files.py - writes data/torch: small files of torch.save() and what they hold, as safetensors; and published-like
# folders in one file and in two shards.
import collections, json, os

import torch
from safetensors.torch import save_file

from common import DATA, write_json

OUT = os.path.join(DATA, "torch")
os.makedirs(OUT, exist_ok=True)


def numbers(*shape, dtype=torch.float32, seed=0):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 10
    return values.to(dtype)


def save(name, tensors):
    """tensors as they are, and the same dense and apart"""
    torch.save(tensors, os.path.join(OUT, name + ".bin"))
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, os.path.join(OUT, name + ".safetensors"))


base = numbers(6, 8, 5, seed=1)
module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
with torch.no_grad():
    for i, p in enumerate(module.parameters()):
        p.copy_(numbers(*p.shape, seed=10 + i))
save("dtypes", {str(d).split(".")[1]: numbers(3, 4, dtype=d, seed=i) for i, d in enumerate(
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.uint8])})
save("shapes", {"scalar": torch.tensor(2.5), "none": torch.empty(0), "none_of_3": torch.empty(3, 0, 2), "long": numbers(5000),
                "deep": numbers(1, 2, 1, 3, 1, 2, 1, 2), "größe": numbers(2, 2), "a" * 400: numbers(1)})
save("views", {"base": base, "row": base[3], "part": base[1:4, 2:6], "transposed": base.transpose(0, 2), "step": base[::2, :, 1::3],
               "column": base[:, 1, 2], "same": base, "flat": base.view(-1)[7:19], "one": base[2:3, 4:5], "channels":
               numbers(2, 3, 4, 5, seed=2).to(memory_format=torch.channels_last)})
save("module", module.state_dict())  # an OrderedDict with _metadata
torch.save(module.half().state_dict(), os.path.join(OUT, "other_name.pt"))
save("empty", {})
many = numbers(1200, 2, dtype=torch.bfloat16)
save("many", {"layers.%d.weight" % i: many[i] for i in range(1200)})  # pickled in several batches

# A folder as published, in two shards and in one.
first = {"embed": numbers(7, 4, dtype=torch.bfloat16, seed=3), "0.norm": numbers(4, dtype=torch.bfloat16, seed=4)}
second = {"1.norm": numbers(4, dtype=torch.bfloat16, seed=5), "head": numbers(7, 4, dtype=torch.bfloat16, seed=6),
          "inv_freq": numbers(2, seed=7)}
os.makedirs(os.path.join(OUT, "sharded"), exist_ok=True)
shards = {"pytorch_model-00001-of-00002.bin": first, "pytorch_model-00002-of-00002.bin": second}
for name, tensors in shards.items():
    torch.save(tensors, os.path.join(OUT, "sharded", name))
size = sum(t.numel() * t.element_size() for tensors in shards.values() for t in tensors.values())
with open(os.path.join(OUT, "sharded", "pytorch_model.bin.index.json"), "w") as f:
    json.dump({"metadata": {"total_size": size}, "weight_map": {k: name for name, ts in shards.items() for k in ts}}, f, indent=2)
write_json({"model_type": "example", "hidden_size": 4}, OUT, "sharded", "config.json")
save_file({**first, **second}, os.path.join(OUT, "sharded.safetensors"))

# What is refused, by what it asks for.
class Anything:
    def __reduce__(self):
        return (print, ("never to be seen",))


torch.save({"weight": torch.zeros(2), "evil": Anything()}, os.path.join(OUT, "print.pt"))
torch.save({"weight": torch.nn.Parameter(torch.zeros(2))}, os.path.join(OUT, "parameter.pt"))
torch.save({"state_dict": {"weight": torch.zeros(2)}}, os.path.join(OUT, "nested.pt"))
torch.save({"weight": torch.zeros(2), "epoch": 3}, os.path.join(OUT, "epoch.pt"))
torch.save({"weight": torch.zeros(2), "loss": 0.5}, os.path.join(OUT, "loss.pt"))
torch.save([torch.zeros(2)], os.path.join(OUT, "list.pt"))
torch.save({"weight": torch.zeros(2, dtype=torch.bool)}, os.path.join(OUT, "bool.pt"))
torch.save({"weight": torch.zeros(2, dtype=torch.complex64)}, os.path.join(OUT, "complex.pt"))
torch.save({"weight": torch.zeros(2).expand(1000, 2)}, os.path.join(OUT, "expanded.pt"))
torch.save({"weight": torch.zeros(2)}, os.path.join(OUT, "protocol4.pt"), pickle_protocol=4)
torch.save({"weight": torch.zeros(2)}, os.path.join(OUT, "before_1.6.pt"), _use_new_zipfile_serialization=False)
torch.save(collections.OrderedDict(weight=torch.zeros(2).to_sparse()), os.path.join(OUT, "sparse.pt"))
