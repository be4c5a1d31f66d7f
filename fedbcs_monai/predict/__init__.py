"""Predict: a trained model applied to new scans, with their geometry kept."""

from fedbcs_monai.predict.predictor import Prediction, Predictor
from fedbcs_monai.predict.studies_to_masks import predict

__all__ = ["Prediction", "Predictor", "predict"]
