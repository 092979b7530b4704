"""Proposal generators: boxes that may hold an object."""

from .build import PROPOSAL_GENERATOR_REGISTRY as PROPOSAL_GENERATOR_REGISTRY
from .build import build_proposal_generator as build_proposal_generator
from .rpn import RPN as RPN
from .rpn import RPN_HEAD_REGISTRY as RPN_HEAD_REGISTRY
from .rpn import StandardRPNHead as StandardRPNHead
from .rpn import build_rpn_head as build_rpn_head
from .rrpn import RRPN as RRPN
