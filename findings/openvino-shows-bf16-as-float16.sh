#!/usr/bin/env bash
# openvino 2026.4.1 with numpy: a BF16 tensor's `.data`, and a result of type BF16, are arrays of numpy's float16 over the
# same 16 bits, whose exponent is shorter. `Type.bf16.to_dtype()` names float16, too.
#
# Expected: [1, 2, -3] converted to BF16 is read as [1, 2, -3], or reading it is refused.
# Seen: it is read as [1.875, 2, -2.125], and what is written through `.data` is another number to the next operation. 2 is
# right by chance. An array of float16 is refused by `set_tensor` of a BF16 input, whose `to_dtype()` asked for just that.
# Matters to whoever holds a cache of keys and values, which is BF16 where that precision computes, in numpy arrays: bits
# may be copied, numbers may not be read.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import openvino as ov
from openvino import opset13 as ops

numbers = np.array([1.0, 2.0, -3.0], np.float32)
given = ops.parameter([3], ov.Type.f32)
to_bf16 = ov.Core().compile_model(ov.Model([ops.convert(given, "bf16")], [given], "to"), "CPU")
read = to_bf16([numbers])[0]
print("result", to_bf16.output(0).element_type, read.dtype, read.tolist())

given = ops.parameter([3], ov.Type.bf16)
from_bf16 = ov.Core().compile_model(ov.Model([ops.convert(given, "f32")], [given], "from"), "CPU")
written = ov.Tensor(ov.Type.bf16, [3])
written.data[:] = numbers
seen = from_bf16([written])[0]
print("written through .data, converted to f32:", seen.tolist())
try:
    from_bf16.create_infer_request().set_tensor(0, ov.Tensor(numbers.astype(ov.Type.bf16.to_dtype())))
    refused = False
except (RuntimeError, TypeError) as error:
    refused = True
    print("set_tensor:", str(error).strip().splitlines()[-1][:110])
same = (read.dtype, read.tolist(), seen.tolist(), refused)
if same != (np.float16, [1.875, 2.0, -2.125], [0.0078125, 2.0, -32.0], True):
    sys.exit("the behaviour has changed")
PY
