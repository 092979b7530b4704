"""Whole models."""

from .build import META_ARCH_REGISTRY as META_ARCH_REGISTRY
from .build import build_model as build_model
from .dense_detector import DenseDetector as DenseDetector
from .fcos import FCOS as FCOS
from .panoptic_fpn import PanopticFPN as PanopticFPN
from .rcnn import GeneralizedRCNN as GeneralizedRCNN
from .rcnn import ProposalNetwork as ProposalNetwork
from .retinanet import RetinaNet as RetinaNet
from .semantic_seg import SEM_SEG_HEADS_REGISTRY as SEM_SEG_HEADS_REGISTRY
from .semantic_seg import SemanticSegmentor as SemanticSegmentor
from .semantic_seg import SemSegFPNHead as SemSegFPNHead
from .semantic_seg import build_sem_seg_head as build_sem_seg_head
