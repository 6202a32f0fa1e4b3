"""Two graphics devices that every machine can have: ggml's servers, reached over a socket.

Run as a module it is a worker. Their addresses stand for the UUIDs of graphics cards, so a worker
sees those that CUDA_VISIBLE_DEVICES names, or the processor; a server serves one process at a time.
"""

import ctypes
import os
from collections.abc import Sequence

from paddock.engine.memory.device_memory import Device, GpuMemory
from paddock.engine.memory.machine_probe import MachineProbe
from paddock.engine.settings import PoolSettings


def add_servers(addresses: Sequence[str]) -> None:
    """Register each server with llama.cpp in this process as a device."""
    from paddock.engine.llama.library import ggml_function

    by_name = ggml_function("ggml_backend_reg_by_name", ctypes.c_void_p, ctypes.c_char_p)
    find = ggml_function(
        "ggml_backend_reg_get_proc_address", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p
    )
    register = ggml_function("ggml_backend_register", None, ctypes.c_void_p)
    for address in addresses:
        found = find(by_name(b"RPC"), b"ggml_backend_rpc_add_server")
        add = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)(found)
        register(add(address.encode()))


class RpcProbe(MachineProbe):
    """Reports so much memory for each device, since their servers have all of it."""

    def __init__(self, settings: PoolSettings, addresses: Sequence[str], memory_bytes: int) -> None:
        super().__init__(settings)
        self.addresses = list(addresses)
        self._memory_bytes = memory_bytes

    async def probe_device(self) -> Device:
        gpus = (
            GpuMemory(f"RPC{n}", self._memory_bytes, self._memory_bytes, address)
            for n, address in enumerate(self.addresses)
        )
        return Device(1, 1 << 40, is_gpu=True, gpus=tuple(gpus))


if __name__ == "__main__":
    from paddock.engine.workers.worker_main import main

    add_servers([one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one])
    main()
