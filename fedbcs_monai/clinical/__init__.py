"""Clinical: a trained model applied to images, with their geometry kept."""

from fedbcs_monai.clinical.predict import predict
from fedbcs_monai.clinical.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor", "predict"]
