"""Options of a run."""

train = {
    "output_dir": "./output",
    # Weights to start from; "" starts from random ones.
    "init_checkpoint": "",
    "max_iter": 90000,
    "device": "cuda",
    # In iterations; 0 evaluates at the end only.
    "eval_period": 5000,
    "log_period": 20,
    # Refuse to evaluate a checkpoint whose classes have other names, or another order, than the data set's.
    "check_class_names": True,
    "checkpointer": {"period": 5000, "max_to_keep": 100},
    # Mixed precision.
    "amp": {"enabled": False},
    # Of runs with several processes; see create_ddp_model.
    "ddp": {"broadcast_buffers": False, "find_unused_parameters": False, "fp16_compression": False},
}
