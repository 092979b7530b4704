"""Facade: the public path of `detectron2.collect_env`, and of `python -m detectron2.utils.collect_env`."""

from detectron2.collect_env import collect_env_info as collect_env_info
from detectron2.collect_env import collect_torch_env as collect_torch_env
from detectron2.collect_env import detect_compute_compatibility as detect_compute_compatibility
from detectron2.collect_env import get_env_module as get_env_module
from detectron2.collect_env import main as main
from detectron2.collect_env import nccl_worker as _test_nccl_worker
from detectron2.collect_env import test_nccl_ops as test_nccl_ops

__all__ = ["collect_env_info"]

if __name__ == "__main__":
    main()
