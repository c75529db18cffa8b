# Makes fp8/: rows put in torch's float8_e4m3fn with a scale each, as --dtype fp8 has them, and products of those. No kernel of torch's for a
# CPU has a scale for each row: the product is of the values that the codes stand for, in fp64.
import torch

from common import Cases, randn

SHAPES = [(5, 32, 48), (33, 160, 16), (1, 16, 16)]  # rows, in, out


def rows(x):
    most = x.abs().amax(1, keepdim=True).clamp(min=2.0**-100)
    largest = torch.full_like(most, 448)  # a number divided by a tensor would be its reciprocal, rounded, times that
    return (x * (largest / most)).to(torch.float8_e4m3fn), most / 448


out = Cases("fp8")
codes = torch.arange(256, dtype=torch.uint8)
out.put("values", torch.cat([codes[:127], codes[128:255]]).view(torch.float8_e4m3fn).float())  # but for the two NaN
for i, (n, width, wide) in enumerate(SHAPES):
    x = randn(1 + i, n, width) * torch.logspace(-3, 3, n)[:, None]
    x[0, : width // 2] = 0
    x, w, b = (t.bfloat16().float() for t in (x, randn(11 + i, wide, width) / width**0.5, 0.1 * randn(21 + i, wide)))
    (xc, xs), (wc, ws) = rows(x), rows(w)
    y = (xc.double() * xs.double()) @ (wc.double() * ws.double()).T + b.double()
    for name, t in {"x": x, "w": w, "b": b, "x_codes": xc.view(torch.uint8), "x_scale": xs[:, 0], "w_codes": wc.view(torch.uint8),
                    "w_scale": ws[:, 0], "y": y.float()}.items():
        out.put(f"{i}.{name}", t)
    out.add(i, rows=n, width=width, out=wide)
out.write()
