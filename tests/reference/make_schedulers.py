# Makes schedulers.json: diffusers' CogVideoX schedulers with the published settings: alphas_cumprod (fp64, printed so that
# reading gives the same double) for the 5B and the 2B shift, and the timesteps of each step count.
import math

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, UniPCMultistepScheduler
from diffusers.schedulers import scheduling_dpm_cogvideox

from common import DATA, write_json
from make_sample import SCHEDULER

INDICES = [0, 1, 2, 19, 39, 59, 99, 199, 249, 333, 499, 500, 666, 799, 875, 959, 979, 998, 999]
STEPS = [1, 2, 4, 5, 8, 10, 20, 25, 40, 50]

out = {"alphas_cumprod": [], "timesteps": {}, "dynamic_guidance": []}
for shift in (1.0, 3.0):
    table = CogVideoXDDIMScheduler(**{**SCHEDULER, "snr_shift_scale": shift}).alphas_cumprod.double().tolist()
    assert table == CogVideoXDPMScheduler(**{**SCHEDULER, "snr_shift_scale": shift}).alphas_cumprod.double().tolist()
    out["alphas_cumprod"].append({"snr_shift_scale": shift, "at": [[i, table[i]] for i in INDICES], "sum": math.fsum(table)})
scheduler = CogVideoXDPMScheduler(**SCHEDULER)
for n in STEPS:
    scheduler.set_timesteps(n)
    out["timesteps"][n] = scheduler.timesteps.tolist()
for n in (10, 50):  # use_dynamic_cfg, the pipeline's own formula
    out["dynamic_guidance"].append({"guidance": 6, "steps": n, "values": [
        1 + 6 * ((1 - math.cos(math.pi * ((n - t) / n) ** 5.0)) / 2) for t in out["timesteps"][n]]})


# Other spacings: the timesteps, and where a scalar ends whose answer is v = x/2 + sin(t), all noise 0.3, in fp64.
def end_of(cls, settings, n):
    scheduler, x, old, back = cls(**settings), torch.full((1,), 0.7, dtype=torch.float64), None, None
    scheduler.set_timesteps(n)
    for t in scheduler.timesteps:
        v = x / 2 + math.sin(int(t))
        if cls is CogVideoXDDIMScheduler:
            x = scheduler.step(v, t, x, return_dict=False)[0]
        else:
            x, old = scheduler.step(v, old, t, back, x, return_dict=False)
            back = t
    return x.item()


scheduling_dpm_cogvideox.randn_tensor = lambda shape, **_: torch.full(shape, 0.3, dtype=torch.float64)
out["spacings"] = []
for spacing, offset in (("trailing", 0), ("leading", 0), ("leading", 1), ("linspace", 0)):
    settings = {**SCHEDULER, "timestep_spacing": spacing, "steps_offset": offset}
    for n in (1, 4, 10, 50):
        scheduler = CogVideoXDDIMScheduler(**settings)
        scheduler.set_timesteps(n)
        out["spacings"].append({"spacing": spacing, "offset": offset, "steps": n, "timesteps": scheduler.timesteps.tolist(),
                                "ddim": end_of(CogVideoXDDIMScheduler, settings, n),
                                "dpm": end_of(CogVideoXDPMScheduler, settings, n)})

# UniPC along a flow, as Wan's folders have it: the timesteps, and where a scalar ends whose answer is v = x/2 + sin(t/200) - 1. The class
# computes its coefficients in F32; "exact" is where the same code ends with its (F32) levels in fp64.
UNIPC = dict(num_train_timesteps=1000, prediction_type="flow_prediction", use_flow_sigmas=True, solver_order=2,
             solver_type="bh2", lower_order_final=True, predict_x0=True, disable_corrector=[], final_sigmas_type="zero")


def unipc(shift, n, dtype):
    scheduler, x = UniPCMultistepScheduler(**UNIPC, flow_shift=shift), torch.full((1, 1, 1), 0.7, dtype=torch.float64)
    scheduler.set_timesteps(n)
    scheduler.set_begin_index(0)  # as the pipeline does: timesteps may repeat
    scheduler.sigmas = scheduler.sigmas.to(dtype)
    for t in scheduler.timesteps:
        x = scheduler.step(x / 2 + math.sin(int(t) / 200) - 1, t, x, return_dict=False)[0]
    return scheduler.timesteps.tolist(), x.item()


out["unipc"] = []
for shift in (1.0, 3.0, 5.0, 8.0, 12.0):
    for n in [*range(1, 51), 100]:
        timesteps, end = unipc(shift, n, torch.float32)
        out["unipc"].append({"shift": shift, "steps": n, "end": end, "exact": unipc(shift, n, torch.float64)[1],
                             "timesteps": timesteps})
write_json(out, DATA, "schedulers.json")
