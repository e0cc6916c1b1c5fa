"""Blocks that several machines share: in a folder, and in an S3 store behind a real server."""

import multiprocessing
import os

import pytest
import torch

from mmq.artifacts.remote import RemoteStore
from mmq.artifacts.store import ArtifactKey, Store
from mmq.cli import main
from mmq.errors import InputError
from mmq.tensors.affine import Scheme  # noqa: F401
