# Shared by the make_*.py scripts: random weights in which every path matters, and writers for the dumps.
import json, os, sys

import torch
from safetensors.torch import save_file

torch.set_num_threads(2)
torch.use_deterministic_algorithms(True)

DATA = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data")


def randomise(model, seed):
    """Every parameter is drawn anew, also those the library starts at zero or one."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            r = torch.randn(p.shape, generator=g)
            if p.ndim >= 2:
                p.copy_(r / (p.numel() / p.shape[0]) ** 0.5)
            elif name.endswith("bias"):
                p.copy_(0.1 * r)
            else:
                p.copy_(1 + 0.1 * r)
    return model.float().eval().requires_grad_(False)


def randn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Cases:
    """Collects the tensors of one folder's cases.safetensors and the list in its cases.json."""

    def __init__(self, *folder):
        self.folder, self.tensors, self.list = os.path.join(DATA, *folder), {}, []
        os.makedirs(self.folder, exist_ok=True)

    def add(self, case, **fields):
        self.list.append({"case": case, **fields})

    def put(self, name, tensor):
        assert name not in self.tensors, name
        assert not tensor.is_floating_point() or bool(torch.isfinite(tensor).all()), name
        self.tensors[name] = tensor.detach().clone().contiguous()

    def write(self):
        save_file(self.tensors, os.path.join(self.folder, "cases.safetensors"))
        write_json(self.list, self.folder, "cases.json")


def write_json(value, *path):
    """JSON with one line for each case (list) or field (object)."""
    if isinstance(value, list):
        lines, ends = [json.dumps(v) for v in value], "[]"
    else:
        lines, ends = [json.dumps(str(k)) + ": " + json.dumps(v) for k, v in value.items()], "{}"
    with open(os.path.join(*path), "w") as f:
        f.write(ends[0] + "\n  " + ",\n  ".join(lines) + "\n" + ends[1] + "\n")
