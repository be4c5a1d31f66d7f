"""Prediction: segment new images with trained models, with their geometry preserved."""

from fedbcs_monai.predict.predictor import Prediction, Predictor
from fedbcs_monai.predict.studies_to_masks import predict

__all__ = ["Prediction", "Predictor", "predict"]
