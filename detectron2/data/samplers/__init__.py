"""Samplers: the order in which data sets are read."""

from .distributed_sampler import InferenceSampler as InferenceSampler
from .distributed_sampler import RandomSubsetTrainingSampler as RandomSubsetTrainingSampler
from .distributed_sampler import RepeatFactorTrainingSampler as RepeatFactorTrainingSampler
from .distributed_sampler import TrainingSampler as TrainingSampler
from .grouped_batch_sampler import GroupedBatchSampler as GroupedBatchSampler
