"""Methods: federated methods, one per file, each with its client and its server step."""

from fedbcs_monai.federated.method import ClientContext, Method
from fedbcs_monai.methods.fedavg import FedAvg
from fedbcs_monai.methods.fedavgm import FedAvgM
from fedbcs_monai.methods.fedbcs import FedBCS
from fedbcs_monai.methods.fedbcsm import FedBCSM
from fedbcs_monai.methods.fedbn import FedBN
from fedbcs_monai.methods.fedcontrast import FedContrast
from fedbcs_monai.methods.feddyn import FedDyn
from fedbcs_monai.methods.fedhpro import FedHPro
from fedbcs_monai.methods.fedplvm import FedPLVM
from fedbcs_monai.methods.fedproto import FedProto
from fedbcs_monai.methods.fedprox import FedProx
from fedbcs_monai.methods.feduv import FedUV
from fedbcs_monai.methods.fpl import FPL
from fedbcs_monai.methods.harmofl import HarmoFL
from fedbcs_monai.methods.localonly import LocalOnly
from fedbcs_monai.methods.moon import MOON
from fedbcs_monai.methods.scaffold import SCAFFOLD

__all__ = [
    "FPL",
    "MOON",
    "SCAFFOLD",
    "ClientContext",
    "FedAvg",
    "FedAvgM",
    "FedBCS",
    "FedBCSM",
    "FedBN",
    "FedContrast",
    "FedDyn",
    "FedHPro",
    "FedPLVM",
    "FedProto",
    "FedProx",
    "FedUV",
    "HarmoFL",
    "LocalOnly",
    "Method",
]
