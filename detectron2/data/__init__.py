"""Data sets, their catalogs, and the way from files to batches."""

from . import benchmark as benchmark
from . import build as build
from . import catalog as catalog
from . import common as common
from . import compat_names as compat_names
from . import dataset_mapper as dataset_mapper
from . import datasets as datasets
from . import detection_utils as detection_utils
from . import samplers as samplers
from . import transforms as transforms
from .build.dataset_dicts import get_detection_dataset_dicts as get_detection_dataset_dicts
from .build.dataset_dicts import load_proposals_into_dataset as load_proposals_into_dataset
from .build.dataset_dicts import print_instances_class_histogram as print_instances_class_histogram
from .build.loaders import build_batch_data_loader as build_batch_data_loader
from .build.loaders import build_detection_test_loader as build_detection_test_loader
from .build.loaders import build_detection_train_loader as build_detection_train_loader
from .catalog import DatasetCatalog as DatasetCatalog
from .catalog import Metadata as Metadata
from .catalog import MetadataCatalog as MetadataCatalog
from .common import DatasetFromList as DatasetFromList
from .common import MapDataset as MapDataset
from .common import ToIterableDataset as ToIterableDataset
from .dataset_mapper import DatasetMapper as DatasetMapper
