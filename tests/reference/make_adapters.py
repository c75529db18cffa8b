# Makes adapters/: the operations between an adapter's two projections, written with PyTorch's own pieces in float64 and
# differentiated by autograd.
import math

import numpy as np
import torch

from common import Cases

torch.set_default_dtype(torch.float64)
GDN = ["qkv", "qkv_bias", "gate", "gate_bias", "alpha_h", "alpha_h_bias", "alpha_w", "alpha_w_bias", "beta_h", "beta_h_bias",
       "beta_w", "beta_w_bias", "norm", "kernel"]


def rope2d(x):
    """x [T,H,W,n,d]: of a head's channel pairs the first half turns by the row, the second by the column."""
    T, H, W, n, d = x.shape
    rate = 10000.0 ** (-2 * torch.arange(d // 4) / (d / 2))
    angle = torch.cat([torch.arange(H)[:, None, None] * rate.expand(H, W, -1), torch.arange(W)[None, :, None] * rate.expand(H, W, -1)], -1)
    turn = torch.polar(torch.ones_like(angle), angle)[None, :, :, None]
    return torch.view_as_real(torch.view_as_complex(x.reshape(T, H, W, n, d // 2, 2)) * turn).reshape(x.shape)


def irfft2(x, W):
    """Complex over h, then real over w: of columns 0 and W/2 only the real part counts."""
    H, F = x.shape[-2:]
    y = torch.fft.ifft(x, dim=-2)
    angle = 2 * math.pi * torch.outer(torch.arange(F), torch.arange(W)) / W
    weight = torch.full((F, 1), 2.0)
    weight[0] = 1
    if W % 2 == 0:
        weight[W // 2] = 1
        angle[W // 2] = math.pi * torch.arange(W)
    out = (y.real @ (weight * angle.cos()) - y.imag[..., 1 : (W + 1) // 2] @ (weight * angle.sin())[1 : (W + 1) // 2]) / W
    assert np.allclose(out.detach(), np.fft.irfft2(x.detach().numpy(), s=(H, W)), atol=1e-12)
    return out


def gdn_cssm(z, p, d, rope):
    T, H, W, r = z.shape
    n = r // d
    q, k, v = (z @ p["qkv"].T + p["qkv_bias"]).reshape(T, H, W, 3, n, d).unbind(3)
    if rope:
        q, k = rope2d(q), rope2d(k)
    gate = torch.nn.functional.silu(z @ p["gate"].T + p["gate_bias"])
    c = z.mean((1, 2))

    def factored(name):
        h, w = (c @ p[f"{name}_{axis}"].T + p[f"{name}_{axis}_bias"] for axis in "hw")
        return torch.sigmoid(h[:, :, None] + w[:, None, :])

    alpha, beta = 0.1 + 0.89 * factored("alpha"), factored("beta")
    Q, K, V = (torch.fft.rfft2(a.permute(0, 3, 4, 1, 2)) for a in (q, k, v))  # [T,n,d,H,F]
    energy = lambda x, dims: (x.real**2 + x.imag**2).sum(dims, keepdim=True)
    Q, K = (x / torch.sqrt(energy(x, (-2, -1)) + 1e-6) for x in (Q, K))
    K = K / torch.sqrt(energy(K, 2) + 1e-6)
    P = torch.view_as_complex(p["kernel"])
    P = 0.999 * P / (1 + P.abs())
    S, out = torch.zeros(n, d, d, H, W // 2 + 1, dtype=torch.complex128), []
    for t in range(T):
        a, b = alpha[t], beta[t]
        read = torch.einsum("nijuf,njuf->niuf", S, K[t])
        S = a * P[:, None, None] * (S - b * torch.einsum("niuf,njuf->nijuf", read, K[t].conj())) + b * torch.einsum("niuf,njuf->nijuf", V[t], K[t].conj())
        out.append(torch.einsum("nijuf,njuf->niuf", S, Q[t]))
    o = irfft2(torch.stack(out), W).permute(0, 3, 4, 1, 2).reshape(T, H, W, r)
    return o * torch.rsqrt((o**2).mean(-1, keepdim=True) + 1e-6) * p["norm"] * gate


def temporal_attention(z, p, heads):
    T, S, r = z.shape
    q, k, v = ((z.mean(1) @ p[name].T).reshape(T, heads, -1).transpose(0, 1) for name in "qkv")
    a = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    return z + a.transpose(0, 1).reshape(T, 1, r)


def drawn(g, *shape):
    return 2 * torch.rand(*shape, generator=g) - 1


def put(cases, number, function, z, p, g, **fields):
    z.requires_grad_(), [t.requires_grad_() for t in p.values()]
    out = function(z, p)
    slope = drawn(g, *out.shape)
    (out * slope).sum().backward()
    cases.add(str(number), shape=list(z.shape), **fields)
    for name, t in {"z": z, **p}.items():
        cases.put(f"{number}.{name}", t)
        cases.put(f"{number}.d{name}", t.grad)
    cases.put(f"{number}.slope", slope)
    cases.put(f"{number}.out", out)


def main():
    cases, number = Cases("adapters"), 0
    for T, H, W, r, d, rope in [(2, 7, 9, 8, 4, False), (2, 7, 9, 8, 8, True), (5, 8, 12, 4, 4, True), (5, 8, 12, 6, 3, False),
                                (1, 8, 12, 4, 2, False), (1, 1, 1, 8, 4, False), (5, 1, 1, 8, 4, True)]:
        g, F = torch.Generator().manual_seed(number), W // 2 + 1
        shapes = [(3 * r, r), (3 * r,), (r, r), (r,), (H, r), (H,), (F, r), (F,), (H, r), (H,), (F, r), (F,), (r,), (r // d, H, F, 2)]
        p = {name: drawn(g, *shape) for name, shape in zip(GDN, shapes)}
        p["kernel"][0, 0, 0] = 0  # where |P| has no derivative
        if H * W == 1:  # at one point unit energy is a sign, but for its epsilon
            p["qkv"] *= 1e-3
            p["qkv_bias"] *= 1e-3
        put(cases, number, lambda z, p: gdn_cssm(z, p, d, rope), drawn(g, T, H, W, r), p, g, kind="gdn_cssm", head_dim=d, rope=rope)
        number += 1
    for T, S, r, heads in [(5, 12, 16, 2), (1, 63, 6, 2), (2, 1, 4, 2)]:
        g = torch.Generator().manual_seed(number)
        p = {name: drawn(g, r, r) for name in "qkv"}
        put(cases, number, lambda z, p: temporal_attention(z, p, heads), drawn(g, T, S, r), p, g, kind="temporal_attention", heads=heads)
        number += 1
    cases.write()


main()
