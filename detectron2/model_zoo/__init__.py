"""The configs that ship with the package, and the models that they describe."""

from . import compat_names as compat_names
from .model_zoo import get as get
from .model_zoo import get_checkpoint_url as get_checkpoint_url
from .model_zoo import get_config as get_config
from .model_zoo import get_config_file as get_config_file
