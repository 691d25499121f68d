"""Say whether the vLLM that was just installed can be imported: `python deployments/vllm/check.py cpu|gpu`.

It runs in vLLM's own environment, where HEAL is not installed.
"""

from __future__ import annotations

import sys


def main(kind: str) -> int:
    """Return 0 where vLLM was imported with a torch of this kind; else say what is wrong."""
    try:
        import torch
        import vllm
    except (ImportError, OSError) as error:
        print(f"vLLM was installed, but cannot be imported: {error}. See deployments/vllm/README.md", file=sys.stderr)
        return 1
    if kind == "gpu" and not torch.cuda.is_available():
        print("vLLM was installed, but its torch finds no GPU; without one: make vllm VLLM=cpu", file=sys.stderr)
        return 1
    print(f"vLLM {vllm.__version__} with torch {torch.__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
