#!/bin/sh
# The page of pipelines/README.md from an empty machine to full size: its own commands, in its order, on stand-ins of what is downloaded.
# What would take hours is gone through with --dry-run.
# shellcheck disable=SC2016,SC2154 # ok evaluates its text
. "${0%/*}/lib.sh"
need_road() { need parallel; need gnuplot; need python3; }

# Folders of the published layout, small: the grader as .bin files, clips in archives beside OpenVid's table.
mkdir road stubs
sed -n '/^## From an empty machine/,/^## Again/p' "$top/pipelines/README.md" >page.md
awk '/^```/ { inside = $0 == "```sh checked"; n += inside; next } inside { print >"block" n }' page.md
cat >stand-ins.py <<'END'
import collections, csv, json, os, pickle, struct, sys, types, zipfile

def bin_of(safetensors, out):
    """As torch.save() writes a state_dict, without torch."""
    raw = open(safetensors, "rb").read()
    size = struct.unpack("<Q", raw[:8])[0]
    head, data = json.loads(raw[8:8 + size]), raw[8 + size:]
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    sys.modules.update({"torch": torch, "torch._utils": utils})
    def _rebuild_tensor_v2(): pass
    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    names = {"F32": "FloatStorage", "BF16": "BFloat16Storage"}
    for name in names.values(): setattr(torch, name, type(name, (), {"__module__": "torch"}))
    class Storage: pass
    class Tensor:
        def __reduce__(self):
            return _rebuild_tensor_v2, (self.storage, 0, self.shape, self.stride, False, collections.OrderedDict())
    class Pickler(pickle.Pickler):
        def persistent_id(self, x):
            return ("storage", getattr(torch, names[x.dtype]), x.key, "cpu", x.count) if isinstance(x, Storage) else None
    state = collections.OrderedDict()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as z:
        parts = []
        for name, entry in head.items():
            if name == "__metadata__": continue
            t, s = Tensor(), Storage()
            s.dtype, s.key, s.count = entry["dtype"], str(len(parts)), 1
            t.storage, t.shape, stride = s, tuple(entry["shape"]), []
            for n in reversed(t.shape): stride.insert(0, s.count); s.count *= n
            t.stride = tuple(stride)
            state[name] = t
            parts.append(data[entry["data_offsets"][0]:entry["data_offsets"][1]])
        with z.open("archive/data.pkl", "w") as f: Pickler(f, 2).dump(state)
        z.writestr("archive/version", "3\n")
        for i, part in enumerate(parts): z.writestr("archive/data/%d" % i, part)

def openvid(clips, table, archives):
    rows = [("%d-%s" % (i, r["video"]), r["caption"], 6, 2, 0.9, "static", 240, 24, 10) # 5 % of them are one at least
            for i in range(3) for r in csv.DictReader(open(clips + "/clips.csv"))]
    if table:
        with open(table, "w", newline="") as f:
            w = csv.writer(f)
            w.writerow("video,caption,aesthetic score,motion score,temporal consistency score,camera motion,frame,fps,seconds".split(","))
            w.writerows(rows + [("dull.mp4", "nothing, at all", 6, 0, 0.9, "static", 240, 24, 10)])
    else:
        for i in 0, 1:
            with zipfile.ZipFile("%s/OpenVid_part%d.zip" % (archives, i), "w") as z:
                for r in rows[i::2]: z.write(clips + "/" + r[0].split("-")[1], r[0])

if sys.argv[1] == "bin": bin_of(*sys.argv[2:])
else: openvid(*sys.argv[2:])
END
cat >stubs/hf <<'END'
#!/bin/sh
set -e
[ "$1" = download ]
repository=$2 to=$(echo "$*" | sed 's/.*--local-dir //')
mkdir -p "$to"
case $repository in
THUDM/CogVideoX-5b) model-init tiny "$to" ;;
Wan-AI/Wan2.1-T2V-1.3B-Diffusers) model-init wan-tiny "$to" || mkdir -p "$to" ;;
videophysics/videophy_2_auto)
    rmdir "$to"; model-init owl-tiny "$to"
    python3 "$work/stand-ins.py" bin "$to/model.safetensors" "$to/pytorch_model.bin"; rm "$to/model.safetensors" ;;
videophysics/videophy2_test) # its model's rows are told apart by model_name
    awk 'NR == 1 { print $0 ",model_name" } NR > 1 { print $0 ",wan" }' "$top/examples/prompts.csv" >"$to/$3" ;;
videophysics/videophy2_upsampled_prompts)
    { echo "caption,upsampled_caption"; echo "x,y"; } >"$to/$3" ;;
nkp37/OpenVid-1M)
    case $3 in
    *.csv) mkdir -p "$to/data/train"; python3 "$work/stand-ins.py" openvid "$top/examples/clips" "$to/$3" "" ;;
    *) python3 "$work/stand-ins.py" openvid "$top/examples/clips" "" "$to" ;;
    esac ;;
*) echo "hf: no $repository" >&2; exit 1 ;;
esac
END
chmod +x stubs/hf
export work top
PATH=$work/stubs:$PATH

ok "what is downloaded is whole, and the grader's .bin becomes a model" '
    need_road
    [ "$(ls block*)" = "$(printf "%s\n" block1 block2)" ]
    cd road; bash -euo pipefail ../block1 2>err || { cat err; exit 1; }
    ls videophy_2_auto | grep -x pytorch_model.bin; ls owl | grep -x model.safetensors
    for file in videophy2_test.csv prompt-upsampled-test.csv openvid/data/train/OpenVid-1M.csv openvid/OpenVid_part1.zip; do [ -s $file ]; done'
ok "the plan counts what the filter keeps, before anything is unpacked" '
    need_road
    cd road; sed "/^pipelines/,\$d" ../block2 >made; bash -euo pipefail made
    "$top/pipelines/plan" --config full.conf >table 2>err || { cat err; exit 1; }
    clips=$((3 * ($(wc -l <"$top/examples/clips/clips.csv") - 1)))
    grep "^precompute  *$clips clips" table; grep "^train  *6 runs of 5000 steps" table; grep "^generate  *[1-9][0-9]* videos" table
    [ ! -e full ]; [ ! -e videos ]'
ok "every other step of the page, told with --dry-run: its models, lists and archives are those that were downloaded" '
    need_road
    cd road; grep -c "^pipelines/" ../block2 | grep -x 5
    sed -n "/^head/p; s,^pipelines/\([a-z]*\) \([^#]*\).*,$top/pipelines/\1 \2 --dry-run SHARDS=2,p" ../block2 >steps
    bash -euo pipefail steps >told 2>err || { cat err; exit 1; }
    grep "^curate .* --videos videos --zips openvid few.csv" told; grep "^curate .* --zips openvid openvid/data/train/OpenVid-1M.csv" told
    grep "^prompts --model-name wan --upsampled prompt-upsampled-test.csv videophy2_test.csv | sed -n 1.,4p" told
    grep "train-step -m CogVideoX-5b .* --warmup 10 --max-steps 100 " told; grep "train-step -m CogVideoX-5b .* --max-steps 5000 " told
    grep "grade -m owl " told; grep "^report " told
    [ ! -e full ]; [ ! -e trial ]'
ok "the lists of the trial are made from the archives, and then probe finds clips; before that it says so" '
    need_road
    cd road; fails 1 "$top/pipelines/probe" --config full.conf; cat err; grep "probe: no clips in CLIPS=openvid/data/train/OpenVid-1M.csv, VIDEOS=videos; from archives" err
    curate --videos videos --zips openvid few.csv >few.jsonl 2>err || { cat err; exit 1; }
    [ "$(ls videos/*.mp4 | wc -l)" = "$(wc -l <few.jsonl)" ]; [ ! -e videos/dull.mp4 ]'
finish
