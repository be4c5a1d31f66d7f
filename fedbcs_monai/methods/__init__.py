"""Methods: what happens at a site and what happens at the server, one method a file."""

from fedbcs_monai.methods.base import Local, Method
from fedbcs_monai.methods.fedavg import FedAvg
from fedbcs_monai.methods.fedbcs import FedBCS

__all__ = ["FedAvg", "FedBCS", "Local", "Method"]
