"""The policy of a startup kit: one more entry, nothing lost, and the files a site fills in."""

import json

import pytest

from fedbcs_monai.backends.nvflare.site_file import read_site_file
from fedbcs_monai.errors import UserError

pytest.importorskip("nvflare")
pytestmark = pytest.mark.filterwarnings("ignore")
OURS = "fedbcs_monai.backends.nvflare."
CLASSES = [
    f"{OURS}{name}" for name in ("controller.FederatedController", "executor.SiteExecutor", "statistics.SiteStatistics")
]


@pytest.fixture
def kit(tmp_path):
    for name in ("startup", "local"):
        (tmp_path / name).mkdir()
    paths = [
        "nvflare.manager.Manager",
        "nvflare.app_common.job_launcher.client_process_launcher.ClientProcessJobLauncher",
    ]
    components = [{"id": str(number), "path": path, "args": {}} for number, path in enumerate(paths)]
    resources = {"class_allow_list": ["nvflare.one"], "client": {"retry_timeout": 30}, "components": components}
    (tmp_path / "local" / "resources.json.default").write_text(json.dumps(resources))
    return tmp_path


def write_policy(*arguments):
    from fedbcs_monai.backends.nvflare.policy import write_policy

    return write_policy(*arguments)


def test_our_classes_are_allowed_and_all_else_is_kept(kit):
    written = write_policy(kit)
    assert {path.name for path in written} == {"resources.json.default", "privacy.json", "fedbcs.yaml"}
    resources = json.loads((kit / "local" / "resources.json.default").read_text())
    assert resources["class_allow_list"] == ["nvflare.one", *CLASSES]
    assert resources["client"] == {"retry_timeout": 30}
    assert resources["allow_log_streaming"] is False
    paths = [component["path"] for component in resources["components"]]
    assert paths == ["nvflare.manager.Manager", f"{OURS}launcher.SiteLauncher"]


def test_a_sites_own_resources_are_those_that_count(kit):
    (kit / "local" / "resources.json").write_text(json.dumps({"class_allow_list": ["mine"]}))
    write_policy(kit)
    assert json.loads((kit / "local" / "resources.json").read_text())["class_allow_list"] == ["mine", *CLASSES]
    assert OURS not in (kit / "local" / "resources.json.default").read_text()


def test_again_changes_nothing(kit):
    write_policy(kit)
    (kit / "local" / "fedbcs.yaml").write_text("name: Alder\n")
    before = {path: path.read_bytes() for path in kit.rglob("*") if path.is_file()}
    assert [path.name for path in write_policy(kit)] == ["resources.json.default"]
    assert {path: path.read_bytes() for path in kit.rglob("*") if path.is_file()} == before


def test_the_site_list_may_be_named(kit):
    write_policy(kit, kit / "sites: 1.json")
    assert read_site_file(kit).overrides["sites"] == str(kit / "sites: 1.json")


def test_the_privacy_policy_has_a_default_scope(kit):
    write_policy(kit)
    policy = json.loads((kit / "local" / "privacy.json").read_text())
    assert policy["default_scope"] in {scope["name"] for scope in policy["scopes"]}


@pytest.mark.parametrize(
    "name", ["process.TrainerProcess", "policy.write_policy", "executor", "executor.SiteExecutors"]
)
def test_a_job_cannot_name_what_else_is_ours(name, kit):
    from nvflare.app_common.widgets.component_path_authorizer import ComponentPathAuthorizer

    write_policy(kit)
    authorizer = ComponentPathAuthorizer()
    resources = json.loads((kit / "local" / "resources.json.default").read_text())
    allowed, *_ = authorizer._get_policy_from_resources(resources)
    assert all(any(authorizer._path_matches_prefix(path, entry) for entry in allowed) for path in CLASSES)
    assert not any(authorizer._path_matches_prefix(f"{OURS}{name}", entry) for entry in allowed)


def test_what_is_no_kit_is_left_alone(tmp_path):
    with pytest.raises(UserError, match="is not the startup kit of a server or a site"):
        write_policy(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_left_alone_and_named(kit):
    (kit / "local" / "resources.json").write_text("{")
    with pytest.raises(UserError, match=r"resources\.json: cannot be read .*restore it"):
        write_policy(kit)
    assert not (kit / "local" / "fedbcs.yaml").exists()
