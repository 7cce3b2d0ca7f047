"""The manifests of examples/kubernetes agree with each other, with the images and with the module.

There is no cluster here to ask. What can be seen without one is seen: that every name, port, label and
path which one part says is there in the other.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from statefun_ray.cli import main
from statefun_ray.module.load import load
from statefun_ray.module.model import Module
from tests.examples.manifests import (
    EXAMPLE,
    ROOT,
    Image,
    Manifest,
    container,
    copied,
    manifest,
    manifests,
    options,
    pod,
    workloads,
)

README = (EXAMPLE / "README.md").read_text(encoding="utf-8")
BUILT = dict(re.findall(r"docker build .*--target (\S+) +-t (\S+) ", README))


def title(each: Manifest) -> str:
    return f"{each['kind']}/{each['metadata']['name']}"


every_workload = pytest.mark.parametrize("workload", workloads(), ids=title)
every_service = pytest.mark.parametrize(
    "service", [each for each in manifests() if each["kind"] == "Service"], ids=title
)


def labels_of_pods(workload: Manifest) -> dict[str, str]:
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def selected_by(service: Manifest) -> Manifest:
    """Return the one workload whose pods a Service has."""
    wanted = service["spec"]["selector"].items()
    [found] = [each for each in workloads() if wanted <= labels_of_pods(each).items()]
    return found


def ports_of(workload: Manifest) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container(workload).get("ports", ())}


def is_served(address: str) -> bool:
    """Whether ``HOST:PORT`` is a Service and a port it has."""
    host, _, port = address.rpartition(":")
    return int(port) in {each["port"] for each in manifest("Service", host)["spec"]["ports"]}


def module() -> Module:
    reading = load([str(EXAMPLE / "module.yaml")])
    assert reading.problems == ()
    assert reading.module is not None
    return reading.module


# -- within the manifests ---------------------------------------------------------------


def test_every_manifest_has_a_title_of_its_own() -> None:
    titles = [title(each) for each in manifests()]
    assert sorted(set(titles)) == sorted(titles)
    assert {"Deployment/hello-functions", "StatefulSet/hello", "ConfigMap/hello-module"} < set(titles)


@every_service
def test_a_service_leads_to_ports_that_its_pods_have(service: Manifest) -> None:
    ports = ports_of(selected_by(service))
    for port in service["spec"]["ports"]:
        assert ports[port["targetPort"]] == port["port"]


@every_workload
def test_a_workload_finds_its_own_pods_and_nobody_elses(workload: Manifest) -> None:
    if workload["kind"] == "Job":
        assert "selector" not in workload["spec"]  # Kubernetes makes one
        return
    wanted = workload["spec"]["selector"]["matchLabels"].items()
    assert [title(each) for each in workloads() if wanted <= labels_of_pods(each).items()] == [
        title(workload)
    ]


@every_workload
def test_a_stateful_set_belongs_to_a_headless_service_that_has_its_pods(workload: Manifest) -> None:
    if workload["kind"] == "StatefulSet":
        service = manifest("Service", workload["spec"]["serviceName"])
        assert service["spec"]["clusterIP"] == "None"
        assert selected_by(service) == workload


@every_workload
def test_probes_ask_at_ports_that_are_there(workload: Manifest) -> None:
    probes = [probe for name, probe in container(workload).items() if name.endswith("Probe")]
    assert probes or workload["kind"] == "Job"
    for probe in probes:
        assert (probe.get("httpGet") or probe["tcpSocket"])["port"] in ports_of(workload)


@every_workload
def test_every_volume_is_mounted_and_every_mount_is_a_volume(workload: Manifest) -> None:
    claimed = [each["metadata"]["name"] for each in workload["spec"].get("volumeClaimTemplates", ())]
    volumes = [*claimed, *(each["name"] for each in pod(workload).get("volumes", ()))]
    mounts = container(workload).get("volumeMounts", ())
    assert sorted(each["name"] for each in mounts) == sorted(volumes)
    assert len({each["mountPath"] for each in mounts}) == len(mounts)


@every_workload
def test_every_configmap_and_secret_that_is_named_is_there(workload: Manifest) -> None:
    for volume in pod(workload).get("volumes", ()):
        if "configMap" in volume:
            assert manifest("ConfigMap", volume["configMap"]["name"])["data"]
        if "secret" in volume:
            assert manifest("Secret", volume["secret"]["secretName"])["stringData"]
    for source in container(workload).get("envFrom", ()):
        assert manifest("Secret", source["secretRef"]["name"])["stringData"]


@every_workload
def test_no_pod_may_do_more_than_it_must(workload: Manifest) -> None:
    spec = pod(workload)
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert container(workload)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    if "volumeClaimTemplates" in workload["spec"]:
        assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"]


# -- the runtime, its module and what it talks to ---------------------------------------


def test_the_module_in_the_configmap_is_the_module_of_the_example() -> None:
    assert manifest("ConfigMap", "hello-module")["data"] == {
        "module.yaml": (EXAMPLE / "module.yaml").read_text(encoding="utf-8")
    }


def test_the_module_in_the_configmap_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "module.yaml"
    file.write_text(manifest("ConfigMap", "hello-module")["data"]["module.yaml"], encoding="utf-8")
    assert main(["validate", str(file)]) == 0
    assert capsys.readouterr().out == "0 errors, 0 warnings\n"


def test_every_address_of_the_module_is_a_service_of_the_manifests() -> None:
    [endpoint], [ingress] = module().endpoints, module().kafka_ingresses
    assert is_served(urlsplit(endpoint.url_template).netloc)
    assert is_served(ingress.properties["bootstrap.servers"])


def test_what_the_runtime_is_told_is_where_the_pod_has_it() -> None:
    runtime = manifest("StatefulSet", "hello")
    told = options(runtime)
    places = {each["name"]: each["mountPath"] for each in container(runtime)["volumeMounts"]}
    [claim] = [each["metadata"]["name"] for each in runtime["spec"]["volumeClaimTemplates"]]

    assert told["--module"] == f"{places['module']}/module.yaml"
    assert told["--log-dir"].startswith(f"{places[claim]}/")
    assert told["--http"] == f"0.0.0.0:{ports_of(runtime)['http']}"  # the kubelet asks from outside
    assert told["--address"] == "local"
    assert runtime["spec"]["replicas"] == 1


def test_the_bucket_and_the_keys_are_those_of_the_storage() -> None:
    settings = manifest("Secret", "hello-storage")["stringData"]
    users = json.loads(manifest("Secret", "storage-users")["stringData"]["users.json"])
    bucket = urlsplit(options(manifest("StatefulSet", "hello"))["--storage"]).netloc

    assert is_served(urlsplit(settings["AWS_ENDPOINT_URL"]).netloc)
    assert users["identities"][0]["credentials"] == [
        {"accessKey": settings["AWS_ACCESS_KEY_ID"], "secretKey": settings["AWS_SECRET_ACCESS_KEY"]}
    ]
    assert f'makedirs("{bucket}"' in container(manifest("Job", "hello-bucket"))["command"][-1]
    [port] = ports_of(manifest("StatefulSet", "storage")).values()
    assert f"-s3.port={port}" in container(manifest("StatefulSet", "storage"))["command"]


def test_the_broker_advertises_the_address_that_the_module_says() -> None:
    environment = {each["name"]: each["value"] for each in container(manifest("StatefulSet", "kafka"))["env"]}
    [ingress] = module().kafka_ingresses
    advertised = environment["KAFKA_ADVERTISED_LISTENERS"]
    assert advertised == f"PLAINTEXT://{ingress.properties['bootstrap.servers']}"


# -- the images ----------------------------------------------------------------------------


def test_the_readme_builds_every_image_of_ours() -> None:
    images = {container(each)["image"] for each in workloads()}
    assert {image for image in images if image.startswith("hello-")} == set(BUILT.values())


@every_workload
def test_a_pod_has_the_user_and_the_ports_of_its_image(workload: Manifest) -> None:
    targets = [target for target, name in BUILT.items() if name == container(workload)["image"]]
    for target in targets:
        image = Image(target)
        assert image.values("USER") == [str(pod(workload)["securityContext"]["runAsUser"])]
        if workload["kind"] != "Job":
            assert image.values("EXPOSE") == [str(port) for port in ports_of(workload).values()]


def test_both_images_of_the_service_serve_at_the_port_they_say() -> None:
    for target in ("functions", "apache-functions"):
        assert Image(target).command[-1:] == Image(target).values("EXPOSE")


def test_everything_that_is_copied_into_an_image_is_in_the_repository() -> None:
    assert [path for path in sorted(copied()) if not (ROOT / path).exists()] == []


@pytest.mark.slow
def test_what_is_copied_is_enough_to_build_the_package(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for path in Image("checkout").values("COPY"):
        *sources, target = path.split()
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(
                    ROOT / source, checkout / target, ignore=shutil.ignore_patterns("__pycache__")
                )
            else:
                checkout.mkdir(exist_ok=True)
                shutil.copy(ROOT / source, checkout / target)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=checkout, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        packages = {name.split("/")[0] for name in files.namelist() if name.endswith("/__init__.py")}
    assert packages == {"statefun_ray", "statefun_sdk", "statefun_ingress", "statefun_checkpoints"}


# -- the text ------------------------------------------------------------------------------


def test_whatever_the_readme_names_in_a_command_is_in_the_manifests() -> None:
    kinds = {"deployment": "Deployment", "statefulset": "StatefulSet", "service": "Service", "job": "Job"}
    named = re.findall(r"\b(deployment|statefulset|service|job)/([a-z-]+)", README)
    assert {kind for kind, _ in named} >= {"deployment", "statefulset"}
    for kind, name in named:
        assert manifest(kinds[kind], name)
