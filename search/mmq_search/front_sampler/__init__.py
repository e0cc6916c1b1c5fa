"""A sampler for Optuna studies of a known size against an uncertain score."""

from mmq_search.front_sampler.sampler import FrontSampler

__all__ = ["FrontSampler"]
