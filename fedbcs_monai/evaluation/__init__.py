"""Evaluation: how good a mask is, and tables of it."""

from fedbcs_monai.evaluation.cases import CaseScore, CaseScorer, Example, Segmentation

__all__ = ["CaseScore", "CaseScorer", "Example", "Segmentation"]
