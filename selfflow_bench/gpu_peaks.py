"""Peak dense bfloat16 throughput of accelerators, by the name that CUDA gives them. Knows nothing of torch.

Without sparsity, in TFLOP/s, from the vendors' data sheets: NVIDIA A100, H100, H200, Blackwell (B200, GB200), L40S;
of the GeForce cards float32 accumulation, as training has it.
"""

from __future__ import annotations

_TFLOPS = {
    "A100": 312.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H200": 989.0,
    "GB200": 2500.0,
    "B200": 2250.0,
    "L40S": 362.0,
    "RTX 4090": 165.2,
    "RTX 5090": 209.5,
}


def peak_flops(name: str) -> float | None:
    """FLOP/s of the accelerator, or None where it is not in the table.

    The longest entry in the name counts: "NVIDIA H100 PCIe" is no "H100".
    """
    known = [model for model in _TFLOPS if model.lower() in name.lower()]
    return 1e12 * _TFLOPS[max(known, key=len)] if known else None
