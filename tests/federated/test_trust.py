"""Trust: a job may say what the shipped experiments say, with other numbers, and no more."""

import pytest

from fedbcs_monai.config import load_config, plain
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.trust import check_trusted


def experiment(**changes):
    return {**plain(load_config("nuclei_fedavg")), **changes}


@pytest.mark.parametrize("name", ["nuclei_fedbcs", "nuclei_fedbcs_paper", "nuclei_scaffold", "prostate_harmofl"])
def test_shipped_experiments_are_trusted(name):
    check_trusted(plain(load_config(name)))


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-3, "betas": [0.8, 0.9]}},
        {"method": {"_target_": "fedbcs_monai.methods.FedProx", "mu": 1}},
        {"loss": {"_target_": "DiceLoss", "softmax": True, "smooth_nr": 1}},
        {"network_def": {"_target_": "fedbcs_monai.networks.build_segmenter", "backbone": "UNet", "dropout": 0.5}},
        {"preprocessing": {"_target_": "Compose", "transforms": ["@reading"]}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_numbers_optimizers_methods_and_networks_are_trusted(change):
    check_trusted(experiment(**change))


def reading(**load):
    return {"_target_": "Compose", "transforms": [{"_target_": "LoadImaged", "keys": "image", **load}]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"loss": {"_target_": "os.system", "command": "true"}}, "os.system"),
        ({"loss": {"_target_": "monai.utils.misc.run_cmd", "cmd_list": ["true"]}}, "run_cmd"),
        ({"loss": {"_target_": "fedbcs_monai.data.synthetic.synthesise", "folder": "."}}, "synthesise"),
        ({"batch_size": "$__import__('os').getpid()"}, "getpid"),
        ({"batch_size": "%/etc/passwd"}, "/etc/passwd"),
        ({"loss": {"_target_": "DiceLoss", "_mode_": "callable"}}, "_mode_"),
        ({"reading": reading(reader="subprocess.Popen")}, "subprocess.Popen"),
        ({"reading": reading(reader=["subprocess.Popen"])}, "subprocess.Popen"),
        ({"reading": reading(reader={"_target_": "subprocess.Popen"})}, "subprocess.Popen"),
        ({"reading": reading(writer="anything")}, "with the argument writer"),
        ({"reading": {"_target_": "Compose", "transforms": [{"$print(1)": 1}]}}, "print"),
    ],
    ids=str,
)
def test_whatever_else_a_job_names_is_refused_with_the_way_out(change, said):
    with pytest.raises(UserError, match=r"does not let a job use .* add it to `allow`") as refusal:
        check_trusted(experiment(**change))
    assert said in str(refusal.value)


def test_a_site_may_allow_more():
    change = {"augmentation": {"_target_": "monai.transforms.RandGaussianNoised", "keys": "image"}}
    with pytest.raises(UserError):
        check_trusted(experiment(**change))
    check_trusted(experiment(**change), allow=["monai.transforms.RandGaussian"])
