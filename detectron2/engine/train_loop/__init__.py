"""The training loop, its hooks' interface, and one training step in full and in mixed precision.

`TrainerBase` knows iterations and hooks, `SimpleTrainer` what happens in one iteration, `AMPTrainer` the
same in lower precision. What a whole run needs beyond that (configs, checkpoints, evaluation) is in
`engine.defaults`.
"""

from detectron2.engine.train_loop.amp_trainer import AMPTrainer as AMPTrainer
from detectron2.engine.train_loop.base import HookBase as HookBase
from detectron2.engine.train_loop.base import TrainerBase as TrainerBase
from detectron2.engine.train_loop.simple_trainer import SimpleTrainer as SimpleTrainer

__all__ = ["AMPTrainer", "HookBase", "SimpleTrainer", "TrainerBase"]
